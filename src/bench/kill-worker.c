/*
 * One worker of kill: an engine that is never idle. Chains are drawn from a set that fits neither the arena
 * nor the tier, the same for all workers: they find each other's objects, half stored ones too, some on disk, and
 * some not at all.
 *
 * There is no moment without something to take back: the next lookup is under way, with its prefetch, while
 * the chunks that the last one leased are retrieved, and what it did not find is stored.
 */
#include "config.h"

#include "src/bench/kill.h"

#include <errno.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/machine.h"

static_assert(KILL_CHAIN <= CHAIN_MAX, "a chain fits the helpers'");

struct worker {
	const struct kill_plan *plan;
	struct kill_state *state;
	struct mover mover;
	uint64_t draws, turn;
	uint64_t chain, next;		/* the one that is leased, the one that is looked up */
	struct stoker_job lookup;
	struct stoker_result found;	/* of chain */
};

static void enter(struct worker *worker, enum kill_phase phase)
{
	atomic_store_explicit(&worker->state->phase, phase, memory_order_relaxed);
}

static int lookup_begin(struct worker *worker)
{
	const struct stoker_lookup_options options = { .size = sizeof(options) };
	struct mover *mover = &worker->mover;
	struct stoker_key keys[KILL_CHAIN];
	int r;

	worker->next = kill_draw(&worker->draws) % worker->plan->chains;
	chain_keys(worker->next, KILL_CHAIN, keys);
	r = stoker_lookup(mover->stoker, mover->model, keys, KILL_CHAIN, &options, &worker->lookup);
	return r < 0 ? mover_fail(mover, r, "could not submit a lookup: %s", stoker_error(mover->stoker)) : 0;
}

static int lookup_end(struct worker *worker)
{
	enter(worker, KILL_LOOKING_UP);
	worker->chain = worker->next;
	return mover_finish(&worker->mover, "lookup", worker->lookup, &worker->found, NULL, 0);
}

/* What was found. It is checked whole, guards too. */
static int retrieve(struct worker *worker)
{
	const uint64_t bytes = worker->plan->object_bytes * worker->found.n;
	uint64_t wrong = 0;
	int r;

	if (worker->found.n == 0)
		return 0;
	enter(worker, KILL_RETRIEVING);
	r = chain_retrieve(&worker->mover, worker->chain, worker->found.n, &worker->found.lease, NULL, &wrong);
	if (r < 0)
		return r;
	atomic_fetch_add(&worker->state->wrong_bytes, wrong);
	atomic_fetch_add(&worker->state->verified_bytes, bytes);
	return 0;
}

static int check_stored(struct worker *worker, const uint8_t *chunks, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (chunks[i] != STOKER_CHUNK_STORED && chunks[i] != STOKER_CHUNK_PRESENT &&
		    chunks[i] != STOKER_CHUNK_ELSEWHERE && chunks[i] != STOKER_CHUNK_REFUSED)
			return mover_fail(&worker->mover, -EIO, "a store of chunk %u ended as \"%s\"", i,
					  stoker_chunk_name(chunks[i]));
	}
	return 0;
}

/* What was not. Others may be storing the same, and one of them may just have been killed over it. */
static int store(struct worker *worker)
{
	const uint32_t at = worker->found.n, n = KILL_CHAIN - at;
	struct stoker_key keys[KILL_CHAIN];
	const struct stoker_store_options options = {
		.size = sizeof(options), .parent = at ? &keys[at - 1] : NULL, .first_token = (uint64_t)at * 512,
	};
	struct mover *mover = &worker->mover;
	uint8_t chunks[KILL_CHAIN];
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	int r;

	if (n == 0)
		return 0;
	enter(worker, KILL_STORING);
	chain_keys(worker->chain, KILL_CHAIN, keys);
	mover_choose(mover, worker->turn++, n);
	mover_fill(mover, keys + at, n);
	blocks = mover_blocks(mover, 0, n);
	r = stoker_store(mover->stoker, mover->model, keys + at, n, &blocks, 1, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a store: %s", stoker_error(mover->stoker));
	r = mover_finish(mover, "store", job, &result, chunks, n);
	if (r < 0)
		return r;
	mover_wipe(mover, n);
	return check_stored(worker, chunks, n);
}

static int serve(struct worker *worker)
{
	int r = lookup_end(worker);

	if (r == 0)
		r = lookup_begin(worker);
	if (r == 0)
		r = retrieve(worker);
	if (r == 0)
		r = store(worker);
	atomic_fetch_add(&worker->state->rounds, 1);
	return r;
}

static bool goes_on(const struct worker *worker, uint64_t rounds)
{
	return !atomic_load(&worker->state->stop) && (!worker->plan->rounds || rounds < worker->plan->rounds);
}

int kill_work(const struct kill_plan *plan, struct kill_state *state)
{
	struct worker worker = { .plan = plan, .state = state, .draws = plan->seed };
	const struct mover_config config = {
		.broker = plan->broker, .model = "kill", .object_bytes = plan->object_bytes, .blocks = 1,
		.window = KILL_CHAIN,
	};
	const uint64_t start = now_ns();
	int r = mover_open(&config, &worker.mover);

	atomic_store(&state->attach_ns, now_ns() - start);
	if (r == 0)
		r = lookup_begin(&worker);
	for (uint64_t i = 0; r == 0 && goes_on(&worker, i); i++)
		r = serve(&worker);
	if (r < 0)
		bench_say("a worker failed: %s", worker.mover.why);
	mover_close(&worker.mover);
	return r < 0;
}
