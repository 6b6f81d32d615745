/*
 * The fake driver of GPUs, for tests: libcuda-fake.so stands where libcuda.so.1 would.
 *
 * Its devices are host memory, in files of a directory that all processes of a test share
 * ($FAKE_CUDA_DIR, which must exist). A device address is no host address: touching it is a SIGSEGV,
 * as it would be. Streams run late, in a thread of each process, in an order that the seed chooses among
 * those allowed; a batch's copies in any order, in pieces. What CUDA leaves undefined, and what would be
 * silently slow, is an abort with a message on stderr (and in the directory: fake_cuda_aborts()).
 *
 * Each process reads when it first calls the library:
 *	FAKE_CUDA_DIR		the directory; without it cuInit() aborts
 *	FAKE_CUDA_VERSION	the driver's version (13000); entries that came later are not found
 *	FAKE_CUDA_MISSING	symbols,with,commas that cuGetProcAddress does not find
 *	FAKE_CUDA_DEVICES	how many GPUs the machine has (1, at most 8)
 *	CUDA_VISIBLE_DEVICES	which of them this process sees, in its order: 1,0 or GPU-<uuid>
 *	FAKE_CUDA_MEMORY	bytes of each device (1 GiB)
 *	FAKE_CUDA_SEED		of orders and delays (1)
 *	FAKE_CUDA_FAIL		symbol:n:code,...: the n-th call of that symbol (base name, cuMemAlloc) in this
 *				process returns code; "execute" instead of a symbol: the n-th operation that
 *				a stream executes kills the context with code. Fatal codes stay.
 *	FAKE_CUDA_HANG		n: the n-th operation executed in this process never ends, nor does its stream
 *	FAKE_CUDA_REGISTER_MAX	bytes of one registration at most (64 GiB); more is a sticky error
 *	FAKE_CUDA_PIN_MAX	bytes registered by this process in all; more is out of memory
 *	FAKE_CUDA_LACKS		what devices lack, with commas: stream-values, batch, posix-handles,
 *				read-only-register, vmm, peer, ipc (then allocations are not IPC capable)
 *	FAKE_CUDA_PAGEABLE	1: asynchronous copies of unregistered memory are staged, as CUDA would,
 *				instead of an abort
 *
 * A test steers and looks while processes run, without loading the library: fake_cuda_open() maps the
 * controls that all of them share, and the functions below read the directory. What a process held goes
 * when it dies, however it dies: locks of the kernel say what is held, so a count is never stale.
 */
#ifndef TESTS_FAKE_CUDA_H
#define TESTS_FAKE_CUDA_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/device/cuda/driver.h"

#define FAKE_CUDA_LIBRARY	"tests/fake-cuda/.libs/libcuda-fake.so"	/* in the build tree */

/* FAKE_CALL_mem_alloc and so on, by the names of driver.h; last what a stream executes. */
#define FAKE_CALL_AS_ENUM(field, symbol, exported, since, need, parameters) FAKE_CALL_##field,
enum fake_call { CUDA_ENTRIES(FAKE_CALL_AS_ENUM) FAKE_CALL_execute, FAKE_CALLS };

/** struct fake_cuda_control - shared by a test and all processes with its directory. */
struct fake_cuda_control {
	_Atomic uint64_t calls[FAKE_CALLS];	/* made so far */
	_Atomic uint64_t copied_bytes, copies;	/* by streams: of a batch each counts */
	/* The n-th call from now, in whichever process, fails once with that result; 0: none will. */
	_Atomic int32_t fail_in[FAKE_CALLS];
	_Atomic uint32_t fail_with[FAKE_CALLS];
	_Atomic int32_t hang_in;		/* the n-th operation from now never ends; 0: none */
	_Atomic uint32_t hold;			/* while not 0, no stream executes anything; synchronous */
						/* copies, which go by the null stream, wait too */
	_Atomic uint32_t lenient;		/* freeing what others have imported is no abort */
};

struct fake_cuda_control *fake_cuda_open(const char *directory);	/* NULL with errno */
void fake_cuda_close(struct fake_cuda_control *control);
void fake_cuda_fail(struct fake_cuda_control *control, enum fake_call call, int32_t n, enum cuda_result with);

/* Bytes in use on device @device (as the machine numbers them): freed when nobody holds them any more. */
uint64_t fake_cuda_memory(const char *directory, unsigned device);
/* Imports open now: legacy handles, and VMM allocations of descriptors; @pid 0: of all processes. */
unsigned fake_cuda_imports(const char *directory, pid_t pid);
/* Aborts so far; the text of one of them into @text, if there is one and @text is not NULL. */
unsigned fake_cuda_aborts(const char *directory, char *text, size_t bytes);

/* The UUID of device @device of the machine. */
void fake_cuda_uuid(unsigned device, struct cuda_uuid *ret);

/* Remove the directory with all that the fake has put there. */
void fake_cuda_remove(const char *directory);

#endif
