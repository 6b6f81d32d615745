/*
 * Chunks and their objects: every change of an entry's or a record's state, with its books.
 *
 * Whoever changes pins, io or masks of an entry takes entry_was() before and calls entry_settle()
 * after: that keeps the counts of pinned bytes, the parents' child counts and the eviction lists.
 * Pins and io have short ways of their own, since every lookup takes them. Bytes of places are
 * booked where places are taken and given back, for the arena, the tiers and the accounts alike.
 *
 * When the last pin or io of an entry ends (entry_idle), fills that are only queued are forgotten, an
 * entry of an older incarnation goes whole, and one without a record is given back.
 */
#include "src/engine/internal.h"

uint64_t some_bytes(const struct model *model, uint64_t parts)
{
	uint64_t bytes = 0;

	for (; parts; parts &= parts - 1)
		bytes += model->parts[__builtin_ctzll(parts)].image_bytes;
	return bytes;
}

/* Of its objects on disk: they are all on one tier. */
uint32_t entry_tier(struct engine *e, const struct entry *entry)
{
	if (!entry->disk)
		return NONE;
	if (e->config.n_tiers == 1)
		return 0;
	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next)
		if (record_of(e, r)->disk_place != NONE)
			return record_of(e, r)->tier;
	return NONE;
}

uint64_t entry_ready(struct engine *e, const struct entry *entry)
{
	uint64_t ready = entry->l1;

	if (e->unverified == 0 || !(entry->tokens & TOKENS_UNVERIFIED))
		return ready;
	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next)
		if (record_of(e, r)->state == RECORD_UNVERIFIED)
			ready &= ~(1ull << record_of(e, r)->part);
	return ready;
}

bool entry_is_dirty(struct engine *e, const struct entry *entry)
{
	if (e->dirty_objects == 0)
		return false;
	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next)
		if (record_of(e, r)->flags & RECORD_DIRTY)
			return true;
	return false;
}

bool entry_may_leave(struct engine *e, const struct entry *entry)
{
	return entry->pins == 0 && entry->io == 0 && !entry_is_dirty(e, entry);
}

/* Has each group that is there all its parts? */
static bool is_complete(const struct model *model, uint64_t parts)
{
	if (parts == model->all)
		return true;
	for (uint32_t g = 0; g < model->n_groups; g++)
		if ((parts & model->groups[g].parts) != 0 && (~parts & model->groups[g].parts) != 0)
			return false;
	return true;
}

static void lists_update(struct engine *e, uint32_t number, uint32_t tier)
{
	const struct entry *entry = entry_of(e, number);
	const struct model *model = entry_model(e, entry);

	evict_update(&e->evict, number, is_complete(model, entry->l1));
	if (tier != NONE)
		evict_update(&e->tiers[tier].evict, number, is_complete(model, entry->disk));
}

static void pinned_sub(struct engine *e, const struct model *model, uint64_t parts)
{
	const uint64_t bytes = mask_bytes(model, parts);

	e->pinned_bytes -= bytes;
	e->tenants[model->tenant].pinned -= bytes;
}

struct was entry_was(struct engine *e, uint32_t number)
{
	const struct entry *entry = entry_of(e, number);

	return (struct was){
		.l1 = entry->l1,
		.disk = entry->disk,
		.arena = entry->l1 | entry->filling,
		.tier = entry_tier(e, entry),
		.busy = entry->pins + entry->io != 0,
	};
}

void entry_settle(struct engine *e, uint32_t number, const struct was *was)
{
	const struct entry *entry = entry_of(e, number);
	const struct model *model = entry_model(e, entry);
	const uint32_t tier = entry->disk ? entry_tier(e, entry) : was->tier;
	uint32_t parent;

	if (was->busy)
		pinned_sub(e, model, was->arena);
	if (entry->pins + entry->io != 0)
		pinned_add(e, model, entry->l1 | entry->filling);
	if (was->l1 != entry->l1 || was->disk != entry->disk)
		index_mask_changed(e->index, number, was->l1, was->disk);
	account_settle(e, number, was);
	lists_update(e, number, tier);
	if ((was->l1 == 0) == (entry->l1 == 0) && (was->disk == 0) == (entry->disk == 0))
		return;
	parent = index_parent(e->index, number);
	if (parent != NONE)
		lists_update(e, parent, entry_tier(e, entry_of(e, parent)));
}

/* ---- pins and io ------------------------------------------------------------------------------- */

static bool is_listed(uint8_t list)
{
	return list >= LIST_LRU && list <= LIST_INCOMPLETE;
}

void entry_met_busy(struct engine *e, uint32_t number)
{
	lists_update(e, number, entry_tier(e, entry_of(e, number)));
}

/* Reads that nobody waits for any more, and that nobody has begun. */
static void forget_queued_reads(struct engine *e, uint32_t number)
{
	uint32_t next;

	for (uint32_t r = entry_of(e, number)->records; r != NONE; r = next) {
		next = record_of(e, r)->next;
		if (e->sides[r].queue == QUEUE_READ) {
			record_unqueue(e, r);
			record_drop_arena(e, r);
		}
	}
}

/*
 * Its use has ended: it takes its place in the lists by that. For LRU this is all there is to a use;
 * ARC wants to know which ones were of what was there before (entry_used).
 */
static void lists_return(struct engine *e, uint32_t number)
{
	const struct entry *entry = entry_of(e, number);
	const bool lru = e->config.policy == ENGINE_POLICY_LRU;

	if (lru && is_listed(entry->l1_list))
		evict_used(&e->evict, number);
	if (lru && is_listed(entry->disk_list))
		evict_used(&e->tiers[entry_tier(e, entry)].evict, number);
	if ((entry->l1 && entry->children_l1 == 0) || (entry->disk && entry->children_disk == 0) ||
	    entry->records == NONE)
		lists_update(e, number, entry_tier(e, entry));
}

/* No pin and no io is left. The entry may be gone afterwards. */
static void entry_idle(struct engine *e, uint32_t number)
{
	struct entry *entry = entry_of(e, number);

	e->room_changed = true;
	if (entry_is_stale(e, entry)) {
		entry_forget(e, number);
		return;
	}
	if (entry->filling)
		forget_queued_reads(e, number);
	lists_return(e, number);
	if (entry->records == NONE)
		index_remove(e->index, number);
}

static void entry_unbusy(struct engine *e, uint32_t number)
{
	const struct entry *entry = entry_of(e, number);

	pinned_sub(e, entry_model(e, entry), entry->l1 | entry->filling);
	entry_idle(e, number);
}

void entry_touch(struct engine *e, uint32_t number)
{
	entry_of(e, number)->touched = ++e->uses;
}

/* What is about to be unpinned was there before it was looked up. */
void entry_used(struct engine *e, uint32_t number)
{
	const struct entry *entry = entry_of(e, number);

	if (e->config.policy == ENGINE_POLICY_LRU)
		return;		/* to lists_return() all uses are alike */
	entry_touch(e, number);
	if (entry->l1)
		evict_used(&e->evict, number);
	if (entry->disk)
		evict_used(&e->tiers[entry_tier(e, entry)].evict, number);
}

void entry_link(struct engine *e, uint32_t number)
{
	const uint32_t before = index_parent(e->index, number);
	uint32_t parent;

	index_link(e->index, number, &e->parents[number]);
	parent = index_parent(e->index, number);
	if (parent != before && parent != NONE)
		lists_update(e, parent, entry_tier(e, entry_of(e, parent)));
}

void entry_unpin(struct engine *e, uint32_t number)
{
	struct entry *entry = entry_of(e, number);

	ENGINE_ASSERT(entry->pins > 0);
	entry->touched = ++e->uses;
	if (--entry->pins + entry->io == 0)
		entry_unbusy(e, number);
}

void entry_io(struct engine *e, uint32_t number)
{
	struct entry *entry = entry_of(e, number);

	if (entry->pins + entry->io++ == 0)
		pinned_add(e, entry_model(e, entry), entry->l1 | entry->filling);
}

void entry_io_done(struct engine *e, uint32_t number)
{
	struct entry *entry = entry_of(e, number);

	ENGINE_ASSERT(entry->io > 0);
	if (entry->pins + --entry->io == 0)
		entry_unbusy(e, number);
}

/* ---- queues of records ---------------------------------------------------------------------------- */

void queue_push(struct engine *e, struct queued *queue, uint32_t record, enum queue kind, bool front)
{
	struct side *side = &e->sides[record];

	ENGINE_ASSERT(side->queue == QUEUE_NONE);
	side->queue = (uint8_t)kind;
	side->queued = front ? (struct link){ .next = queue->first, .prev = NONE }
			     : (struct link){ .next = NONE, .prev = queue->last };
	if (side->queued.prev == NONE)
		queue->first = record;
	else
		e->sides[side->queued.prev].queued.next = record;
	if (side->queued.next == NONE)
		queue->last = record;
	else
		e->sides[side->queued.next].queued.prev = record;
	queue->n++;
	queue->bytes += record_bytes(e, record_of(e, record));
}

static struct queued *queue_of(struct engine *e, const struct side *side)
{
	switch (side->queue) {
	case QUEUE_READ:
		return &e->tiers[side->tier].reads[side->priority];
	case QUEUE_VERIFY:
		return &e->verifies[side->priority];
	case QUEUE_SEAL:
		return &e->seals;
	default:
		return &e->tiers[side->tier].writes;
	}
}

/* Out of whatever queue it is in. */
void record_unqueue(struct engine *e, uint32_t record)
{
	struct side *side = &e->sides[record];
	const uint64_t bytes = record_bytes(e, record_of(e, record));
	struct queued *queue;

	if (side->queue == QUEUE_NONE)
		return;
	queue = queue_of(e, side);
	if (side->queued.prev == NONE)
		queue->first = side->queued.next;
	else
		e->sides[side->queued.prev].queued.next = side->queued.next;
	if (side->queued.next == NONE)
		queue->last = side->queued.prev;
	else
		e->sides[side->queued.next].queued.prev = side->queued.prev;
	queue->n--;
	queue->bytes -= bytes;
	if (side->queue == QUEUE_READ) {
		e->tiers[side->tier].n_queued--;
		e->tiers[side->tier].queued_bytes -= bytes;
	} else if (side->queue == QUEUE_VERIFY) {
		e->n_verifies--;
	}
	side->queue = QUEUE_NONE;
}

void record_used(struct engine *e, uint32_t record)
{
	e->sides[record] = (struct side){ .io = NONE };
	entry_model(e, entry_of(e, record_of(e, record)->entry))->objects++;
	e->tenants[entry_of(e, record_of(e, record)->entry)->tenant].records.used++;
	if (record >= e->records_high)
		e->records_high = record + 1;
}

void record_remove(struct engine *e, uint32_t record)
{
	struct model *model = entry_model(e, entry_of(e, record_of(e, record)->entry));

	ENGINE_ASSERT(model->objects > 0);
	model->objects--;
	e->tenants[entry_of(e, record_of(e, record)->entry)->tenant].records.used--;
	index_record_remove(e->index, record);
}

/* ---- objects in the arena ---------------------------------------------------------------------------- */

static void extent_add(uint32_t *head, struct side *sides, uint32_t record, bool disk)
{
	struct link *link = disk ? &sides[record].disk : &sides[record].arena;

	*link = (struct link){ .next = *head, .prev = NONE };
	if (*head != NONE)
		(disk ? &sides[*head].disk : &sides[*head].arena)->prev = record;
	*head = record;
}

static void extent_remove(uint32_t *head, struct side *sides, uint32_t record, bool disk)
{
	const struct link link = disk ? sides[record].disk : sides[record].arena;

	if (link.prev == NONE)
		*head = link.next;
	else
		(disk ? &sides[link.prev].disk : &sides[link.prev].arena)->next = link.next;
	if (link.next != NONE)
		(disk ? &sides[link.next].disk : &sides[link.next].arena)->prev = link.prev;
}

static uint32_t *arena_extent(struct engine *e, uint32_t unit)
{
	return &e->extents[unit / (uint32_t)(e->config.extent_bytes / UNIT)];
}

static uint32_t *disk_extent(struct engine *e, uint32_t tier, uint32_t unit)
{
	return &e->tiers[tier].extents[unit / (uint32_t)(e->config.extent_bytes / UNIT)];
}

/* A place in the arena has been found for it; its bytes are still to come. */
void record_place(struct engine *e, uint32_t number, uint32_t unit)
{
	struct record *record = record_of(e, number);
	struct entry *entry = entry_of(e, record->entry);
	const struct was was = entry_was(e, record->entry);

	ENGINE_ASSERT(record->place == NONE);
	record->place = unit;
	record->state = RECORD_FILLING;
	record->flags = 0;
	entry->filling |= 1ull << record->part;
	extent_add(arena_extent(e, unit), e->sides, number, false);
	account_book(e, record->entry, false, record_bytes(e, record), 0);
	e->arena_objects++;
	space_touch(e->space, unit, e->uses);
	entry_settle(e, record->entry, &was);
}

/* Does some part of it still wait for its verification? */
static void entry_look_verified(struct engine *e, struct entry *entry)
{
	entry->tokens &= ~TOKENS_UNVERIFIED;
	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next)
		if (record_of(e, r)->state == RECORD_UNVERIFIED)
			entry->tokens |= TOKENS_UNVERIFIED;
}

static void unverified_end(struct engine *e, struct record *record, enum record_state state)
{
	record->state = (uint8_t)state;
	e->unverified--;
	entry_look_verified(e, entry_of(e, record->entry));
}

void record_ready(struct engine *e, uint32_t number)
{
	struct record *record = record_of(e, number);
	struct entry *entry = entry_of(e, record->entry);
	const struct was was = entry_was(e, record->entry);

	if (record->state == RECORD_UNVERIFIED)
		unverified_end(e, record, RECORD_READY);
	record->state = RECORD_READY;
	record->version += record->version & 1;
	entry->filling &= ~(1ull << record->part);
	entry->l1 |= 1ull << record->part;
	entry_settle(e, record->entry, &was);
}

void record_set_dirty(struct engine *e, uint32_t number, bool dirty)
{
	struct record *record = record_of(e, number);
	struct tenant *tenant = &e->tenants[entry_of(e, record->entry)->tenant];
	const uint64_t bytes = record_bytes(e, record);

	if (dirty == ((record->flags & RECORD_DIRTY) != 0))
		return;
	record->flags ^= RECORD_DIRTY;
	if (dirty) {
		e->dirty_objects++;
		e->dirty_bytes += bytes;
		tenant->dirty += bytes;
	} else {
		e->dirty_objects--;
		e->dirty_bytes -= bytes;
		tenant->dirty -= bytes;
		e->room_changed = true;
	}
}

void record_lose(struct engine *e, uint32_t number)
{
	record_set_dirty(e, number, false);
	record_of(e, number)->flags |= RECORD_LOST;
}

/* Place and books, not the entry's masks. The record goes too if it is not on disk either. */
static uint64_t arena_give(struct engine *e, uint32_t number)
{
	struct record *record = record_of(e, number);
	const uint64_t bytes = record_bytes(e, record);

	record_unqueue(e, number);
	record_set_dirty(e, number, false);
	if (record->state == RECORD_UNVERIFIED)
		unverified_end(e, record, RECORD_ABSENT);
	if (record->flags & RECORD_COMMITTED)
		e->ports.uncommit(e->ports.shell, number);
	record->flags = 0;
	record->version |= 1;
	extent_remove(arena_extent(e, record->place), e->sides, number, false);
	space_free(e->space, record->place);
	record->place = NONE;
	record->state = RECORD_ABSENT;
	account_book(e, record->entry, false, 0, bytes);
	e->arena_objects--;
	e->room_changed = true;
	if (record->disk_place == NONE)
		record_remove(e, number);
	return bytes;
}

void record_drop_arena(struct engine *e, uint32_t number)
{
	const uint32_t entry = record_of(e, number)->entry;
	const uint64_t bit = 1ull << record_of(e, number)->part;
	const struct was was = entry_was(e, entry);

	arena_give(e, number);
	entry_of(e, entry)->l1 &= ~bit;
	entry_of(e, entry)->filling &= ~bit;
	entry_settle(e, entry, &was);
}

/* ---- objects on disk ---------------------------------------------------------------------------------- */

/* Its first object there: if another tier remembers it as a ghost, that ends; it is in one tier's lists at a time. */
static void tier_enter(struct engine *e, uint32_t entry, uint32_t tier)
{
	if (e->last_tiers[entry] != tier)
		evict_forget_one(&e->tiers[e->last_tiers[entry]].evict, entry);
	e->last_tiers[entry] = (uint8_t)tier;
}

void record_set_disk(struct engine *e, uint32_t number, uint32_t tier, uint32_t unit)
{
	struct record *record = record_of(e, number);
	struct entry *entry = entry_of(e, record->entry);
	const struct was was = entry_was(e, record->entry);

	ENGINE_ASSERT(record->disk_place == NONE);
	if (entry->disk == 0)
		tier_enter(e, record->entry, tier);
	record->disk_place = unit;
	record->tier = (uint8_t)tier;
	entry->disk |= 1ull << record->part;
	extent_add(disk_extent(e, tier, unit), e->sides, number, true);
	account_book(e, record->entry, true, record_bytes(e, record), 0);
	e->tiers[tier].figures.objects++;
	space_touch(e->tiers[tier].space, unit, e->uses);
	entry_settle(e, record->entry, &was);
}

static uint64_t disk_give(struct engine *e, uint32_t number)
{
	struct record *record = record_of(e, number);
	const uint32_t tier = record->tier;
	const uint64_t bytes = record_bytes(e, record);
	const struct engine_place place = { .tier = tier, .unit = record->disk_place, .bytes = bytes };
	struct engine_object object;

	record_object(e, number, &object);
	e->ports.slab_remove(e->ports.shell, &place, &object);
	extent_remove(disk_extent(e, tier, record->disk_place), e->sides, number, true);
	space_free(e->tiers[tier].space, record->disk_place);
	record->disk_place = NONE;
	account_book(e, record->entry, true, 0, bytes);
	e->tiers[tier].figures.objects--;
	if (record->place == NONE)
		record_remove(e, number);
	return bytes;
}

void record_drop_disk(struct engine *e, uint32_t number)
{
	const uint32_t entry = record_of(e, number)->entry;
	const uint64_t bit = 1ull << record_of(e, number)->part;
	const struct was was = entry_was(e, entry);

	disk_give(e, number);
	entry_of(e, entry)->disk &= ~bit;
	entry_settle(e, entry, &was);
}

/* ---- whole chunks ------------------------------------------------------------------------------------- */

/* All its objects leave the arena; a victim's @ghost is remembered. The entry itself stays. */
static uint64_t leave_arena(struct engine *e, uint32_t number, bool ghost)
{
	struct entry *entry = entry_of(e, number);
	const struct was was = entry_was(e, number);
	uint64_t bytes = 0;
	uint32_t next;

	ENGINE_ASSERT(entry->pins == 0 && entry->io == 0);
	if (entry->l1)
		evict_gone(&e->evict, number, ghost);
	for (uint32_t r = entry->records; r != NONE; r = next) {
		const struct record *record = record_of(e, r);

		next = record->next;
		if (record->place == NONE)
			continue;
		if (ghost) {
			count(e, STOKER_COUNTER_EVICTED_L1, 1);
			count(e, STOKER_COUNTER_EVICTED_UNWRITTEN,
			      (record->flags & (RECORD_LOST | RECORD_DIRTY)) != 0);
		}
		bytes += arena_give(e, r);
	}
	entry->l1 = entry->filling = 0;
	entry_settle(e, number, &was);
	return bytes;
}

static uint64_t leave_disk(struct engine *e, uint32_t number, bool ghost)
{
	struct entry *entry = entry_of(e, number);
	const struct was was = entry_was(e, number);
	uint64_t bytes = 0;
	uint32_t next;

	ENGINE_ASSERT(entry->pins == 0 && entry->io == 0);
	if (entry->disk)
		evict_gone(&e->tiers[was.tier].evict, number, ghost);
	for (uint32_t r = entry->records; r != NONE; r = next) {
		next = record_of(e, r)->next;
		if (record_of(e, r)->disk_place == NONE)
			continue;
		count(e, STOKER_COUNTER_EVICTED_DISK, ghost);
		bytes += disk_give(e, r);
	}
	entry->disk = 0;
	entry_settle(e, number, &was);
	return bytes;
}

uint64_t entry_leave_arena(struct engine *e, uint32_t number, bool ghost)
{
	const uint64_t bytes = leave_arena(e, number, ghost);

	if (entry_of(e, number)->records == NONE)
		index_remove(e->index, number);
	return bytes;
}

uint64_t entry_leave_disk(struct engine *e, uint32_t number, bool ghost)
{
	const uint64_t bytes = leave_disk(e, number, ghost);

	if (entry_of(e, number)->records == NONE)
		index_remove(e->index, number);
	return bytes;
}

uint64_t entry_forget(struct engine *e, uint32_t number)
{
	uint64_t bytes = leave_arena(e, number, false);

	bytes += leave_disk(e, number, false);
	ENGINE_ASSERT(entry_of(e, number)->records == NONE);
	index_remove(e->index, number);
	return bytes;
}

/* ---- names ------------------------------------------------------------------------------------------ */

void record_object(struct engine *e, uint32_t number, struct engine_object *ret)
{
	const struct record *record = record_of(e, number);
	const struct entry *entry = entry_of(e, record->entry);
	const struct model *model = entry_model(e, entry);
	const struct engine_part_config *part = &model->parts[record->part];

	*ret = (struct engine_object){
		.key = entry->key,
		.parent = e->parents[record->entry],
		.account = entry->account,
		.sequence = record->sequence,
		.first_token = entry->first_token,
		.checksum = record->checksum,
		.model = (uint32_t)(model - e->models),
		.epoch = model->epoch,
		.tokens = entry->tokens & ~TOKENS_UNVERIFIED,
		.group = part->group,
		.shard = part->shard,
		.part = record->part,
	};
}
