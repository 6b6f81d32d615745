/*
 * The inside of libcuda-fake.so; fake-cuda.h is its outside.
 *
 * One mutex guards everything but the bytes that are copied. Every entry point is a function
 * fake_NAME() with the driver's symbol as its name for the linker; it begins with fake_enter(), which
 * takes the mutex whatever it returns, and ends with fake_leave().
 *
 *	entry.c		what the environment asks, the way into every call, cuGetProcAddress
 *	device.c	devices and contexts
 *	span.c		what is where in the one address space; pointer attributes
 *	memory.c	allocations of device memory, registered host memory
 *	share.c		legacy IPC
 *	virtual.c	physical memory, reservations and mappings
 *	copy.c		copies: checked when they are asked for, cut into moves
 *	stream.c	streams, events, host functions, values
 *	run.c		the thread that executes what streams hold
 *	registry.c	the directory (tests link it too)
 */
#ifndef TESTS_FAKE_CUDA_FAKE_H
#define TESTS_FAKE_CUDA_FAKE_H

#include <pthread.h>

#include "tests/fake-cuda/fake-cuda.h"
#include "tests/fake-cuda/registry.h"

#define FAKE_DEVICES_MAX	8u
#define FAKE_GRANULE		(UINT64_C(2) << 20)	/* of VMM, and the alignment of allocations' ends */
#define FAKE_PIECE		(UINT64_C(64) << 10)	/* a stream moves about so much between two choices */

#define FAKE_CALL_AS_PROTOTYPE(field, symbol, exported, since, need, parameters) \
	__attribute__((visibility("default"))) enum cuda_result fake_##field parameters __asm__(#exported);
CUDA_ENTRIES(FAKE_CALL_AS_PROTOTYPE)

/* --- configuration and calls (entry.c) -------------------------------------------------------------------------- */

struct fake_config {
	char directory[3072];
	char missing[512];
	int version;
	unsigned machine_devices;
	unsigned n_devices, devices[FAKE_DEVICES_MAX];	/* seen by this process: ordinal to machine's number */
	uint64_t memory, register_max, pin_max;
	uint64_t seed;
	uint64_t hang;			/* execute this one and no more of its stream; 0: none */
	bool lacks_stream_values, lacks_batch, lacks_posix_handles, lacks_read_only, lacks_vmm, lacks_peer, lacks_ipc;
	bool pageable;
};

struct fake {
	pthread_mutex_t mutex;
	pthread_cond_t changed;		/* something was queued, ended, or died */
	struct fake_config config;
	struct fake_cuda_control *control;
	int pid;			/* of the process that called init; 0: none has */
	enum cuda_result dead;		/* what every call returns from now on; CUDA_OK: alive */
	uint64_t random;
};
extern struct fake fake;

enum fake_want { FAKE_ALWAYS, FAKE_INITIALIZED, FAKE_CONTEXT };
enum cuda_result fake_enter(enum fake_call call, enum fake_want want);
enum cuda_result fake_leave(enum cuda_result result);
/* Does the call that this is (of @call) fail by request? CUDA_OK, or what with. */
enum cuda_result fake_injected(enum fake_call call);
bool fake_countdown(_Atomic int32_t *left);	/* is this the one? */
uint64_t fake_below(uint64_t n);		/* random, 0 to n - 1 */
/* What CUDA leaves undefined ends here. */
__attribute__((noreturn, format(printf, 1, 2))) void fake_die(const char *format, ...);

/* --- devices and contexts (device.c) ---------------------------------------------------------------------------- */

struct cuda_context {
	cuda_device device;
	unsigned references;
	struct cuda_stream *null_stream;
};

bool fake_device_is(cuda_device device);
unsigned fake_machine_device(cuda_device device);
struct cuda_context *fake_current(void);

/* --- what is where (span.c) ------------------------------------------------------------------------------------- */

enum fake_kind { FAKE_ALLOCATION, FAKE_IMPORT, FAKE_MAPPING, FAKE_HOST, FAKE_HOST_ALIAS };

/** struct fake_span - a range of addresses and the memory behind it. */
struct fake_span {
	enum fake_kind kind;
	cuda_address start;
	uint64_t bytes;
	uint8_t *memory;		/* where this process reaches it */
	uint32_t busy;			/* queued moves and values that name it */
	uint64_t id;
	cuda_device device;		/* of device memory: this process's ordinal, -1 if it does not see it */
	unsigned flags;			/* of registered memory */
	struct cuda_context *context;	/* that allocated, imported or registered it */
	char name[REGISTRY_NAME];	/* of its file; of an import's own marker in @marker */
	char marker[REGISTRY_NAME];
	int fd, marker_fd;
	uint32_t references;		/* of an import: times opened */
	struct fake_physical *physical;	/* of a mapping */
	uint8_t access[FAKE_DEVICES_MAX];	/* of a mapping, by ordinal: CUDA_MEM_ACCESS_FLAGS_PROT_* */
	struct fake_span *other;	/* of registered memory: its device's view, and back */
};

struct fake_span *fake_span_new(enum fake_kind kind, cuda_address start, uint64_t bytes);	/* added */
void fake_span_remove(struct fake_span *span, const char *deed);	/* dies if it is busy */
struct fake_span *fake_span_at(cuda_address address);	/* that holds it, or NULL */
struct fake_span *fake_span_overlapping(cuda_address start, uint64_t bytes);	/* the first, or NULL */
unsigned fake_span_count(void);
struct fake_span *fake_span_number(unsigned i);		/* by address */

cuda_address fake_addresses(uint64_t bytes, uint64_t alignment);	/* that nobody may touch; 0: none left */
void fake_addresses_free(cuda_address start, uint64_t bytes);

/* --- memory (memory.c, share.c, virtual.c) ---------------------------------------------------------------------- */

/** struct fake_physical - physical memory of VMM, as one process knows it. */
struct fake_physical {
	struct fake_physical *next;
	cuda_handle handle;
	uint32_t references, mappings;
	struct cuda_allocation properties;
	uint64_t bytes;
	int fd, marker_fd;		/* marker: this was imported; -1 else */
	char name[REGISTRY_NAME], marker[REGISTRY_NAME];
};

bool fake_fits(cuda_device device, uint64_t bytes);	/* is there so much free memory? */
uint8_t *fake_memory_map(int fd, uint64_t bytes);	/* dies if that fails */
void fake_allocation_free(struct fake_span *span);
void fake_import_close(struct fake_span *span);
uint32_t fake_handle_types(const struct fake_span *span);

/* --- streams (stream.c, copy.c, run.c) -------------------------------------------------------------------------- */

enum fake_deed { FAKE_MOVES, FAKE_RECORD, FAKE_WAIT_EVENT, FAKE_FUNCTION, FAKE_WRITE, FAKE_WAIT };

struct fake_move {
	struct fake_span *to_span, *from_span;	/* NULL: pageable memory, or a snapshot */
	uint8_t *to;
	const uint8_t *from;
	uint64_t bytes;
	bool snapshot;			/* @from is ours to free when it has been moved */
};

/** struct fake_op - one thing that a stream will do. */
struct fake_op {
	struct fake_op *next;
	enum fake_deed deed;
	uint64_t sequence;		/* among all of the process */
	bool begun;
	struct fake_move *moves;	/* in the order in which they will be done */
	uint64_t n_moves, done;
	uint64_t within;		/* bytes of the move under way that are done */
	struct cuda_event *event;
	uint64_t generation;		/* of the event */
	cuda_host_function function;
	void *data;
	struct fake_span *span;		/* of the value */
	_Atomic uint32_t *word;
	uint32_t value;
	unsigned flags;
};

struct cuda_stream {
	struct cuda_stream *next;	/* of all that ever were: a handle is never used again */
	struct cuda_context *context;
	unsigned flags;
	int priority;
	bool destroyed, hung, is_null;
	struct fake_op *first, *last;
};

struct cuda_event {
	struct cuda_event *next;
	struct cuda_context *context;
	bool destroyed;
	uint64_t recorded, completed;	/* generations */
};

extern struct cuda_stream *fake_streams;
struct cuda_stream *fake_stream_new(struct cuda_context *context, unsigned flags, int priority);
/* The stream behind a handle of the caller's; dies if there is none such. */
struct cuda_stream *fake_stream_of(struct cuda_stream *handle, const char *caller);
void fake_queue(struct cuda_stream *stream, const struct fake_op *op);
enum cuda_result fake_drain(struct cuda_stream *stream);	/* wait, giving the mutex away meanwhile */
void fake_run_start(void);		/* the thread, if it does not run yet */
bool fake_in_host_function(void);
void fake_kill_context(enum cuda_result with);

#endif
