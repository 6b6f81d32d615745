/*
 * Batches: a STORE or RETRIEVE that took several slots, seen as one job. It is as far as the least of
 * its parts, DONE when all are, and ends as the first part that did not end well.
 */
#include <string.h>

#include "src/client/client.h"

struct batch *batch_new(struct stoker *c, struct stoker_job *ret)
{
	for (uint32_t i = 0; i < CLIENT_BATCHES; i++) {
		struct batch *batch = &c->batches[i];

		if (batch->n_parts > 0)
			continue;
		if (++batch->generation == 0)
			batch->generation = 1;
		batch->end_share = false;
		*ret = (struct stoker_job){ CLIENT_BATCH_BASE + i, batch->generation };
		return batch;
	}
	return NULL;
}

struct batch *batch_find(struct stoker *c, struct stoker_job job)
{
	struct batch *batch;

	if (job.slot < CLIENT_BATCH_BASE || job.slot >= CLIENT_BATCH_BASE + CLIENT_BATCHES)
		return NULL;
	batch = &c->batches[job.slot - CLIENT_BATCH_BASE];
	return batch->n_parts > 0 && batch->generation == job.generation ? batch : NULL;
}

enum stoker_stage batch_stage(struct stoker *c, const struct batch *batch)
{
	struct stoker_progress progress;

	batch_progress(c, batch, &progress);
	return (enum stoker_stage)progress.stage;
}

void batch_progress(struct stoker *c, const struct batch *batch, struct stoker_progress *ret)
{
	struct stoker_progress part;

	memset(ret, 0, sizeof(*ret));
	ret->stage = STOKER_STAGE_DONE;
	ret->layers = UINT32_MAX;
	for (uint32_t i = 0; i < batch->n_parts; i++) {
		slot_progress(c, batch->slot[i], &part);
		if (part.stage < ret->stage)
			ret->stage = part.stage;
		if (part.layers < ret->layers)
			ret->layers = part.layers;
		if (ret->status == STOKER_STATUS_OK)
			ret->status = part.status;
	}
	if (ret->stage < STOKER_STAGE_ENDING)
		ret->status = STOKER_STATUS_OK;
}

void batch_finish(struct stoker *c, struct batch *batch, struct stoker_result *ret, uint8_t *chunks,
		  uint32_t n_chunks)
{
	memset(ret, 0, sizeof(*ret));
	for (uint32_t i = 0; i < batch->n_parts; i++) {
		const uint32_t slot = batch->slot[i], first = batch->first[i];
		struct stoker_result part;

		slot_result(c, slot, &part);
		if (ret->status == STOKER_STATUS_OK)
			ret->status = part.status;
		ret->n += part.n;
		for (int j = 0; j < 3; j++)
			ret->counts[j] += part.counts[j];
		if (chunks && first < n_chunks)
			slot_chunks(c, slot, chunks + first, n_chunks - first);
		slot_give_back(c, slot);
	}
	batch->n_parts = 0;
	/* If it cannot be sent now, the lease's expiry does it. */
	if (batch->end_share && c->at)
		release_share(c, &batch->lease, batch->reader);
}
