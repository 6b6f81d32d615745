/*
 * The whole with a GPU in a test: stokerd as it is built, its copier, libstoker in a worker, and the fake driver under
 * both.
 */
#ifndef TESTS_CUDA_WHOLE_RIG_H
#define TESTS_CUDA_WHOLE_RIG_H

#include <stoker/cuda.h>

#include "tests/fake-cuda/rig.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

/** struct gpu_worker - a worker whose pool lies on the GPU; `w.memory` is what it was told to have, or has. */
struct gpu_worker {
	struct worker w;
	cuda_address address;
	uint64_t bytes;			/* of the allocations */
	bool virtual;
};

extern const struct cuda_driver *cuda;
extern const char *gpu_further_option;	/* for the broker, before it is started */
extern const char *gpu_forbidden;	/* and what the kernel is to refuse it (see forbid.c); NULL: nothing */

/* Checked fixtures. The broker is started before this process opens the driver, or a child does. */
void gpu_setup(void);
void gpu_setup_with_driver(void);
void gpu_teardown(void);

void gpu_start(struct gpu_worker *g, bool virtual);	/* of one allocation by handle, or two by descriptors */
void gpu_start_parts(struct gpu_worker *g, uint32_t parts);	/* by so many descriptors; 0: by handle */
void gpu_close(struct gpu_worker *g);
void gpu_end(struct gpu_worker *g);		/* drops pool and region before */
cuda_address gpu_base(const struct gpu_worker *g);	/* where the pool begins: not where the memory does */

void gpu_upload(struct gpu_worker *g, uint32_t first, uint32_t n);
struct stoker_result gpu_store_uploaded(struct gpu_worker *g, uint32_t first, uint32_t n);
struct stoker_result gpu_store(struct gpu_worker *g, uint32_t first, uint32_t n);
void gpu_stores(struct gpu_worker *g, uint32_t first, uint32_t n);	/* and all are stored */
/* Look up @n chunks, wipe the device's memory, retrieve, compare all of it. */
void gpu_gets(struct gpu_worker *g, uint32_t first, uint32_t n);

pid_t gpu_copier(void);				/* a child of the broker's; 0: there is none */
/* A copier after a fault is there when a store is well again. */
void gpu_until_well(struct gpu_worker *g, uint32_t first);

#endif
