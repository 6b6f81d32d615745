/*
 * lookup: LOOKUP and its answer, everything in the arena, random keys, over the real channel, core and
 * engine (a null backend has the bytes, null-broker.c). In turns with the bare ping-pong of two words
 * and with a bare prefetching probe of the same keys in a table of that size.
 *
 * A lookup counts from submit until its result has been taken; keys are made beforehand, leases are
 * given back outside. Chains are stored level by level, so that the keys of one lie as far apart in
 * the index as random ones do. With several clients each keeps `depth` lookups under way, as engines
 * with many requests do, and its times are those of the oldest.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/crew.h"
#include "src/bench/floor.h"
#include "src/bench/machine.h"
#include "src/bench/null-broker.h"
#include "src/bench/own-broker.h"
#include "src/bench/payload.h"
#include "src/bench/probe.h"
#include "src/bench/sample.h"

#define OBJECT_BYTES 4096u
#define BATCH	     64u		/* chains whose keys are made at a time */
#define FLIGHT_MAX   32u
#define SAMPLES_MAX  (1u << 22)
#define SLICE_NS     200000000ull	/* of lookups, before the bare ones' turn */
#define SLICE_CLIENT_NS 75000000ull	/* ... and at least this for each client: some twenty turns of the scheduler */
#define BARE_ROUNDS  2000u
#define SPIN_NS	     20000u	/* of a client that shares its core */
#define SPIN_ALONE_NS 1000000u	/* of one that has it for itself: as an engine that polls, it is not to be woken */

static struct {
	uint64_t keys, objects, clients, shards, seconds, depth;
	double hit_share;
} options = { .keys = 4, .objects = 1000000, .clients = 1, .shards = 1, .seconds = 10, .hit_share = 1 };

static const struct option_row option_rows[] = {
	{ "keys", OPTION_COUNT, &options.keys, 1, 4096, "N", "keys of a lookup" },
	{ "objects", OPTION_COUNT, &options.objects, 1, 50000000, "N", "chunks in the index" },
	{ "clients", OPTION_COUNT, &options.clients, 1, 256, "N", "processes that look up" },
	{ "shards", OPTION_COUNT, &options.shards, 1, 64, "N", "objects of a chunk" },
	{ "seconds", OPTION_COUNT, &options.seconds, 1, 3600, "N", "how long" },
	{ "hit-share", OPTION_SHARE, &options.hit_share, 0, 0, "X", "share of lookups whose keys are there" },
	{ "depth", OPTION_COUNT, &options.depth, 0, FLIGHT_MAX, "N",
	  "lookups that a client has under way; 0: 1 of one client, 16 of each of several" },
	{ 0 },
};

/** struct shared - what processes say to each other. */
struct shared {
	_Atomic uint32_t go;		/* lookups are to be made now */
	_Atomic uint32_t over;
	_Atomic uint32_t ready;		/* clients that are attached */
	_Atomic uint64_t resting;	/* clients that have seen that they are not to */
	_Atomic uint64_t done[CREW_MAX];
};

struct bench_lookup {
	struct own_broker broker;
	struct shared *shared;
	struct samples *times[CREW_MAX];	/* ticks */
	struct samples *floor_times, *probe_times;
	struct floor *floor;
	struct probe *probe;
	uint64_t chains, began_ns, lookups_ns;
	uint64_t random;
};

static uint64_t slice_ns(void)
{
	const uint64_t all = options.clients * SLICE_CLIENT_NS;

	return all > SLICE_NS ? all : SLICE_NS;
}

static uint64_t next_random(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random;
}

/* Chains from `chains` on exist nowhere. */
static void chain_of(uint64_t chain, uint32_t n, struct stoker_key *ret)
{
	for (uint32_t i = 0; i < n; i++)
		ret[i] = payload_key(chain * n + i);
}

static void random_chain(const struct bench_lookup *lookup, uint64_t *random, struct stoker_key *ret)
{
	const uint64_t number = next_random(random);
	const bool hit = (double)(next_random(random) >> 11) / (double)(1ull << 53) < options.hit_share;

	chain_of(number % lookup->chains + (hit ? 0 : lookup->chains), (uint32_t)options.keys, ret);
}

/* ---- the model, and what is stored ------------------------------------------------------------- */

static int open_model(struct stoker *stoker, struct stoker_model **ret)
{
	struct stoker_plane_bytes rows[64];
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 256 };
	const struct stoker_model_description description = {
		.size = sizeof(description),
		.chunk_tokens = 256,
		.name = "lookup",
		.revision = "1",
		.groups = &group,
		.n_groups = 1,
		.rows = rows,
		.n_rows = (uint32_t)options.shards,
	};

	for (uint32_t i = 0; i < options.shards; i++)
		rows[i] = (struct stoker_plane_bytes){ .shard = (uint16_t)i, .bytes = OBJECT_BYTES };
	return stoker_model_open(stoker, &description, ret);
}

/* One block for all shards: nobody will read it. */
static int open_pools(struct stoker *stoker, struct stoker_model *model, struct stoker_pool **ret)
{
	struct stoker_region *region;
	struct stoker_range range = { .bytes = OBJECT_BYTES };
	int r;

	range.fd = memfd_create("stoker-bench-lookup", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (range.fd < 0 || fchmod(range.fd, 0600) < 0 || posix_fallocate(range.fd, 0, OBJECT_BYTES) != 0)
		return -ENOMEM;
	r = stoker_region_add(stoker, &range, 1, &region);
	close(range.fd);
	for (uint32_t i = 0; r == 0 && i < options.shards; i++) {
		const struct stoker_plane plane = {
			.region = region, .bytes = OBJECT_BYTES, .block_stride = OBJECT_BYTES,
		};

		r = stoker_pool_add(model, 0, i, 1, &plane, 1, &ret[i]);
	}
	return r;
}

struct fill {
	struct stoker *stoker;
	struct stoker_model *model;
	struct stoker_pool *pools[64];
	struct stoker_job jobs[FLIGHT_MAX];
	uint64_t submitted, finished;
};

static int fill_finish(struct fill *fill)
{
	struct stoker_result result = { .size = sizeof(result) };
	const struct stoker_job job = fill->jobs[fill->finished++ % FLIGHT_MAX];
	uint8_t chunk = 0;
	int r;

	while (stoker_poll(fill->stoker, job) != STOKER_STAGE_DONE) {
		if (!stoker_is_attached(fill->stoker))
			return -EPIPE;
	}
	r = stoker_finish(fill->stoker, job, &result, NULL, 0, &chunk, 1);
	if (r < 0)
		return r;
	return result.status == STOKER_STATUS_OK && chunk == STOKER_CHUNK_STORED ? 0 : -ENOSPC;
}

static int fill_one(struct fill *fill, uint64_t chain, uint32_t level)
{
	static const uint32_t id = 0;
	const struct stoker_key key = payload_key(chain * options.keys + level);
	const struct stoker_key parent = payload_key(chain * options.keys + (level ? level - 1 : 0));
	const struct stoker_store_options store = {
		.size = sizeof(store),
		.parent = level ? &parent : NULL,
		.first_token = (uint64_t)level * 256,
	};
	struct stoker_blocks blocks[64];
	int r = 0;

	if (fill->submitted - fill->finished == FLIGHT_MAX)
		r = fill_finish(fill);
	for (uint32_t i = 0; i < options.shards; i++)
		blocks[i] = (struct stoker_blocks){ .pool = fill->pools[i], .chunks = 1, .ids = &id };
	if (r == 0)
		r = stoker_store(fill->stoker, fill->model, &key, 1, blocks, (uint32_t)options.shards, &store,
				 &fill->jobs[fill->submitted % FLIGHT_MAX]);
	fill->submitted += r == 0;
	return r;
}

static int fill_all(struct bench_lookup *lookup)
{
	const struct stoker_options patient = { .size = sizeof(patient), .attach_timeout_ms = BENCH_ATTACH_MS };
	struct fill fill = { 0 };
	int r = stoker_attach(lookup->broker.name, &patient, &fill.stoker);

	if (r == 0)
		r = open_model(fill.stoker, &fill.model);
	if (r == 0)
		r = open_pools(fill.stoker, fill.model, fill.pools);
	for (uint32_t level = 0; r == 0 && level < options.keys; level++) {
		for (uint64_t chain = 0; r == 0 && chain < lookup->chains; chain++) {
			r = fill_one(&fill, chain, level);
			if (r == 0) {
				const struct stoker_key key = payload_key(chain * options.keys + level);

				probe_add(lookup->probe, &key);
			}
		}
	}
	while (r == 0 && fill.finished < fill.submitted)
		r = fill_finish(&fill);
	if (r < 0)
		bench_say("could not store %llu chunks: %s; %s", (unsigned long long)options.objects, strerror(-r),
			  fill.stoker ? stoker_error(fill.stoker) : stoker_attach_error());
	stoker_close(fill.stoker);
	return r;
}

/* ---- a client ---------------------------------------------------------------------------------- */

struct asker {
	struct bench_lookup *lookup;
	struct stoker *stoker;
	struct stoker_model *model;
	struct stoker_key *keys;	/* BATCH chains */
	uint32_t batch;			/* chains of it that have been used */
	uint64_t random;
	uint32_t depth, first, n;	/* jobs under way: a ring */
	uint32_t spin_ns;
	struct stoker_job jobs[FLIGHT_MAX];
	uint64_t started[FLIGHT_MAX];
	struct samples *times;
	_Atomic uint64_t *done;
};

static int ask(struct asker *asker)
{
	static const struct stoker_lookup_options plain = { .size = sizeof(plain) };
	const uint32_t n = (uint32_t)options.keys, at = (asker->first + asker->n) % FLIGHT_MAX;
	int r;

	if (asker->batch == BATCH) {
		asker->batch = 0;
		for (uint32_t i = 0; i < BATCH; i++)
			random_chain(asker->lookup, &asker->random, asker->keys + (size_t)i * n);
	}
	asker->started[at] = tick_now();
	r = stoker_lookup(asker->stoker, asker->model, asker->keys + (size_t)asker->batch++ * n, n, &plain,
			  &asker->jobs[at]);
	asker->n += r == 0;
	return r;
}

/* Poll for a while, then sleep: with more clients than cores somebody else needs this one. */
static int wait_for(struct asker *asker, struct stoker_job job)
{
	uint64_t start = 0;

	for (uint32_t i = 0;; i++) {
		if (stoker_poll(asker->stoker, job) == STOKER_STAGE_DONE)
			return 0;
		if (i % 256 != 255)
			continue;
		if (start == 0)
			start = now_ns();
		else if (now_ns() - start > asker->spin_ns)
			return stoker_wait(asker->stoker, job, 10000000);
	}
}

static int take_answer(struct asker *asker)
{
	struct stoker_result result = { .size = sizeof(result) };
	const uint32_t at = asker->first;
	int r = wait_for(asker, asker->jobs[at]);

	if (r == 0)
		r = stoker_finish(asker->stoker, asker->jobs[at], &result, NULL, 0, NULL, 0);
	if (r < 0)
		return r;
	samples_add(asker->times, tick_now() - asker->started[at]);
	asker->first = (at + 1) % FLIGHT_MAX;
	asker->n--;
	if (result.status != STOKER_STATUS_OK || (result.n != options.keys && options.hit_share == 1))
		return -ENODATA;
	if (result.n > 0)
		stoker_release(asker->stoker, &result.lease, 0);
	atomic_store_explicit(asker->done, atomic_load_explicit(asker->done, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	return 0;
}

static int rest(struct asker *asker)
{
	struct shared *shared = asker->lookup->shared;
	int r = 0;

	while (r == 0 && asker->n > 0)
		r = take_answer(asker);
	atomic_fetch_add(&shared->resting, 1);
	while (r == 0 && !atomic_load(&shared->go) && !atomic_load(&shared->over))
		usleep(100);
	return r;
}

static int serve(struct asker *asker)
{
	struct shared *shared = asker->lookup->shared;
	int r = 0;

	while (r == 0 && !atomic_load_explicit(&shared->over, memory_order_relaxed)) {
		if (!atomic_load_explicit(&shared->go, memory_order_relaxed)) {
			r = rest(asker);
			continue;
		}
		while (r == 0 && asker->n < asker->depth)
			r = ask(asker);
		if (r == 0)
			r = take_answer(asker);
	}
	while (r == 0 && asker->n > 0)
		r = take_answer(asker);
	return r;
}

static int client_work(void *arg, uint32_t i)
{
	struct bench_lookup *lookup = arg;
	struct asker asker = {
		.lookup = lookup,
		.random = 88172645463325252ull + i * 7919,
		.batch = BATCH,
		.depth = (uint32_t)(options.depth ? options.depth : options.clients == 1 ? 1 : 16),
		.spin_ns = options.clients < machine_cores() ? SPIN_ALONE_NS : SPIN_NS,
		.times = lookup->times[i],
		.done = &lookup->shared->done[i],
	};
	const struct stoker_options small = { .size = sizeof(small), .flags = STOKER_OPTION_NO_ARENA,
					      .attach_timeout_ms = BENCH_ATTACH_MS };
	int r;

	/* The broker's core thread has a core of its own; clients share the others. */
	if (machine_cores() > 1)
		machine_pin(0, machine_core(machine_cores() > 2 && i % (machine_cores() - 1) ? i % (machine_cores() - 1) + 1 : 0));
	asker.keys = calloc(BATCH * options.keys, sizeof(*asker.keys));
	r = asker.keys ? stoker_attach(lookup->broker.name, &small, &asker.stoker) : -ENOMEM;
	if (r == 0)
		r = open_model(asker.stoker, &asker.model);
	atomic_fetch_add(&lookup->shared->ready, 1);
	if (r == 0)
		r = rest(&asker);
	if (r == 0)
		r = serve(&asker);
	if (r < 0)
		bench_say("client %u: a lookup failed: %s; %s", i,
			  r == -ENODATA ? "it did not find what was stored" : strerror(-r),
			  asker.stoker ? stoker_error(asker.stoker) : stoker_attach_error());
	stoker_close(asker.stoker);
	free(asker.keys);
	return r < 0;
}

/* ---- turns of lookups, and of the bare ones ---------------------------------------------------- */

/* As long as lookups have, so that caches are as warm; keys are made in between, as clients make them. */
static void probe_bare(struct bench_lookup *lookup)
{
	static struct stoker_key keys[BATCH * 4096];
	static uint32_t found[4096];
	const uint32_t n = (uint32_t)options.keys;
	const uint64_t began = now_ns();

	while (now_ns() - began < slice_ns()) {
		for (uint32_t i = 0; i < BATCH; i++)
			random_chain(lookup, &lookup->random, keys + (size_t)i * n);
		for (uint32_t i = 0; i < BATCH; i++) {
			const uint64_t start = tick_now();

			probe_run(lookup->probe, keys + (size_t)i * n, n, found);
			samples_add(lookup->probe_times, tick_now() - start);
		}
	}
}

/* Called about ten times a second by the crew's parent: turns are made of it. */
static void conduct(void *arg)
{
	struct bench_lookup *lookup = arg;
	struct shared *shared = lookup->shared;
	const uint64_t now = now_ns();

	if (atomic_load(&shared->over) || atomic_load(&shared->ready) < options.clients)
		return;
	if (atomic_load(&shared->go)) {
		if (now - lookup->began_ns < slice_ns())
			return;
		atomic_store(&shared->resting, 0);
		atomic_store(&shared->go, 0);
		lookup->lookups_ns += now - lookup->began_ns;
		if (lookup->lookups_ns >= options.seconds * 1000000000ull)
			atomic_store(&shared->over, 1);
		return;
	}
	if (atomic_load(&shared->resting) < options.clients)
		return;
	usleep(1000);		/* the broker goes to sleep, and leaves its core to the echo */
	if (lookup->floor)
		floor_ping_pong(lookup->floor, BARE_ROUNDS, lookup->floor_times);
	probe_bare(lookup);
	lookup->began_ns = now_ns();
	atomic_store(&shared->go, 1);
}

/* ---- the command ------------------------------------------------------------------------------- */

static bool start_broker(struct bench_lookup *lookup)
{
	struct own_broker_config config = { .run = null_broker_run };
	const uint64_t objects = lookup->chains * options.keys * options.shards;
	pid_t thread;

	config.memory = (objects / 8192 + 8) * (64u << 20);
	own_broker_set(&config, "arena.entries=%llu", (unsigned long long)(lookup->chains * options.keys + 65536));
	own_broker_set(&config, "arena.records=%llu", (unsigned long long)(objects + 65536));
	own_broker_set(&config, "arena.refill_permille=0");
	if (own_broker_start(&config, &lookup->broker) < 0 || !own_broker_serving(&lookup->broker))
		return false;
	thread = machine_thread((pid_t)lookup->broker.page->pid, "stokerd-core");
	if (machine_cores() > 1 && (thread < 0 || machine_pin(thread, machine_core(1)) < 0)) {
		bench_say("could not pin the broker's core thread");
		return false;
	}
	return true;
}

static bool prepare(struct bench_lookup *lookup)
{
	bool ok = true;

	lookup->chains = options.objects / options.keys ? options.objects / options.keys : 1;
	lookup->random = 1234567891011ull;
	lookup->shared = machine_shared(sizeof(*lookup->shared));
	lookup->floor_times = samples_new(SAMPLES_MAX);
	lookup->probe_times = samples_new(SAMPLES_MAX);
	lookup->probe = probe_new((uint32_t)(lookup->chains * options.keys));
	for (uint32_t i = 0; i < options.clients; i++)
		ok = (lookup->times[i] = samples_new(SAMPLES_MAX)) && ok;
	if (!ok || !lookup->shared || !lookup->floor_times || !lookup->probe_times || !lookup->probe) {
		bench_say("no memory for a table of %llu keys", (unsigned long long)options.objects);
		return false;
	}
	if (!start_broker(lookup))
		return false;
	tick_ns();
	if (machine_cores() > 1) {
		machine_pin(0, machine_core(0));
		lookup->floor = floor_start(machine_core(1));
	}
	return fill_all(lookup) == 0;
}

static void fill_report(struct report *report, struct bench_lookup *lookup)
{
	const uint32_t n = (uint32_t)options.clients;
	uint64_t all = 0, least = UINT64_MAX, most = 0;

	for (uint32_t i = 0; i < n; i++) {
		const uint64_t done = atomic_load(&lookup->shared->done[i]);

		all += done;
		least = done < least ? done : least;
		most = done > most ? done : most;
	}
	report_real(report, "lookup_ns_p50", (double)samples_quantile(lookup->times, n, 0.5) * tick_ns());
	report_real(report, "lookup_ns_p99", (double)samples_quantile(lookup->times, n, 0.99) * tick_ns());
	report_real(report, "lookups_per_s", (double)all * 1e9 / (double)lookup->lookups_ns);
	report_real(report, "bare_probe_ns_p50",
		    (double)samples_quantile(&lookup->probe_times, 1, 0.5) * tick_ns());
	report_rate(report, "floor_ns_p50", (double)samples_quantile(&lookup->floor_times, 1, 0.5) * tick_ns(),
		    lookup->floor != NULL, "a round trip between two cores needs two of them");
	report_real(report, "fairness", most ? (double)least / (double)most : 0);
	report_count(report, "lookups", all);
}

static int run(struct report *report)
{
	static struct bench_lookup lookup;
	bool ok;

	if (bench_common.attach) {
		bench_say("lookup runs over a backend of its own that holds no bytes: it takes no --attach");
		return BENCH_USAGE;
	}
	ok = prepare(&lookup) &&
	     crew_run(&lookup.broker, (uint32_t)options.clients, client_work, conduct, &lookup);
	if (ok)
		fill_report(report, &lookup);
	floor_end(lookup.floor);
	ok = own_broker_stop(&lookup.broker) && ok;
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_lookup = {
	.name = "lookup",
	.meaning = "lookups with their answers, all in the arena, over a null backend",
	.options = option_rows,
	.broker = true,
	.run = run,
};
