/*
 * ARC, in bytes: chunks seen once since they came and chunks used again are two lists, each remembers
 * the keys that it lost lately (ghosts), and a miss that a ghost would have caught moves the balance
 * towards the list that lost it.
 *
 * One thing differs from the paper (Megiddo and Modha, FAST 2003). There the balance is a share of the
 * cache, and the list that exceeds its share loses its coldest. Here it is a handicap: the coldest
 * of both lists are compared by age, and the recent one ages so many times faster. At a handicap of
 * 1 this is LRU, and there it begins; the paper's ARC has no such point, and on conversations that
 * come back after long pauses it stays behind LRU once the cache is large. Strict prefix hits at 5,
 * 10, 20 % of the unique blocks of Mooncake's conversation trace: LRU .1958 .2789 .3453, the paper's
 * ARC .2101 .2843 .3202, this one .2148 .2882 .3452.
 *
 * Pinned chunks and parents are in no list; what is short of parts is first to go and leaves no ghost.
 * Ghosts are bounded by the bytes they had (together as many as the cache has; the longer list
 * forgets first) and by the entries of the index.
 */
#include "src/engine/check.h"
#include "src/engine/evict.h"

#define UNIT_BYTES	4096u
#define HANDICAP_MIN	(EVICT_HANDICAP_NONE / 2)
#define HANDICAP_MAX	(EVICT_HANDICAP_NONE * 8ull)
#define SPEED		4u		/* hits worth 1/SPEED of the capacity move it by a factor of e */
#define AGE_MAX		(1ull << 44)	/* times HANDICAP_MAX is still a 64-bit number */

/*
 * By how much a hit of @units in ghosts of @own units changes the handicap. As in the paper, what counts
 * is the density of hits: a short list's are worth more.
 */
static uint64_t step(const struct evict *e, uint64_t units, uint64_t own, uint64_t other)
{
	const uint64_t all = e->capacity / UNIT_BYTES + 1;
	const uint64_t worth = own == 0 || other <= own ? units : units * other / own;
	const uint64_t change = e->handicap * SPEED * (worth < all ? worth : all) / all;

	return change < e->handicap / 2 ? change : e->handicap / 2;
}

/* A ghost came back: its list's chunks go too early. */
static void adapt(struct evict *e, uint32_t entry, enum entry_list list)
{
	const uint64_t units = evict_bytes(e, entry) / UNIT_BYTES;
	const uint64_t recent = e->ghosts[0].bytes / UNIT_BYTES, frequent = e->ghosts[1].bytes / UNIT_BYTES;

	if (list == LIST_GHOST_RECENT)
		e->handicap -= step(e, units, recent, frequent);
	else
		e->handicap += step(e, units, frequent, recent);
	if (e->handicap < HANDICAP_MIN)
		e->handicap = HANDICAP_MIN;
	if (e->handicap > HANDICAP_MAX)
		e->handicap = HANDICAP_MAX;
}

static void bound_ghosts(struct evict *e)
{
	const struct evict_list *recent = &e->ghosts[0], *frequent = &e->ghosts[1];

	while (recent->bytes + frequent->bytes > e->capacity)
		evict_forget(e, recent->bytes > frequent->bytes ? LIST_GHOST_RECENT : LIST_GHOST_FREQUENT);
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
	if (before == LIST_NONE)
		return;		/* pinned or a parent: it enters by its last use */
	evict_take(e, entry);
	evict_put(e, entry, before == LIST_INCOMPLETE ? before : LIST_FREQUENT);
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

static uint64_t age_of(const struct evict *e, uint32_t entry)
{
	const uint64_t touched = index_entry(e->index, entry)->touched;
	const uint64_t age = e->newest > touched ? e->newest - touched : 0;

	return age < AGE_MAX ? age : AGE_MAX;
}

static bool is_recent_first(const struct evict *e)
{
	const uint32_t recent = e->lists[LIST_RECENT].head, frequent = e->lists[LIST_FREQUENT].head;

	if (recent == ENGINE_NONE || frequent == ENGINE_NONE)
		return frequent == ENGINE_NONE;
	return age_of(e, recent) * e->handicap / EVICT_HANDICAP_NONE >= age_of(e, frequent);
}

static uint32_t arc_next(struct evict *e, uint32_t after)
{
	static const uint8_t recent_first[] = { LIST_INCOMPLETE, LIST_RECENT, LIST_FREQUENT };
	static const uint8_t frequent_first[] = { LIST_INCOMPLETE, LIST_FREQUENT, LIST_RECENT };

	return evict_next_of(e, is_recent_first(e) ? recent_first : frequent_first, 3, after);
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
