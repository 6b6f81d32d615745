/*
 * STORE: blocks of pools into the cache, chunk by chunk, parents first.
 *
 *	begin -> SERVE (until recovery is over) -> CHECK (segments) -> READY (its ready word)
 *	      -> PLACE: each object is present, under way elsewhere, refused, or gets a place ...
 *	      -> COPY: ... and what got one is copied, in rounds; then PLACE goes on
 *	      -> ELSEWHERE (with F_WAIT): others' fills are waited for, and taken over if they failed
 *
 * Nothing is claimed before the ready word has been reached: a store that is ready first stores. An
 * object becomes visible when its copy has ended well. A round holds places only while it is copied,
 * so a store may be larger than the arena: when there is no room it waits as long as write-back can
 * still make some, and refuses what is left else. Nothing is dropped in silence: each chunk's
 * status says what became of it.
 */
#include "src/engine/internal.h"

#define ITEMS_A_STEP	64u
#define SCAN_A_STEP	4096u
#define ROUND_ITEMS	1024u
#define ROUND_BYTES	(128ull << 20)

/* ---- begin ---------------------------------------------------------------------------------------- */

static bool tokens_are_bad(const struct job *job, const struct model *model)
{
	for (uint32_t i = 0; job->tokens && i < job->n_keys; i++)
		if (job->tokens[i] == 0 || job->tokens[i] > model->chunk_tokens)
			return true;
	return false;
}

/* An entry keeps a position in 32 bits. */
static bool positions_are_bad(uint64_t first_token, uint64_t tokens)
{
	return first_token > UINT32_MAX || tokens > UINT32_MAX - first_token;
}

static enum stoker_status accept(struct engine *e, struct job *job, const struct engine_request *request)
{
	struct transfer *t = &job->transfer;
	const struct model *model = &e->models[job->model];

	if (job->model == NONE)
		return STOKER_STATUS_NO_LAYOUT;
	if ((job->flags & ~(STOKER_F_WAIT | STOKER_F_READY)) || job->n_keys == 0 || job->n_keys > job->keys_max ||
	    request->line.store.reserved || (request->line.store.flags & ~STOKER_STORE_TOKENS) ||
	    ((request->line.store.flags & STOKER_STORE_TOKENS) != 0) != (job->tokens != NULL) ||
	    tokens_are_bad(job, model))
		return STOKER_STATUS_BAD_REQUEST;
	if (positions_are_bad(request->line.store.first_token, (uint64_t)job->n_keys * model->chunk_tokens))
		return STOKER_STATUS_BAD_REQUEST;
	if (e->draining)
		return STOKER_STATUS_REFUSED;
	memset(t, 0, sizeof(*t));
	t->ready_index = request->line.store.ready_index;
	t->ready_value = request->line.store.ready_value;
	t->account = request->line.store.account;
	t->first_token = request->line.store.first_token;
	t->parent = request->line.store.parent;
	t->layer_end = model->layers;
	return segments_begin(e, job, job->n_keys);
}

void store_begin(struct engine *e, struct job *job, const struct engine_request *request)
{
	enum stoker_status status;

	count(e, STOKER_COUNTER_STORES, 1);
	e->clients[job->client].figures.stores++;
	status = accept(e, job, request);
	if (status != STOKER_STATUS_OK) {
		job_done(e, job, status, NULL);
		return;
	}
	e->stores++;
	job->phase = e->serving ? PHASE_CHECK : PHASE_SERVE;
	if (e->serving)
		store_step(e, job);
}

/* ---- the end ----------------------------------------------------------------------------------------- */

/* What became of an object, as a chunk's status; the greater one in @rank speaks for the chunk. */
static const struct { uint8_t status, rank; } of_item[] = {
	[ITEM_NEW] = { STOKER_CHUNK_CANCELLED, 3 },
	[ITEM_COPYING] = { STOKER_CHUNK_CANCELLED, 3 },
	[ITEM_STORED] = { STOKER_CHUNK_STORED, 2 },
	[ITEM_PRESENT] = { STOKER_CHUNK_PRESENT, 1 },
	[ITEM_ELSEWHERE] = { STOKER_CHUNK_ELSEWHERE, 4 },
	[ITEM_REFUSED] = { STOKER_CHUNK_REFUSED, 5 },
	[ITEM_INCOMPLETE] = { STOKER_CHUNK_INCOMPLETE, 6 },
	[ITEM_FAILED] = { STOKER_CHUNK_FAILED, 7 },
};

static void statuses_make(struct job *job, uint32_t counts[STOKER_CHUNK_END])
{
	struct transfer *t = &job->transfer;

	memset(counts, 0, STOKER_CHUNK_END * sizeof(counts[0]));
	for (uint32_t c = 0; c < t->chunks; c++) {
		uint32_t rank = 0;

		for (uint32_t i = items_first(t, c); i < t->ends[c]; i++) {
			const uint32_t state = t->items[i].state;

			if (of_item[state].rank > rank) {
				rank = of_item[state].rank;
				t->statuses[c] = of_item[state].status;
			}
		}
		counts[t->statuses[c]]++;
	}
}

static void count_chunks(struct engine *e, const uint32_t counts[STOKER_CHUNK_END])
{
	count(e, STOKER_COUNTER_CHUNKS_STORED, counts[STOKER_CHUNK_STORED]);
	count(e, STOKER_COUNTER_CHUNKS_PRESENT, counts[STOKER_CHUNK_PRESENT]);
	count(e, STOKER_COUNTER_CHUNKS_ELSEWHERE, counts[STOKER_CHUNK_ELSEWHERE]);
	count(e, STOKER_COUNTER_CHUNKS_REFUSED, counts[STOKER_CHUNK_REFUSED]);
	count(e, STOKER_COUNTER_CHUNKS_INCOMPLETE, counts[STOKER_CHUNK_INCOMPLETE]);
}

/* An object that was placed, but will not be copied, or was not copied well. The entry's io ends. */
static void item_drop(struct engine *e, struct item *item, enum item_state state)
{
	const uint32_t entry = record_of(e, item->record)->entry;

	e->sides[item->record].io = NONE;
	e->copying--;
	record_drop_arena(e, item->record);
	item->record = NONE;
	item->state = (uint8_t)state;
	entry_wake(e, entry);
	entry_io_done(e, entry);
}

static void finish(struct engine *e, struct job *job, enum stoker_status status)
{
	struct transfer *t = &job->transfer;
	uint32_t counts[STOKER_CHUNK_END];
	struct engine_answer answer;

	for (uint32_t i = 0; i < t->n_copy; i++)
		item_drop(e, &t->items[t->copy_items[i]], ITEM_NEW);
	t->n_copy = 0;
	statuses_make(job, counts);
	count_chunks(e, counts);
	if (status == STOKER_STATUS_OK && t->faulted)
		status = STOKER_STATUS_FAULT;
	else if (status == STOKER_STATUS_OK && counts[STOKER_CHUNK_REFUSED] > 0 &&
		 counts[STOKER_CHUNK_STORED] + counts[STOKER_CHUNK_PRESENT] == 0)
		status = t->quota || e->draining ? STOKER_STATUS_REFUSED : STOKER_STATUS_NO_MEMORY;
	segments_end(e, job);
	e->stores--;
	memset(&answer, 0, sizeof(answer));
	answer.n = counts[STOKER_CHUNK_STORED];
	answer.counts[0] = counts[STOKER_CHUNK_PRESENT];
	answer.counts[1] = counts[STOKER_CHUNK_ELSEWHERE];
	answer.counts[2] = counts[STOKER_CHUNK_REFUSED] + counts[STOKER_CHUNK_INCOMPLETE];
	answer.n_chunks = t->chunks;
	answer.chunks = t->statuses;
	answer.measured = 1 + STOKER_HISTOGRAM_STORE_NS;
	job_done(e, job, status, &answer);
}

/* ---- finding places ------------------------------------------------------------------------------------- */

enum placed { PLACED, SETTLED, NO_ROOM_YET };

static enum placed settle(struct item *item, enum item_state state)
{
	item->state = (uint8_t)state;
	return SETTLED;
}

/* There is no room: for now, or for good. */
static enum placed refuse(struct transfer *t, struct item *item, enum room why)
{
	if (why == ROOM_WAIT)
		return NO_ROOM_YET;
	t->full = true;
	t->quota |= why == ROOM_QUOTA;
	return settle(item, ITEM_REFUSED);
}

static enum room no_entry(const struct engine *e)
{
	return room_may_come(e) ? ROOM_WAIT : ROOM_NONE;
}

/* Is the object there already, or on its way? Returns false if it has to be stored. */
static bool is_settled(struct engine *e, struct item *item, uint32_t number)
{
	const uint64_t bit = 1ull << item->part;
	const struct entry *entry = entry_of(e, number);
	const uint32_t record = index_record_find(e->index, number, item->part);

	if (entry_exists(e, entry, ~0u) & bit) {
		entry_pin(e, number);
		entry_used(e, number);
		entry_unpin(e, number);
		settle(item, ITEM_PRESENT);
		return true;
	}
	if (!(entry->filling & bit))
		return false;
	settle(item, record_of(e, record)->flags & RECORD_COPYING ? ITEM_ELSEWHERE : ITEM_PRESENT);
	return true;
}

/* The chunk's entry, made if it is not there. */
static uint32_t entry_make(struct engine *e, struct job *job, uint32_t chunk)
{
	const struct transfer *t = &job->transfer;
	const struct model *model = &e->models[job->model];
	const uint32_t number = room_entry(e, job->incarnation, &job->keys[chunk]);
	struct entry *entry;

	if (number == NONE)
		return NONE;
	entry = entry_of(e, number);
	if (entry->records == NONE && entry->pins + entry->io == 0) {
		entry->tokens = job->tokens ? job->tokens[chunk] : model->chunk_tokens;
		entry->first_token = (uint32_t)(t->first_token + (uint64_t)chunk * model->chunk_tokens);
		entry->tenant = (uint8_t)model->tenant;
		entry->account = t->account;
		e->parents[number] = chunk ? job->keys[chunk - 1] : t->parent;
	}
	return number;
}

/* The record of an object that is nowhere; a copy on a tier that is down is given up for it. */
static uint32_t record_make(struct engine *e, uint32_t entry, uint32_t part)
{
	const uint32_t number = index_record_find(e->index, entry, part);

	if (number != NONE)
		record_drop_disk(e, number);
	return room_record(e, entry, part);
}

static void copy_add(struct engine *e, struct job *job, uint32_t i, uint32_t record, uint32_t unit)
{
	struct transfer *t = &job->transfer;
	struct item *item = &t->items[i];

	record_place(e, record, unit);
	record_of(e, record)->sequence = ++e->sequence;
	record_of(e, record)->checksum = 0;
	record_of(e, record)->flags = RECORD_COPYING;
	e->sides[record].io = job_number(e, job);
	e->copying++;
	entry_io(e, record_of(e, record)->entry);
	item->record = record;
	item->state = ITEM_COPYING;
	t->copy_bytes += record_bytes(e, record_of(e, record));
	t->copy_items[t->n_copy] = i;
	t->copy[t->n_copy++] = (struct engine_copy_item){
		.payload = (uint64_t)unit * UNIT + MODEL_IMAGE_HEADER,
		.pool = item->pool, .part = item->part, .ids = item->ids,
	};
}

/* With the entry pinned, so that making room does not take it away. */
static enum placed place_part(struct engine *e, struct job *job, uint32_t i, uint32_t number)
{
	struct transfer *t = &job->transfer;
	struct item *item = &t->items[i];
	const struct model *model = &e->models[job->model];
	const uint64_t bytes = model->parts[item->part].image_bytes;
	uint32_t record, unit;
	enum room why;

	if (bound_is_dirty(&e->tenants[model->tenant], bytes))
		return refuse(t, item, ROOM_WAIT);
	record = record_make(e, number, item->part);
	if (record == NONE)
		return refuse(t, item, no_entry(e));
	unit = room_arena(e, number, bytes, NONE, &why);
	if (unit == NONE) {
		record_remove(e, record);
		return refuse(t, item, why);
	}
	copy_add(e, job, i, record, unit);
	return PLACED;
}

static enum placed place_item(struct engine *e, struct job *job, uint32_t i)
{
	struct transfer *t = &job->transfer;
	struct item *item = &t->items[i];
	enum placed placed;
	uint32_t number;
	bool changed;

	if (item->state != ITEM_NEW)
		return SETTLED;
	number = index_find(e->index, job->incarnation, &job->keys[item->chunk]);
	if (number != NONE && is_settled(e, item, number))
		return SETTLED;
	if (t->full || e->draining)
		return settle(item, ITEM_REFUSED);
	number = entry_make(e, job, item->chunk);
	if (number == NONE)
		return refuse(t, item, no_entry(e));
	entry_pin(e, number);
	entry_link(e, number);
	placed = place_part(e, job, i, number);
	changed = e->room_changed;
	entry_unpin(e, number);
	e->room_changed = changed;	/* this pin's end makes no room that was not there before */
	return placed;
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

static void copy_start(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	const struct engine_copy copy = {
		.copy = job_number(e, job), .client = job->client, .model = job->model,
		.device = t->device, .store = true,
		.priority = job->priority, .layer_first = 0, .layer_end = t->layer_end,
		.n_items = t->n_copy, .items = t->copy, .failed = t->copy_failed,
	};

	memset(t->copy_failed, 0, t->n_copy);
	job->phase = PHASE_COPY;
	e->ports.copy(e->ports.shell, &copy);
}

static bool round_is_full(const struct transfer *t)
{
	return t->n_copy == t->copy_max || t->n_copy >= ROUND_ITEMS || t->copy_bytes >= ROUND_BYTES;
}

static void elsewhere(struct engine *e, struct job *job);

static void place_some(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	bool wait = false;

	for (uint32_t i = 0; i < ITEMS_A_STEP && t->cursor < t->n_items && !wait && !round_is_full(t); i++) {
		wait = place_item(e, job, t->cursor) == NO_ROOM_YET;
		t->cursor += !wait;
	}
	if (t->n_copy > 0 && (wait || round_is_full(t) || t->cursor == t->n_items)) {
		copy_start(e, job);
	} else if (wait) {
		count(e, STOKER_COUNTER_STORES_WAITED, !t->counted_wait);
		t->counted_wait = true;
		job_wait_room(e, job, false);
	} else if (t->cursor < t->n_items) {
		run_push(e, job, RUN_STORE);
	} else {
		t->chunk = 0;	/* from now on: items below it are not elsewhere */
		job->phase = PHASE_ELSEWHERE;
		elsewhere(e, job);
	}
}

/* All is placed and copied that could be: what others were storing is looked at again. */
static void elsewhere(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	uint32_t left = SCAN_A_STEP;

	for (; t->chunk < t->n_items && (job->flags & STOKER_F_WAIT); t->chunk++) {
		struct item *item = &t->items[t->chunk];
		uint32_t number;

		if (left-- == 0) {
			run_push(e, job, RUN_STORE);
			return;
		}
		if (item->state != ITEM_ELSEWHERE)
			continue;
		number = index_find(e->index, job->incarnation, &job->keys[item->chunk]);
		if (number == NONE || !is_settled(e, item, number)) {
			item->state = ITEM_NEW;		/* it failed there: taken over */
			t->cursor = t->chunk;
			job->phase = PHASE_PLACE;
			run_push(e, job, RUN_STORE);
			return;
		}
		if (item->state == ITEM_ELSEWHERE) {
			job_wait_entry(e, job, number);
			return;
		}
	}
	finish(e, job, STOKER_STATUS_OK);
}

static void checked(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;

	if (job->flags & STOKER_F_READY) {
		job->phase = PHASE_READY;
		e->ports.watch(e->ports.shell, job->client, job->slot, t->ready_index, t->ready_value);
		return;
	}
	job->phase = PHASE_PLACE;
	place_some(e, job);
}

void store_step(struct engine *e, struct job *job)
{
	if (job->phase == PHASE_PLACE) {
		place_some(e, job);
		return;
	}
	if (job->phase == PHASE_ELSEWHERE) {
		elsewhere(e, job);
		return;
	}
	switch (segments_step(e, job)) {
	case SEGMENTS_MORE:
		run_push(e, job, RUN_STORE);
		return;
	case SEGMENTS_BAD:
		job->transfer.n_items = 0;
		memset(job->transfer.ends, 0, job->transfer.chunks * sizeof(uint32_t));
		finish(e, job, STOKER_STATUS_BAD_REQUEST);
		return;
	case SEGMENTS_DONE:
		checked(e, job);
	}
}

/* ---- copies that have ended ----------------------------------------------------------------------------------- */

static void item_stored(struct engine *e, struct item *item)
{
	const uint32_t number = item->record;
	struct record *record = record_of(e, number);
	const uint32_t entry = record->entry;

	e->sides[number].io = NONE;
	/* Who waits for room because of it finds out if it was in vain: its chunk may be in use yet. */
	e->room_changed |= --e->copying == 0;
	record->flags &= (uint8_t)~RECORD_COPYING;
	entry_touch(e, entry);
	record_ready(e, number);
	if (tier_can_write(e))
		record_set_dirty(e, number, true);
	check_seal(e, number);
	count(e, STOKER_COUNTER_STORE_BYTES, entry_model(e, entry_of(e, entry))->parts[item->part].payload_bytes);
	item->record = NONE;
	item->state = ITEM_STORED;
	entry_wake(e, entry);
	entry_io_done(e, entry);
}

void store_copied(struct engine *e, struct job *job, enum engine_result result)
{
	struct transfer *t = &job->transfer;
	bool any = false;

	for (uint32_t i = 0; i < t->n_copy; i++)
		any |= t->copy_failed[i] != 0;
	/* The last chunk first: it is to be the coldest. */
	for (uint32_t i = t->n_copy; i-- > 0;) {
		struct item *item = &t->items[t->copy_items[i]];
		const bool stale = entry_is_stale(e, entry_of(e, record_of(e, item->record)->entry));

		if (stale || t->copy_failed[i] || (result != ENGINE_OK && !any))
			item_drop(e, item, ITEM_FAILED);
		else
			item_stored(e, item);
	}
	t->n_copy = 0;
	t->copy_bytes = 0;
	t->faulted |= result != ENGINE_OK;
	if (job->ending || t->pool_dropped) {
		finish(e, job, job->ending ? job->status : t->pool_dead || t->faulted ? STOKER_STATUS_FAULT
						   : STOKER_STATUS_CANCELLED);
		return;
	}
	job->phase = PHASE_PLACE;
	run_push(e, job, RUN_STORE);
}

void store_stop(struct engine *e, struct job *job, enum stoker_status status)
{
	struct engine_answer answer;

	if (job->ending)
		return;
	if (job->phase == PHASE_COPY) {
		job->ending = true;
		job->status = (uint8_t)status;
		memset(&answer, 0, sizeof(answer));
		answer.status = status;
		job_publish(e, job, STOKER_STAGE_ENDING, &answer);
		e->ports.copy_cancel(e->ports.shell, job->transfer.device, job_number(e, job));
		return;
	}
	if (job->phase == PHASE_READY)
		e->ports.unwatch(e->ports.shell, job->client, job->slot);
	job_leave(e, job);
	if (job->phase == PHASE_CHECK || job->phase == PHASE_SERVE)
		memset(job->transfer.ends, 0, job->transfer.chunks * sizeof(uint32_t));
	finish(e, job, status);
}
