/*
 * A worker's memory in the copier of its GPU.
 *
 * Two ways in. A legacy IPC handle stands for a whole allocation and may be opened once a process, so
 * regions in one allocation share an import, which is counted. VMM descriptors (PyTorch's expandable
 * segments) are mapped one behind the other into one reserved range of addresses; they come in several
 * messages where one cannot carry them all.
 *
 * An import keeps the memory of a dead worker: import_close() gives it back at once, so whoever calls it
 * has made sure that no copy runs. Nothing is freed that the driver did not take back: such an import stays
 * on the books (import_bytes), to be seen.
 */
#ifndef STOKER_DEVICE_CUDA_IMPORT_H
#define STOKER_DEVICE_CUDA_IMPORT_H

#include "src/device/cuda/driver.h"
#include "src/device/cuda/wire.h"

struct imports {
	const struct cuda_driver *cuda;
	cuda_device device;
	struct ipc_import *ipcs;
	struct device_region *regions;
	uint64_t bytes;			/* of workers' memory that is mapped here */
	enum cuda_result fatal;		/* what killed the context, or CUDA_OK */
};

/** struct device_region - an import, or part of one. */
struct device_region {
	struct device_region *next;
	uint32_t number;
	uint32_t pools;			/* rows that look at it */
	bool open;			/* all of it is here */
	int error;			/* of a message of it; the rest of them is awaited nevertheless */
	char why[MESSAGE_REASON];
	int fence;			/* of its worker, or -1: open as long as the region */
	cuda_address base;
	uint64_t bytes;
	struct ipc_import *ipc;		/* or: */
	cuda_address reserved;
	uint64_t reserved_bytes;	/* of addresses */
	struct vmm_part { cuda_handle handle; uint64_t bytes; bool mapped; } *parts;
	uint32_t n_parts, parts_room;
};

/*
 * A REGION message with its descriptors, which are closed. Returns 0, -EAGAIN (more descriptors are to come:
 * no answer yet) or -errno with the reason in @why (MESSAGE_REASON bytes); the region is forgotten then.
 */
int import_region(struct imports *imports, const struct wire_region *message, const int *fds, uint32_t n_fds,
		  char *why);
struct device_region *import_find(struct imports *imports, uint32_t number);	/* NULL: there is none, or not wholly */
/* Give it back. Returns 0 or -EIO with the reason; the number is free in any case. */
int import_close(struct imports *imports, struct device_region *region, char *why);

#endif
