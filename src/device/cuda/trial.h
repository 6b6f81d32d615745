/*
 * A GPU for benches and trials: what a worker has before it meets Stoker (device memory, streams, plain
 * copies), without names of CUDA. One device a process, the first that it may use; open it after the last
 * fork. Texts of failures lie in trial_why().
 */
#ifndef STOKER_DEVICE_CUDA_TRIAL_H
#define STOKER_DEVICE_CUDA_TRIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As cudaMalloc gives it; or as PyTorch's expandable segments are: allocations of 20 MiB in one range. */
enum trial_memory { TRIAL_PLAIN, TRIAL_SEGMENTS };

struct trial_copy {		/* between device and pinned memory of the host */
	uint64_t device;
	void *host;
	size_t bytes;
	bool to_host;
};

/* @library: NULL for the driver of the machine. Makes the device's context current in this thread. 0 or -errno. */
int trial_open(const char *library);
const char *trial_why(void);		/* of the last failure, of whichever call */
const char *trial_device(void);		/* its name */
int trial_version(void);		/* that the driver speaks: 1,000 * major + 10 * minor */

int trial_alloc(enum trial_memory kind, uint64_t bytes, uint64_t *ret);
int trial_free(uint64_t address);
int trial_put(uint64_t to, const void *from, size_t bytes);
int trial_get(void *to, uint64_t from, size_t bytes);
int trial_used(uint64_t *ret);		/* bytes in use on the device, by all processes */
int trial_pin(void *memory, size_t bytes);
void *trial_stream(void);		/* one that knows nothing of the null stream; NULL: it failed */
int trial_synchronize(void *stream);
/* Does the stream still have work? */
bool trial_is_busy(void *stream);
/* Enqueue one copy on that stream. */
int trial_enqueue(const struct trial_copy *copy, void *stream);
/* Enqueue them one by one, loads on one stream and stores on another, and wait until all are done. */
int trial_copies(const struct trial_copy *copies, uint32_t n);

#endif
