/*
 * Timer wheel. A timer's deadline is rounded up to a whole millisecond, its tick. Level l has a place
 * for each value of the l-th group of six bits of a tick; a timer lies at the level of the highest
 * group in which its tick differs from the wheel's (so it moves down at most four times), or in the
 * far list if they differ above all levels. A timer whose tick has come is in the due list.
 *
 * Invariants: a timer at level l lies in a place greater than the wheel's own at that level, and
 * their groups above l are equal; each level's mask has a bit for each place that is not empty. So
 * the lowest level with a place ahead has the next event, and what is empty is never visited.
 */
#include <stdbool.h>

#include "src/engine/timer.h"
#include "src/engine/check.h"

#define LEVELS		5u
#define PLACES		64u
#define GROUP_BITS	6u
#define FAR		(LEVELS * PLACES)	/* list numbers: one a place, then these */
#define DUE		(FAR + 1u)
#define LISTS		(DUE + 1u)
#define NONE		0xffffffffu
#define TICK_NS		1000000u

struct node {
	uint64_t tick;
	uint32_t prev, next;
	uint32_t list;			/* NONE: not set */
	uint32_t unused;
};

struct timers {
	uint64_t now;			/* tick up to which all has fired or is due */
	uint64_t masks[LEVELS];
	struct { uint32_t head, tail; } lists[LISTS];
	uint32_t n;
	struct node nodes[];
};

size_t timers_bytes(uint32_t n)
{
	return sizeof(struct timers) + (size_t)n * sizeof(struct node);
}

struct timers *timers_init(void *memory, uint32_t n, uint64_t now_ns)
{
	struct timers *timers = memory;

	timers->now = now_ns / TICK_NS;
	timers->n = n;
	for (uint32_t l = 0; l < LEVELS; l++)
		timers->masks[l] = 0;
	for (uint32_t l = 0; l < LISTS; l++)
		timers->lists[l].head = timers->lists[l].tail = NONE;
	for (uint32_t i = 0; i < n; i++)
		timers->nodes[i].list = NONE;
	return timers;
}

/* The list where a timer of that tick belongs now. */
static uint32_t list_of(const struct timers *timers, uint64_t tick)
{
	uint32_t level;

	if (tick <= timers->now)
		return DUE;
	level = (63u - (uint32_t)__builtin_clzll(tick ^ timers->now)) / GROUP_BITS;
	if (level >= LEVELS)
		return FAR;
	return level * PLACES + (uint32_t)(tick >> (level * GROUP_BITS)) % PLACES;
}

static void append(struct timers *timers, uint32_t timer)
{
	struct node *node = &timers->nodes[timer];
	const uint32_t list = list_of(timers, node->tick);
	const uint32_t tail = timers->lists[list].tail;

	node->list = list;
	node->prev = tail;
	node->next = NONE;
	if (tail == NONE)
		timers->lists[list].head = timer;
	else
		timers->nodes[tail].next = timer;
	timers->lists[list].tail = timer;
	if (list < FAR)
		timers->masks[list / PLACES] |= 1ull << list % PLACES;
}

static void take_out(struct timers *timers, uint32_t timer)
{
	struct node *node = &timers->nodes[timer];
	const uint32_t list = node->list;

	if (node->prev == NONE)
		timers->lists[list].head = node->next;
	else
		timers->nodes[node->prev].next = node->next;
	if (node->next == NONE)
		timers->lists[list].tail = node->prev;
	else
		timers->nodes[node->next].prev = node->prev;
	node->list = NONE;
	if (list < FAR && timers->lists[list].head == NONE)
		timers->masks[list / PLACES] &= ~(1ull << list % PLACES);
}

void timers_set(struct timers *timers, uint32_t timer, uint64_t at_ns)
{
	ENGINE_ASSERT(timer < timers->n);
	timers_clear(timers, timer);
	/* Rounded up, so that none fires before its time; the sum at_ns + 999,999 could wrap. */
	timers->nodes[timer].tick = at_ns / TICK_NS + (at_ns % TICK_NS != 0);
	append(timers, timer);
}

void timers_clear(struct timers *timers, uint32_t timer)
{
	ENGINE_ASSERT(timer < timers->n);
	if (timers->nodes[timer].list != NONE)
		take_out(timers, timer);
}

/* The tick of the next place ahead that is not empty, UINT64_MAX: there is none. */
static uint64_t next_event(const struct timers *timers)
{
	for (uint32_t level = 0; level < LEVELS; level++) {
		const uint32_t shift = level * GROUP_BITS;
		const uint32_t place = (uint32_t)(timers->now >> shift) % PLACES;
		const uint64_t ahead = place == PLACES - 1 ? 0 : timers->masks[level] & (~0ull << (place + 1));

		if (ahead != 0) {
			const uint64_t above = timers->now >> (shift + GROUP_BITS) << GROUP_BITS;

			return (above | (uint32_t)__builtin_ctzll(ahead)) << shift;
		}
	}
	if (timers->lists[FAR].head != NONE)
		return ((timers->now >> (LEVELS * GROUP_BITS)) + 1) << (LEVELS * GROUP_BITS);
	return UINT64_MAX;
}

/* All timers of a list again to where they belong now, in their order. */
static void spread(struct timers *timers, uint32_t list)
{
	uint32_t timer = timers->lists[list].head;
	const uint32_t last = timers->lists[list].tail;

	while (timer != NONE) {
		const uint32_t next = timers->nodes[timer].next;
		const bool end = timer == last;	/* what is still far goes to the end of the same list */

		take_out(timers, timer);
		append(timers, timer);
		timer = end ? NONE : next;
	}
}

/* Go to @tick, which is not beyond the next event: what lay in its places moves down or is due. */
static void go_to(struct timers *timers, uint64_t tick)
{
	const bool lap = tick >> (LEVELS * GROUP_BITS) != timers->now >> (LEVELS * GROUP_BITS);

	timers->now = tick;
	if (lap)
		spread(timers, FAR);
	for (uint32_t level = LEVELS; level-- > 0;)
		spread(timers, level * PLACES + (uint32_t)(tick >> (level * GROUP_BITS)) % PLACES);
}

uint32_t timers_advance(struct timers *timers, uint64_t now_ns)
{
	const uint64_t target = now_ns / TICK_NS;

	while (timers->lists[DUE].head == NONE && timers->now < target) {
		const uint64_t event = next_event(timers);

		if (event > target)
			timers->now = target;	/* no place that is not empty lies between */
		else
			go_to(timers, event);
	}
	if (timers->lists[DUE].head == NONE)
		return NONE;

	const uint32_t timer = timers->lists[DUE].head;

	take_out(timers, timer);
	return timer;
}

uint64_t timers_next(const struct timers *timers)
{
	const uint64_t event = timers->lists[DUE].head != NONE ? timers->now : next_event(timers);

	return event > UINT64_MAX / TICK_NS ? UINT64_MAX : event * TICK_NS;
}
