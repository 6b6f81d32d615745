/*
 * Holds: one object of a lease, pinned so that its client can read it in the arena. A hold outlives
 * the lease, and ends by UNMAP or with its client. What a client may hold is bounded. A MAP is answered at
 * once, unless there are no random bits for its token: then it waits for them.
 */
#include "src/engine/internal.h"

/* The part of (group, shard), or NONE. */
static uint32_t part_find(const struct model *model, uint32_t group, uint32_t shard)
{
	for (uint32_t i = 0; i < model->n_parts; i++)
		if (model->parts[i].group == group && model->parts[i].shard == shard)
			return i;
	return NONE;
}

static bool may_hold(const struct engine *e, uint32_t client, uint64_t bytes)
{
	const uint64_t arena = (uint64_t)e->config.extents * e->config.extent_bytes;
	const uint64_t most = arena / 1000 * e->config.held_bytes_permille;

	return e->clients[client].held_bytes + bytes <= most && bound_holds(e, client) > 0;
}

static void mapped_answer(struct engine *e, struct job *job, const struct stoker_mapped *mapped,
			  const uint64_t token[2])
{
	struct engine_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.n = 1;
	answer.lease[0] = token[0];
	answer.lease[1] = token[1];
	answer.mapped = mapped;
	job_done(e, job, STOKER_STATUS_OK, &answer);
}

static uint32_t hold_new(struct engine *e, uint32_t client, uint32_t entry, uint32_t record, uint64_t bytes)
{
	const uint32_t number = e->free_hold;
	struct hold *hold = &e->holds[number];
	struct client *owner = &e->clients[client];

	e->free_hold = hold->next;
	e->holds_used++;
	*hold = (struct hold){
		.used = true, .client = client, .entry = entry, .record = record, .next = NONE,
		.version = record_of(e, record)->version, .bytes = bytes,
		.of_client = { .next = owner->holds, .prev = NONE },
	};
	if (owner->holds != NONE)
		e->holds[owner->holds].of_client.prev = number;
	owner->holds = number;
	owner->held_bytes += bytes;
	owner->figures.holds++;
	e->tenants[owner->tenant].holds.used++;
	e->users[owner->user].holds++;
	if (e->sides[record].holds++ == 0 && record_of(e, record)->flags & RECORD_COMMITTED)
		e->ports.held(e->ports.shell, record, true);
	entry_pin(e, entry);
	return number;
}

void hold_end(struct engine *e, uint32_t number)
{
	struct hold *hold = &e->holds[number];
	struct client *owner = &e->clients[hold->client];

	if (hold->of_client.prev == NONE)
		owner->holds = hold->of_client.next;
	else
		e->holds[hold->of_client.prev].of_client.next = hold->of_client.next;
	if (hold->of_client.next != NONE)
		e->holds[hold->of_client.next].of_client.prev = hold->of_client.prev;
	owner->held_bytes -= hold->bytes;
	owner->figures.holds--;
	e->tenants[owner->tenant].holds.used--;
	e->users[owner->user].holds--;
	hold->used = false;
	hold->next = e->free_hold;
	e->free_hold = number;
	e->holds_used--;
	if (--e->sides[hold->record].holds == 0 && record_of(e, hold->record)->flags & RECORD_COMMITTED)
		e->ports.held(e->ports.shell, hold->record, false);
	entry_unpin(e, hold->entry);
}

/* The object that a MAP names, or why there is none. */
static enum stoker_status object_find(struct engine *e, struct job *job, uint32_t *ret_entry, uint32_t *ret_record)
{
	const struct mapping *m = &job->mapping;
	const uint32_t number = lease_find(e, job, m->lease);
	uint32_t part;

	if (number == NONE)
		return STOKER_STATUS_EXPIRED;
	part = part_find(&e->models[e->leases[number].model], m->group, m->shard);
	if (job->flags || part == NONE || m->chunk >= e->leases[number].length)
		return STOKER_STATUS_BAD_REQUEST;
	lease_spell(e, &e->leases[number], m->chunk, 1, ret_entry);
	if (*ret_entry == NONE || !(entry_ready(e, entry_of(e, *ret_entry)) >> part & 1))
		return STOKER_STATUS_NOT_FOUND;
	*ret_record = index_record_find(e->index, *ret_entry, part);
	return STOKER_STATUS_OK;
}

void hold_step(struct engine *e, struct job *job)
{
	struct stoker_mapped mapped;
	uint32_t entry, record, hold;
	enum stoker_status status;
	uint64_t bytes;

	status = object_find(e, job, &entry, &record);
	if (status == STOKER_STATUS_OK) {
		bytes = entry_model(e, entry_of(e, entry))->parts[record_of(e, record)->part].payload_bytes;
		if (e->free_hold == NONE)
			status = STOKER_STATUS_NO_MEMORY;
		else if (!may_hold(e, job->client, bytes))
			status = STOKER_STATUS_REFUSED;
		bound_met(e, status == STOKER_STATUS_REFUSED);
	}
	if (status == STOKER_STATUS_OK && e->n_random < 2) {
		job->phase = PHASE_RANDOM;
		job_wait_random(e, job);
		return;
	}
	if (status != STOKER_STATUS_OK) {
		job_done(e, job, status, NULL);
		return;
	}
	hold = hold_new(e, job->client, entry, record, bytes);
	token_take(e, hold, e->holds[hold].token);
	mapped = (struct stoker_mapped){
		.offset = (uint64_t)record_of(e, record)->place * UNIT + MODEL_IMAGE_HEADER,
		.bytes = bytes,
		.version = e->holds[hold].version,
	};
	mapped_answer(e, job, &mapped, e->holds[hold].token);
}

void hold_map(struct engine *e, struct job *job, const struct engine_request *request)
{
	count(e, STOKER_COUNTER_MAPS, 1);
	job->mapping = (struct mapping){
		.lease = { request->head.lease[0], request->head.lease[1] }, .chunk = request->line.map.chunk,
		.group = request->line.map.group, .shard = request->line.map.shard,
	};
	hold_step(e, job);
}

void hold_unmap(struct engine *e, struct job *job, const struct engine_request *request)
{
	const uint32_t number = (uint32_t)request->head.lease[1];
	struct stoker_mapped mapped;
	struct hold *hold;
	uint64_t token[2];

	if (job->flags) {
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
		return;
	}
	if (number >= e->config.holds || !e->holds[number].used || e->holds[number].client != job->client ||
	    !token_is(e->holds[number].token, request->head.lease)) {
		job_done(e, job, STOKER_STATUS_EXPIRED, NULL);
		return;
	}
	hold = &e->holds[number];
	mapped = (struct stoker_mapped){
		.offset = (uint64_t)record_of(e, hold->record)->place * UNIT + MODEL_IMAGE_HEADER,
		.bytes = hold->bytes,
		.version = record_of(e, hold->record)->version,
		.held = record_of(e, hold->record)->version == hold->version,
	};
	memcpy(token, hold->token, sizeof(token));
	hold_end(e, number);
	mapped_answer(e, job, &mapped, token);
}
