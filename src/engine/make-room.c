/*
 * Making room: allocation with eviction inside, in the arena and on the tiers, for places, index
 * entries and records.
 *
 * A place is taken free if there is one; else the coldest chunk that has an object of that size goes,
 * whole, until there is; else, or if it is colder on the whole, the coldest slab of another size is
 * emptied. Before all others go chunks of accounts above their soft quota: first those of the account
 * that wants the room, then of the others in turns; of an account, the coldest of the CHOICE next
 * ones in its ring (all of them, if it has few). What is pinned, under I/O, or still to be written to a
 * tier never goes. Each allocation looks at a bounded number of candidates.
 *
 * Slabs are compared once in as many evictions as a slab has places: emptying one then costs each
 * allocation a constant, and a size that came late still gets its share of the arena. One object in use
 * keeps its whole slab from other sizes, but not the other places there from its own.
 */
#include "src/engine/internal.h"

/** struct ground - the arena, or one tier. */
struct ground {
	struct space *space;
	struct evict *evict;
	uint32_t *extents;
	uint32_t *evictions;	/* since slabs were compared last */
	uint32_t tier;		/* NONE: the arena */
	bool disk;
};

#define CHOICE	16u		/* chunks of an account of which the coldest goes */
#define TURNS	16u		/* accounts that are looked at for a victim */
#define EXCESS	32u		/* chunks that one allocation evicts to bring a tenant within its quota */

static struct ground ground_arena(struct engine *e)
{
	return (struct ground){ e->space, &e->evict, e->extents, &e->arena_evictions, NONE, false };
}

static struct ground ground_disk(struct engine *e, uint32_t tier)
{
	struct tier *t = &e->tiers[tier];

	return (struct ground){ t->space, &t->evict, t->extents, &t->evictions, tier, true };
}

static uint64_t leave(struct engine *e, const struct ground *g, uint32_t entry)
{
	return g->disk ? entry_leave_disk(e, entry, true) : entry_leave_arena(e, entry, true);
}

/* Has the chunk an object of that size there? */
static bool has_size(struct engine *e, const struct ground *g, const struct entry *entry, uint64_t bytes)
{
	const struct model *model = entry_model(e, entry);

	for (uint64_t parts = g->disk ? entry->disk : entry->l1; parts; parts &= parts - 1)
		if (model->parts[__builtin_ctzll(parts)].image_bytes == bytes)
			return true;
	return false;
}

/** struct search - a walk over candidates, coldest first. Zero in @bytes, NONE in @tenant and @owner: any. */
struct search {
	uint64_t bytes;		/* the size of place that is wanted */
	uint32_t tenant;	/* at whose cost alone */
	uint32_t owner;		/* row of the account that wants it */
	uint32_t after, seen, busy;
	uint32_t looks;		/* at chunks in rings, for this victim */
	bool soft;		/* the last victim was of an account above its quota */
};

static struct search search_of(uint64_t bytes, uint32_t tenant, uint32_t owner)
{
	return (struct search){ .bytes = bytes, .tenant = tenant, .owner = owner, .after = NONE };
}

static bool suits(struct engine *e, const struct ground *g, const struct search *search, const struct entry *entry)
{
	return !entry_is_dirty(e, entry) && (search->tenant == NONE || entry->tenant == search->tenant) &&
	       (search->bytes == 0 || has_size(e, g, entry, search->bytes));
}

/* ---- of accounts ------------------------------------------------------------------------------------ */

/* Rings know nothing of what may go, nor of tiers. */
static bool may_go(struct engine *e, const struct ground *g, const struct entry *entry)
{
	return entry->pins + entry->io == 0 && (g->disk ? entry->children_disk : entry->children_l1) == 0 &&
	       (!g->disk || entry_tier(e, entry) == g->tier);
}

static uint32_t of_account(struct engine *e, const struct ground *g, struct search *search, uint32_t row)
{
	const uint32_t first = account_hand(e, row, g->disk);
	uint32_t chunk = first, best = NONE, n = 0;

	while (chunk != NONE && search->looks++ < SCAN_VICTIMS && n < CHOICE) {
		const struct entry *entry = entry_of(e, chunk);

		if (may_go(e, g, entry) && suits(e, g, search, entry)) {
			n++;
			if (best == NONE || entry->touched < entry_of(e, best)->touched)
				best = chunk;
		}
		chunk = account_hand_on(e, row, g->disk);
		if (chunk == first)
			break;
	}
	return best;
}

/* Of an account that has more than its soft quota, or would have. */
static uint32_t of_those_above(struct engine *e, const struct ground *g, struct search *search)
{
	uint32_t chunk = NONE;

	search->looks = 0;
	if (search->owner != NONE && account_is_over(e, search->owner, g->disk, search->bytes))
		chunk = of_account(e, g, search, search->owner);
	for (uint32_t i = 0; chunk == NONE && i < e->over[g->disk].n && i < TURNS; i++) {
		const uint32_t row = account_over_next(e, g->disk);

		if (search->tenant == NONE || e->accounts[row].tenant == search->tenant)
			chunk = of_account(e, g, search, row);
	}
	return chunk;
}

/* Of the tenant at whose cost it is to be, however many colder ones others have. */
static uint32_t of_tenant(struct engine *e, const struct ground *g, struct search *search)
{
	uint32_t chunk = NONE;

	search->looks = 0;
	for (uint32_t i = 0; chunk == NONE && search->tenant != NONE && i < TURNS; i++)
		chunk = of_account(e, g, search, account_of_tenant_next(e, search->tenant));
	return chunk;
}

/* ---- of all ------------------------------------------------------------------------------------------ */

/*
 * The coldest chunk that may go and suits, or NONE. It stays the next until it is gone. What is met in
 * use leaves its list here, once, so it counts for little against the bound.
 */
static uint32_t coldest(struct engine *e, const struct ground *g, struct search *search)
{
	while (search->seen < SCAN_VICTIMS && search->busy < SCAN_BUSY) {
		const uint32_t candidate = evict_next(g->evict, search->after);
		const struct entry *entry;

		if (candidate == NONE)
			return NONE;
		entry = entry_of(e, candidate);
		if (entry->pins + entry->io != 0) {
			entry_met_busy(e, candidate);
			search->busy++;
			continue;
		}
		if (suits(e, g, search, entry))
			return candidate;
		search->after = candidate;
		search->seen++;
	}
	return NONE;
}

static uint32_t victim(struct engine *e, const struct ground *g, struct search *search)
{
	uint32_t chunk = of_those_above(e, g, search);

	search->soft = chunk != NONE;
	count(e, STOKER_COUNTER_EVICTED_ACCOUNT, search->soft);
	if (chunk == NONE)
		chunk = coldest(e, g, search);
	return chunk == NONE ? of_tenant(e, g, search) : chunk;
}

/* ---- slabs --------------------------------------------------------------------------------------- */

static uint32_t extent_next(struct engine *e, const struct ground *g, uint32_t record)
{
	return g->disk ? e->sides[record].disk.next : e->sides[record].arena.next;
}

/*
 * struct slab_view - the chunks of a slab: sum of their last uses, how many, and may all of them go? A
 * place that is given out and bears no record yet belongs to an I/O under way: its slab stays.
 */
struct slab_view { uint64_t touched; uint32_t n; bool free_to_go; };

static struct slab_view slab_look(struct engine *e, const struct ground *g, uint32_t slab)
{
	const uint32_t units = (uint32_t)(e->config.extent_bytes / UNIT);
	struct slab_view view = { .free_to_go = true };
	uint32_t unit, seen = NONE, places = 0;
	bool used;

	for (uint32_t i = 0; space_slab_object(g->space, slab, i, &unit, &used); i++) {
		const uint32_t extent = unit / units;

		places += used;
		if (extent == seen)
			continue;
		seen = extent;
		for (uint32_t r = g->extents[extent]; r != NONE; r = extent_next(e, g, r)) {
			const struct entry *entry = entry_of(e, record_of(e, r)->entry);

			if (!entry_may_leave(e, entry)) {
				view.free_to_go = false;
				return view;
			}
			view.touched += entry->touched;
			view.n++;
		}
	}
	view.free_to_go = view.n == places && places > 0;
	return view;
}

static void slab_empty(struct engine *e, const struct ground *g, uint32_t slab)
{
	const uint32_t units = (uint32_t)(e->config.extent_bytes / UNIT);
	uint32_t unit, places = 0, extents[16], n = 0;
	bool used;

	/* The slab's extents first: it is gone when its last object is. */
	for (; space_slab_object(g->space, slab, places, &unit, &used); places++)
		if ((n == 0 || extents[n - 1] != unit / units) && n < 16)
			extents[n++] = unit / units;
	for (uint32_t i = 0; i < n; i++)
		while (g->extents[extents[i]] != NONE)
			leave(e, g, record_of(e, g->extents[extents[i]])->entry);
	count(e, STOKER_COUNTER_SLABS_RECLAIMED, 1);
}

/*
 * What is in use is not cold, however long ago it was placed: who comes next looks behind it first, so that
 * a few pins in old slabs do not hide all the others.
 */
static void slab_met_busy(struct engine *e, const struct ground *g, uint32_t slab)
{
	uint32_t unit;
	bool used;

	if (space_slab_object(g->space, slab, 0, &unit, &used))
		space_touch(g->space, unit, ++e->uses);
}

/* Empty the coldest slab of another size that can be. @colder_than: only if it is, on average. */
static bool slab_reclaim(struct engine *e, const struct ground *g, uint64_t bytes, uint64_t colder_than)
{
	const uint64_t most = space_total(g->space) / e->config.extent_bytes;
	uint32_t slabs[SPACE_COLDEST], n, looks = 0;
	uint64_t seen = 0, busy = 0;

	/* Further than SPACE_COLDEST of them only past such as are in use. */
	while (busy == seen && seen < most && (seen == 0 || looks < SCAN_SLABS)) {
		n = space_coldest(g->space, bytes, slabs);
		for (uint32_t i = 0; i < n; i++) {
			const struct slab_view view = slab_look(e, g, slabs[i]);

			looks += 1 + view.n;
			if (!view.free_to_go) {
				slab_met_busy(e, g, slabs[i]);
				busy++;
				continue;
			}
			if (view.n > 0 && view.touched / view.n >= colder_than)
				continue;
			slab_empty(e, g, slabs[i]);
			return true;
		}
		if (n < SPACE_COLDEST)
			return false;
		seen += n;
	}
	return false;
}

/* Is it time to compare? Once in as many evictions as a slab of that size has places. */
static bool slabs_are_due(struct engine *e, const struct ground *g, uint64_t bytes)
{
	const uint64_t places = e->config.extent_bytes / bytes;

	if (++*g->evictions < places)
		return false;
	*g->evictions = 0;
	return true;
}

/* ---- places --------------------------------------------------------------------------------------- */

static uint32_t place_find(struct engine *e, const struct ground *g, uint32_t owner, uint64_t bytes, uint32_t near)
{
	struct search search = search_of(bytes, NONE, owner);
	uint32_t unit = space_alloc(g->space, bytes, near);

	while (unit == NONE) {
		const uint32_t chunk = victim(e, g, &search);

		if (chunk == NONE)
			break;
		if (!search.soft && slabs_are_due(e, g, bytes) && slab_reclaim(e, g, bytes, entry_of(e, chunk)->touched))
			search.after = NONE;	/* which may be gone with its slab */
		else
			leave(e, g, chunk);
		unit = space_alloc(g->space, bytes, near);
	}
	while (unit == NONE && slab_reclaim(e, g, bytes, UINT64_MAX))
		unit = space_alloc(g->space, bytes, near);
	return unit;
}

static uint64_t quota_of(const struct engine *e, uint32_t tenant, bool disk)
{
	const struct engine_quota *quota = &e->tenants[tenant].quota;

	return disk ? quota->disk_bytes : quota->arena_bytes;
}

/* No room will ever be enough: nothing is evicted for it, and nobody waits. */
static bool is_beyond_quota(const struct engine *e, uint32_t tenant, bool disk, uint64_t bytes)
{
	const uint64_t quota = quota_of(e, tenant, disk);

	return quota && bytes > quota;
}

/*
 * Bring a tenant to where @bytes more keep within its quota, at its own chunks' cost. ROOM_WAIT: it had far more, since the
 * quota was lowered, or a broker with another one left it; some of that has gone, and who asks again gets further.
 */
static enum room quota_make(struct engine *e, const struct ground *g, uint32_t tenant, uint32_t owner, uint64_t bytes)
{
	const uint64_t quota = quota_of(e, tenant, g->disk);
	struct search search = search_of(0, tenant, owner);

	if (is_beyond_quota(e, tenant, g->disk, bytes))
		return ROOM_QUOTA;
	for (uint32_t i = 0; quota && e->tenants[tenant].used[g->disk] + bytes > quota; i++) {
		const uint32_t chunk = i < EXCESS ? victim(e, g, &search) : NONE;

		if (chunk == NONE)
			return i < EXCESS ? ROOM_QUOTA : ROOM_WAIT;
		leave(e, g, chunk);
	}
	return ROOM_OK;
}

bool room_may_come(const struct engine *e)
{
	/* What is being stored now can be written, and then go, as well as what is dirty already. */
	return (e->dirty_objects + e->copying > 0 && tier_can_write(e)) || e->drop_piece != NONE || e->sweeping;
}

/* The arena is being populated yet. */
static bool extents_may_come(const struct engine *e)
{
	return space_total(e->space) / e->config.extent_bytes + e->extents_failed < e->config.extents;
}

uint32_t room_arena(struct engine *e, uint32_t entry, uint64_t bytes, uint32_t near, enum room *why)
{
	const struct ground g = ground_arena(e);
	const uint32_t tenant = entry_of(e, entry)->tenant, owner = account_of(e, entry);
	uint32_t unit;

	if (bound_is_pinned(&e->tenants[tenant], bytes)) {
		/* What is being stored is in use only for that long. */
		*why = e->copying > 0 ? ROOM_WAIT : ROOM_QUOTA;
		bound_met(e, *why == ROOM_QUOTA);
		return NONE;
	}
	*why = quota_make(e, &g, tenant, owner, bytes);
	if (*why == ROOM_QUOTA && room_may_come(e) && !is_beyond_quota(e, tenant, false, bytes))
		*why = ROOM_WAIT;
	if (*why != ROOM_OK)
		return NONE;
	unit = place_find(e, &g, owner, bytes, near);
	*why = unit != NONE ? ROOM_OK : room_may_come(e) || extents_may_come(e) ? ROOM_WAIT : ROOM_NONE;
	return unit;
}

uint32_t room_disk(struct engine *e, uint32_t tier, uint32_t entry, uint64_t bytes, uint32_t near, enum room *why)
{
	const struct ground g = ground_disk(e, tier);
	const uint32_t owner = account_of(e, entry);
	uint32_t unit;

	*why = quota_make(e, &g, entry_of(e, entry)->tenant, owner, bytes);
	if (*why != ROOM_OK)
		return NONE;
	unit = place_find(e, &g, owner, bytes, near);
	*why = unit != NONE ? ROOM_OK : ROOM_NONE;
	return unit;
}

/* ---- entries and records -------------------------------------------------------------------------------- */

/* Forget one chunk wholly, of that tenant (NONE: any): of a tier if there is one, the arena's coldest else. */
static bool forget_one(struct engine *e, uint32_t tenant)
{
	for (uint32_t i = 0; i <= e->config.n_tiers; i++) {
		const struct ground g = i < e->config.n_tiers ? ground_disk(e, i) : ground_arena(e);
		struct search search = search_of(0, tenant, NONE);
		const uint32_t chunk = victim(e, &g, &search);

		if (chunk == NONE)
			continue;
		entry_forget(e, chunk);
		count(e, STOKER_COUNTER_ENTRIES_EVICTED, 1);
		return true;
	}
	return false;
}

/* One more in the index within the tenant's share of it, at the cost of its own. */
static bool share_make(struct engine *e, uint32_t tenant, const struct bound *bound)
{
	while (bound->used >= bound->max)
		if (!forget_one(e, tenant)) {
			bound_met(e, !room_may_come(e));
			return false;
		}
	return true;
}

uint32_t room_entry(struct engine *e, uint32_t incarnation, const struct stoker_wire_key *key)
{
	const uint32_t tenant = e->models[incarnation & e->model_mask].tenant;
	uint32_t entry;

	if (e->config.tenants > 1 && index_find(e->index, incarnation, key) == NONE &&
	    !share_make(e, tenant, &e->tenants[tenant].entries))
		return NONE;
	entry = index_add(e->index, incarnation, key);
	while (entry == NONE && forget_one(e, NONE))
		entry = index_add(e->index, incarnation, key);
	return entry;
}

uint32_t room_record(struct engine *e, uint32_t entry, uint32_t part)
{
	const uint32_t tenant = entry_of(e, entry)->tenant;
	uint32_t record;

	if (e->config.tenants > 1 && !share_make(e, tenant, &e->tenants[tenant].records))
		return NONE;
	record = index_record_add(e->index, entry, part);
	while (record == NONE && forget_one(e, NONE))
		record = index_record_add(e->index, entry, part);
	if (record != NONE)
		record_used(e, record);
	return record;
}

/* ---- in the background ------------------------------------------------------------------------------- */

uint64_t room_evict(struct engine *e, uint32_t n)
{
	const struct ground g = ground_arena(e);
	struct search search = search_of(0, NONE, NONE);
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		const uint32_t chunk = victim(e, &g, &search);

		if (chunk == NONE)
			break;
		bytes += leave(e, &g, chunk);
	}
	return bytes;
}

bool room_refill(struct engine *e)
{
	const uint64_t total = space_total(e->space);
	const uint64_t limit = total - total / 1000 * e->config.refill_permille;

	if (e->config.refill_permille == 0 || space_used(e->space) <= limit)
		return false;
	return room_evict(e, 8) > 0 && space_used(e->space) > limit;
}
