/*
 * Regions of the host backend: a client's shared memory, checked and mapped as one run of addresses.
 *
 * The control thread opens and closes them. Nothing here believes a descriptor: what it is, who else
 * may shrink it and what it holds is asked of the kernel, through calls that cannot block for a peer
 * (no read, write or lseek: they would take the lock of an open file that the peer shares).
 */
#ifndef STOKER_DEVICE_REGION_H
#define STOKER_DEVICE_REGION_H

#include <stdatomic.h>
#include <sys/types.h>

#include "src/device/device.h"

struct device_region {
	uint8_t *base;
	uint64_t bytes;
	uint64_t page;			/* the largest of its files (at least 2 MiB): mappings end at multiples of it */
	uint32_t n_ranges;
	uint64_t range_at[MESSAGE_FDS_MAX];	/* offset of each range in the region */
	bool guarded[MESSAGE_FDS_MAX];
	uint32_t pools;			/* that look at it; the control thread's */
	_Atomic uint32_t faulted;	/* a guarded range of it is gone */
	_Atomic uint64_t *entered;	/* a bit for each window: its pages are in our page tables */
	struct crew *crew;		/* helpers that copy from and to it: host.c's */
};

#define REGION_WINDOW_BITS	18u	/* windows of 256 KiB */

/** struct region_rules - what may not be registered. */
struct region_rules {
	uint64_t bytes_max;
	uint32_t n_own;
	struct region_file { dev_t device; ino_t inode; } *own;
};

/* As region_add of struct device_backend; @fds stay open. */
int region_open(const struct region_rules *rules, const struct message_region_add *message, const int *fds,
		char *why, struct device_region **ret);
void region_close(struct device_region *region);	/* NULL is fine */

void region_enter_window(struct device_region *region, uint64_t window);
/*
 * [@at, @at + @bytes) is about to be written: enter its pages into our page tables, windows at a time, unless
 * that has been done. Each fault of a write enters one page, which takes six times as long as copying it. Any
 * thread; memory that is gone is left to the guard.
 */
static inline void region_enter(struct device_region *region, const uint8_t *at, uint64_t bytes)
{
	const uint64_t first = (uint64_t)(at - region->base) >> REGION_WINDOW_BITS;
	const uint64_t last = (uint64_t)(at - region->base + bytes - 1) >> REGION_WINDOW_BITS;

	for (uint64_t i = first; i <= last; i++) {
		if (!(atomic_load_explicit(&region->entered[i / 64], memory_order_relaxed) & 1ull << i % 64))
			region_enter_window(region, i);
	}
}

#endif
