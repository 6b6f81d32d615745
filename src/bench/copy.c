/*
 * copy: how fast the host backend moves blocks each way, in turns with plain memcpy() of pieces of the
 * same size, on as many threads, in memory of the same kind and amount, between what is as warm: from what
 * has just been written to one of several places in turn, as a store, and from there back, as a retrieve.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"

#define THREADS_MAX 64u
#define PLACES	    8u		/* transfers that the arena, and memcpy's stand-in for it, has room for */

static struct {
	uint64_t object_size, blocks, threads, rounds, transfer;
} options = { .object_size = 1u << 20, .blocks = 1, .threads = 2, .rounds = 50, .transfer = 32u << 20 };

static const struct option_row option_rows[] = {
	{ "object-size", OPTION_SIZE, &options.object_size, 64, 1ull << 30, "S", "bytes of an object" },
	{ "blocks", OPTION_COUNT, &options.blocks, 1, 512, "N", "blocks of a pool that an object fills" },
	{ "threads", OPTION_COUNT, &options.threads, 1, THREADS_MAX, "N", "helper threads of the broker, and of memcpy" },
	{ "transfer", OPTION_SIZE, &options.transfer, 4096, 1ull << 30, "S", "about the bytes of one retrieve or store" },
	{ "rounds", OPTION_COUNT, &options.rounds, 1, 1000000, "N", "retrieves and stores, each" },
	{ 0 },
};

struct copy {
	struct own_broker broker;
	struct mover mover;
	uint32_t n;			/* objects of a transfer */
	uint64_t retrieve_ns, store_ns, wrong;
	uint64_t memcpy_store_ns, memcpy_retrieve_ns;
};

/* ---- memcpy beside it -------------------------------------------------------------------------- */

struct plain {
	pthread_barrier_t begin, end;
	_Atomic bool over;
	uint8_t *pool, *arena;		/* one transfer's bytes; PLACES times as many */
	uint8_t *from, *to;		/* of the copy at hand */
	size_t bytes, piece;		/* of all threads together; of one memcpy */
	uint64_t turn;
	struct part { struct plain *plain; uint32_t number; pthread_t thread; } parts[THREADS_MAX];
};

static void *plain_main(void *arg)
{
	const struct part *part = arg;
	struct plain *plain = part->plain;

	for (;;) {
		pthread_barrier_wait(&plain->begin);
		if (atomic_load(&plain->over))
			return NULL;
		/* Every so many pieces, as helpers share a copy, and not in the same order on both sides. */
		for (size_t i = part->number; i < plain->bytes / plain->piece; i += options.threads)
			memcpy(plain->to + (i * 7 + plain->turn) % (plain->bytes / plain->piece) * plain->piece,
			       plain->from + i * plain->piece, plain->piece);
		pthread_barrier_wait(&plain->end);
	}
}

static bool plain_start(struct plain *plain, const struct copy *copy)
{
	plain->piece = copy->mover.block_bytes;
	plain->bytes = copy->n * options.object_size;
	plain->pool = machine_shared(plain->bytes);
	plain->arena = machine_shared(PLACES * plain->bytes);
	if (!plain->pool || !plain->arena) {
		bench_say("no memory for %u times %zu bytes", PLACES + 1, plain->bytes);
		return false;
	}
	madvise(plain->arena, PLACES * plain->bytes, MADV_HUGEPAGE);	/* as the broker's is */
	memset(plain->arena, 2, PLACES * plain->bytes);
	pthread_barrier_init(&plain->begin, NULL, (unsigned int)options.threads + 1);
	pthread_barrier_init(&plain->end, NULL, (unsigned int)options.threads + 1);
	for (uint32_t i = 0; i < options.threads; i++) {
		plain->parts[i] = (struct part){ .plain = plain, .number = i };
		if (pthread_create(&plain->parts[i].thread, NULL, plain_main, &plain->parts[i]) != 0) {
			bench_say("could not start thread %u for memcpy", i);
			return false;
		}
	}
	return true;
}

static uint64_t plain_copy(struct plain *plain, uint8_t *from, uint8_t *to)
{
	const uint64_t start = now_ns();

	plain->from = from;
	plain->to = to;
	pthread_barrier_wait(&plain->begin);
	pthread_barrier_wait(&plain->end);
	return now_ns() - start;
}

/* A store and a retrieve, with what the mover does to its pool before each. */
static void plain_turn(struct plain *plain, struct copy *copy)
{
	uint8_t *const place = plain->arena + plain->turn++ % PLACES * plain->bytes;

	memset(plain->pool, (int)plain->turn, plain->bytes);
	copy->memcpy_store_ns += plain_copy(plain, plain->pool, place);
	memset(plain->pool, 0, plain->bytes);
	copy->memcpy_retrieve_ns += plain_copy(plain, place, plain->pool);
}

static void plain_end(struct plain *plain)
{
	atomic_store(&plain->over, true);
	pthread_barrier_wait(&plain->begin);
	for (uint32_t i = 0; i < options.threads; i++)
		pthread_join(plain->parts[i].thread, NULL);
}

/* ---- the command ------------------------------------------------------------------------------- */

static int measure(struct copy *copy, struct plain *plain)
{
	/* A broker that was there before may have what an earlier run stored: it would copy nothing. */
	const uint64_t first = bench_common.attach ? now_ns() : 0;
	struct stoker_result found;
	int r = chain_store(&copy->mover, first, copy->n, NULL);

	for (uint64_t i = first + 1; r == 0 && i <= first + options.rounds; i++) {
		r = chain_store(&copy->mover, i, copy->n, &copy->store_ns);
		if (r == 0)
			r = chain_lookup(&copy->mover, i, copy->n, &found, NULL);
		if (r == 0)
			r = chain_retrieve(&copy->mover, i, copy->n, &found.lease, &copy->retrieve_ns, &copy->wrong);
		plain_turn(plain, copy);
	}
	return r;
}

static bool prepare(struct copy *copy)
{
	struct own_broker_config config = { 0 };
	const struct mover_config mover = {
		.model = "copy",
		.object_bytes = options.object_size,
		.blocks = (uint32_t)options.blocks,
		.window = copy->n,
		.broker = copy->broker.name,
	};

	/* Room for some transfers: stores evict, as they do in service. */
	config.memory = PLACES * copy->n * (options.object_size + 65536) + (256u << 20);
	own_broker_set(&config, "broker.threads=%llu", (unsigned long long)options.threads);
	if (own_broker_start(&config, &copy->broker) < 0 || !own_broker_serving(&copy->broker))
		return false;
	if (mover_open(&mover, &copy->mover) < 0) {
		bench_say("%s", copy->mover.why);
		return false;
	}
	return true;
}

static void fill_report(struct report *report, const struct copy *copy)
{
	const double bytes = (double)(options.rounds * copy->n * options.object_size) * 1e9;

	report_real(report, "retrieve_bytes_per_s", bytes / (double)copy->retrieve_ns);
	report_real(report, "store_bytes_per_s", bytes / (double)copy->store_ns);
	report_real(report, "memcpy_bytes_per_s", 2 * bytes / (double)(copy->memcpy_store_ns + copy->memcpy_retrieve_ns));
	report_real(report, "memcpy_retrieve_bytes_per_s", bytes / (double)copy->memcpy_retrieve_ns);
	report_real(report, "memcpy_store_bytes_per_s", bytes / (double)copy->memcpy_store_ns);
	report_count(report, "piece_bytes", copy->mover.block_bytes);
	report_count(report, "wrong_bytes", copy->wrong);
}

static int run(struct report *report)
{
	static struct copy copy;
	static struct plain plain;
	bool ok;

	if (mover_check(options.object_size, options.blocks) < 0)
		return BENCH_USAGE;
	copy.n = (uint32_t)(options.transfer / options.object_size);
	copy.n = copy.n < 1 ? 1 : copy.n > CHAIN_MAX ? CHAIN_MAX : copy.n;
	ok = prepare(&copy) && plain_start(&plain, &copy);
	if (ok) {
		if (measure(&copy, &plain) < 0) {
			bench_say("%s", copy.mover.why);
			ok = false;
		}
		plain_end(&plain);
	}
	if (ok)
		fill_report(report, &copy);
	if (copy.wrong)
		bench_say("%llu bytes were wrong", (unsigned long long)copy.wrong);
	mover_close(&copy.mover);
	ok = own_broker_stop(&copy.broker) && ok;
	return ok && copy.wrong == 0 ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_copy = {
	.name = "copy",
	.meaning = "retrieve and store through the host backend, beside memcpy",
	.options = option_rows,
	.broker = true,
	.run = run,
};
