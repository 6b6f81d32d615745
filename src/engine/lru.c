/*
 * LRU: the chunk whose last use is longest ago goes first, leaf before parent.
 */
#include "src/engine/evict.h"

static void lru_came(struct evict *e, uint32_t entry)
{
	evict_count_in(e, entry, false);
}

static void lru_enter(struct evict *e, uint32_t entry)
{
	evict_put(e, entry, LIST_LRU);
}

static void lru_leave(struct evict *e, uint32_t entry)
{
	evict_take(e, entry);
}

static void lru_used(struct evict *e, uint32_t entry)
{
	const enum entry_list list = *evict_part(e, entry).list;

	if (list == LIST_NONE)
		return;		/* pinned or a parent: it enters by its last use */
	evict_take(e, entry);
	evict_put(e, entry, list);
}

static void lru_gone(struct evict *e, uint32_t entry, bool ghost)
{
	(void)ghost;		/* nothing to remember */
	if (!evict_is_there(e, entry))
		return;
	evict_take(e, entry);
	evict_count_out(e, entry);
}

static uint32_t lru_next(struct evict *e, uint32_t after)
{
	static const uint8_t lists[] = { LIST_INCOMPLETE, LIST_LRU };

	return evict_next_of(e, lists, 2, after);
}

const struct evict_policy evict_lru = {
	.name = "lru",
	.came = lru_came,
	.used = lru_used,
	.enter = lru_enter,
	.leave = lru_leave,
	.gone = lru_gone,
	.next = lru_next,
};
