/*
 * Pools in the copier: what the broker has checked and told by POOL, bound to the addresses of imports.
 */
#ifndef STOKER_DEVICE_CUDA_VIEW_H
#define STOKER_DEVICE_CUDA_VIEW_H

#include "src/device/cuda/import.h"
#include "src/device/pool.h"

/** struct view - a pool, and what copies need beside it. */
struct view {
	struct device_pool pool;	/* first */
	struct view *next;
	uint64_t payload_bytes;
	uint64_t least_run;		/* bytes of its shortest run: bounds how many runs a slice has */
	uint32_t copies;		/* items of copies under way that name it */
};

#define VIEWS_HASH 256u
struct views {
	struct view *hash[VIEWS_HASH];
};

/* Returns 0 or -errno with the reason (MESSAGE_REASON bytes). @message: whole, as wire_receive() gives it. */
int view_open(struct views *views, struct imports *imports, const struct wire_pool *message, char *why);
struct view *view_find(const struct views *views, uint32_t number);	/* NULL: there is none */
void view_close(struct views *views, struct view *view);	/* no copy names it */

#endif
