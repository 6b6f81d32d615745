/*
 * Jobs: requests come in, are handed to their operation, and end in exactly one DONE.
 *
 * A job that can be answered at once is answered within engine_request(), and never gets a timer.
 * One that cannot is parked: from then on it has a deadline and is in its model's list. It is in at
 * most one list by each of its two links (run.c). What an honest library cannot send (a slot that is
 * busy, a generation 0) expels the client; what it can send but not get is a bad request.
 */
#include "src/engine/internal.h"

/* ---- answers ---------------------------------------------------------------------------------- */

void job_publish(struct engine *e, struct job *job, enum stoker_stage stage, struct engine_answer *answer)
{
	if (e->clients[job->client].state != CLIENT_LIVE)
		return;
	answer->stage = stage;
	e->ports.publish(e->ports.shell, job->client, job->slot, job->generation, answer);
}

static void count_end(struct engine *e, enum stoker_status status)
{
	if (status == STOKER_STATUS_OK)
		return;
	if (status == STOKER_STATUS_CANCELLED)
		count(e, STOKER_COUNTER_JOBS_CANCELLED, 1);
	else if (status == STOKER_STATUS_DEADLINE)
		count(e, STOKER_COUNTER_JOBS_DEADLINE, 1);
	else if (status == STOKER_STATUS_BAD_REQUEST)
		count(e, STOKER_COUNTER_JOBS_BAD, 1);
	else if (status == STOKER_STATUS_NO_MEMORY)
		count(e, STOKER_COUNTER_JOBS_NO_MEMORY, 1);
}

void job_done(struct engine *e, struct job *job, enum stoker_status status, struct engine_answer *answer)
{
	struct engine_answer nothing;

	ENGINE_ASSERT(job->phase != PHASE_FREE);
	job_leave(e, job);
	job_leave_issue(e, job);
	if (job->parked) {
		clock_job_over(e, job);
		model_unlink(e, job);
	}
	if (!answer) {
		memset(&nothing, 0, sizeof(nothing));
		answer = &nothing;
	}
	answer->status = status;
	count_end(e, status);
	job->phase = PHASE_FREE;
	e->jobs_live--;
	e->clients[job->client].jobs--;
	job_publish(e, job, STOKER_STAGE_DONE, answer);
	if (job->counted)
		model_drained(e, job->model);
	client_job_over(e, job->client);
}

/* ---- requests --------------------------------------------------------------------------------- */

static uint64_t span_of(const struct engine *e, uint32_t deadline_us)
{
	const uint64_t span = deadline_us ? deadline_us * 1000ull : e->config.deadline_default_ns;

	return span < e->config.deadline_max_ns ? span : e->config.deadline_max_ns;
}

static void job_init(struct engine *e, struct job *job, uint32_t client, const struct engine_request *request)
{
	const struct stoker_request_head *head = &request->head;

	memset(job, 0, offsetof(struct job, lookup));
	job->generation = head->generation;
	job->op = head->op;
	job->phase = PHASE_CHECK;
	job->priority = head->priority;
	job->flags = head->flags;
	job->client = client;
	job->slot = head->slot;
	job->model = NONE;
	job->keys_max = request->keys_max;
	job->next_piece = NONE;
	job->session = head->session;
	job->deadline = span_of(e, head->deadline_us);
	job->n_keys = head->n_keys;
	job->n_segments = head->n_segments;
	job->n_ids = head->n_ids;
	job->keys = request->keys;
	job->tokens = request->tokens;
	job->ids = request->ids;
	job->segments = request->segments;
	job->scratch = request->scratch;
	job->scratch_bytes = request->scratch_bytes;
	e->jobs_live++;
	e->clients[client].jobs++;
}

/* Is the request's model one that this client may name? ENGINE_NONE is fine: known by digest alone. */
static bool model_take(struct engine *e, struct job *job, uint32_t model)
{
	if (model == NONE)
		return true;
	if (model >= e->models_max || !e->models[model].open || e->models[model].closing ||
	    e->models[model].tenant != e->clients[job->client].tenant)
		return false;
	job->model = model;
	job->incarnation = e->models[model].incarnation;
	return true;
}

static void dispatch(struct engine *e, struct job *job, const struct engine_request *request)
{
	switch (job->op) {
	case STOKER_OP_LOOKUP:
		lookup_begin(e, job, request);
		return;
	case STOKER_OP_LOOKUP_MORE:
		lookup_more(e, job, request);
		return;
	case STOKER_OP_RETRIEVE:
		retrieve_begin(e, job, request);
		return;
	case STOKER_OP_STORE:
		store_begin(e, job, request);
		return;
	case STOKER_OP_RELEASE:
		lease_release(e, job, request);
		return;
	case STOKER_OP_MAP:
		hold_map(e, job, request);
		return;
	case STOKER_OP_UNMAP:
		hold_unmap(e, job, request);
		return;
	case STOKER_OP_END_SESSION:
		session_begin(e, job, request);
		return;
	case STOKER_OP_PING:
		count(e, STOKER_COUNTER_PINGS, 1);
		job_done(e, job, STOKER_STATUS_OK, NULL);
		return;
	default:
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
	}
}

void job_park(struct engine *e, struct job *job)
{
	struct engine_answer answer;

	job->parked = true;
	model_link(e, job);
	clock_job(e, job, job->deadline);
	if (job->op == STOKER_OP_LOOKUP && job->lookup.announced)
		return;
	memset(&answer, 0, sizeof(answer));
	job_publish(e, job, STOKER_STAGE_ACCEPTED, &answer);
}

void engine_request(struct engine *e, uint32_t number, const struct engine_request *request)
{
	const struct stoker_request_head *head = &request->head;
	struct client *client = &e->clients[number];
	struct job *job;

	ENGINE_ASSERT(number < e->config.clients);
	if (client->state != CLIENT_LIVE)
		return;
	if (head->slot >= client->slots || head->generation == 0) {
		e->ports.expel(e->ports.shell, number, "a request names a slot or a generation that does not exist");
		return;
	}
	job = &e->jobs[number * e->config.slots + head->slot];
	if (job->phase != PHASE_FREE) {
		e->ports.expel(e->ports.shell, number, "a request came for a slot whose job still lives");
		return;
	}
	job_init(e, job, number, request);
	if (head->priority >= PRIORITIES || !model_take(e, job, request->model)) {
		job->priority = 0;
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
		return;
	}
	dispatch(e, job, request);
	if (job->phase != PHASE_FREE && job->phase != PHASE_PIECE)
		job_park(e, job);
}

/* ---- later -------------------------------------------------------------------------------------- */

void job_step(struct engine *e, struct job *job)
{
	switch (job->op) {
	case STOKER_OP_LOOKUP:
		lookup_step(e, job);
		return;
	case STOKER_OP_RETRIEVE:
		retrieve_step(e, job);
		return;
	case STOKER_OP_STORE:
		store_step(e, job);
		return;
	case STOKER_OP_MAP:
		hold_step(e, job);
		return;
	default:
		ENGINE_ASSERT(job->op == STOKER_OP_END_SESSION);
		session_step(e, job);
	}
}

void job_stop(struct engine *e, struct job *job, enum stoker_status status)
{
	switch (job->op) {
	case STOKER_OP_LOOKUP:
		lookup_stop(e, job, status);
		return;
	case STOKER_OP_LOOKUP_MORE:
		return;		/* it ends with its head, at the latest */
	case STOKER_OP_RETRIEVE:
		retrieve_stop(e, job, status);
		return;
	case STOKER_OP_STORE:
		store_stop(e, job, status);
		return;
	default:
		job_done(e, job, status, NULL);
	}
}

void engine_cancel(struct engine *e, uint32_t client, uint32_t slot, uint32_t generation)
{
	struct job *job;

	ENGINE_ASSERT(client < e->config.clients);
	if (e->clients[client].state != CLIENT_LIVE || slot >= e->clients[client].slots)
		return;
	job = &e->jobs[client * e->config.slots + slot];
	if (job->phase != PHASE_FREE && job->generation == generation)
		job_stop(e, job, STOKER_STATUS_CANCELLED);
}

void engine_ready(struct engine *e, uint32_t client, uint32_t slot)
{
	struct job *job = &e->jobs[client * e->config.slots + slot];

	ENGINE_ASSERT(client < e->config.clients && slot < e->config.slots);
	if (job->phase != PHASE_READY)
		return;		/* the watch had ended: the word was reached at that instant */
	job->phase = PHASE_PLACE;
	run_push(e, job, job->op == STOKER_OP_STORE ? RUN_STORE : RUN_RETRIEVE);
}

static struct job *job_of_copy(struct engine *e, uint32_t copy)
{
	ENGINE_ASSERT(copy < e->n_jobs && e->jobs[copy].phase == PHASE_COPY);
	return &e->jobs[copy];
}

void engine_copy_progress(struct engine *e, uint32_t copy, uint32_t layers)
{
	struct job *job = job_of_copy(e, copy);
	struct engine_answer answer;

	if (job->op != STOKER_OP_RETRIEVE || job->ending || job->transfer.lacking ||
	    layers <= job->transfer.layers)
		return;
	job->transfer.layers = layers;
	memset(&answer, 0, sizeof(answer));
	answer.layers = layers;
	job_publish(e, job, STOKER_STAGE_LOADING, &answer);
}

void engine_copy_done(struct engine *e, uint32_t copy, enum engine_result result)
{
	struct job *job = job_of_copy(e, copy);

	if (job->op == STOKER_OP_RETRIEVE)
		retrieve_copied(e, job, result);
	else
		store_copied(e, job, result);
}
