/*
 * Records of the index: one an object. A chunk's records are a list that begins in its entry, in no
 * order, at most one a part. Free records are doubly linked, because recovery takes them by number;
 * numbers that were never used are put there when recovery passes over them.
 */
#include "src/engine/check.h"
#include "src/engine/index_inside.h"

static void free_list_add(struct index *index, uint32_t number)
{
	struct record *record = &index->open.records[number];

	record->state = RECORD_FREE;
	record->record_prev_free = ENGINE_NONE;
	record->record_next_free = index->records_free;
	if (index->records_free != ENGINE_NONE)
		index->open.records[index->records_free].record_prev_free = number;
	index->records_free = number;
}

static void free_list_take(struct index *index, uint32_t number)
{
	const struct record *record = &index->open.records[number];

	if (record->record_prev_free == ENGINE_NONE)
		index->records_free = record->record_next_free;
	else
		index->open.records[record->record_prev_free].record_next_free = record->record_next_free;
	if (record->record_next_free != ENGINE_NONE)
		index->open.records[record->record_next_free].record_prev_free = record->record_prev_free;
}

static void begin(struct index *index, uint32_t number, uint32_t of, uint32_t part)
{
	struct entry *entry = &index->open.entries[of];
	struct record *record = &index->open.records[number];

	ENGINE_ASSERT(part < STOKER_PARTS_MAX);
	*record = (struct record){
		.entry = of, .next = entry->records, .place = ENGINE_NONE, .disk_place = ENGINE_NONE,
		.part = (uint8_t)part, .state = RECORD_ABSENT, .version = record->version,
	};
	entry->records = number;
	index->records_used++;
}

uint32_t index_record_add(struct index *index, uint32_t entry, uint32_t part)
{
	uint32_t number = index->records_free;

	if (number != ENGINE_NONE)
		free_list_take(index, number);
	else if (index->records_fresh < index->records_max)
		number = index->records_fresh++;
	else
		return ENGINE_NONE;
	begin(index, number, entry, part);
	return number;
}

bool index_record_add_at(struct index *index, uint32_t number, uint32_t entry, uint32_t part)
{
	if (number >= index->records_max)
		return false;
	while (index->records_fresh <= number)
		free_list_add(index, index->records_fresh++);
	if (index->open.records[number].state != RECORD_FREE)
		return false;
	free_list_take(index, number);
	begin(index, number, entry, part);
	return true;
}

uint32_t index_record_find(struct index *index, uint32_t entry, uint32_t part)
{
	uint32_t number = index->open.entries[entry].records;

	while (number != ENGINE_NONE && index->open.records[number].part != part)
		number = index->open.records[number].next;
	return number;
}

void index_record_remove(struct index *index, uint32_t number)
{
	const struct record *record = &index->open.records[number];
	uint32_t *link;

	ENGINE_ASSERT(number < index->records_fresh && record->state != RECORD_FREE);
	link = &index->open.entries[record->entry].records;
	while (*link != number)
		link = &index->open.records[*link].next;
	*link = record->next;
	index->records_used--;
	free_list_add(index, number);
}

uint32_t index_records_used(const struct index *index)
{
	return index->records_used;
}

/* The records of one entry: each its own, each part once. Adds them to @n. */
static const char *list_audit(const struct index *index, uint32_t of, uint32_t *n)
{
	uint64_t parts = 0;

	for (uint32_t i = index->open.entries[of].records; i != ENGINE_NONE; i = index->open.records[i].next) {
		const struct record *record = &index->open.records[i];

		if (i >= index->records_fresh || record->state == RECORD_FREE || record->entry != of)
			return "an entry lists a record that is not its own";
		if ((parts & 1ull << record->part) != 0)
			return "an entry has two records of one part";
		parts |= 1ull << record->part;
		++*n;
	}
	return NULL;
}

const char *records_audit(const struct index *index)
{
	uint32_t used = 0, spare = 0, before = ENGINE_NONE;

	for (uint32_t i = 0; i < index->entries_fresh; i++) {
		const bool live = index->open.entries[i].model != ENGINE_NONE;
		const char *broken = live ? list_audit(index, i, &used) : NULL;

		if (broken != NULL)
			return broken;
	}
	if (used != index->records_used)
		return "the number of records is wrong";
	for (uint32_t i = index->records_free; i != ENGINE_NONE; i = index->open.records[i].record_next_free) {
		const struct record *record = &index->open.records[i];

		if (record->state != RECORD_FREE || record->record_prev_free != before || ++spare > index->records_fresh)
			return "the list of free records is broken";
		before = i;
	}
	return used + spare == index->records_fresh ? NULL : "a record is lost: neither in use nor free";
}
