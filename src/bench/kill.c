/*
 * kill: workers that store, look up and retrieve without a pause are killed, one at a time, at instants drawn
 * from a fixed seed; each is followed by another. How long does the broker keep what the dead one had, and
 * what is left of all of them in the end?
 *
 * Every third kill is of the worker that was started last, within one and a half times what it takes to attach
 * and register a pool; the others are of any worker, within DELAY_NS of the last kill. One worker is never
 * killed: it checks every byte that it retrieves, as they all do, to the end.
 *
 * Nothing is asked of the broker (footprint.h). A dead worker is reaped only when the broker has nothing of it
 * any more: until then no other process can have its pid.
 */
#include "config.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/crew.h"
#include "src/bench/footprint.h"
#include "src/bench/kill.h"
#include "src/bench/machine.h"
#include "src/bench/progress.h"

#define CLIENTS_MAX	64u
#define SEED		1u
#define OBJECTS		256u			/* that the arena holds */
#define DISK		2u			/* times as large is the tier, */
#define CHAINS		4u			/* and times as many objects are in use: some are stored again and again */
#define FIRST_ROUNDS	64u			/* of the client that comes and goes before */
#define DELAY_NS	10000000u
#define LOOK_US		100u
#define CLEAN_NS	3000000u		/* seen for so long, nothing is believed to be nothing */
#define GOAL_NS		1000000000u
#define RECLAIM_NS	(10ull * GOAL_NS)	/* then it is left over */
#define LEAVE_NS	(60ull * GOAL_NS)
#define SETTLE_NS	(5ull * GOAL_NS)
#define UNTOLD		"the kernel does not show the broker's descriptors and mappings"
#define CUT_SHORT	"the run was cut short"

static struct {
	uint64_t kills, clients, object_size;
} options = { .kills = 1000, .clients = 4, .object_size = 256u << 10 };

static const struct option_row option_rows[] = {
	{ "kills", OPTION_COUNT, &options.kills, 1, 1000000, "N", "workers to kill" },
	{ "clients", OPTION_COUNT, &options.clients, 1, CLIENTS_MAX, "N", "workers alive at a time, besides the one spared" },
	{ "object-size", OPTION_SIZE, &options.object_size, 4096, 16u << 20, "S", "bytes of an object" },
	{ 0 },
};

struct trial {
	struct own_broker broker;
	struct kill_plan plan;
	struct kill_state *states;		/* shared: of the workers, the spared one last */
	pid_t pids[CLIENTS_MAX + 1];		/* 0: none */
	uint64_t draws, attach_ns;		/* as long as it took last */
	struct progress progress;
	struct samples *reclaims;
	uint64_t done, slow, killed[KILL_PHASES];
	struct footprint half, last;		/* with all workers but the one just killed */
	struct footprint before, after;
	bool counted;				/* both are there */
};

/* ---- workers ----------------------------------------------------------------------------------- */

static int work(void *arg, uint32_t i)
{
	const struct trial *trial = arg;

	return kill_work(&trial->plan, &trial->states[i]);
}

static bool worker_start(struct trial *trial, uint32_t i)
{
	struct kill_state *state = &trial->states[i];

	atomic_store(&state->phase, KILL_ATTACHING);
	atomic_store(&state->attach_ns, 0);
	trial->plan.seed = kill_draw(&trial->draws);
	trial->pids[i] = crew_start(work, trial, i);
	return trial->pids[i] > 0;
}

/* Take worker @i's status if it has ended. Returns 1 if it has, in order; 0 if not; -1: it has failed. */
static int worker_ended(struct trial *trial, uint32_t i)
{
	int status = 0;

	if (trial->pids[i] <= 0)
		return 1;
	if (waitpid(trial->pids[i], &status, WNOHANG) == 0)
		return 0;
	trial->pids[i] = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 1;
	if (WIFSIGNALED(status))
		bench_say("worker %u was ended by signal %d, which we did not send", i, WTERMSIG(status));
	return -1;
}

/* Nobody has ended but those who were killed. */
static bool all_live(struct trial *trial)
{
	for (uint32_t i = 0; i <= options.clients; i++) {
		if (worker_ended(trial, i) != 0)
			return false;
	}
	return !own_broker_died(&trial->broker);
}

/* Wait until all workers have ended, in order. */
static bool all_leave(struct trial *trial)
{
	const uint64_t until = now_ns() + LEAVE_NS;
	uint32_t ended = 0;
	bool failed = false;

	while (ended <= options.clients) {
		const int r = worker_ended(trial, ended);

		failed = failed || r < 0;
		if (own_broker_died(&trial->broker))
			return false;
		if (now_ns() > until) {
			bench_say("worker %u does not leave", ended);
			return false;
		}
		ended += r != 0;
		if (r == 0)
			usleep(1000);
	}
	return !failed;
}

static void kill_rest(struct trial *trial)
{
	for (uint32_t i = 0; i <= options.clients; i++) {
		if (trial->pids[i] <= 0)
			continue;
		kill(trial->pids[i], SIGKILL);
		waitpid(trial->pids[i], NULL, 0);
	}
}

/* ---- a kill ------------------------------------------------------------------------------------ */

static void sleep_ns(uint64_t ns)
{
	const struct timespec time = { .tv_sec = (time_t)(ns / GOAL_NS), .tv_nsec = (long)(ns % GOAL_NS) };

	nanosleep(&time, NULL);
}

/* Whom to kill next, after how long. @last: who was started last. */
static uint32_t choose(struct trial *trial, uint32_t last, uint64_t *ret_after_ns)
{
	const uint64_t attach_ns = trial->attach_ns < GOAL_NS ? trial->attach_ns : GOAL_NS;

	if (kill_draw(&trial->draws) % 3 == 0) {
		*ret_after_ns = kill_draw(&trial->draws) % (attach_ns + attach_ns / 2 + 1);
		return last;
	}
	*ret_after_ns = kill_draw(&trial->draws) % DELAY_NS;
	return (uint32_t)(kill_draw(&trial->draws) % options.clients);
}

/*
 * Wait until the broker has nothing of worker @i. What is taken back late, as a connection that was not yet
 * accepted, shows up for a moment: so it counts when nothing was seen for a while, from the first look of it.
 */
static bool wait_reclaimed(struct trial *trial, uint32_t i, uint64_t killed_ns)
{
	uint64_t clean_ns = 0, now;
	const char *left;

	for (;;) {
		left = footprint_of(&trial->broker, trial->pids[i], (uint32_t)options.clients);
		now = now_ns();
		if (left)
			clean_ns = 0;
		else if (!clean_ns)
			clean_ns = now;
		else if (now - clean_ns > CLEAN_NS)
			break;
		if (own_broker_died(&trial->broker))
			return false;
		if (now - killed_ns > RECLAIM_NS) {
			bench_say("kill %llu: %llu s later the broker still has of the dead worker: %s",
				  (unsigned long long)trial->done, (unsigned long long)(RECLAIM_NS / GOAL_NS),
				  left ? left : "something now and then");
			return false;
		}
		usleep(LOOK_US);
	}
	samples_add(trial->reclaims, clean_ns - killed_ns);
	trial->slow += clean_ns - killed_ns > GOAL_NS;
	return true;
}

static bool kill_one(struct trial *trial, uint32_t *last)
{
	uint64_t after_ns, killed_ns;
	bool ok;
	const uint32_t i = choose(trial, *last, &after_ns);
	struct kill_state *state = &trial->states[i];

	sleep_ns(after_ns);
	if (!all_live(trial))
		return false;
	trial->killed[atomic_load(&state->phase) % KILL_PHASES]++;
	killed_ns = now_ns();
	kill(trial->pids[i], SIGKILL);
	ok = wait_reclaimed(trial, i, killed_ns);
	waitpid(trial->pids[i], NULL, 0);
	trial->pids[i] = 0;
	if (!ok)
		return false;
	if (atomic_load(&state->attach_ns))
		trial->attach_ns = atomic_load(&state->attach_ns);
	trial->done++;
	if (trial->done == (options.kills + 1) / 2)
		footprint_take(&trial->broker, &trial->half);
	if (trial->done == options.kills)
		footprint_take(&trial->broker, &trial->last);
	*last = i;
	return worker_start(trial, i);
}

/* ---- before, all of them, after ---------------------------------------------------------------- */

static uint64_t beyond(uint64_t after, uint64_t before)
{
	return after > before ? after - before : 0;
}

static bool nothing_left(const struct footprint *before, const struct footprint *after)
{
	return after->descriptors <= before->descriptors && after->mapped_bytes <= before->mapped_bytes &&
	       after->files <= before->files &&
	       after->clients + after->pools + after->jobs + after->leases + after->pinned_bytes == 0;
}

/* Once nobody is attached. Closing goes on in the background, and the control page is written now and then. */
static bool settle(struct trial *trial, const struct footprint *before, struct footprint *ret)
{
	const uint64_t until = now_ns() + SETTLE_NS;
	struct footprint last;

	if (!own_broker_settled(&trial->broker, 60000))
		bench_say("not all was written to disk within 60 s: what is left to do pins its objects");
	footprint_take(&trial->broker, ret);
	do {
		last = *ret;
		sleep_ns(GOAL_NS / 4);
		footprint_take(&trial->broker, ret);
	} while (!(nothing_left(before ? before : &last, ret) && nothing_left(ret, &last)) && now_ns() < until);
	return !own_broker_died(&trial->broker);
}

/* What the broker makes for its first client stays: threads, tables, files of the model. */
static bool come_and_go(struct trial *trial)
{
	trial->plan.rounds = FIRST_ROUNDS;
	if (!worker_start(trial, 0) || !all_leave(trial))
		return false;
	trial->plan.rounds = 0;
	trial->attach_ns = atomic_load(&trial->states[0].attach_ns);
	return settle(trial, NULL, &trial->before);
}

static bool kill_many(struct trial *trial)
{
	uint32_t last = 0;
	bool ok = true;

	progress_begin(&trial->progress, "kill", options.kills, false);
	while (ok && trial->done < options.kills) {
		ok = kill_one(trial, &last);
		progress_show(&trial->progress, trial->done, "");
	}
	progress_end(&trial->progress, trial->done, "");
	return ok;
}

/* Also where it goes wrong the others leave, and what is left is counted: that tells more. */
static bool run_trial(struct trial *trial)
{
	bool ok = come_and_go(trial);

	for (uint32_t i = 0; ok && i <= options.clients; i++)
		ok = worker_start(trial, i);
	ok = ok && kill_many(trial);
	for (uint32_t i = 0; i <= options.clients; i++)
		atomic_store(&trial->states[i].stop, 1);
	ok = all_leave(trial) && ok;
	trial->counted = !own_broker_died(&trial->broker) && settle(trial, &trial->before, &trial->after);
	return ok && trial->counted;
}

/* ---- the report -------------------------------------------------------------------------------- */

static bool report_left(struct report *report, const struct trial *trial)
{
	const struct footprint *before = &trial->before, *after = &trial->after;
	const bool told = before->told && after->told;
	const struct {
		const char *field;
		bool measured;
		uint64_t left;
	} rows[] = {
		{ "left_descriptors", told, beyond(after->descriptors, before->descriptors) },
		{ "left_mapped_bytes", told, beyond(after->mapped_bytes, before->mapped_bytes) },
		{ "left_files", true, beyond(after->files, before->files) },
		{ "left_clients", true, after->clients },
		{ "left_pools", true, after->pools },
		{ "left_jobs", true, after->jobs },
		{ "left_leases", true, after->leases },
		{ "left_pinned_bytes", true, after->pinned_bytes },
	};
	bool clean = true;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!trial->counted) {
			report_skip(report, rows[i].field, CUT_SHORT);
		} else if (!rows[i].measured) {
			report_skip(report, rows[i].field, UNTOLD);
		} else {
			report_count(report, rows[i].field, rows[i].left);
			clean = clean && rows[i].left == 0;
			if (rows[i].left)
				bench_say("the broker keeps something: %s is %llu", rows[i].field,
					  (unsigned long long)rows[i].left);
		}
	}
	if (trial->half.told && trial->last.told)
		report_count(report, "grown_private_bytes", beyond(trial->last.private_bytes, trial->half.private_bytes));
	else
		report_skip(report, "grown_private_bytes", trial->done == options.kills ? UNTOLD : CUT_SHORT);
	return clean;
}

static void report_reclaims(struct report *report, struct trial *trial)
{
	const bool told = trial->before.told;
	const char *why = told ? "nobody was killed" : UNTOLD;

	if (told && trial->reclaims->n > 0) {
		report_count(report, "reclaim_ns_p50", samples_quantile(&trial->reclaims, 1, 0.5));
		report_count(report, "reclaim_ns_p99", samples_quantile(&trial->reclaims, 1, 0.99));
		report_count(report, "reclaims_above_1s", trial->slow);
	} else {
		report_skip(report, "reclaim_ns_p50", why);
		report_skip(report, "reclaim_ns_p99", why);
		report_skip(report, "reclaims_above_1s", why);
	}
}

/* Returns true if no byte was wrong, and nothing is left. */
static bool report_trial(struct report *report, struct trial *trial)
{
	uint64_t verified = 0, wrong = 0;
	bool clean;

	for (uint32_t i = 0; i <= options.clients; i++) {
		verified += atomic_load(&trial->states[i].verified_bytes);
		wrong += atomic_load(&trial->states[i].wrong_bytes);
	}
	report_count(report, "kills", trial->done);
	report_count(report, "killed_attaching", trial->killed[KILL_ATTACHING]);
	report_count(report, "killed_looking_up", trial->killed[KILL_LOOKING_UP]);
	report_count(report, "killed_retrieving", trial->killed[KILL_RETRIEVING]);
	report_count(report, "killed_storing", trial->killed[KILL_STORING]);
	report_reclaims(report, trial);
	clean = report_left(report, trial);
	report_count(report, "verified_bytes", verified);
	if (verified > 0)
		report_count(report, "wrong_bytes", wrong);
	else
		report_skip(report, "wrong_bytes", "nothing was retrieved");
	if (wrong > 0)
		bench_say("%llu bytes were wrong", (unsigned long long)wrong);
	return clean && wrong == 0;
}

/* ---- the command ------------------------------------------------------------------------------- */

static bool start_broker(struct trial *trial)
{
	const uint64_t object = options.object_size + 4096, memory = OBJECTS * object;
	struct own_broker_config config = { .memory = memory > 32u << 20 ? memory : 32u << 20 };

	config.disk = DISK * config.memory;
	own_broker_set(&config, "arena.entries=%llu",
		       (unsigned long long)(2 * ((config.memory + config.disk) / object) + 65536));
	if (own_broker_start(&config, &trial->broker) < 0)
		return false;
	trial->plan = (struct kill_plan){
		.broker = trial->broker.name, .object_bytes = options.object_size,
		.chains = CHAINS * (config.memory / object) / KILL_CHAIN,
	};
	return own_broker_serving(&trial->broker);
}

static int run(struct report *report)
{
	static struct trial trial = { .draws = SEED };
	bool ok;

	if (bench_common.attach) {
		bench_say("kill counts what a broker has in the end: it takes no --attach");
		return BENCH_USAGE;
	}
	if (mover_check(options.object_size, 1) < 0)
		return BENCH_USAGE;
	trial.states = machine_shared((options.clients + 1) * sizeof(*trial.states));
	trial.reclaims = samples_new(options.kills);
	if (!trial.states || !trial.reclaims) {
		bench_say("no memory for the figures of the workers");
		return BENCH_FAILED;
	}
	ok = start_broker(&trial);
	if (ok) {
		ok = run_trial(&trial);
		kill_rest(&trial);
		ok = report_trial(report, &trial) && ok;
	}
	ok = own_broker_stop(&trial.broker) && ok;
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_kill = {
	.name = "kill",
	.meaning = "kill workers at any instant: how soon all is taken back, and what is left",
	.options = option_rows,
	.broker = true,
	.run = run,
};
