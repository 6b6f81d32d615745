/*
 * A worker on a GPU for trials on real hardware (and on the fake): a model, a pool of any layout in device
 * memory, and on the host what all of that memory has to hold, guards included. Needs no library of tests.
 *
 * What cannot be goes through give_up(): it says why and ends the process with status 1.
 */
#ifndef TESTS_GPU_WORKER_H
#define TESTS_GPU_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include <stoker/cuda.h>

#include "src/device/cuda/trial.h"

#define WORKER_CHUNK_TOKENS	64u
#define WORKER_PLANES_MAX	64u
#define WORKER_IDS_MAX		4096u

/* Of a paged KV cache, as engines have them. */
struct layout {
	const char *name;
	uint32_t layers, planes;	/* planes of a layer: K and V, or one */
	uint32_t block_tokens;		/* divides WORKER_CHUNK_TOKENS */
	uint32_t rows, row_bytes;	/* rows > 1: a range of heads, others' bytes between the rows */
	bool packed;			/* all planes of a block lie together */
	uint32_t n_blocks;
};

struct gpu_worker {
	struct layout layout;
	struct stoker *c;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint32_t n_planes, per_object;	/* planes in all; blocks of an object */
	uint64_t plane_at[WORKER_PLANES_MAX], block_stride, row_stride;
	uint64_t device, bytes;
	uint8_t *expected, *got;
	void *stream;
};

__attribute__((format(printf, 1, 2))) _Noreturn void give_up(const char *format, ...);
void worker_open(struct gpu_worker *w, const char *broker, const char *library, enum trial_memory memory,
		 const struct layout *layout);
void worker_close(struct gpu_worker *w);
struct stoker_key worker_key(uint64_t name, uint32_t chunk);

/* What memory has to hold: chunk @chunk of chain @name in these blocks (of an object); or nothing there. */
void worker_expect(struct gpu_worker *w, uint64_t name, uint32_t chunk, const uint32_t *ids, uint32_t layer_first,
		   uint32_t layer_end);
void worker_wipe(struct gpu_worker *w);
void worker_upload(struct gpu_worker *w);	/* make it so */
/* Bytes of all the memory that differ from it. */
uint64_t worker_wrong(struct gpu_worker *w);

/* Wait and finish. Returns the status. */
uint32_t worker_finish(struct gpu_worker *w, struct stoker_job job, uint32_t *ret_n);
void worker_store(struct gpu_worker *w, uint64_t name, uint32_t chunks, const uint32_t *ids,
		  const struct stoker_store_options *options, struct stoker_job *ret);
struct stoker_lease worker_look_up(struct gpu_worker *w, uint64_t name, uint32_t chunks);
void worker_retrieve(struct gpu_worker *w, const struct stoker_lease *lease, uint32_t chunks, const uint32_t *ids,
		     const struct stoker_retrieve_options *options, struct stoker_job *ret);
/* Different blocks for @chunks chunks, @turn varies them; two sets of one turn have none in common. */
void worker_choose(const struct gpu_worker *w, uint64_t turn, uint32_t set, uint32_t chunks, uint32_t *ids);
/* Store a chain from some blocks and bring it back into others, all bytes checked. Returns how many are wrong. */
uint64_t worker_round_trip(struct gpu_worker *w, uint64_t name, uint32_t chunks);

#endif
