/*
 * The queues of turns.h: lists, and a word that says which are not empty.
 */
#include "src/device/turns.h"

#include <stddef.h>

void turns_put(struct turns *turns, struct turn *turn)
{
	turn->queued = true;
	turn->next = NULL;
	turn->prev = turns->queues[turn->queue].last;
	if (turn->prev)
		turn->prev->next = turn;
	else
		turns->queues[turn->queue].first = turn;
	turns->queues[turn->queue].last = turn;
	turns->waiting |= 1u << turn->queue;
}

void turns_remove(struct turns *turns, struct turn *turn)
{
	if (!turn->queued)
		return;
	turn->queued = false;
	if (turn->prev)
		turn->prev->next = turn->next;
	else
		turns->queues[turn->queue].first = turn->next;
	if (turn->next)
		turn->next->prev = turn->prev;
	else
		turns->queues[turn->queue].last = turn->prev;
	if (!turns->queues[turn->queue].first)
		turns->waiting &= ~(1u << turn->queue);
}

struct turn *turns_take(struct turns *turns)
{
	const bool trickle = ++turns->given % TURNS_TRICKLE == 0;
	const int queue = trickle ? 31 - __builtin_clz(turns->waiting) : __builtin_ctz(turns->waiting);
	struct turn *turn = turns->queues[queue].first;

	turns_remove(turns, turn);
	return turn;
}
