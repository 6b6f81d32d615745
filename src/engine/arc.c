/*
 * ARC (Megiddo and Modha, FAST 2003), in bytes: chunks seen once since they came and chunks used again
 * are two lists, each remembers the keys that it lost lately (ghosts), and a miss that a ghost would
 * have caught moves the target share towards the list that lost it.
 *
 * Pinned chunks and parents are in no list, but they count towards their list's share; what is
 * short of parts is first to go and leaves no ghost. Ghosts are bounded as in the paper: the recent
 * list and its ghosts by the capacity c, everything by 2 c; and by the entries of the index.
 */
#include "src/engine/check.h"
#include "src/engine/evict.h"

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* How far a hit in ghosts of @own bytes moves the target, for a chunk of @bytes. */
static uint64_t step(uint64_t bytes, uint64_t own, uint64_t other)
{
	return own == 0 || other <= own ? bytes : (uint64_t)((__uint128_t)bytes * other / own);
}

static void adapt(struct evict *e, uint32_t entry, enum entry_list list)
{
	const uint64_t bytes = evict_bytes(e, entry);
	const uint64_t recent = e->ghosts[0].bytes, frequent = e->ghosts[1].bytes;

	if (list == LIST_GHOST_RECENT)
		e->target += step(bytes, recent, frequent);
	else
		e->target = minus(e->target, step(bytes, frequent, recent));
	if (e->target > e->capacity)
		e->target = e->capacity;
}

static void bound_ghosts(struct evict *e)
{
	struct evict_list *recent = &e->ghosts[0], *frequent = &e->ghosts[1];

	while (recent->n > 0 && e->resident_recent + recent->bytes > e->capacity)
		evict_forget(e, LIST_GHOST_RECENT);
	while (frequent->n > 0 &&
	       e->resident_recent + e->resident_frequent + recent->bytes + frequent->bytes > 2 * e->capacity)
		evict_forget(e, LIST_GHOST_FREQUENT);
}

static void arc_came(struct evict *e, uint32_t entry)
{
	const enum entry_list list = *evict_part(e, entry).list;
	const bool ghost = list == LIST_GHOST_RECENT || list == LIST_GHOST_FREQUENT;

	if (ghost) {
		adapt(e, entry, list);
		evict_take(e, entry);
	}
	evict_count_in(e, entry, ghost);
	bound_ghosts(e);
}

static enum entry_list list_of(const struct evict *e, uint32_t entry)
{
	const uint8_t flags = index_entry(e->index, entry)->flags;

	return (flags & evict_part(e, entry).seen_twice) != 0 ? LIST_FREQUENT : LIST_RECENT;
}

static void arc_enter(struct evict *e, uint32_t entry)
{
	evict_put(e, entry, list_of(e, entry));
}

static void arc_leave(struct evict *e, uint32_t entry)
{
	evict_take(e, entry);
}

static void arc_used(struct evict *e, uint32_t entry)
{
	const struct evict_part part = evict_part(e, entry);
	const enum entry_list before = *part.list;

	if (!evict_is_there(e, entry))
		return;
	if (list_of(e, entry) == LIST_RECENT) {
		const uint64_t bytes = evict_bytes(e, entry);

		e->resident_recent -= bytes;
		e->resident_frequent += bytes;
		index_entry(e->index, entry)->flags |= part.seen_twice;
	}
	if (before != LIST_RECENT && before != LIST_FREQUENT)
		return;		/* pinned or a parent: it enters by its last use; incomplete: it stays so */
	evict_take(e, entry);
	evict_put(e, entry, LIST_FREQUENT);
}

static void arc_gone(struct evict *e, uint32_t entry, bool ghost)
{
	const enum entry_list from = *evict_part(e, entry).list;

	if (!evict_is_there(e, entry))
		return;
	evict_take(e, entry);
	evict_count_out(e, entry);
	if (ghost && from != LIST_INCOMPLETE)
		evict_put_last(e, entry, list_of(e, entry) == LIST_RECENT ? LIST_GHOST_RECENT : LIST_GHOST_FREQUENT);
	bound_ghosts(e);
}

static uint32_t arc_next(struct evict *e, uint32_t after)
{
	static const uint8_t recent_first[] = { LIST_INCOMPLETE, LIST_RECENT, LIST_FREQUENT };
	static const uint8_t frequent_first[] = { LIST_INCOMPLETE, LIST_FREQUENT, LIST_RECENT };

	return evict_next_of(e, e->resident_recent > e->target ? recent_first : frequent_first, 3, after);
}

const struct evict_policy evict_arc = {
	.name = "arc",
	.came = arc_came,
	.used = arc_used,
	.enter = arc_enter,
	.leave = arc_leave,
	.gone = arc_gone,
	.next = arc_next,
};
