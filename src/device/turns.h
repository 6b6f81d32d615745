/*
 * Whose turn it is: queues of what has something to hand out, the most urgent first, and within a queue in
 * turn (whoever was handed out goes to the back, so that what is large holds up nobody). One in
 * TURNS_TRICKLE is taken from the least urgent queue, so that nothing starves.
 */
#ifndef STOKER_DEVICE_TURNS_H
#define STOKER_DEVICE_TURNS_H

#include <stdbool.h>
#include <stdint.h>

#define TURNS_QUEUES	32u
#define TURNS_TRICKLE	16u

struct turn {			/* embedded in what waits */
	struct turn *prev, *next;
	uint8_t queue;		/* below TURNS_QUEUES; 0 is the most urgent */
	bool queued;
};

struct turns {
	struct { struct turn *first, *last; } queues[TURNS_QUEUES];
	uint32_t waiting;	/* bit i: queue i is not empty */
	uint32_t given;		/* ever */
};

void turns_put(struct turns *turns, struct turn *turn);		/* at the back of its queue */
void turns_remove(struct turns *turns, struct turn *turn);	/* not queued: nothing happens */
struct turn *turns_take(struct turns *turns);			/* one waits */

#endif
