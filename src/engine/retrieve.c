/*
 * RETRIEVE: leased chunks into blocks of pools.
 *
 *	begin -> CHECK (segments) -> READY (its ready word) -> PLACE (items are looked up) -> COPY -> done
 *
 * The job pins the chunks that it names from its beginning, so that the lease may end meanwhile. All
 * of it is one copy. Until that is handed to the backend, cancel and deadline end the job at once;
 * afterwards they ask the backend to start nothing more, tell the status (ENDING), and DONE follows
 * when the backend has let go of the pools.
 */
#include "src/engine/internal.h"

#define ITEMS_A_STEP 1024u

/* ---- begin ------------------------------------------------------------------------------------------ */

static bool is_bad(const struct engine *e, const struct job *job, const struct engine_request *request)
{
	const struct model *model = &e->models[job->model];

	if ((job->flags & ~(STOKER_F_END_SHARE | STOKER_F_READY)) || job->n_keys)
		return true;
	for (int i = 0; i < 11; i++)
		if (request->line.retrieve.reserved[i])
			return true;
	return request->line.retrieve.reader > 63 || request->line.retrieve.layer_first >= model->layers;
}

static void line_take(const struct engine *e, struct job *job, const struct engine_request *request)
{
	struct transfer *t = &job->transfer;
	const uint32_t layers = e->models[job->model].layers;
	const uint32_t first = request->line.retrieve.layer_first, n = request->line.retrieve.layer_count;

	memset(t, 0, sizeof(*t));
	t->layer_first = first;
	t->layer_end = n == 0 || n > layers - first ? layers : first + n;
	t->reader = request->line.retrieve.reader;
	t->ready_index = request->line.retrieve.ready_index;
	t->ready_value = request->line.retrieve.ready_value;
	t->token[0] = request->head.lease[0];
	t->token[1] = request->head.lease[1];
}

/* Pin what the lease has of the chunks that segments name. */
static void pin_chunks(struct engine *e, struct job *job, const struct lease *lease)
{
	struct transfer *t = &job->transfer;

	lease_spell(e, lease, t->first, t->chunks, t->entries);
	for (uint32_t c = 0; c < t->chunks; c++)
		if (t->entries[c] != NONE)
			entry_pin(e, t->entries[c]);
}

static enum stoker_status accept(struct engine *e, struct job *job, const struct engine_request *request)
{
	uint32_t lease;
	enum stoker_status status;

	if (job->model == NONE)
		return STOKER_STATUS_NO_LAYOUT;
	if (is_bad(e, job, request))
		return STOKER_STATUS_BAD_REQUEST;
	line_take(e, job, request);
	lease = lease_find(e, job, request->head.lease);
	if (lease == NONE || !(e->leases[lease].readers >> job->transfer.reader & 1))
		return STOKER_STATUS_EXPIRED;
	if (e->leases[lease].model != job->model)
		return STOKER_STATUS_BAD_REQUEST;
	status = segments_begin(e, job, e->leases[lease].length);
	if (status == STOKER_STATUS_OK)
		pin_chunks(e, job, &e->leases[lease]);
	return status;
}

void retrieve_begin(struct engine *e, struct job *job, const struct engine_request *request)
{
	enum stoker_status status;

	count(e, STOKER_COUNTER_RETRIEVES, 1);
	e->clients[job->client].figures.retrieves++;
	status = accept(e, job, request);
	if (status != STOKER_STATUS_OK) {
		job_done(e, job, status, NULL);
		return;
	}
	job->phase = PHASE_CHECK;
	retrieve_step(e, job);
}

/* ---- the end ------------------------------------------------------------------------------------------- */

static void finish(struct engine *e, struct job *job, enum stoker_status status)
{
	struct transfer *t = &job->transfer;
	struct engine_answer answer;
	uint32_t lease;

	memset(&answer, 0, sizeof(answer));
	for (uint32_t c = t->chunks; c-- > 0;) {
		if (t->entries[c] != NONE)
			entry_unpin(e, t->entries[c]);
		answer.n += t->statuses[c] == STOKER_CHUNK_RETRIEVED;
		answer.counts[0] += t->statuses[c] == STOKER_CHUNK_FAILED;
	}
	segments_end(e, job);
	if (job->flags & STOKER_F_END_SHARE) {
		lease = lease_find(e, job, t->token);
		if (lease != NONE)
			lease_return(e, lease, t->reader);
	}
	answer.layers = t->layers;
	answer.n_chunks = t->chunks;
	answer.chunks = t->statuses;
	count(e, STOKER_COUNTER_CHUNKS_RETRIEVED, answer.n);
	answer.measured = 1 + STOKER_HISTOGRAM_RETRIEVE_NS;
	job_done(e, job, status, &answer);
}

static void mark_all(struct job *job, enum stoker_chunk status)
{
	struct transfer *t = &job->transfer;

	for (uint32_t c = 0; c < t->chunks; c++)
		if (t->given[c])
			t->statuses[c] = (uint8_t)status;
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

/* Payload bytes of a part in the range of layers, about: layers of a part are alike. */
static uint64_t range_bytes(const struct transfer *t, const struct engine_part_config *part)
{
	const uint32_t end = t->layer_end < part->layers ? t->layer_end : part->layers;

	if (t->layer_first >= end)
		return 0;
	return part->payload_bytes / part->layers * (end - t->layer_first);
}

/* The items of a chunk: those that are in the arena are entered into the copy, in the items' own room. */
static void chunk_look_up(struct engine *e, struct job *job, uint32_t chunk)
{
	struct transfer *t = &job->transfer;
	const struct model *model = &e->models[job->model];
	const uint32_t number = t->entries[chunk];
	uint32_t records[STOKER_PARTS_MAX];
	uint64_t ready = 0;

	if (number != NONE) {
		ready = entry_ready(e, entry_of(e, number));
		for (uint32_t r = entry_of(e, number)->records; r != NONE; r = record_of(e, r)->next)
			records[record_of(e, r)->part] = r;
	}
	for (; t->cursor < t->ends[chunk]; t->cursor++) {
		const struct record *record;
		struct item item;

		memcpy(&item, &t->items[t->cursor], sizeof(item));	/* its room may be written next */
		if (!(ready >> item.part & 1)) {
			t->statuses[chunk] = STOKER_CHUNK_FAILED;
			t->lacking = true;
			continue;
		}
		record = record_of(e, records[item.part]);
		space_touch(e->space, record->place, e->uses);
		t->copy_bytes += range_bytes(t, &model->parts[item.part]);
		t->copy_items[t->n_copy] = chunk;
		t->copy[t->n_copy++] = (struct engine_copy_item){
			.payload = (uint64_t)record->place * UNIT + MODEL_IMAGE_HEADER,
			.pool = item.pool, .part = item.part, .ids = item.ids,
		};
	}
}

static void copy_start(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	const struct engine_copy copy = {
		.copy = job_number(e, job), .client = job->client, .model = job->model,
		.device = t->device, .store = false,
		.priority = job->priority, .layer_first = t->layer_first, .layer_end = t->layer_end,
		.n_items = t->n_copy, .items = t->copy, .failed = t->copy_failed,
	};

	if (t->n_copy == 0) {
		finish(e, job, STOKER_STATUS_OK);
		return;
	}
	memset(t->copy_failed, 0, t->n_copy);
	job->phase = PHASE_COPY;
	e->ports.copy(e->ports.shell, &copy);
}

static void look_up_some(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;
	const uint32_t begin = t->cursor;

	while (t->chunk < t->chunks && t->cursor - begin < ITEMS_A_STEP)
		chunk_look_up(e, job, t->chunk++);
	if (t->chunk < t->chunks)
		run_push(e, job, RUN_RETRIEVE);
	else
		copy_start(e, job);
}

static void checked(struct engine *e, struct job *job)
{
	struct transfer *t = &job->transfer;

	t->chunk = 0;
	mark_all(job, STOKER_CHUNK_RETRIEVED);	/* each, unless an item of it turns out otherwise */
	if (job->flags & STOKER_F_READY) {
		job->phase = PHASE_READY;
		e->ports.watch(e->ports.shell, job->client, job->slot, t->ready_index, t->ready_value);
		return;
	}
	job->phase = PHASE_PLACE;
	look_up_some(e, job);
}

void retrieve_step(struct engine *e, struct job *job)
{
	if (job->phase == PHASE_PLACE) {
		look_up_some(e, job);
		return;
	}
	switch (segments_step(e, job)) {
	case SEGMENTS_MORE:
		run_push(e, job, RUN_RETRIEVE);
		return;
	case SEGMENTS_BAD:
		mark_all(job, STOKER_CHUNK_NONE);
		finish(e, job, STOKER_STATUS_BAD_REQUEST);
		return;
	case SEGMENTS_DONE:
		checked(e, job);
	}
}

void retrieve_copied(struct engine *e, struct job *job, enum engine_result result)
{
	struct transfer *t = &job->transfer;
	bool failed = false;

	for (uint32_t i = 0; i < t->n_copy; i++)
		if (t->copy_failed[i]) {
			t->statuses[t->copy_items[i]] = STOKER_CHUNK_FAILED;
			failed = true;
		}
	if (result != ENGINE_OK && !failed)	/* it does not say which: none can be relied on */
		mark_all(job, STOKER_CHUNK_FAILED);
	if (result == ENGINE_OK && !job->ending && !t->lacking)
		t->layers = t->layer_end - t->layer_first;
	count(e, STOKER_COUNTER_LOAD_BYTES, result == ENGINE_OK ? t->copy_bytes : 0);
	if (job->ending)
		finish(e, job, job->status);
	else
		finish(e, job, result == ENGINE_OK ? STOKER_STATUS_OK : STOKER_STATUS_FAULT);
}

void retrieve_stop(struct engine *e, struct job *job, enum stoker_status status)
{
	struct engine_answer answer;

	if (job->ending)
		return;
	if (job->phase == PHASE_COPY) {
		job->ending = true;
		job->status = (uint8_t)status;
		memset(&answer, 0, sizeof(answer));
		answer.status = status;
		answer.layers = job->transfer.layers;
		job_publish(e, job, STOKER_STAGE_ENDING, &answer);
		e->ports.copy_cancel(e->ports.shell, job->transfer.device, job_number(e, job));
		return;
	}
	if (job->phase == PHASE_READY)
		e->ports.unwatch(e->ports.shell, job->client, job->slot);
	mark_all(job, STOKER_CHUNK_CANCELLED);
	finish(e, job, status);
}
