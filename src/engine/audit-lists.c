/*
 * The part of engine_audit() that looks at jobs, leases, holds, clients, pools and models: every list is
 * walked, every count is made again.
 */
#include "src/engine/audit.h"

/* ---- lists of jobs ------------------------------------------------------------------------------- */

static const char *node_audit(const struct engine *e, uint32_t run, uint32_t priority, uint32_t client, uint32_t *n)
{
	const struct run_node *node = &e->runs[run].nodes[priority * e->config.clients + client];
	const bool issue = run >= RUN_ISSUE;
	uint32_t before = NONE;

	for (uint32_t number = node->first - 1; number != NONE;) {
		const struct job *job = &e->jobs[number];
		const struct link link = issue ? job->issue : job->link;

		if (job->phase == PHASE_FREE || job->client != client || job->priority != priority ||
		    link.prev != before || (issue ? job->issuing : job->where) != WHERE_RUN ||
		    (issue ? job->issue_run : job->run) != run || ++*n > e->n_jobs)
			return "a run queue is broken";
		before = number;
		number = link.next;
	}
	return node->last - 1 == before ? NULL : "a run queue has lost its end";
}

static const char *runs_audit(const struct engine *e, uint32_t *ret_main, uint32_t *ret_issue)
{
	for (uint32_t run = 0; run < RUN_ISSUE + 1 + e->config.n_tiers; run++)
		for (uint32_t p = 0; p < PRIORITIES; p++) {
			uint32_t clients = 0, ring = 0;

			for (uint32_t c = 0; c < e->config.clients; c++) {
				const char *broken = node_audit(e, run, p, c, run < RUN_ISSUE ? ret_main : ret_issue);

				if (broken)
					return broken;
				clients += e->runs[run].nodes[p * e->config.clients + c].first != 0;
			}
			if ((clients > 0) != (e->runs[run].levels >> p & 1))
				return "a run queue does not know its levels";
			for (uint32_t c = e->runs[run].first[p]; clients > 0;) {
				c = e->runs[run].nodes[p * e->config.clients + c].ring.next;
				if (++ring > clients)
					return "a run queue's ring is broken";
				if (c == e->runs[run].first[p])
					break;
			}
			if (ring != clients)
				return "a run queue's ring has lost a client";
		}
	return NULL;
}

static const char *list_audit(const struct engine *e, const struct list *list, enum where where, bool issue)
{
	uint32_t n = 0, before = NONE;

	for (uint32_t number = list->first; number != NONE;) {
		const struct job *job = &e->jobs[number];
		const struct link link = issue ? job->issue : job->link;

		if (job->phase == PHASE_FREE || (issue ? job->issuing : job->where) != where ||
		    link.prev != before || ++n > list->n)
			return "a list of waiting jobs is broken";
		before = number;
		number = link.next;
	}
	return n == list->n && before == list->last ? NULL : "a list of waiting jobs is miscounted";
}

static const char *waiters_audit(struct engine *e, uint32_t *n)
{
	for (uint32_t i = index_next(e->index, NONE); i != NONE; i = index_next(e->index, i)) {
		uint32_t before = NONE;

		for (uint32_t number = e->waiters[i] - 1; number != NONE; number = e->jobs[number].link.next) {
			const struct job *job = &e->jobs[number];

			if (job->phase == PHASE_FREE || job->where != WHERE_ENTRY || job->entry != i ||
			    job->link.prev != before || ++*n > e->n_jobs)
				return "a list of jobs that wait for a fill is broken";
			if (entry_of(e, i)->io == 0 && entry_of(e, i)->filling == 0 &&
			    !(entry_of(e, i)->tokens & TOKENS_UNVERIFIED))
				return "a job waits for a fill that is not under way";
			before = number;
		}
	}
	return NULL;
}

/* A job that nothing will ever wake? */
static const char *job_audit(const struct engine *e, const struct job *job)
{
	if (job->client != job_number(e, job) / e->config.slots || job->slot != job_number(e, job) % e->config.slots)
		return "a job does not know its place";
	if (e->clients[job->client].state == CLIENT_FREE)
		return "a job lives without its client";
	switch (job->phase) {
	case PHASE_PROBE:
	case PHASE_CHECK:
	case PHASE_SESSION:
		return job->where == WHERE_RUN ? NULL : "a job that has work is in no run queue";
	case PHASE_PLACE:
		return job->where == WHERE_RUN || job->where == WHERE_ROOM ? NULL : "a store is in no list";
	case PHASE_LOAD:
		return job->where != WHERE_NOWHERE || job->issuing != WHERE_NOWHERE ? NULL
			: "a load waits for nothing";
	case PHASE_RANDOM:
		return job->where != WHERE_NOWHERE ? NULL : "a lookup waits for nothing";
	case PHASE_ELSEWHERE:
		return job->where == WHERE_ENTRY || job->where == WHERE_RUN ? NULL : "a store waits for nothing";
	default:
		return job->where == WHERE_NOWHERE ? NULL : "a job that waits for an event is in a list";
	}
}

static const char *jobs_audit(struct engine *e)
{
	uint32_t runs = 0, issues = 0, waits = 0, live = 0, main_links = 0, issue_links = 0, stores = 0;
	const char *broken = runs_audit(e, &runs, &issues);

	if (!broken)
		broken = list_audit(e, &e->room_waiters, WHERE_ROOM, false);
	if (!broken)
		broken = list_audit(e, &e->room_loads, WHERE_ROOM, true);
	if (!broken)
		broken = list_audit(e, &e->random_waiters, WHERE_RANDOM, false);
	if (!broken)
		broken = waiters_audit(e, &waits);
	for (uint32_t i = 0; i < e->n_jobs && !broken; i++) {
		const struct job *job = &e->jobs[i];

		if (job->phase == PHASE_FREE)
			continue;
		live++;
		main_links += job->where != WHERE_NOWHERE;
		issue_links += job->issuing != WHERE_NOWHERE;
		stores += job->op == STOKER_OP_STORE;
		broken = job_audit(e, job);
	}
	if (broken)
		return broken;
	if (live != e->jobs_live || stores != e->stores)
		return "live jobs are miscounted";
	if (main_links != runs + waits + e->room_waiters.n + e->random_waiters.n ||
	    issue_links != issues + e->room_loads.n)
		return "a job believes to be in a list that does not have it";
	return NULL;
}

/* ---- leases, clients, pools, models ------------------------------------------------------------------ */

static const char *leases_audit(const struct engine *e)
{
	uint32_t used = 0, taken = e->recovered.n;

	for (uint32_t i = 0; i < e->config.leases; i++) {
		const struct lease *lease = &e->leases[i];

		if (!lease->used)
			continue;
		used++;
		taken += lease->chunks.n;
		if (lease->readers == 0 || (uint32_t)lease->token[1] != i)
			return "a lease without readers lives";
		if (e->clients[lease->client].state == CLIENT_FREE)
			return "a lease lives without its client";
		if (!lease->fresh && lease->expires + 1000000000ull < e->now)
			return "a lease has outlived its expiry";
	}
	for (uint32_t piece = e->drop_piece; piece != NONE; piece = e->pieces[piece].before)
		taken += PIECE_CHUNKS;
	for (uint32_t i = 0; i < e->n_jobs; i++)
		if (e->jobs[i].phase != PHASE_FREE && e->jobs[i].op == STOKER_OP_LOOKUP)
			taken += e->jobs[i].lookup.reserved;
	if (used != e->leases_used)
		return "leases are miscounted";
	return taken == e->chunks_taken ? NULL : "leased chunks are miscounted";
}

static const char *client_audit(const struct engine *e, uint32_t number)
{
	const struct client *client = &e->clients[number];
	uint32_t leases = 0, holds = 0, pools = 0, jobs = 0;
	uint64_t held = 0;

	for (uint32_t i = client->leases; i != NONE; i = e->leases[i].of_client.next, leases++)
		if (!e->leases[i].used || e->leases[i].client != number || leases > e->leases_used)
			return "a client's list of leases is broken";
	for (uint32_t i = client->holds; i != NONE; i = e->holds[i].of_client.next, holds++) {
		if (!e->holds[i].used || e->holds[i].client != number || holds > e->holds_used)
			return "a client's list of holds is broken";
		held += e->holds[i].bytes;
	}
	for (uint32_t i = client->pools; i != NONE; i = e->pools[i].of_client.next, pools++)
		if (!e->pools[i].used || e->pools[i].client != number || pools > e->pools_used)
			return "a client's list of pools is broken";
	for (uint32_t i = 0; i < e->config.slots; i++)
		jobs += e->jobs[number * e->config.slots + i].phase != PHASE_FREE;
	if (leases != client->figures.leases || holds != client->figures.holds || pools != client->figures.pools ||
	    jobs != client->jobs || held != client->held_bytes)
		return "what a client has is miscounted";
	return client->state == CLIENT_LEAVING && jobs == 0 && leases == 0 && client->chunks == 0 ? "a client has left and is not told so" : NULL;
}

static const char *pools_audit(const struct engine *e)
{
	for (uint32_t p = 0; p < e->config.pools; p++) {
		uint32_t users = 0;

		if (!e->pools[p].used)
			continue;
		for (uint32_t i = 0; i < e->config.slots; i++) {
			const struct job *job = &e->jobs[e->pools[p].client * e->config.slots + i];

			if (job->phase == PHASE_FREE ||
			    (job->op != STOKER_OP_RETRIEVE && job->op != STOKER_OP_STORE) || !job->transfer.in_use)
				continue;
			for (uint32_t s = 0; s < job->n_segments; s++)
				users += job->transfer.pools[s] == p;
		}
		if (users != e->pools[p].users)
			return "a pool's users are miscounted";
		if (e->pools[p].dropping && users == 0)
			return "a pool that is to go stays though nobody uses it";
	}
	return NULL;
}

static const char *models_audit(const struct engine *e)
{
	for (uint32_t m = 0; m < e->models_max; m++) {
		uint32_t counted = 0, n = 0;

		for (uint32_t i = e->models[m].jobs; i != NONE; i = e->jobs[i].of_model.next) {
			if (e->jobs[i].phase == PHASE_FREE || e->jobs[i].model != m || ++n > e->n_jobs)
				return "a model's list of jobs is broken";
			counted += e->jobs[i].counted;
			if (e->jobs[i].incarnation != e->models[m].incarnation && !e->jobs[i].counted)
				return "a job of an older epoch goes on";
		}
		if (counted != e->models[m].draining)
			return "jobs of older epochs are miscounted";
	}
	return NULL;
}

/* What lookups have still to ask for: who asks how long theirs will take is told by the sum. */
static const char *loads_audit(const struct engine *e)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < e->n_jobs; i++)
		if (e->jobs[i].phase != PHASE_FREE && e->jobs[i].op == STOKER_OP_LOOKUP)
			bytes += e->jobs[i].lookup.load_bytes;
	return bytes == e->load_bytes ? NULL : "bytes that lookups have still to ask for are miscounted";
}

const char *lists_audit(struct engine *e)
{
	const char *broken = jobs_audit(e);

	if (!broken)
		broken = loads_audit(e);

	if (!broken)
		broken = leases_audit(e);
	for (uint32_t i = 0; i < e->config.clients && !broken; i++)
		if (e->clients[i].state != CLIENT_FREE)
			broken = client_audit(e, i);
	if (!broken)
		broken = pools_audit(e);
	return broken ? broken : models_audit(e);
}
