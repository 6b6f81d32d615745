#include "config.h"

#include "src/bench/chain.h"

#include <errno.h>

#include "src/bench/machine.h"
#include "src/bench/payload.h"

void chain_keys(uint64_t chain, uint32_t n, struct stoker_key *ret)
{
	for (uint32_t i = 0; i < n; i++)
		ret[i] = payload_key(chain * CHAIN_MAX + i);
}

static void add_time(uint64_t *took, uint64_t start)
{
	if (took)
		*took += now_ns() - start;
}

int chain_store(struct mover *mover, uint64_t chain, uint32_t n, uint64_t *took)
{
	const struct stoker_store_options options = { .size = sizeof(options) };
	struct stoker_key keys[CHAIN_MAX];
	uint8_t chunks[CHAIN_MAX];
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	uint64_t start;
	int r;

	chain_keys(chain, n, keys);
	mover_choose(mover, chain, n);
	mover_fill(mover, keys, n);
	blocks = mover_blocks(mover, 0, n);
	start = now_ns();
	r = stoker_store(mover->stoker, mover->model, keys, n, &blocks, 1, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a store: %s", stoker_error(mover->stoker));
	r = mover_finish(mover, "store", job, &result, chunks, n);
	if (r < 0)
		return r;
	add_time(took, start);
	mover_wipe(mover, n);
	for (uint32_t i = 0; i < n; i++) {
		if (chunks[i] != STOKER_CHUNK_STORED && chunks[i] != STOKER_CHUNK_PRESENT)
			return mover_fail(mover, -ENOSPC, "chunk %u of a store ended as \"%s\"", i,
					  stoker_chunk_name(chunks[i]));
	}
	return 0;
}

int chain_lookup(struct mover *mover, uint64_t chain, uint32_t n, struct stoker_result *ret, uint64_t *took)
{
	const struct stoker_lookup_options options = { .size = sizeof(options) };
	struct stoker_key keys[CHAIN_MAX];
	struct stoker_job job;
	uint64_t start;
	int r;

	chain_keys(chain, n, keys);
	start = now_ns();
	r = stoker_lookup(mover->stoker, mover->model, keys, n, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a lookup: %s", stoker_error(mover->stoker));
	r = mover_finish(mover, "lookup", job, ret, NULL, 0);
	if (r < 0)
		return r;
	add_time(took, start);
	if (ret->n != n)
		return mover_fail(mover, -ENODATA, "a lookup of %u chunks found %u of them", n, ret->n);
	return 0;
}

int chain_retrieve(struct mover *mover, uint64_t chain, uint32_t n, const struct stoker_lease *lease,
		   uint64_t *took, uint64_t *wrong)
{
	const struct stoker_retrieve_options options = {
		.size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE,
	};
	struct stoker_key keys[CHAIN_MAX];
	uint8_t chunks[CHAIN_MAX];
	struct stoker_blocks blocks;
	struct stoker_result result;
	struct stoker_job job;
	uint64_t start;
	int r;

	chain_keys(chain, n, keys);
	mover_choose(mover, chain + 1, n);
	blocks = mover_blocks(mover, 0, n);
	start = now_ns();
	r = stoker_retrieve(mover->stoker, mover->model, lease, &blocks, 1, &options, &job);
	if (r < 0)
		return mover_fail(mover, r, "could not submit a retrieve: %s", stoker_error(mover->stoker));
	r = mover_finish(mover, "retrieve", job, &result, chunks, n);
	if (r < 0)
		return r;
	add_time(took, start);
	for (uint32_t i = 0; i < n; i++) {
		if (chunks[i] != STOKER_CHUNK_RETRIEVED)
			return mover_fail(mover, -EIO, "chunk %u of a lease came back as \"%s\"", i,
					  stoker_chunk_name(chunks[i]));
	}
	*wrong += mover_wrong(mover, keys, n);
	mover_wipe(mover, n);
	return 0;
}
