/*
 * What ends by the clock: deadlines of jobs, expiries of leases, the hold on recovered objects.
 *
 * The engine hears of time only in its turns. What comes between two turns would be counted from the
 * earlier one, which may be long ago if there was nothing to do; so it is kept as a span until the
 * next turn (fresh), and ends that much after it. Nothing ends early.
 */
#include "src/engine/internal.h"

#define TIMERS_A_TURN 64u

/* ---- fresh ones ---------------------------------------------------------------------------------- */

void clock_job(struct engine *e, struct job *job, uint64_t span)
{
	const uint32_t number = job_number(e, job);

	if (e->in_turn) {
		job->deadline = e->now + span;
		timers_set(e->timers, number, job->deadline);
		return;
	}
	job->deadline = span;
	job->fresh = true;
	job->of_fresh = (struct link){ .next = e->fresh_jobs, .prev = NONE };
	if (e->fresh_jobs != NONE)
		e->jobs[e->fresh_jobs].of_fresh.prev = number;
	e->fresh_jobs = number;
}

static void job_unfresh(struct engine *e, struct job *job)
{
	if (job->of_fresh.prev == NONE)
		e->fresh_jobs = job->of_fresh.next;
	else
		e->jobs[job->of_fresh.prev].of_fresh.next = job->of_fresh.next;
	if (job->of_fresh.next != NONE)
		e->jobs[job->of_fresh.next].of_fresh.prev = job->of_fresh.prev;
	job->fresh = false;
}

void clock_job_over(struct engine *e, struct job *job)
{
	if (job->fresh)
		job_unfresh(e, job);
	else
		timers_clear(e->timers, job_number(e, job));
}

static void lease_unfresh(struct engine *e, struct lease *lease)
{
	if (lease->of_fresh.prev == NONE)
		e->fresh_leases = lease->of_fresh.next;
	else
		e->leases[lease->of_fresh.prev].of_fresh.next = lease->of_fresh.next;
	if (lease->of_fresh.next != NONE)
		e->leases[lease->of_fresh.next].of_fresh.prev = lease->of_fresh.prev;
	lease->fresh = false;
}

void clock_lease_over(struct engine *e, uint32_t number)
{
	struct lease *lease = &e->leases[number];

	if (lease->fresh)
		lease_unfresh(e, lease);
	else if (lease->expires)
		timers_clear(e->timers, timer_of_lease(e, number));
	lease->expires = 0;
}

/* A new lease, or a new time for an old one. */
void clock_lease(struct engine *e, uint32_t number, uint64_t span)
{
	struct lease *lease = &e->leases[number];

	clock_lease_over(e, number);
	if (e->in_turn) {
		lease->expires = e->now + span;
		timers_set(e->timers, timer_of_lease(e, number), lease->expires);
		return;
	}
	lease->expires = span;
	lease->fresh = true;
	lease->of_fresh = (struct link){ .next = e->fresh_leases, .prev = NONE };
	if (e->fresh_leases != NONE)
		e->leases[e->fresh_leases].of_fresh.prev = number;
	e->fresh_leases = number;
}

/* It is known now when they came, at the latest. */
static void fresh_arm(struct engine *e)
{
	while (e->fresh_jobs != NONE) {
		struct job *job = &e->jobs[e->fresh_jobs];

		job_unfresh(e, job);
		job->deadline += e->now;
		timers_set(e->timers, job_number(e, job), job->deadline);
	}
	while (e->fresh_leases != NONE) {
		const uint32_t number = e->fresh_leases;

		lease_unfresh(e, &e->leases[number]);
		e->leases[number].expires += e->now;
		timers_set(e->timers, timer_of_lease(e, number), e->leases[number].expires);
	}
}

/* ---- time ------------------------------------------------------------------------------------------ */

void clock_set(struct engine *e, uint64_t now_ns)
{
	if (!e->clocked) {
		e->clocked = true;
		e->now = now_ns;
		e->timers = timers_init(e->timers, e->n_jobs + e->config.leases + 1, now_ns);
	} else if (now_ns > e->now) {
		e->now = now_ns;
	}
	fresh_arm(e);
}

void engine_clock(struct engine *engine, uint64_t now_ns)
{
	clock_set(engine, now_ns);
}

static void timer_fired(struct engine *e, uint32_t timer)
{
	if (timer < e->n_jobs) {
		job_stop(e, &e->jobs[timer], STOKER_STATUS_DEADLINE);
	} else if (timer == timer_of_recovery(e)) {
		chunks_end(e, &e->recovered);
	} else {
		count(e, STOKER_COUNTER_LEASES_EXPIRED, 1);
		lease_end(e, timer - e->n_jobs);
	}
}

bool clock_run(struct engine *e)
{
	for (uint32_t i = 0; i < TIMERS_A_TURN; i++) {
		const uint32_t timer = timers_advance(e->timers, e->now);

		if (timer == NONE)
			return false;
		timer_fired(e, timer);
	}
	return true;
}

uint64_t engine_deadline(const struct engine *engine)
{
	if (engine->fresh_jobs != NONE || engine->fresh_leases != NONE)
		return engine->now;
	return engine->clocked ? timers_next(engine->timers) : UINT64_MAX;
}
