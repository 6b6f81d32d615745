/*
 * A host backend with an arena of its own and a worker's memory, for tests: models, regions, pools and
 * copies in a few lines, and a slow copy of the layout's definition to compare with.
 */
#ifndef TESTS_DEVICE_RIG_H
#define TESTS_DEVICE_RIG_H

#include "src/device/device.h"

#define RIG_COPIES 32u

/** struct rig_memory - shared memory as a worker sees it. */
struct rig_memory {
	int fd;
	uint8_t *bytes;
	uint64_t size;
};
struct rig_memory rig_memory(uint64_t size, bool sealed);	/* allocated, zero */
void rig_memory_free(struct rig_memory *memory);

struct rig {
	struct device *device;
	struct bell bell;
	struct rig_memory arena;
	uint64_t seed;
	/* What has been told of each copy since rig_copy(). */
	struct { uint32_t layers, progress, done; enum engine_result result; } told[RIG_COPIES];
	uint32_t running;		/* copies not done */
	uint32_t order[4 * RIG_COPIES], n_order;	/* of DONE; CHECKED as 1000 + its number */
	uint32_t deaths;
	uint32_t dead_client, dead_pool;	/* of the last death */
	uint32_t checks;
	struct device_event checked;		/* the last one */
};
void rig_start(struct rig *rig, uint32_t threads, uint64_t piece_bytes, uint64_t arena_bytes);
void rig_stop(struct rig *rig);
uint64_t rig_random(struct rig *rig);
uint32_t rig_below(struct rig *rig, uint32_t n);	/* 0 to n - 1 */
void rig_fill(struct rig *rig, uint8_t *bytes, uint64_t n);

/* Reap once, sleeping if there was nothing, and check what every event must keep. */
void rig_reap(struct rig *rig);
void rig_wait(struct rig *rig);		/* until no copy runs */

/* A layout of @n_groups full groups of @blocks blocks each. Rows as in the description. */
struct model_layout *rig_layout(uint32_t n_groups, uint32_t blocks, const struct model_wire_row *rows, uint32_t n_rows);

/* Register one memory, whole; must succeed. */
struct device_region *rig_region(struct rig *rig, const struct rig_memory *memory);
int rig_region_try(struct rig *rig, const struct message_region_add *message, const int *fds, char *why,
		   struct device_region **ret);	/* gives duplicates of @fds away */

/* Begin copy @number of @n items over @pools; fails the test if there is no room. */
void rig_copy(struct rig *rig, uint32_t number, bool store, const struct model_layout *layout,
	      struct device_pool *const *pools, const struct engine_copy_item *items, uint32_t n, uint8_t *failed);
void rig_copy_layers(struct rig *rig, uint32_t number, bool store, const struct model_layout *layout,
		     struct device_pool *const *pools, const struct engine_copy_item *items, uint32_t n,
		     uint8_t *failed, uint32_t layer_first, uint32_t layer_end);

uint32_t rig_open_files(void);

#endif
