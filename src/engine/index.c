/*
 * The index: entries, their lives and their links to their parents. Where a key lies is index_table.c's
 * business, records are index_records.c's.
 *
 * An entry is live, a ghost (its key alone, kept because an eviction list remembers it), or free. A
 * link names the parent's number and the serial that this number had; giving an entry back raises
 * its serial, which ends all links to it at once. So links never need to be found from the parent.
 *
 * Links never form a ring, or its chunks could never go: a new entry has no children, so only an
 * entry that was a parent already can close one, and then its new ancestors are looked at.
 */
#include <string.h>

#include "src/engine/check.h"
#include "src/engine/index_inside.h"

#define GHOST		(ENTRY_GHOST_RECENT | ENTRY_GHOST_FREQUENT)
#define ANCESTORS_MAX	256u	/* looked at for a ring; with more, an entry rather stays an orphan */

static size_t aligned(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

size_t index_bytes(uint32_t entries, uint32_t records)
{
	return aligned(sizeof(struct index)) + entries * sizeof(struct entry) +
	       aligned(entries * sizeof(struct entry_side)) + table_buckets(entries) * sizeof(struct bucket) +
	       aligned(records * sizeof(struct record));
}

struct index *index_init(void *memory, uint32_t entries, uint32_t records, uint64_t seed)
{
	struct index *index = memory;
	uint8_t *at = (uint8_t *)memory + aligned(sizeof(*index));

	ENGINE_ASSERT(entries > 0 && entries < SLOT_GHOST && records > 0 && records < ENGINE_NONE);
	index->open.entries = (struct entry *)at;
	at += entries * sizeof(struct entry);
	index->open.sides = (struct entry_side *)at;
	at += aligned(entries * sizeof(struct entry_side));
	index->buckets = (struct bucket *)at;
	at += table_buckets(entries) * sizeof(struct bucket);
	index->open.records = (struct record *)at;

	index->seed = seed;
	index->heads = index->extra_fresh = table_heads(entries);
	index->entries_max = entries;
	index->entries_free = ENGINE_NONE;
	index->records_max = records;
	index->records_free = ENGINE_NONE;
	return index;
}

void *index_on_full(struct index *index, bool (*forget_one)(void *arg), void *arg)
{
	void *before = index->forget_arg;

	index->forget_one = forget_one;
	index->forget_arg = arg;
	return before;
}

/* ---- entries ----------------------------------------------------------------------------------- */

static uint32_t entry_take(struct index *index)
{
	uint32_t number;

	if (index->entries_free == ENGINE_NONE && index->entries_fresh == index->entries_max &&
	    (index->ghosts == 0 || !index->forget_one(index->forget_arg)))
		return ENGINE_NONE;
	number = index->entries_free;
	if (number != ENGINE_NONE)
		index->entries_free = index->open.entries[number].entry_next_free;
	else
		number = index->entries_fresh++;
	index->used++;
	return number;
}

static void entry_give_back(struct index *index, uint32_t number)
{
	struct entry *entry = &index->open.entries[number];

	table_remove(index, number);
	index->open.sides[number].serial++;
	entry->model = ENGINE_NONE;
	entry->entry_next_free = index->entries_free;
	index->entries_free = number;
	index->used--;
}

uint32_t index_add(struct index *index, uint32_t model, const struct stoker_wire_key *key)
{
	uint32_t number = table_find(index, model, key);
	struct entry *entry;

	ENGINE_ASSERT(model != ENGINE_NONE);
	if (number != ENGINE_NONE) {
		entry = &index->open.entries[number];
		if ((entry->flags & GHOST) != 0) {
			entry->flags &= (uint8_t)~GHOST;
			index->ghosts--;
			table_set_ghost(index, number, false);
		}
		return number;
	}
	number = entry_take(index);
	if (number == ENGINE_NONE)
		return ENGINE_NONE;
	entry = &index->open.entries[number];
	*entry = (struct entry){
		.key = *key, .model = model, .parent = ENGINE_NONE, .records = ENGINE_NONE,
		.l1_prev = ENGINE_NONE, .l1_next = ENGINE_NONE, .disk_prev = ENGINE_NONE, .disk_next = ENGINE_NONE,
	};
	index->open.sides[number].l1_units = index->open.sides[number].disk_units = 0;
	table_insert(index, number);
	return number;
}

/* The flags of a key alone that is in the ghost lists that the entry says; 0: in none. */
static uint8_t ghost_flags(const struct entry *entry)
{
	uint8_t flags = 0;

	if (entry->l1_list == LIST_GHOST_RECENT || entry->disk_list == LIST_GHOST_RECENT)
		flags |= ENTRY_GHOST_RECENT;
	if (entry->l1_list == LIST_GHOST_FREQUENT || entry->disk_list == LIST_GHOST_FREQUENT)
		flags |= ENTRY_GHOST_FREQUENT;
	return flags;
}

static bool is_gone_from(uint8_t list)
{
	return list == LIST_NONE || list == LIST_GHOST_RECENT || list == LIST_GHOST_FREQUENT;
}

void index_remove(struct index *index, uint32_t number)
{
	struct entry *entry = &index->open.entries[number];
	const uint8_t ghost = ghost_flags(entry);

	ENGINE_ASSERT(number < index->entries_fresh && entry->model != ENGINE_NONE);
	ENGINE_ASSERT((entry->flags & GHOST) == 0);
	ENGINE_ASSERT(entry->records == ENGINE_NONE && entry->pins == 0 && entry->io == 0);
	ENGINE_ASSERT((entry->l1 | entry->disk | entry->filling) == 0);
	ENGINE_ASSERT(is_gone_from(entry->l1_list) && is_gone_from(entry->disk_list));
	if (ghost == 0) {
		entry_give_back(index, number);
		return;
	}
	entry->flags |= ghost;
	index->ghosts++;
	table_set_ghost(index, number, true);
}

bool index_forget(struct index *index, uint32_t number)
{
	struct entry *entry = &index->open.entries[number];

	if ((entry->flags & GHOST) == 0)
		return false;
	entry->flags = (uint8_t)((entry->flags & ~GHOST) | ghost_flags(entry));
	if ((entry->flags & GHOST) != 0)
		return false;
	index->ghosts--;
	entry_give_back(index, number);
	return true;
}

uint32_t index_next(struct index *index, uint32_t after)
{
	for (uint32_t number = after + 1; number < index->entries_fresh; number++) {
		const struct entry *entry = &index->open.entries[number];

		if (entry->model != ENGINE_NONE && (entry->flags & GHOST) == 0)
			return number;
	}
	return ENGINE_NONE;
}

uint32_t index_used(const struct index *index)
{
	return index->used;
}

uint32_t index_ghosts(const struct index *index)
{
	return index->ghosts;
}

uint32_t index_max(const struct index *index)
{
	return index->entries_max;
}

/* ---- links ------------------------------------------------------------------------------------- */

static uint32_t parent_of(const struct index *index, uint32_t number)
{
	const uint32_t parent = index->open.entries[number].parent;

	if (parent == ENGINE_NONE || index->open.sides[parent].serial != index->open.sides[number].parent_serial)
		return ENGINE_NONE;
	return parent;
}

uint32_t index_parent(struct index *index, uint32_t number)
{
	return parent_of(index, number);
}

/* Would a link to @parent close a ring, or might it? */
static bool is_ring(const struct index *index, uint32_t number, uint32_t parent)
{
	if (parent == number)
		return true;
	if ((index->open.entries[number].flags & ENTRY_PARENT) == 0)
		return false;
	for (uint32_t steps = 0; steps < ANCESTORS_MAX; steps++) {
		if (parent == number)
			return true;
		if (parent == ENGINE_NONE)
			return false;
		parent = parent_of(index, parent);
	}
	return true;
}

void index_link(struct index *index, uint32_t number, const struct stoker_wire_key *key)
{
	struct entry *entry = &index->open.entries[number];
	const bool root = (key->word[0] | key->word[1] | key->word[2] | key->word[3]) == 0;
	uint32_t parent = parent_of(index, number);

	if (parent != ENGINE_NONE)
		return;		/* a key names its whole prefix: it has one parent for ever */
	entry->flags &= (uint8_t)~ENTRY_ORPHAN;
	entry->parent = ENGINE_NONE;
	if (root)
		return;
	parent = table_find(index, entry->model, key);
	if (parent == ENGINE_NONE || is_ring(index, number, parent)) {
		entry->flags |= ENTRY_ORPHAN;
		return;
	}
	entry->parent = parent;
	index->open.sides[number].parent_serial = index->open.sides[parent].serial;
	index->open.entries[parent].flags |= ENTRY_PARENT;
	index->open.entries[parent].children_l1 += entry->l1 != 0;
	index->open.entries[parent].children_disk += entry->disk != 0;
}

void index_mask_changed(struct index *index, uint32_t number, uint64_t l1_before, uint64_t disk_before)
{
	const struct entry *entry = &index->open.entries[number];
	const uint32_t parent = parent_of(index, number);

	if (parent == ENGINE_NONE)
		return;
	index->open.entries[parent].children_l1 += (uint32_t)(entry->l1 != 0) - (uint32_t)(l1_before != 0);
	index->open.entries[parent].children_disk += (uint32_t)(entry->disk != 0) - (uint32_t)(disk_before != 0);
}

/* ---- audit ------------------------------------------------------------------------------------- */

static const char *entry_audit(const struct entry *entry)
{
	const bool ghost = (entry->flags & GHOST) != 0;

	if (!ghost)
		return NULL;
	if (entry->records != ENGINE_NONE || entry->pins != 0 || entry->io != 0 ||
	    (entry->l1 | entry->disk | entry->filling) != 0)
		return "a ghost has more than its key";
	if ((entry->flags & GHOST) != ghost_flags(entry))
		return "a ghost is not in the lists that it says";
	return NULL;
}

/*
 * Child counts are recounted without memory for it: the sum of all counts, each times a number drawn
 * for its parent, is the sum of those numbers over all children.
 */
static const char *links_audit(const struct index *index)
{
	uint64_t sum_l1 = 0, sum_disk = 0;

	for (uint32_t i = 0; i < index->entries_fresh; i++) {
		const struct entry *entry = &index->open.entries[i];
		const uint32_t parent = entry->model != ENGINE_NONE ? parent_of(index, i) : ENGINE_NONE;
		const uint64_t own = (i + 1) * 0x9e3779b97f4a7c15ull, of_parent = (parent + 1ull) * 0x9e3779b97f4a7c15ull;

		if (entry->model == ENGINE_NONE)
			continue;
		sum_l1 += (own ^ own >> 29) * entry->children_l1;
		sum_disk += (own ^ own >> 29) * entry->children_disk;
		if (parent == ENGINE_NONE)
			continue;
		if ((index->open.entries[parent].flags & ENTRY_PARENT) == 0)
			return "a parent is not marked as one";
		sum_l1 -= entry->l1 != 0 ? of_parent ^ of_parent >> 29 : 0;
		sum_disk -= entry->disk != 0 ? of_parent ^ of_parent >> 29 : 0;
	}
	return sum_l1 == 0 && sum_disk == 0 ? NULL : "a count of children is wrong";
}

const char *index_audit(const struct index *index)
{
	uint32_t used = 0, ghosts = 0, spare = 0;
	const char *broken = table_audit(index);

	for (uint32_t i = 0; i < index->entries_fresh && broken == NULL; i++) {
		const struct entry *entry = &index->open.entries[i];

		used += entry->model != ENGINE_NONE;
		ghosts += entry->model != ENGINE_NONE && (entry->flags & GHOST) != 0;
		broken = entry->model != ENGINE_NONE ? entry_audit(entry) : NULL;
	}
	if (broken != NULL)
		return broken;
	if (used != index->used || ghosts != index->ghosts)
		return "the numbers of entries and ghosts are wrong";
	for (uint32_t i = index->entries_free; i != ENGINE_NONE; i = index->open.entries[i].entry_next_free)
		if (index->open.entries[i].model != ENGINE_NONE || ++spare > index->entries_fresh)
			return "the list of free entries is broken";
	if (spare + used != index->entries_fresh)
		return "an entry is lost: neither in use nor free";
	broken = links_audit(index);
	return broken != NULL ? broken : records_audit(index);
}
