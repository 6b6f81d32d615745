/*
 * engine_audit(): are all books right? For tests; it changes nothing and takes its time.
 *
 * Everything that the engine counts as it goes is counted again from the records, and every list is
 * walked. Pins and io are checked entry by entry without memory for it: each reference adds a
 * number that is drawn from its entry, and the sum of those must be what the counts in the entries
 * add up to. Lists of jobs are in audit-lists.c, tenants and accounts in audit-books.c.
 */
#include "src/engine/audit.h"

/* ---- what should be pinned, and under I/O -------------------------------------------------------- */

uint64_t audit_weight(uint32_t number)
{
	uint64_t x = (number + 1ull) * 0x9e3779b97f4a7c15ull;

	x ^= x >> 29;
	return (x * 0xbf58476d1ce4e5b9ull) | 1;
}

/** struct sums - over references that exist (is) and over counts in entries (says). */
struct sums { uint64_t pins_is, pins_says, objects_is, objects_says; };

static void chunks_sum(const struct engine *e, const struct chunks *chunks, struct sums *sums)
{
	uint32_t n = chunks->n ? (chunks->n - 1) % PIECE_CHUNKS + 1 : 0;

	for (uint32_t piece = chunks->last; piece != NONE; piece = e->pieces[piece].before) {
		for (uint32_t i = 0; i < n; i++)
			if (e->pieces[piece].entries[i] != NONE)
				sums->pins_is += audit_weight(piece_entry(&e->pieces[piece], i));
		n = PIECE_CHUNKS;
	}
}

static void job_sum(const struct job *job, struct sums *sums)
{
	const uint32_t *entries = NULL;
	uint32_t n = 0;

	if (job->op == STOKER_OP_LOOKUP) {
		entries = job->lookup.entries;
		n = job->lookup.probed;
	} else if (job->op == STOKER_OP_RETRIEVE) {
		entries = job->transfer.entries;
		n = job->transfer.chunks;
	}
	for (uint32_t i = 0; i < n; i++)
		if (entries[i] != NONE)
			sums->pins_is += audit_weight(entries[i]);
}

static void references_sum(const struct engine *e, struct sums *sums)
{
	const struct chunks dropped = { .last = e->drop_piece, .n = e->drop_piece == NONE ? 0 : PIECE_CHUNKS };

	for (uint32_t i = 0; i < e->config.leases; i++)
		if (e->leases[i].used)
			chunks_sum(e, &e->leases[i].chunks, sums);
	chunks_sum(e, &dropped, sums);
	chunks_sum(e, &e->recovered, sums);
	for (uint32_t i = 0; i < e->config.holds; i++)
		if (e->holds[i].used)
			sums->pins_is += audit_weight(e->holds[i].entry);
	for (uint32_t i = 0; i < e->n_jobs; i++)
		if (e->jobs[i].phase != PHASE_FREE)
			job_sum(&e->jobs[i], sums);
}

/* ---- entries and records ---------------------------------------------------------------------------- */

/** struct books - counted again. */
struct books {
	uint64_t pinned, dirty, arena, disk[ENGINE_TIERS_MAX];
	uint64_t tenant_arena[256], tenant_disk[256];
	uint32_t objects, dirty_objects, copying, unverified, disk_objects[ENGINE_TIERS_MAX], records;
};

static bool state_is_right(const struct engine *e, const struct record *record, const struct side *side)
{
	const bool there = record->place != NONE, disk = record->disk_place != NONE;
	const bool copying = (record->flags & RECORD_COPYING) != 0;

	switch (record->state) {
	case RECORD_ABSENT:
		return !there && disk && side->queue == QUEUE_NONE && side->io == NONE && record->flags == 0;
	case RECORD_FILLING:
		if (copying)
			return there && !disk && side->io < e->n_jobs && side->queue == QUEUE_NONE &&
			       e->jobs[side->io].op == STOKER_OP_STORE;
		return there && disk && (side->queue == QUEUE_READ || side->queue == QUEUE_VERIFY || side->io != NONE);
	case RECORD_UNVERIFIED:
	case RECORD_READY:
		return there && !copying && !(record->version & 1);
	default:
		return false;
	}
}

/* How many I/Os of the entry's a record stands for. */
static uint32_t io_of(const struct record *record, const struct side *side)
{
	return side->io != NONE || (record->flags & RECORD_LANDED);
}

static const char *record_count(struct engine *e, uint32_t number, struct entry *expected, struct books *books)
{
	const struct record *record = record_of(e, number);
	const struct side *side = &e->sides[number];
	const uint64_t bit = 1ull << record->part, bytes = record_bytes(e, record);
	const uint32_t tenant = entry_of(e, record->entry)->tenant;

	if (!state_is_right(e, record, side))
		return "a record's state does not agree with its places, queue and io";
	books->records++;
	if (record->place != NONE) {
		expected->filling |= record->state == RECORD_FILLING ? bit : 0;
		expected->l1 |= record->state == RECORD_FILLING ? 0 : bit;
		books->objects++;
		books->arena += bytes;
		books->tenant_arena[tenant] += bytes;
	}
	if (record->disk_place != NONE) {
		expected->disk |= bit;
		books->disk[record->tier] += bytes;
		books->disk_objects[record->tier]++;
		books->tenant_disk[tenant] += bytes;
	}
	if (record->state == RECORD_UNVERIFIED) {
		expected->tokens = TOKENS_UNVERIFIED;
		books->unverified++;
	}
	if (record->flags & RECORD_DIRTY) {
		books->dirty_objects++;
		books->dirty += bytes;
		if (record->disk_place != NONE)
			return "an object counts as dirty and is on disk";
	}
	books->copying += (record->flags & RECORD_COPYING) != 0;
	expected->io += io_of(record, side);
	return NULL;
}

static const char *entry_check(struct engine *e, uint32_t number, struct books *books, struct sums *sums)
{
	const struct entry *entry = entry_of(e, number);
	struct entry expected = { .io = 0 };
	uint32_t tier = NONE;

	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next) {
		const char *broken = record_count(e, r, &expected, books);

		if (broken)
			return broken;
		if (record_of(e, r)->disk_place == NONE)
			continue;
		if (tier != NONE && tier != record_of(e, r)->tier)
			return "a chunk's objects are on two tiers";
		tier = record_of(e, r)->tier;
	}
	if (entry->l1 != expected.l1 || entry->disk != expected.disk || entry->filling != expected.filling)
		return "an entry's masks do not agree with its records";
	if (entry->io != expected.io)
		return "an entry's io does not agree with its records";
	if ((entry->tokens & TOKENS_UNVERIFIED) != expected.tokens)
		return "an entry does not know of its unverified objects";
	if (entry->records == NONE && entry->pins == 0)
		return "an entry lives without a record or a pin";
	if (entry->pins + entry->io == 0 && entry_is_stale(e, entry) && !e->sweeping)
		return "an object of an older epoch is kept though nobody uses it";
	if (entry->pins + entry->io != 0)
		books->pinned += mask_bytes(entry_model(e, entry), entry->l1 | entry->filling);
	if (e->waiters[number] && e->waiters[number] > e->n_jobs)
		return "an entry's waiters are broken";
	sums->pins_says += audit_weight(number) * entry->pins;
	for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next)
		sums->objects_is += audit_weight(entry->model & e->model_mask);
	return NULL;
}

static const char *books_compare(struct engine *e, const struct books *books)
{
	uint64_t writing[ENGINE_TIERS_MAX] = { 0 }, tenant_writing[256] = { 0 };

	for (uint32_t i = 0; i < e->config.ios; i++)
		if (e->ios[i].kind == IO_WRITE) {
			writing[e->ios[i].tier] += e->ios[i].bytes;
			tenant_writing[entry_of(e, record_of(e, e->ios[i].record)->entry)->tenant] += e->ios[i].bytes;
		}
	if (books->pinned != e->pinned_bytes)
		return "pinned bytes are miscounted";
	if (books->dirty != e->dirty_bytes || books->dirty_objects != e->dirty_objects)
		return "dirty bytes are miscounted";
	if (books->objects != e->arena_objects || books->unverified != e->unverified ||
	    books->copying != e->copying)
		return "objects of the arena are miscounted";
	if (books->arena != space_used(e->space))
		return "places of the arena are given out that no record has";
	if (books->records != index_records_used(e->index))
		return "a record belongs to no entry";
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		if (books->disk[i] + writing[i] != space_used(e->tiers[i].space) ||
		    books->disk_objects[i] != e->tiers[i].figures.objects)
			return "places of a tier are given out that no record or write has";
	for (uint32_t i = 0; i < e->config.tenants; i++)
		if (books->tenant_arena[i] != e->tenants[i].used[0] ||
		    books->tenant_disk[i] + tenant_writing[i] != e->tenants[i].used[1])
			return "a tenant's bytes are miscounted";
	return NULL;
}

static const char *chunks_audit(struct engine *e)
{
	struct books books;
	struct sums sums = { 0 };
	const char *broken;

	memset(&books, 0, sizeof(books));
	for (uint32_t i = index_next(e->index, NONE); i != NONE; i = index_next(e->index, i)) {
		broken = entry_check(e, i, &books, &sums);
		if (broken)
			return broken;
	}
	references_sum(e, &sums);
	if (sums.pins_is != sums.pins_says)
		return "pins do not agree with leases, holds and jobs";
	for (uint32_t i = 0; i < e->models_max; i++) {
		if (!e->models[i].open && e->models[i].objects > 0)
			return "a model that is forgotten has objects";
		sums.objects_says += audit_weight(i) * e->models[i].objects;
	}
	if (sums.objects_is != sums.objects_says)
		return "objects of a model are miscounted";
	return books_compare(e, &books);
}

/* ---- queues and I/Os --------------------------------------------------------------------------------- */

static const char *queue_audit(struct engine *e, const struct queued *queue, enum queue kind, uint32_t *n)
{
	uint32_t seen = 0, before = NONE;
	uint64_t bytes = 0;

	for (uint32_t r = queue->first; r != NONE; before = r, r = e->sides[r].queued.next) {
		if (e->sides[r].queue != kind || e->sides[r].queued.prev != before || ++seen > queue->n ||
		    record_of(e, r)->state == RECORD_FREE)
			return "a queue of records is broken";
		bytes += record_bytes(e, record_of(e, r));
	}
	*n += seen;
	return seen == queue->n && bytes == queue->bytes && before == queue->last ? NULL
			: "a queue of records is miscounted";
}

static const char *queues_audit(struct engine *e)
{
	uint32_t verifies = 0, seals = 0;
	const char *broken = queue_audit(e, &e->seals, QUEUE_SEAL, &seals);

	for (uint32_t p = 0; p < PRIORITIES && !broken; p++)
		broken = queue_audit(e, &e->verifies[p], QUEUE_VERIFY, &verifies);
	if (!broken && verifies != e->n_verifies)
		broken = "queued verifications are miscounted";
	for (uint32_t i = 0; i < e->config.n_tiers && !broken; i++) {
		uint32_t reads = 0, writes = 0;
		uint64_t bytes = 0;

		for (uint32_t p = 0; p < PRIORITIES && !broken; p++) {
			broken = queue_audit(e, &e->tiers[i].reads[p], QUEUE_READ, &reads);
			bytes += e->tiers[i].reads[p].bytes;
		}
		if (!broken)
			broken = queue_audit(e, &e->tiers[i].writes, QUEUE_WRITE, &writes);
		if (!broken && (reads != e->tiers[i].n_queued || bytes != e->tiers[i].queued_bytes))
			broken = "queued reads are miscounted";
	}
	return broken;
}

static const char *ios_audit(const struct engine *e)
{
	uint32_t used = 0, checks = 0, reading[ENGINE_TIERS_MAX] = { 0 }, writing[ENGINE_TIERS_MAX] = { 0 };
	uint64_t flight[ENGINE_TIERS_MAX] = { 0 };

	for (uint32_t i = 0; i < e->config.ios; i++) {
		const struct io *io = &e->ios[i];

		if (io->kind == IO_FREE)
			continue;
		used++;
		checks += io->kind == IO_SEAL || io->kind == IO_VERIFY;
		reading[io->tier] += io->kind == IO_READ;
		writing[io->tier] += io->kind == IO_WRITE;
		flight[io->tier] += io->kind == IO_READ || io->kind == IO_WRITE ? io->bytes : 0;
		if (e->sides[io->record].io != i)
			return "an I/O's record does not know of it";
	}
	if (used != e->ios_used || checks != e->checks_used)
		return "I/Os under way are miscounted";
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		if (reading[i] != e->tiers[i].reading || writing[i] != e->tiers[i].writing ||
		    flight[i] != e->tiers[i].flight_bytes)
			return "a tier's I/Os under way are miscounted";
	return NULL;
}

static const char *extent_audit(struct engine *e, uint32_t extent, uint32_t first, uint32_t tier, uint32_t *n)
{
	const uint32_t units = (uint32_t)(e->config.extent_bytes / UNIT);
	uint32_t before = NONE;

	for (uint32_t r = first; r != NONE;) {
		const struct record *record = record_of(e, r);
		const struct link link = tier == NONE ? e->sides[r].arena : e->sides[r].disk;
		const uint32_t unit = tier == NONE ? record->place : record->disk_place;

		if (unit == NONE || unit / units != extent || link.prev != before || ++*n > e->config.records)
			return "an extent's list of objects is broken";
		before = r;
		r = link.next;
	}
	return NULL;
}

static const char *extents_audit(struct engine *e)
{
	uint32_t n = 0;
	const char *broken = NULL;

	for (uint32_t i = 0; i < e->config.extents && !broken; i++)
		broken = extent_audit(e, i, e->extents[i], NONE, &n);
	if (!broken && n != e->arena_objects)
		broken = "an object of the arena is in no extent's list";
	for (uint32_t t = 0; t < e->config.n_tiers && !broken; t++) {
		n = 0;
		for (uint32_t i = 0; i < e->config.tiers[t].extents && !broken; i++)
			broken = extent_audit(e, i, e->tiers[t].extents[i], t, &n);
		if (!broken && n != e->tiers[t].figures.objects)
			broken = "an object of a tier is in no extent's list";
	}
	return broken;
}

const char *engine_audit(const struct engine *engine)
{
	struct engine *e = (struct engine *)(uintptr_t)engine;	/* accessors are for writers too */
	const char *broken = index_audit(e->index);

	if (!broken)
		broken = space_audit(e->space);
	if (!broken)
		broken = evict_audit(&e->evict);
	for (uint32_t i = 0; i < e->config.n_tiers && !broken; i++) {
		broken = space_audit(e->tiers[i].space);
		if (!broken)
			broken = evict_audit(&e->tiers[i].evict);
	}
	if (!broken)
		broken = chunks_audit(e);
	if (!broken)
		broken = queues_audit(e);
	if (!broken)
		broken = ios_audit(e);
	if (!broken)
		broken = extents_audit(e);
	if (!broken)
		broken = bounds_audit(e);
	if (!broken)
		broken = accounts_audit(e);
	return broken ? broken : lists_audit(e);
}
