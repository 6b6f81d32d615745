/*
 * What cannot be seen from outside: whose turn it is. The linker leads the engine's calls of job_step(),
 * load_issue(), tier_raise() and entry_leave_arena() through here (--wrap). Each job that is served is compared
 * with those that wait:
 * - none of its class waits with a more urgent priority;
 * - of its class and priority, no client waits that was passed over by the same other one before;
 * - no class of jobs is passed over by more than a round or two of the others;
 * - a turn serves a bounded number, and one that leaves some over says so.
 * Reads begin in the order of their priorities, which are those of the most urgent lookups that wait for them. And
 * what is evicted for room is on a tier, or no tier will have it.
 */
#include "src/engine/internal.h"
#include "tests/simulation/sim.h"

#define PASSES_MAX	1u	/* of a client by another one */
#define SKIPS_MAX	12u	/* of a class: two rounds, each with all that the others may have */

struct sim_inside {
	uint32_t steps, issues;		/* in this turn */
	uint32_t skips[RUN_ISSUE];
	/* By run queue, priority and client: its first job, as last seen, and how often others were served since. */
	struct { uint32_t first, generation; uint8_t passes[SIM_CLIENTS]; } waits[RUNS][PRIORITIES][SIM_CLIENTS];
};

void __real_job_step(struct engine *e, struct job *job);
void __real_load_issue(struct engine *e, struct job *job, uint32_t bit);
void __real_tier_raise(struct engine *e, uint32_t record, uint32_t priority);
void __wrap_job_step(struct engine *e, struct job *job);
void __wrap_load_issue(struct engine *e, struct job *job, uint32_t bit);
void __wrap_tier_raise(struct engine *e, uint32_t record, uint32_t priority);
uint64_t __real_entry_leave_arena(struct engine *e, uint32_t entry, bool ghost);
uint64_t __wrap_entry_leave_arena(struct engine *e, uint32_t entry, bool ghost);

void inside_make(struct sim *sim)
{
	if (!sim->inside)
		sim->inside = malloc(sizeof(*sim->inside));
	memset(sim->inside, 0, sizeof(*sim->inside));
}

void inside_free(struct sim *sim)
{
	free(sim->inside);
}

/* ---- turns ------------------------------------------------------------------------------------- */

/* @job leaves the line of run queue @run: who else stands there? */
static void served(struct sim *sim, const struct job *job, uint32_t run)
{
	const struct run_queue *queue = &sim->engine->runs[run];
	const uint32_t priority = job->priority, urgent = queue->levels & ((1u << priority) - 1);

	if (urgent)
		sim_fail(sim, "a job of priority %u is served while one of priority %d waits in run %u", priority,
			 __builtin_ctz(urgent), run);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		const uint32_t first = queue->nodes[priority * sim->config.clients + c].first;
		const uint32_t generation = first ? sim->engine->jobs[first - 1].generation : 0;
		uint8_t *passes = sim->inside->waits[run][priority][c].passes;

		if (c == job->client || sim->inside->waits[run][priority][c].first != first ||
		    sim->inside->waits[run][priority][c].generation != generation) {
			memset(passes, 0, SIM_CLIENTS);
			sim->inside->waits[run][priority][c].first = first;
			sim->inside->waits[run][priority][c].generation = generation;
		}
		if (c == job->client || first == 0)
			continue;
		sim_reach(sim, SIM_REACH_TURNS);
		if (++passes[job->client] > PASSES_MAX)
			sim_fail(sim, "client %u waits in run %u and was passed over by client %u %u times", c, run,
				 job->client, passes[job->client]);
	}
}

static void class_served(struct sim *sim, uint32_t run)
{
	for (uint32_t other = 0; other < RUN_ISSUE; other++) {
		uint32_t *skips = &sim->inside->skips[other];

		*skips = other == run || run_is_empty(sim->engine, other) ? 0 : *skips + 1;
		if (*skips > SKIPS_MAX)
			sim_fail(sim, "jobs wait in run %u while %u of other runs were served", other, *skips);
	}
}

void __wrap_job_step(struct engine *e, struct job *job)
{
	struct sim *sim = e->ports.shell;

	if (job->phase == PHASE_CHECK && job->transfer.cursor + job->transfer.segment + job->transfer.chunk > 0)
		sim_reach(sim, SIM_REACH_CHECKS);
	served(sim, job, job->run);
	class_served(sim, job->run);
	if (++sim->inside->steps > TURN_STEPS)
		sim_fail(sim, "a turn takes more than %u steps", TURN_STEPS);
	__real_job_step(e, job);
}

void __wrap_load_issue(struct engine *e, struct job *job, uint32_t bit)
{
	struct sim *sim = e->ports.shell;

	if (e->in_turn) {
		served(sim, job, RUN_ISSUE + bit);
		if (++sim->inside->issues > TURN_STEPS)
			sim_fail(sim, "a turn asks for more than %u places", TURN_STEPS);
	}
	__real_load_issue(e, job, bit);
}

/*
 * Whoever waits for room waits for something that ends: writes or stores under way, pins that are being given back, a
 * sweep, extents. Once that is over without any room, it is to be told, or it waits for its deadline.
 */
static void check_waits(struct sim *sim)
{
	const struct engine *e = sim->engine;
	const uint64_t extents = space_total(e->space) / e->config.extent_bytes + e->extents_failed;

	if (e->room_waiters.n + e->room_loads.n == 0 || e->room_changed)
		return;
	/* What is dirty while no tier can write is being sealed: then it is given up. */
	if (!room_may_come(e) && e->copying + e->dirty_objects == 0 && extents >= e->config.extents)
		sim_fail(sim, "%u stores and %u lookups wait for room, and none can come", e->room_waiters.n,
			 e->room_loads.n);
}

bool inside_turn(struct sim *sim)
{
	bool more;

	sim->inside->steps = sim->inside->issues = 0;
	more = engine_turn(sim->engine, sim->now_ns);
	check_waits(sim);
	if (sim->inside->steps < TURN_STEPS)
		return more;
	sim_reach(sim, SIM_REACH_FULL_TURN);
	for (uint32_t run = 0; run < RUN_ISSUE; run++) {
		if (run_is_empty(sim->engine, run))
			continue;
		sim_reach(sim, SIM_REACH_LEFT_OVER);
		if (!more)
			sim_fail(sim, "a turn leaves jobs over in run %u and says that there is no more to do", run);
	}
	return more;
}

/* ---- reads --------------------------------------------------------------------------------------- */

void __wrap_tier_raise(struct engine *e, uint32_t record, uint32_t priority)
{
	if (e->sides[record].queue == QUEUE_READ && priority < e->sides[record].priority)
		sim_reach(e->ports.shell, SIM_REACH_RAISED);
	__real_tier_raise(e, record, priority);
}

/* Is it a lookup that waits for this part of the entry? */
static bool needs(const struct job *job, uint32_t part)
{
	return job->op == STOKER_OP_LOOKUP && lookup_needs(job, job->lookup.cursor, job->lookup.target) >> part & 1;
}

void inside_read(struct sim *sim, const struct engine_io *io)
{
	struct engine *e = sim->engine;
	const struct tier *tier = &e->tiers[io->tier];

	for (uint32_t p = 0; p < PRIORITIES; p++) {
		if (tier->reads[p].first != NONE && p < io->priority)
			sim_fail(sim, "a read of priority %u begins while one of %u waits", io->priority, p);
		if (tier->reads[p].first != NONE && p > io->priority)
			sim_reach(sim, SIM_REACH_URGENT_READ);
	}
	for (uint32_t job = e->waiters[record_of(e, io->record)->entry]; job; job = e->jobs[job - 1].link.next + 1)
		if (e->jobs[job - 1].priority < io->priority && needs(&e->jobs[job - 1], io->object.part))
			sim_fail(sim, "a read of priority %u begins, and a lookup of priority %u waits for it", io->priority,
				 e->jobs[job - 1].priority);
}

/* ---- evictions ------------------------------------------------------------------------------------- */

/* Make-room takes a chunk out of the arena: what is to reach a tier, and still can, must have reached it. */
static void leaves(struct sim *sim, uint32_t number)
{
	struct engine *e = sim->engine;
	const struct record *record = record_of(e, number);
	const bool lost = record->flags & RECORD_LOST, on_disk = record->disk_place != NONE;

	if (record->place == NONE || record->state != RECORD_READY || entry_is_stale(e, entry_of(e, record->entry)))
		return;
	if (!tier_can_write(e)) {
		if (!on_disk && sim->config.n_tiers > 0)
			sim_reach(sim, sim->config.write_back ? SIM_REACH_LEAVES_DOWN : SIM_REACH_LEAVES_OFF);
		return;
	}
	if (record->flags & RECORD_DIRTY)
		sim_fail(sim, "record %u is evicted, but a tier is still to have it", number);
	if (lost && !on_disk)
		sim_reach(sim, SIM_REACH_LEAVES_LOST);
	if (record->flags & RECORD_COMMITTED && !lost && !on_disk && !memory_was_written(sim, number))
		sim_fail(sim, "record %u is evicted, and no tier ever had it", number);
}

uint64_t __wrap_entry_leave_arena(struct engine *e, uint32_t entry, bool ghost)
{
	for (uint32_t r = entry_of(e, entry)->records; r != NONE; r = record_of(e, r)->next)
		leaves(e->ports.shell, r);
	return __real_entry_leave_arena(e, entry, ghost);
}
