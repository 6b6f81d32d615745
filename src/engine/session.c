/*
 * Sessions: a label that a client puts on its requests, private to it. END_SESSION ends the lookups and
 * leases that bear it; running copies are not touched.
 *
 * Leases are in buckets by (client, session), so that ending a session costs what it held, not what
 * its client holds. It is done in steps.
 */
#include "src/engine/internal.h"

#define LEASES_A_STEP 16u

static uint32_t *bucket_of(struct engine *e, uint32_t client, uint64_t session)
{
	const uint64_t mixed = (session ^ (uint64_t)client << 40 ^ e->config.seed) * 0x9e3779b97f4a7c15ull;

	return &e->session_buckets[(uint32_t)(mixed >> 32) & e->session_mask];
}

void session_link(struct engine *e, uint32_t number)
{
	struct lease *lease = &e->leases[number];
	uint32_t *head;

	if (lease->session == 0)
		return;
	head = bucket_of(e, lease->client, lease->session);
	lease->of_session = (struct link){ .next = *head, .prev = NONE };
	if (*head != NONE)
		e->leases[*head].of_session.prev = number;
	*head = number;
}

void session_unlink(struct engine *e, uint32_t number)
{
	const struct lease *lease = &e->leases[number];

	if (lease->session == 0)
		return;
	if (lease->of_session.prev == NONE)
		*bucket_of(e, lease->client, lease->session) = lease->of_session.next;
	else
		e->leases[lease->of_session.prev].of_session.next = lease->of_session.next;
	if (lease->of_session.next != NONE)
		e->leases[lease->of_session.next].of_session.prev = lease->of_session.prev;
}

/* A lease of that session, or NONE. */
static uint32_t session_lease(struct engine *e, uint32_t client, uint64_t session)
{
	uint32_t number = *bucket_of(e, client, session);

	while (number != NONE && (e->leases[number].client != client || e->leases[number].session != session))
		number = e->leases[number].of_session.next;
	return number;
}

void session_step(struct engine *e, struct job *job)
{
	for (uint32_t i = 0; i < LEASES_A_STEP; i++) {
		const uint32_t lease = session_lease(e, job->client, job->session);

		if (lease == NONE) {
			job_done(e, job, STOKER_STATUS_OK, NULL);
			return;
		}
		lease_end(e, lease);
	}
	run_push(e, job, RUN_LOOKUP);
}

void session_begin(struct engine *e, struct job *job, const struct engine_request *request)
{
	struct job *jobs = &e->jobs[job->client * e->config.slots];

	(void)request;
	if (job->session == 0 || job->flags != 0) {
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
		return;
	}
	for (uint32_t i = 0; i < e->clients[job->client].slots; i++)
		if (jobs[i].phase != PHASE_FREE && jobs[i].op == STOKER_OP_LOOKUP &&
		    jobs[i].session == job->session)
			lookup_stop(e, &jobs[i], STOKER_STATUS_CANCELLED);
	job->phase = PHASE_SESSION;
	session_step(e, job);
}
