/*
 * Eviction lists, and who belongs in one. What the policies share is here: they only say which list
 * an entry enters and which list gives the next victim.
 *
 * Lists are ordered by entry->touched, so that an entry that comes back (its last child went, its
 * write-back ended) takes its old place rather than that of a newcomer. That place is nearly
 * always next to an end: it is looked for from both, so far and no further, lest one long list and
 * a client who knows of it hold up everybody. What lies deeper is put where the search stopped.
 */
#include "src/engine/check.h"
#include "src/engine/evict.h"

#define SEARCH_MAX	64u	/* entries looked at from either end for an entry's place */
#define UNIT_BYTES	4096u

struct evict_part evict_part(const struct evict *e, uint32_t number)
{
	struct entry *entry = index_entry(e->index, number);
	struct entry_side *side = index_side(e->index, number);

	if (e->disk)
		return (struct evict_part){
			.prev = &entry->disk_prev, .next = &entry->disk_next, .units = &side->disk_units,
			.list = &entry->disk_list, .mask = entry->disk, .children = entry->children_disk,
			.resident = ENTRY_DISK_RESIDENT, .seen_twice = ENTRY_DISK_SEEN_TWICE,
		};
	return (struct evict_part){
		.prev = &entry->l1_prev, .next = &entry->l1_next, .units = &side->l1_units,
		.list = &entry->l1_list, .mask = entry->l1, .children = entry->children_l1,
		.resident = ENTRY_L1_RESIDENT, .seen_twice = ENTRY_SEEN_TWICE,
	};
}

uint64_t evict_bytes(const struct evict *e, uint32_t number)
{
	const struct entry_side *side = index_side(e->index, number);

	return (uint64_t)(e->disk ? side->disk_units : side->l1_units) * UNIT_BYTES;
}

bool evict_is_there(const struct evict *e, uint32_t number)
{
	return (index_entry(e->index, number)->flags & evict_part(e, number).resident) != 0;
}

/* ---- lists ------------------------------------------------------------------------------------- */

static struct evict_list *list_of(struct evict *e, uint32_t list)
{
	ENGINE_ASSERT(list > LIST_NONE && list <= LIST_GHOST_FREQUENT);
	return list < LIST_GHOST_RECENT ? &e->lists[list] : &e->ghosts[list - LIST_GHOST_RECENT];
}

static uint32_t *next_of(const struct evict *e, uint32_t number)
{
	struct entry *entry = index_entry(e->index, number);

	return e->disk ? &entry->disk_next : &entry->l1_next;
}

static uint32_t *prev_of(const struct evict *e, uint32_t number)
{
	struct entry *entry = index_entry(e->index, number);

	return e->disk ? &entry->disk_prev : &entry->l1_prev;
}

static void put_before(struct evict *e, uint32_t number, enum entry_list kind, uint32_t next)
{
	struct evict_list *list = list_of(e, kind);
	const struct evict_part part = evict_part(e, number);
	const uint32_t prev = next == ENGINE_NONE ? list->tail : *prev_of(e, next);

	ENGINE_ASSERT(*part.list == LIST_NONE);
	*part.list = (uint8_t)kind;
	*part.prev = prev;
	*part.next = next;
	if (prev == ENGINE_NONE)
		list->head = number;
	else
		*next_of(e, prev) = number;
	if (next == ENGINE_NONE)
		list->tail = number;
	else
		*prev_of(e, next) = number;
	list->n++;
	list->bytes += evict_bytes(e, number);
}

void evict_put_last(struct evict *e, uint32_t number, enum entry_list kind)
{
	put_before(e, number, kind, ENGINE_NONE);
}

/* Before which entry @touched belongs (ENGINE_NONE: last): before its equals if it is next to the cold end. */
static uint32_t place_of(const struct evict *e, const struct evict_list *list, uint64_t touched)
{
	uint32_t cold = list->head, hot = list->tail, after_hot = ENGINE_NONE;
	uint64_t coldest, hottest;

	if (list->n == 0)
		return ENGINE_NONE;
	coldest = index_entry(e->index, cold)->touched;
	hottest = index_entry(e->index, hot)->touched;
	for (uint32_t i = 0; i < SEARCH_MAX; i++) {
		if (index_entry(e->index, cold)->touched >= touched)
			return cold;
		if (index_entry(e->index, hot)->touched <= touched)
			return after_hot;
		after_hot = hot;
		cold = *next_of(e, cold);
		hot = *prev_of(e, hot);
	}
	return touched - coldest < hottest - touched ? cold : after_hot;
}

void evict_put(struct evict *e, uint32_t number, enum entry_list kind)
{
	const uint64_t touched = index_entry(e->index, number)->touched;

	if (e->newest < touched)
		e->newest = touched;
	put_before(e, number, kind, place_of(e, list_of(e, kind), touched));
}

void evict_take(struct evict *e, uint32_t number)
{
	const struct evict_part part = evict_part(e, number);
	struct evict_list *list;

	if (*part.list == LIST_NONE)
		return;
	list = list_of(e, *part.list);
	if (*part.prev == ENGINE_NONE)
		list->head = *part.next;
	else
		*next_of(e, *part.prev) = *part.next;
	if (*part.next == ENGINE_NONE)
		list->tail = *part.prev;
	else
		*prev_of(e, *part.next) = *part.prev;
	*part.prev = *part.next = ENGINE_NONE;
	*part.list = LIST_NONE;
	list->n--;
	list->bytes -= evict_bytes(e, number);
}

uint32_t evict_next_of(const struct evict *e, const uint8_t *lists, uint32_t n_lists, uint32_t after)
{
	uint32_t i = 0;

	if (after != ENGINE_NONE) {
		const struct evict_part part = evict_part(e, after);

		while (i < n_lists && lists[i] != *part.list)
			i++;
		if (i++ == n_lists)
			return ENGINE_NONE;	/* it has left the lists since: there is no place to go on from */
		if (*part.next != ENGINE_NONE)
			return *part.next;
	}
	for (; i < n_lists; i++)
		if (e->lists[lists[i]].head != ENGINE_NONE)
			return e->lists[lists[i]].head;
	return ENGINE_NONE;
}

/* ---- counting ---------------------------------------------------------------------------------- */

static uint64_t *resident_of(struct evict *e, uint32_t number)
{
	const uint8_t flags = index_entry(e->index, number)->flags;

	return (flags & evict_part(e, number).seen_twice) != 0 ? &e->resident_frequent : &e->resident_recent;
}

/* Count the entry's bytes anew; it is resident, and in a list of those that can go or in none. */
static void recount(struct evict *e, uint32_t number)
{
	const struct evict_part part = evict_part(e, number);
	const uint64_t before = evict_bytes(e, number), now = e->bytes_of(e->engine, number);

	if (now == before)
		return;
	*resident_of(e, number) += now - before;
	if (*part.list != LIST_NONE)
		list_of(e, *part.list)->bytes += now - before;
	*part.units = (uint32_t)(now / UNIT_BYTES);
}

void evict_count_in(struct evict *e, uint32_t number, bool seen_twice)
{
	const struct evict_part part = evict_part(e, number);
	struct entry *entry = index_entry(e->index, number);

	ENGINE_ASSERT(*part.list == LIST_NONE && (entry->flags & part.resident) == 0);
	entry->flags |= part.resident;
	entry->flags &= (uint8_t)~part.seen_twice;
	if (seen_twice)
		entry->flags |= part.seen_twice;
	*part.units = 0;
	recount(e, number);
}

void evict_count_out(struct evict *e, uint32_t number)
{
	const struct evict_part part = evict_part(e, number);

	*resident_of(e, number) -= evict_bytes(e, number);
	index_entry(e->index, number)->flags &= (uint8_t)~part.resident;
}

/* ---- who belongs in a list --------------------------------------------------------------------- */

static bool can_go(const struct entry *entry, const struct evict_part *part)
{
	return part->mask != 0 && entry->pins == 0 && entry->io == 0 && part->children == 0;
}

void evict_update(struct evict *e, uint32_t number, bool complete)
{
	const struct entry *entry = index_entry(e->index, number);
	const struct evict_part part = evict_part(e, number);

	if (part.mask == 0) {
		e->policy->gone(e, number, false);
		return;
	}
	if (!evict_is_there(e, number))
		e->policy->came(e, number);
	else
		recount(e, number);
	if (*part.list != LIST_NONE) {
		if (can_go(entry, &part) && complete == (*part.list != LIST_INCOMPLETE))
			return;
		e->policy->leave(e, number);
	}
	if (!can_go(entry, &part))
		return;
	if (complete)
		e->policy->enter(e, number);
	else
		evict_put(e, number, LIST_INCOMPLETE);
}

/* ---- ghosts ------------------------------------------------------------------------------------ */

bool evict_forget(struct evict *e, enum entry_list kind)
{
	const uint32_t ghost = list_of(e, kind)->head;

	evict_take(e, ghost);
	return index_forget(e->index, ghost);
}

void evict_forget_one(struct evict *e, uint32_t number)
{
	const enum entry_list list = *evict_part(e, number).list;

	if (list == LIST_GHOST_RECENT || list == LIST_GHOST_FREQUENT)
		evict_take(e, number);
}

bool evict_drop_ghost(struct evict *e)
{
	for (;;) {
		const uint32_t recent = e->ghosts[0].head, frequent = e->ghosts[1].head;
		enum entry_list kind = LIST_GHOST_RECENT;

		if (recent == ENGINE_NONE && frequent == ENGINE_NONE)
			return false;
		if (recent == ENGINE_NONE ||
		    (frequent != ENGINE_NONE &&
		     index_entry(e->index, frequent)->touched < index_entry(e->index, recent)->touched))
			kind = LIST_GHOST_FREQUENT;
		if (evict_forget(e, kind))
			return true;
	}
}

/* The index is full: of all instances, the one made last is asked first (tiers before the arena). */
static bool forget_one(void *arg)
{
	for (struct evict *e = arg; e != NULL; e = e->peer)
		if (evict_drop_ghost(e))
			return true;
	return false;
}

void evict_init(struct evict *e, struct index *index, enum engine_policy policy, bool disk, uint64_t capacity,
		uint64_t (*bytes_of)(void *, uint32_t), void *engine)
{
	*e = (struct evict){
		.index = index,
		.policy = policy == ENGINE_POLICY_ARC ? &evict_arc : &evict_lru,
		.disk = disk,
		.capacity = capacity,
		.handicap = EVICT_HANDICAP_NONE,
		.bytes_of = bytes_of,
		.engine = engine,
	};
	for (uint32_t i = 0; i < sizeof(e->lists) / sizeof(e->lists[0]); i++)
		e->lists[i].head = e->lists[i].tail = ENGINE_NONE;
	for (uint32_t i = 0; i < sizeof(e->ghosts) / sizeof(e->ghosts[0]); i++)
		e->ghosts[i].head = e->ghosts[i].tail = ENGINE_NONE;
	e->peer = index_on_full(index, forget_one, e);
}

/* ---- audit ------------------------------------------------------------------------------------- */

static const char *member_audit(const struct evict *e, uint32_t kind, uint32_t number)
{
	const struct evict_part part = evict_part(e, number);
	const struct entry *entry = index_entry(e->index, number);

	if (*part.list != kind)
		return "an eviction list holds an entry that does not know of it";
	if (kind >= LIST_GHOST_RECENT)
		return (entry->flags & part.resident) != 0 ? "a ghost counts as being there" : NULL;
	if (part.mask == 0 || part.children != 0)
		return "an eviction list holds an entry that cannot go";
	if ((entry->flags & part.resident) == 0)
		return "an eviction list holds an entry that does not count as being there";
	if (e->bytes_of(e->engine, number) != evict_bytes(e, number))
		return "an entry's size changed behind eviction's back";
	return NULL;
}

static const char *list_audit(const struct evict *e, uint32_t kind)
{
	const struct evict_list *list = list_of((struct evict *)e, kind);
	uint32_t n = 0, before = ENGINE_NONE;
	uint64_t bytes = 0;

	for (uint32_t i = list->head; i != ENGINE_NONE; before = i, i = *next_of(e, i)) {
		const char *broken = member_audit(e, kind, i);

		if (broken != NULL)
			return broken;
		if (*prev_of(e, i) != before || ++n > list->n)
			return "an eviction list is broken";
		bytes += evict_bytes(e, i);
	}
	return n == list->n && before == list->tail && bytes == list->bytes ? NULL : "an eviction list's counts are wrong";
}

/* Each live entry: in a list if it can go, and counted if it is there. Adds its bytes to @sums. */
static const char *entry_audit(const struct evict *e, uint32_t number, uint64_t sums[2])
{
	const struct evict_part part = evict_part(e, number);
	const struct entry *entry = index_entry(e->index, number);

	if ((part.mask != 0) != ((entry->flags & part.resident) != 0))
		return "an entry came or went and eviction was not told";
	if (can_go(entry, &part) && (*part.list == LIST_NONE || *part.list >= LIST_GHOST_RECENT))
		return "an entry can go and is in no list";
	if (part.mask != 0)
		sums[(entry->flags & part.seen_twice) != 0] += evict_bytes(e, number);
	return NULL;
}

const char *evict_audit(const struct evict *e)
{
	uint64_t sums[2] = { 0, 0 };
	const char *broken = NULL;

	for (uint32_t kind = LIST_LRU; kind <= LIST_GHOST_FREQUENT && broken == NULL; kind++)
		broken = list_audit(e, kind);
	for (uint32_t i = index_next(e->index, ENGINE_NONE); i != ENGINE_NONE && broken == NULL;
	     i = index_next(e->index, i))
		broken = entry_audit(e, i, sums);
	if (broken != NULL || e->disk)	/* whose tier's an entry is, only the engine knows */
		return broken;
	return sums[0] == e->resident_recent && sums[1] == e->resident_frequent ?
	       NULL : "the bytes that count as being there are wrong";
}
