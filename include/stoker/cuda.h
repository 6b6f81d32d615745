/*
 * cuda.h - Stoker for workers whose KV cache lies in the memory of an NVIDIA GPU.
 *
 * The calls of stoker.h, and what a GPU needs beside them: register device memory as a region, let a
 * stream say when blocks may be read or overwritten, let a stream wait until a job is over. Nothing
 * of CUDA is needed to compile or to link this: device pointers are uint64_t, streams void * (a
 * CUstream or cudaStream_t; NULL is the default stream). The driver is opened at run time, by the
 * first of these calls: libcuda.so.1, or the library that the environment variable
 * STOKER_CUDA_LIBRARY names.
 *
 * Threads, errors and ownership are those of stoker.h; texts are in stoker_error(). Besides: -ENOENT:
 * there is no driver; -ENODEV: no GPU that this process may use; -ENOSYS: a driver before CUDA 11.4;
 * -EIO: the driver reports an error, often one of earlier work of the process.
 * The calling thread has the context of the memory's or stream's device current, as for calls of CUDA.
 * These calls leave it so, wait for no stream, and must not be captured into a graph: what they enqueue
 * is meant once.
 */
#ifndef STOKER_CUDA_H
#define STOKER_CUDA_H

#include <stoker/stoker.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * stoker_cuda_region_add() - register device memory: [@device_pointer, @device_pointer + @bytes).
 * It is one allocation of cudaMalloc, or part of one; or memory of the virtual memory API, over as
 * many allocations as it spans (PyTorch's expandable segments), all of which may be exported as
 * POSIX file descriptors. Other memory is refused: nothing is ever copied by a slower way in silence.
 * @ret: a region like any other: name it in planes, drop it by stoker_region_drop(). Drop it before
 *	the memory is freed: at another attachment it is registered again, by its address.
 * Returns 0; -EINVAL (no device memory, or not all of it; no context is current), -EOPNOTSUPP (memory that no other process
 * can be given: the text says how to allocate it), -EPIPE, -EACCES, -ENOMEM, -ETIMEDOUT. Blocks for a
 * round trip, and while the broker's copier starts.
 */
STOKER_API int stoker_cuda_region_add(struct stoker *c, uint64_t device_pointer, uint64_t bytes,
				      struct stoker_region **ret);

/**
 * stoker_cuda_ready() - raise ready word @index to @value when @stream has come this far.
 * What the stream did before is seen by the copies that wait for the value. The device writes the word
 * itself; where it cannot, a host callback of the stream does (see stoker_cuda_how()).
 * Returns 0; -EINVAL (no such word, or no context is current), -EAGAIN (1,024 callbacks are under way),
 * -EPIPE (no broker: nothing was enqueued). After another attachment (stoker_attachments()), values that
 * were enqueued before it have not been written to its words: enqueue them again.
 */
STOKER_API int stoker_cuda_ready(struct stoker *c, uint32_t index, uint32_t value, void *stream);

/**
 * stoker_cuda_wait() - what is enqueued on @stream from now on begins when @job is DONE.
 * DONE, not well done: look at the status (stoker_finish()) before results are used, and at the
 * chunks that failed. A job may be finished before the stream comes to the wait. When the broker dies the wait
 * ends as the job does, when nobody touches its blocks any more; stoker_close() ends it at once.
 * A job that waits for a ready word which the same stream raises after this wait ends at its deadline.
 * Returns 0; -ENOENT (no such job, or finished), -EOPNOTSUPP (driver or device cannot: poll the job,
 * and enqueue afterwards), -EINVAL (no context is current), -ENOMEM.
 */
STOKER_API int stoker_cuda_wait(struct stoker *c, struct stoker_job job, void *stream);

/** How ready words are raised and waits are made here, and why not otherwise, for a log: one line. Before the
 * first of these calls: that nothing is known yet. Valid until the next call with @c. */
STOKER_API const char *stoker_cuda_how(struct stoker *c);

#ifdef __cplusplus
}
#endif

#endif
