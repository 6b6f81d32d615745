/*
 * restart: how soon a broker that was killed serves again what it had. Objects are stored and written
 * back; then, round after round, the broker is killed and started again twice.
 *
 * Warm: its shared memory is there still. A worker attaches again and asks for a stored chain, from the arena
 * alone, until all of it is found.
 *
 * Cold: shared memory is gone, as after a reboot, and the slab table is in no page cache. The same of a chain
 * from the tier; and the rate at which the index comes back: the broker counts each entry of the table as its
 * index takes it (recovered_disk), and a look at that every 100 us says how many there were when. The first piece
 * of the table has been read before any of its entries is seen: they are left out, so that the rate is rather
 * too low than too high.
 *
 * Each time all chains are looked up afterwards, and of some every byte is compared. What is read from the tier
 * stays in the arena, where the next round finds it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"
#include "src/broker/slabs.h"
#include "src/common/size.h"

#define ROUNDS_MAX	100u
#define FLIGHT		MOVER_SLOTS_LARGE	/* lookups under way */
#define COMPARED	16u			/* of so many chains the bytes of one */
#define LOOK_NS		100000
#define WRITE_MS	120000u
#define ANSWER_S	10u
#define TIERS_ARENA	1u			/* of stoker_lookup_options */

/* Where an answer is to come from: of a result's counts. */
enum where { FROM_ARENA, FROM_DISK };

static struct {
	uint64_t objects, object_size, rounds;
} options = { .objects = 200000, .object_size = 4096, .rounds = 3 };

static const struct option_row option_rows[] = {
	{ "objects", OPTION_COUNT, &options.objects, 1, 1u << 24, "N", "objects that are stored and found again" },
	{ "object-size", OPTION_SIZE, &options.object_size, 64, 1ull << 20, "S",
	  "bytes of an object; in the arena and on disk 4K more" },
	{ "rounds", OPTION_COUNT, &options.rounds, 1, ROUNDS_MAX, "N", "restarts of each kind; medians are reported" },
	{ 0 },
};

/* The index coming back, as seen from here. */
struct reading {
	uint64_t began, began_ns;	/* entries at the first look that saw any */
	uint64_t ended, ended_ns;	/* at the last one that saw more than the one before */
};

/* Restarts of one kind. */
struct kind {
	struct samples *answer_ns;
	uint64_t objects;		/* found afterwards: of the round that found fewest */
};

struct restart {
	struct own_broker broker;
	struct mover mover;
	uint32_t chains;
	struct kind warm, cold;
	struct samples *rates;		/* entries per second */
	uint64_t lost, wrong;
};

static uint32_t chain_length(const struct restart *restart, uint32_t chain)
{
	return chain + 1 < restart->chains ? CHAIN_MAX : (uint32_t)(options.objects - (uint64_t)chain * CHAIN_MAX);
}

/* ---- before ------------------------------------------------------------------------------------ */

static uint64_t tier_objects(const struct restart *restart)
{
	struct control_tier tier;

	return control_read_tier(restart->broker.page, 0, &tier) ? tier.objects : 0;
}

/* Header and payload, in pages. */
static uint64_t stored_bytes(void)
{
	return options.objects * ((options.object_size + 4096 + 4095) & ~4095ull);
}

/* The broker goes on with less than it was told to take; here that would measure something else. */
static int check_room(struct restart *restart)
{
	const uint64_t memory = own_broker_gauge(&restart->broker, STOKER_GAUGE_ARENA_POPULATED);
	struct control_tier tier;
	const bool up = control_read_tier(restart->broker.page, 0, &tier) && tier.state == STOKER_TIER_SERVING;
	char wanted[16], given[16];

	if (up && memory >= stored_bytes())
		return 0;
	return mover_fail(&restart->mover, -ENOSPC,
			  "%llu objects take %s of memory and as much of disk; there are %s of memory, and the tier is "
			  "%s: take fewer --objects, or another --directory",
			  (unsigned long long)options.objects, size_text(stored_bytes(), wanted),
			  size_text(memory, given), up ? "up" : "out of service");
}

/* All is in both places, or what is missing later would say nothing about a restart. */
static int check_stored(struct restart *restart)
{
	const uint64_t arena = own_broker_gauge(&restart->broker, STOKER_GAUGE_ARENA_OBJECTS);
	const uint64_t tier = tier_objects(restart);

	if (arena == options.objects && tier == options.objects)
		return 0;
	return mover_fail(&restart->mover, -ENOSPC,
			  "of %llu objects the arena has %llu and the tier %llu before any restart",
			  (unsigned long long)options.objects, (unsigned long long)arena, (unsigned long long)tier);
}

static int store_all(struct restart *restart)
{
	const struct mover_config config = {
		.broker = restart->broker.name,
		.model = "restart",
		.object_bytes = options.object_size,
		.blocks = 1,
		.window = chain_length(restart, 0),
	};
	int r = mover_open(&config, &restart->mover);

	if (r == 0)
		r = check_room(restart);
	for (uint32_t i = 0; r == 0 && i < restart->chains; i++)
		r = chain_store(&restart->mover, i, chain_length(restart, i), NULL);
	if (r == 0 && !own_broker_settled(&restart->broker, WRITE_MS))
		r = mover_fail(&restart->mover, -ETIMEDOUT, "not all was written to disk within %u s", WRITE_MS / 1000);
	return r < 0 ? r : check_stored(restart);
}

/* What a reboot does to the slab table: it is on the disk, and nowhere else. */
static int forget_table(struct restart *restart)
{
	char path[sizeof(restart->broker.tier) + 16];
	int fd, r;

	snprintf(path, sizeof(path), "%s/stoker-slabs", restart->broker.tier);
	fd = open(path, O_RDWR | O_CLOEXEC);
	r = fd < 0 || fdatasync(fd) < 0 ? -errno : -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		return mover_fail(&restart->mover, r, "could not drop %s from the page cache: %s", path, strerror(-r));
	return 0;
}

/* ---- the first answer, and the index meanwhile ------------------------------------------------- */

static void reading_look(const struct restart *restart, struct reading *reading)
{
	const uint64_t n = own_broker_counter(&restart->broker, STOKER_COUNTER_RECOVERED_DISK);

	if (n == reading->ended)
		return;
	reading->ended = n;
	reading->ended_ns = now_ns();
	if (reading->began == 0) {
		reading->began = n;
		reading->began_ns = reading->ended_ns;
	}
}

/* Too few entries have no rate: they are there between two looks. */
static void reading_add(struct restart *restart, const struct reading *reading)
{
	const uint64_t from = reading->began < SLABS_CHUNK ? SLABS_CHUNK : reading->began;

	if (reading->ended < 2 * SLABS_CHUNK || reading->ended <= from)
		return;
	samples_add(restart->rates, (reading->ended - from) * 1000000000u / (reading->ended_ns - reading->began_ns));
}

static int submit(struct restart *restart, uint32_t chain, enum where where, uint32_t flags, struct stoker_job *ret)
{
	const struct stoker_lookup_options lookup = {
		.size = sizeof(lookup), .flags = flags, .deadline_ms = 60000,
		.tiers = where == FROM_ARENA ? TIERS_ARENA : 0,
	};
	const uint32_t n = chain_length(restart, chain);
	struct mover *mover = &restart->mover;
	struct stoker_key keys[CHAIN_MAX];
	int r;

	chain_keys(chain, n, keys);
	r = stoker_lookup(mover->stoker, mover->model, keys, n, &lookup, ret);
	return r < 0 ? mover_fail(mover, r, "could not submit a lookup: %s", stoker_error(mover->stoker)) : 0;
}

/* 1: all of the chain was found where it should be; 0: not yet; -errno. */
static int ask(struct restart *restart, uint32_t chain, enum where where)
{
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_job job;
	int r = submit(restart, chain, where, 0, &job);

	if (r == 0)
		r = mover_wait(&restart->mover, job);
	if (r < 0)
		return r;
	stoker_finish(restart->mover.stoker, job, &result, NULL, 0, NULL, 0);
	if (result.status != STOKER_STATUS_OK)
		return 0;
	stoker_release(restart->mover.stoker, &result.lease, 0);
	return result.counts[where] == chain_length(restart, chain);
}

/* Questions would be answered with "starting" until the control page says otherwise: they are spared the broker. */
static int await_answer(struct restart *restart, struct kind *kind, enum where where, struct reading *reading)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };
	const struct own_broker *broker = &restart->broker;
	int r = stoker_reattach(restart->mover.stoker);

	if (r < 0)
		return mover_fail(&restart->mover, r, "could not attach again: %s", stoker_error(restart->mover.stoker));
	while (now_ns() - broker->started_ns < ANSWER_S * 1000000000ull && !own_broker_died(&restart->broker)) {
		const bool starting = atomic_load_explicit(&broker->page->state, memory_order_acquire) ==
				      STOKER_STATE_STARTING;

		reading_look(restart, reading);
		r = starting ? 0 : ask(restart, restart->chains / 2, where);
		if (r > 0)
			samples_add(kind->answer_ns, now_ns() - broker->started_ns);
		if (r != 0)
			return r < 0 ? r : 0;
		nanosleep(&pause, NULL);
	}
	return mover_fail(&restart->mover, -ENODATA,
			  "no lookup found all of a stored chain in the %s within %u s of a restart",
			  where == FROM_ARENA ? "arena" : "tier", ANSWER_S);
}

/* ---- all of it --------------------------------------------------------------------------------- */

/* Objects of one chain, whichever of them are there. */
static int count_one(struct restart *restart, struct stoker_job job, uint64_t *found)
{
	struct stoker_result result = { .size = sizeof(result) };
	uint64_t bitmap[CHAIN_MAX / 64] = { 0 };
	int r = mover_wait(&restart->mover, job);

	if (r < 0)
		return r;
	stoker_finish(restart->mover.stoker, job, &result, bitmap, CHAIN_MAX / 64, NULL, 0);
	if (result.status != STOKER_STATUS_OK)
		return mover_fail(&restart->mover, -EIO, "a lookup ended with status \"%s\": %s",
				  stoker_status_name(result.status), stoker_status_meaning(result.status));
	for (uint32_t i = 0; i < CHAIN_MAX / 64; i++)
		*found += (uint32_t)__builtin_popcountll(bitmap[i]);
	stoker_release(restart->mover.stoker, &result.lease, 0);
	return 0;
}

static int count_all(struct restart *restart, enum where where, uint64_t *ret)
{
	struct stoker_job jobs[FLIGHT];
	uint32_t asked = 0;
	int r = 0;

	*ret = 0;
	for (uint32_t done = 0; r == 0 && done < restart->chains; done++) {
		while (r == 0 && asked < restart->chains && asked < done + FLIGHT) {
			r = submit(restart, asked, where, STOKER_LOOKUP_ANY, &jobs[asked % FLIGHT]);
			asked++;
		}
		if (r == 0)
			r = count_one(restart, jobs[done % FLIGHT], ret);
	}
	return r;
}

static int compare_some(struct restart *restart, uint32_t round)
{
	struct stoker_result found;
	int r = 0;

	for (uint32_t i = round % COMPARED % restart->chains; r == 0 && i < restart->chains; i += COMPARED) {
		r = chain_lookup(&restart->mover, i, chain_length(restart, i), &found, NULL);
		if (r == 0)
			r = chain_retrieve(&restart->mover, i, chain_length(restart, i), &found.lease, NULL,
					   &restart->wrong);
	}
	return r;
}

static int find_all(struct restart *restart, struct kind *kind, enum where where, uint32_t round)
{
	uint64_t found;
	int r;

	/* All of the arena is there first: into a part of it not all would fit. */
	if (!own_broker_serving(&restart->broker))
		return mover_fail(&restart->mover, -EIO, "the broker did not come back");
	r = count_all(restart, where, &found);
	if (r < 0)
		return r;
	kind->objects = found < kind->objects ? found : kind->objects;
	restart->lost += options.objects - found;
	/* A chain with a gap could not be retrieved; that it has one is bad enough. */
	return found < options.objects ? 0 : compare_some(restart, round);
}

/* ---- the command ------------------------------------------------------------------------------- */

static int restart_once(struct restart *restart, enum where where, uint32_t round)
{
	struct kind *kind = where == FROM_ARENA ? &restart->warm : &restart->cold;
	struct reading reading = { 0 };
	int r = 0;

	own_broker_kill(&restart->broker, where == FROM_DISK);
	if (where == FROM_DISK)
		r = forget_table(restart);
	if (r == 0 && own_broker_again(&restart->broker) < 0)
		r = mover_fail(&restart->mover, -EIO, "the broker did not come back");
	if (r == 0)
		r = await_answer(restart, kind, where, &reading);
	if (r == 0 && where == FROM_DISK)
		reading_add(restart, &reading);
	return r < 0 ? r : find_all(restart, kind, where, round);
}

static int measure(struct restart *restart)
{
	int r = store_all(restart);

	for (uint32_t i = 0; r == 0 && restart->lost == 0 && i < options.rounds; i++) {
		r = restart_once(restart, FROM_ARENA, i);
		if (r == 0 && restart->lost == 0)
			r = restart_once(restart, FROM_DISK, i);
	}
	return r;
}

static void report_kind(struct report *report, const char *name, struct kind *kind)
{
	const bool measured = kind->answer_ns->n > 0;
	char field[32];

	snprintf(field, sizeof(field), "%s_answer_ns", name);
	if (measured)
		report_count(report, field, samples_quantile(&kind->answer_ns, 1, 0.5));
	else
		report_skip(report, field, "objects were lost before");
	snprintf(field, sizeof(field), "%s_objects", name);
	if (measured)
		report_count(report, field, kind->objects);
	else
		report_skip(report, field, "objects were lost before");
}

static void fill_report(struct report *report, struct restart *restart)
{
	report_count(report, "objects", options.objects);
	report_kind(report, "warm", &restart->warm);
	report_kind(report, "cold", &restart->cold);
	report_rate(report, "cold_entries_per_s", (double)samples_quantile(&restart->rates, 1, 0.5),
		    restart->rates->n > 0, "a table of so few entries is read between two looks at it");
	report_count(report, "lost_objects", restart->lost);
	report_count(report, "wrong_bytes", restart->wrong);
}

static bool prepare(struct restart *restart)
{
	const uint64_t room = stored_bytes() + stored_bytes() / 8 + (128u << 20);	/* slabs, and what stays free */
	struct own_broker_config config = { .memory = room, .disk = room };

	restart->chains = (uint32_t)((options.objects + CHAIN_MAX - 1) / CHAIN_MAX);
	restart->warm = (struct kind){ samples_new(ROUNDS_MAX), options.objects };
	restart->cold = (struct kind){ samples_new(ROUNDS_MAX), options.objects };
	restart->rates = samples_new(ROUNDS_MAX);
	if (!restart->warm.answer_ns || !restart->cold.answer_ns || !restart->rates) {
		bench_say("no memory for the figures");
		return false;
	}
	prctl(PR_SET_TIMERSLACK, 1000ul);
	own_broker_set(&config, "arena.entries=%llu", (unsigned long long)(2 * options.objects + 65536));
	return own_broker_start(&config, &restart->broker) == 0 && own_broker_serving(&restart->broker);
}

static int run(struct report *report)
{
	static struct restart restart;
	bool ok;

	if (mover_check(options.object_size, 1) < 0)
		return BENCH_USAGE;
	if (bench_common.attach) {
		bench_say("restart kills its broker: it takes no --attach");
		return BENCH_USAGE;
	}
	ok = prepare(&restart);
	if (ok && measure(&restart) < 0) {
		bench_say("%s", restart.mover.why);
		ok = false;
	}
	if (ok)
		fill_report(report, &restart);
	if (restart.lost)
		bench_say("%llu objects were not found again after a restart", (unsigned long long)restart.lost);
	if (restart.wrong)
		bench_say("%llu bytes were wrong", (unsigned long long)restart.wrong);
	mover_close(&restart.mover);
	ok = own_broker_stop(&restart.broker) && ok;
	return ok && restart.lost == 0 && restart.wrong == 0 ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_restart = {
	.name = "restart",
	.meaning = "from a kill to the first hit: warm from the arena, cold from the slab table",
	.options = option_rows,
	.broker = true,
	.run = run,
};
