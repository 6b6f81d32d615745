/*
 * sim - runs the engine in a simulated world, reproducibly.
 *
 *	sim --seed N --steps N		one world
 *	sim --seconds N [--seed N]	worlds one after the other, from that seed on (default: the clock's)
 *	sim --worlds N [--seed N]	as many of them
 *	sim --cover ...			all corners (SIM_REACHES) must be reached, in eight times as many worlds at
 *					most: exit 1 if one is not
 *	sim --twice ...			each world twice: both runs must be the same, bit for bit
 *	sim --plant BUG ...		a bug that must be found: exit 0 if it was, 1 if not
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "tests/simulation/sim.h"

static bool planted;		/* a bug: to be found is what is wanted */
static struct sim *running;	/* for who dies in the engine itself */

/* An assertion of the engine traps: say which world it was. A planted bug is found by that as well. */
static void trapped(int signal)
{
	if (planted) {
		printf("planted bug %s: found, seed %llu, step %llu: it died of signal %d\n", running->plant,
		       (unsigned long long)running->seed, (unsigned long long)running->step, signal);
		fflush(stdout);
		_exit(0);
	}
	fprintf(stderr, "sim: seed %llu, step %llu: the engine died of signal %d\n",
		(unsigned long long)running->seed, (unsigned long long)running->step, signal);
	_exit(128 + signal);
}

void sim_fail(struct sim *sim, const char *format, ...)
{
	va_list arguments;

	if (planted) {
		printf("planted bug %s: found, seed %llu, step %llu: ", sim->plant, (unsigned long long)sim->seed,
		       (unsigned long long)sim->step);
		va_start(arguments, format);
		vprintf(format, arguments);
		va_end(arguments);
		putchar('\n');
		fflush(stdout);
		_exit(0);	/* from within anything: there is nothing that could be cleared up */
	}
	fprintf(stderr, "sim: seed %llu, step %llu: ", (unsigned long long)sim->seed,
		(unsigned long long)sim->step);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, "\nsim: run it again with --seed %llu --steps %llu\n", (unsigned long long)sim->seed,
		(unsigned long long)sim->step + 1);
	signal(SIGABRT, SIG_DFL);
	abort();
}

void sim_say(struct sim *sim, const char *format, ...)
{
	va_list arguments;

	if (!sim->verbose)
		return;
	fprintf(stderr, "%llu: ", (unsigned long long)sim->step);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

void sim_feed_random(struct sim *sim)
{
	uint64_t words[16];
	uint32_t n = engine_random_wanted(sim->engine);

	n = n > 16 ? 16 : n;
	for (uint32_t i = 0; i < n; i++)
		words[i] = sim_draw(&sim->random);
	if (n)
		engine_random(sim->engine, words, n);
}

bool sim_turn(struct sim *sim)
{
	bool more;

	sim->turned_ns = sim->now_ns;
	more = inside_turn(sim);
	oracle_deadlines(sim);
	return more;
}

/* In some worlds they run out: a word or two at a time, when there are next to none. */
static void feed_random(struct sim *sim)
{
	uint64_t word;

	if (!sim->starving) {
		sim_feed_random(sim);
	} else if (engine_random_wanted(sim->engine) > 2040 && sim_chance(&sim->random, 60)) {
		word = sim_draw(&sim->random);
		engine_random(sim->engine, &word, 1);
	}
}

static void let_time_pass(struct sim *sim)
{
	static const uint64_t scale[] = { 1000, 100000, 3000000, 200000000 };
	const uint32_t which = sim_below(&sim->random, 100);

	sim->now_ns += sim_draw(&sim->random) % scale[which < 60 ? 0 : which < 90 ? 1 : which < 99 ? 2 : 3];
}

static void step(struct sim *sim)
{
	const uint32_t what = sim_below(&sim->random, 1000);
	const char *broken;

	feed_random(sim);
	world_close_some(sim);
	if (what < 450)
		client_act(sim, sim_below(&sim->random, SIM_CLIENTS));
	else if (what < 850)
		ports_progress(sim);
	else if (what < 900)
		request_ready_some(sim);
	else if (what < 990)
		let_time_pass(sim);
	else if (what < 995)
		world_extent(sim);
	else
		world_admin(sim);
	gpus_step(sim);
	if (sim_below(&sim->random, 2000) == 0)
		bulk_rush(sim);
	if (!sim->roomy && sim_below(&sim->random, 8000) == 0)
		world_crash(sim, sim_chance(&sim->random, 300));
	if (sim->shifting && sim_below(&sim->random, 100) == 0)
		world_break_tier(sim);
	if ((sim->crash_at > 0 && sim->step == sim->crash_at) || (sim->shifting && sim_below(&sim->random, 1000) == 0))
		world_crash(sim, false);
	for (uint32_t turns = sim_below(&sim->random, 4); turns > 0 && sim->step >= sim->clock_from; turns--)
		sim_turn(sim);
	if (sim->step % 512 != 0)
		return;
	broken = engine_audit(sim->engine);
	if (broken)
		sim_fail(sim, "audit: %s", broken);
	calm_bounds(sim);
}

struct run { uint64_t fingerprint, figures[9], reached[SIM_REACH_END]; };

static struct run run_world(uint64_t seed, uint64_t steps, const char *plant, bool verbose)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	struct run run;

	running = sim;
	sim->seed = seed;
	sim->plant = plant;
	sim->verbose = verbose;
	world_make(sim);
	for (sim->step = 0; sim->step < steps; sim->step++)
		step(sim);
	world_end(sim);
	run.fingerprint = sim->fingerprint;
	memcpy(run.figures, sim->figures, sizeof(run.figures));
	memcpy(run.reached, sim->reached, sizeof(run.reached));
	world_free(sim);
	free(sim);
	return run;
}

/* Worlds of a planted bug until it is found. */
static int hunt(uint64_t seed, uint64_t steps, const char *plant)
{
	planted = true;
	for (uint64_t i = 1; i <= 60; i++)
		run_world(seed * 4 + i, steps, plant, false);
	printf("planted bug %s: NOT found in 60 worlds of %llu steps\n", plant, (unsigned long long)steps);
	return 1;
}

static bool all_reached(const uint64_t reached[SIM_REACH_END])
{
	for (int i = 0; i < SIM_REACH_END; i++)
		if (reached[i] == 0)
			return false;
	return true;
}

/* How often each corner was reached; false if one was not. */
static bool cover(const uint64_t reached[SIM_REACH_END])
{
	static const char *const corners[] = { SIM_REACHES(SIM_AS_TEXT) };

	for (int i = 0; i < SIM_REACH_END; i++)
		printf("%12llu  %s%s\n", (unsigned long long)reached[i], corners[i], reached[i] ? "" : "   <- never");
	return all_reached(reached);
}

static uint64_t number(const char *option, const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || *end || end == text || *text == '-') {
		fprintf(stderr, "sim: --%s %s: a number is wanted\n", option, text);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "steps", required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 't' }, { "plant", required_argument, NULL, 'p' },
		{ "twice", no_argument, NULL, '2' }, { "verbose", no_argument, NULL, 'v' },
		{ "worlds", required_argument, NULL, 'w' }, { "cover", no_argument, NULL, 'c' }, { 0 },
	};
	uint64_t seed = 0, steps = 20000, seconds = 0, total[9] = { 0 }, worlds = 0, wanted = 1;
	uint64_t reached[SIM_REACH_END] = { 0 };
	bool seeded = false, twice = false, verbose = false, covers = false;
	const char *plant = NULL;
	time_t end;

	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (o) {
		case 's': seed = number("seed", optarg); seeded = true; break;
		case 'n': steps = number("steps", optarg); break;
		case 't': seconds = number("seconds", optarg); break;
		case 'p': plant = optarg; break;
		case '2': twice = true; break;
		case 'v': verbose = true; break;
		case 'w': wanted = number("worlds", optarg); break;
		case 'c': covers = true; break;
		default: return 2;
		}
	signal(SIGILL, trapped);
	signal(SIGSEGV, trapped);
	signal(SIGABRT, trapped);
	if (!seeded)
		seed = (uint64_t)time(NULL) * 1000;
	if (plant)
		return hunt(seed, steps, plant);
	end = time(NULL) + (time_t)seconds;
	do {
		const struct run run = run_world(seed, steps, NULL, verbose);

		if (twice && run_world(seed, steps, NULL, verbose).fingerprint != run.fingerprint) {
			fprintf(stderr, "sim: seed %llu: two runs of %llu steps differ\n",
				(unsigned long long)seed, (unsigned long long)steps);
			return 1;
		}
		for (int i = 0; i < 9; i++)
			total[i] += run.figures[i];
		for (int i = 0; i < SIM_REACH_END; i++)
			reached[i] += run.reached[i];
		worlds++;
		seed++;
	} while (worlds < wanted || (covers && worlds < 8 * wanted && !all_reached(reached)) ||
		 (seconds && time(NULL) < end));
	printf("%llu worlds of %llu steps, last seed %llu: %llu lookups, %llu chunks hit, %llu stored, "
	       "%llu retrieved, %llu crashes, %llu reads corrupted, %llu clients dead, %llu resets, "
	       "%llu models forgotten\n",
	       (unsigned long long)worlds, (unsigned long long)steps, (unsigned long long)seed - 1,
	       (unsigned long long)total[0], (unsigned long long)total[1], (unsigned long long)total[2],
	       (unsigned long long)total[3], (unsigned long long)total[4], (unsigned long long)total[5],
	       (unsigned long long)total[6], (unsigned long long)total[7], (unsigned long long)total[8]);
	if (covers && !cover(reached)) {
		fprintf(stderr, "sim: a corner was not reached: its oracle has seen nothing\n");
		return 1;
	}
	return 0;
}
