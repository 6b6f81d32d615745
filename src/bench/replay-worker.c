/*
 * One worker of a replay: for each of its requests what an engine does. LOOKUP with prefetch, RETRIEVE
 * of the prefix into its pool, STORE of the rest; the next request begins when the last store is over.
 * Long requests go in rounds of the pool's window.
 *
 * Timed is from submit to DONE. Making and checking bytes is outside of that.
 */
#include "config.h"

#include "src/bench/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"
#include "src/bench/payload.h"

struct worker {
	const struct replay_plan *plan;
	struct replay_figures *figures;
	struct mover mover;
	struct stoker_key *keys;	/* of the request */
	uint8_t *chunks;		/* statuses, of a window */
	uint64_t turn;
};

static int lookup(struct worker *worker, uint32_t n, struct stoker_result *ret)
{
	const struct stoker_lookup_options options = { .size = sizeof(options) };
	struct mover *mover = &worker->mover;
	struct replay_figures *figures = worker->figures;
	const uint64_t start = now_ns();
	struct stoker_job job;
	uint64_t took;
	int r = stoker_lookup(mover->stoker, mover->model, worker->keys, n, &options, &job);

	if (r < 0)
		return mover_fail(mover, r, "could not submit a lookup of %u keys: %s", n,
				   stoker_error(mover->stoker));
	r = mover_finish(mover, "lookup", job, ret, NULL, 0);
	if (r < 0)
		return r;
	took = now_ns() - start;
	samples_add(figures->lookups, took);
	figures->lookup_ns += took;
	figures->hits_l1 += ret->counts[0];
	figures->hits_disk += ret->counts[1];
	if (ret->counts[1] > 0)
		figures->disk_lookup_ns += took;
	if (ret->n > n || ret->counts[0] + ret->counts[1] + ret->counts[2] != ret->n)
		return mover_fail(mover, -EIO, "a lookup of %u keys answered %u chunks, %u + %u + %u of them by tier",
				   n, ret->n, ret->counts[0], ret->counts[1], ret->counts[2]);
	return 0;
}

/* Chunks [at, at + n) of the lease. The pool holds nothing but the pattern before and after. */
static int retrieve(struct worker *worker, const struct stoker_lease *lease, uint32_t at, uint32_t n, bool last)
{
	const struct stoker_retrieve_options options = {
		.size = sizeof(options),
		.flags = last ? STOKER_RETRIEVE_END_SHARE : 0,
	};
	struct mover *mover = &worker->mover;
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	uint64_t start;
	int r;

	mover_choose(mover, worker->turn++, n);
	blocks = mover_blocks(mover, at, n);
	start = now_ns();
	r = stoker_retrieve(mover->stoker, mover->model, lease, &blocks, 1, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a retrieve of %u chunks: %s", n,
				   stoker_error(mover->stoker));
	r = mover_finish(mover, "retrieve", job, &result, worker->chunks, n);
	if (r < 0)
		return r;
	worker->figures->retrieve_ns += now_ns() - start;
	for (uint32_t i = 0; i < n; i++) {
		if (worker->chunks[i] != STOKER_CHUNK_RETRIEVED)
			return mover_fail(mover, -EIO, "chunk %u of a lease came back as \"%s\"", at + i,
					   stoker_chunk_name(worker->chunks[i]));
	}
	worker->figures->wrong_bytes += mover_wrong(mover, worker->keys + at, n);
	worker->figures->retrieved += n;
	if (worker->figures->wrong_bytes)
		pattern_fill(mover->memory, mover->memory_bytes);	/* count no byte twice */
	mover_wipe(mover, n);
	return 0;
}

/* Returns 1 if the chunks could not all be placed: what follows would have no prefix. */
static int count_stored(struct worker *worker, uint32_t at, uint32_t n)
{
	int refused = 0;

	for (uint32_t i = 0; i < n; i++) {
		switch (worker->chunks[i]) {
		case STOKER_CHUNK_STORED:
			worker->figures->stored++;
			break;
		case STOKER_CHUNK_PRESENT:
		case STOKER_CHUNK_ELSEWHERE:
			worker->figures->elsewhere++;
			break;
		case STOKER_CHUNK_REFUSED:
			worker->figures->refused++;
			refused = 1;
			break;
		default:
			return mover_fail(&worker->mover, -EIO, "a store of chunk %u ended as \"%s\"", at + i,
					   stoker_chunk_name(worker->chunks[i]));
		}
	}
	return refused;
}

/* Keys [at, at + n) of the request. */
static int store(struct worker *worker, uint32_t at, uint32_t n)
{
	const struct stoker_store_options options = {
		.size = sizeof(options),
		.parent = at ? &worker->keys[at - 1] : NULL,
		.first_token = (uint64_t)at * 512,
	};
	struct mover *mover = &worker->mover;
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	uint64_t start;
	int r;

	mover_choose(mover, worker->turn++, n);
	mover_fill(mover, worker->keys + at, n);
	blocks = mover_blocks(mover, 0, n);
	start = now_ns();
	r = stoker_store(mover->stoker, mover->model, worker->keys + at, n, &blocks, 1, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a store of %u chunks: %s", n,
				   stoker_error(mover->stoker));
	r = mover_finish(mover, "store", job, &result, worker->chunks, n);
	if (r < 0)
		return r;
	worker->figures->store_ns += now_ns() - start;
	mover_wipe(mover, n);
	return count_stored(worker, at, n);
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static int serve(struct worker *worker, uint64_t request)
{
	const struct trace *trace = worker->plan->trace;
	const uint32_t n = (uint32_t)trace_length(trace, request), window = worker->plan->window;
	struct stoker_result found = { 0 };
	int r;

	for (uint32_t i = 0; i < n; i++)
		worker->keys[i] = payload_key(trace->ids[trace->first[request] + i]);
	r = n ? lookup(worker, n, &found) : 0;
	for (uint32_t at = 0, many; r == 0 && at < found.n; at += many) {
		many = least(window, found.n - at);
		r = retrieve(worker, &found.lease, at, many, at + many == found.n);
	}
	for (uint32_t at = found.n, many; r == 0 && at < n; at += many) {
		many = least(window, n - at);
		r = store(worker, at, many);
	}
	worker->figures->blocks += n;
	atomic_fetch_add(&worker->figures->hits, found.n);
	atomic_fetch_add(&worker->figures->done, 1);
	return r < 0 ? r : 0;
}

static int open_worker(struct worker *worker)
{
	const struct replay_plan *plan = worker->plan;
	const struct mover_config config = {
		.broker = plan->broker,
		.model = REPLAY_MODEL,
		.object_bytes = plan->object_bytes,
		.blocks = plan->blocks,
		.window = plan->window,
	};
	int r = mover_open(&config, &worker->mover);

	if (r < 0)
		return r;
	if (plan->trace->longest > stoker_keys_max(worker->mover.stoker))
		return mover_fail(&worker->mover, -E2BIG, "the longest request has %llu blocks; a lookup takes %u",
				   (unsigned long long)plan->trace->longest, stoker_keys_max(worker->mover.stoker));
	worker->mover.polls = worker->figures->polls;
	worker->keys = calloc(plan->trace->longest + 1, sizeof(*worker->keys));
	worker->chunks = calloc(plan->window, 1);
	if (!worker->keys || !worker->chunks)
		return mover_fail(&worker->mover, -ENOMEM, "no memory for the keys of a request");
	return 0;
}

int replay_work(const struct replay_plan *plan, uint32_t i, struct replay_figures *figures)
{
	struct worker worker = { .plan = plan, .figures = figures };
	const uint64_t end = plan->first + plan->count;
	uint64_t request = plan->first + i;
	int r = open_worker(&worker);

	for (; r == 0 && request < end; request += plan->workers)
		r = serve(&worker, request);
	if (r < 0)
		bench_say("worker %u, request %llu: %s", i, (unsigned long long)request, worker.mover.why);
	mover_close(&worker.mover);
	free(worker.keys);
	free(worker.chunks);
	return r < 0;
}
