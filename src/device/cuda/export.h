/*
 * From a device pointer of a worker to what another process needs to map the same memory: the handle of
 * legacy CUDA IPC, or descriptors of the allocations (VMM) that lie behind the range.
 */
#ifndef STOKER_DEVICE_CUDA_EXPORT_H
#define STOKER_DEVICE_CUDA_EXPORT_H

#include "src/device/cuda/driver.h"

/** struct cuda_memory - a range of device memory, and how it can be given away. */
struct cuda_memory {
	cuda_address address;		/* of the range */
	uint64_t bytes;
	cuda_address base;		/* where its first allocation begins */
	uint8_t uuid[16];		/* of the device */
	int ordinal;			/* of the device, in this process */
	bool vmm;			/* descriptors, by cuda_memory_export(); else the handle */
	struct cuda_ipc_handle handle;
	uint32_t n_allocations;
};

/*
 * Look at a range. Returns 0, or with a text in @why (CUDA_WHY bytes) -EINVAL: not (all) device memory;
 * -EOPNOTSUPP: memory that cannot be given away, and how to get such that can; -EIO. The context that is
 * current in the thread stays what it was.
 */
int cuda_memory_look(const struct cuda_driver *cuda, uint64_t address, uint64_t bytes, char *why,
		     struct cuda_memory *ret);

/*
 * VMM: descriptors of the allocations from *@at on (begin with memory->base), as many as @max, with
 * their bytes; *@at moves on. They are the caller's to close. Returns how many, 0 at the end, or -errno
 * with a text; then there are none.
 */
int cuda_memory_export(const struct cuda_driver *cuda, const struct cuda_memory *memory, uint64_t *at,
		       int *fds, uint64_t *bytes, uint32_t max, char *why);

/* -errno for a result that is not CUDA_OK. */
int cuda_errno(enum cuda_result result);

#endif
