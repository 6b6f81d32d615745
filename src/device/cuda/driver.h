/*
 * The driver of NVIDIA's GPUs as we use it: our own declarations, so that nothing here needs a toolkit.
 *
 * Everything that Stoker knows of CUDA stands in this file: types, constants and one table of entry
 * points. driver.c opens libcuda when a process first needs it and looks each entry up at run time, by
 * name and version, so that one build serves machines with and without a GPU, and drivers of 11.4 and
 * later; nothing is linked. driver-check.c, compiled where a cuda.h of 12.0 or later exists, asserts
 * every size, offset, value and function type below against it. What cuda.h calls CU_X is CUDA_X here
 * (results: CUDA_RESULT_X for CUDA_ERROR_X), and no name is one of cuda.h's, so both can be included.
 *
 *	const struct cuda_driver *cuda;
 *	char why[CUDA_WHY], text[CUDA_TEXT];
 *	if (cuda_driver_open(NULL, why, &cuda) < 0)
 *		...refuse with why...
 *	result = cuda->mem_alloc(&address, bytes);
 *	if (result != CUDA_OK)
 *		...say cuda_error_text(cuda, result, text)...
 *	if (cuda_result_is_fatal(result))
 *		...the context is dead, and so is all that this process can do on a GPU...
 *	if (cuda->stream_write_value32)
 *		...an optional entry: NULL where the driver is older than it...
 *
 * Who uses it: the copier process (import, pin, streams) and, in a worker's process, the library's
 * export. The table is one for the process and is never closed: a driver does not survive that. After
 * fork() the child has none (the driver refuses every call with NOT_INITIALIZED): exec first.
 *
 * Traps, each of which has cost somebody a day:
 * - Most calls need a current context: ctx_set_current(), per thread. In a worker's process it is the
 *   worker's: push and pop, never set.
 * - Any call may report an error of earlier asynchronous work.
 * - batch copies: no order inside a batch; ACCESS_ORDER_ANY may read the source before the stream gets
 *   there, so it is for host to device only; never on the null stream; an attribute index for the first
 *   copy is a must. Two signatures: until CUDA 12.9 with an index of the failing copy, from 13 without.
 * - mem_get_handle (legacy IPC) wants the address of an allocation's start, and its handle stands for all
 *   of the allocation: send the offset along. An import keeps the exporter's memory until it is closed.
 * - mem_unmap wants exactly the ranges that were mapped; memory is free when mappings, handles and
 *   descriptors are all gone.
 * - MEMHOSTREGISTER_READ_ONLY asks READ_ONLY_HOST_REGISTER_SUPPORTED of the device first.
 * - Writes and waits of 32-bit values on a stream have no attribute of their own: present (11.7 and
 *   later) and not answered by NOT_SUPPORTED means that they work. CAN_USE_STREAM_MEM_OPS of old is about
 *   their first version, which a module parameter switches. Their addresses are device addresses: for
 *   host memory what host_get_device_pointer() gives, on 4 bytes.
 */
#ifndef STOKER_DEVICE_CUDA_DRIVER_H
#define STOKER_DEVICE_CUDA_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_LIBRARY	"libcuda.so.1"	/* what cuda_driver_open(NULL) opens */
#define CUDA_WHY	512u		/* bytes of a reason, its end included */
#define CUDA_TEXT	192u		/* bytes of an error's text, its end included */
#define CUDA_DRIVER_MIN	11040		/* 1,000 * major + 10 * minor */

/* --- types ------------------------------------------------------------------------------------------------------ */

typedef int cuda_device;			/* an ordinal's handle; by itself it means nothing elsewhere */
typedef unsigned long long cuda_address;	/* in the one address space of host and devices */
typedef unsigned long long cuda_handle;		/* of physical memory (VMM) */
typedef void (*cuda_host_function)(void *data);	/* must make no call of the driver */

struct cuda_context;
struct cuda_stream;
struct cuda_event;

struct cuda_uuid {
	char bytes[16];
};

struct cuda_ipc_handle {		/* legacy IPC: plain bytes, valid while the allocation lives */
	char reserved[64];
};

struct cuda_location {
	uint32_t type;			/* CUDA_MEM_LOCATION_TYPE_* */
	int id;				/* of a device: its ordinal */
};

struct cuda_allocation {		/* properties of physical memory */
	uint32_t type;			/* CUDA_MEM_ALLOCATION_TYPE_PINNED */
	uint32_t handle_types;		/* mask of enum cuda_handle_type that it may be exported as */
	struct cuda_location location;
	void *windows;			/* NULL */
	struct {
		unsigned char compression, rdma;
		unsigned short usage;
		unsigned char reserved[4];
	} flags;
};

struct cuda_access {			/* who may use a mapped range, and how */
	struct cuda_location location;
	uint32_t flags;			/* CUDA_MEM_ACCESS_FLAGS_PROT_* */
};

struct cuda_copy_attributes {		/* of copies in a batch, from the index given with it */
	uint32_t source_order;		/* CUDA_MEMCPY_SRC_ACCESS_ORDER_* */
	struct cuda_location source, destination;	/* hints for managed memory; zero */
	uint32_t flags;			/* CUDA_MEMCPY_FLAG_* */
};

/* --- constants -------------------------------------------------------------------------------------------------- */

/* X(name, value, fatal): fatal results leave the context, and with it the process, of no further use. */
#define CUDA_RESULTS(X) \
	X(INVALID_VALUE,			1,	false) \
	X(OUT_OF_MEMORY,			2,	false) \
	X(NOT_INITIALIZED,			3,	false) \
	X(DEINITIALIZED,			4,	true) \
	X(STUB_LIBRARY,				34,	false) \
	X(DEVICE_UNAVAILABLE,			46,	false) \
	X(NO_DEVICE,				100,	false) \
	X(INVALID_DEVICE,			101,	false) \
	X(INVALID_CONTEXT,			201,	false) \
	X(MAP_FAILED,				205,	false) \
	X(UNMAP_FAILED,				206,	false) \
	X(ALREADY_MAPPED,			208,	false) \
	X(NOT_MAPPED,				211,	false) \
	X(ECC_UNCORRECTABLE,			214,	true) \
	X(PEER_ACCESS_UNSUPPORTED,		217,	false) \
	X(NVLINK_UNCORRECTABLE,			220,	true) \
	X(OPERATING_SYSTEM,			304,	false) \
	X(INVALID_HANDLE,			400,	false) \
	X(ILLEGAL_STATE,			401,	false) \
	X(NOT_FOUND,				500,	false) \
	X(NOT_READY,				600,	false) \
	X(ILLEGAL_ADDRESS,			700,	true) \
	X(LAUNCH_TIMEOUT,			702,	true) \
	X(CONTEXT_IS_DESTROYED,			709,	true) \
	X(ASSERT,				710,	true) \
	X(TOO_MANY_PEERS,			711,	false) \
	X(HOST_MEMORY_ALREADY_REGISTERED,	712,	false) \
	X(HOST_MEMORY_NOT_REGISTERED,		713,	false) \
	X(HARDWARE_STACK_ERROR,			714,	true) \
	X(ILLEGAL_INSTRUCTION,			715,	true) \
	X(MISALIGNED_ADDRESS,			716,	true) \
	X(INVALID_ADDRESS_SPACE,		717,	true) \
	X(INVALID_PC,				718,	true) \
	X(LAUNCH_FAILED,			719,	true) \
	X(NOT_PERMITTED,			800,	false) \
	X(NOT_SUPPORTED,			801,	false) \
	X(SYSTEM_NOT_READY,			802,	false) \
	X(SYSTEM_DRIVER_MISMATCH,		803,	false) \
	X(MPS_CLIENT_TERMINATED,		810,	true) \
	X(UNKNOWN,				999,	true)
#define CUDA_RESULT_AS_ENUM(name, value, fatal) CUDA_RESULT_##name = (value),
enum cuda_result { CUDA_OK = 0, CUDA_RESULTS(CUDA_RESULT_AS_ENUM) };

#define CUDA_AS_ENUM(name, value) CUDA_##name = (value),

#define CUDA_DEVICE_ATTRIBUTES(X) \
	X(DEVICE_ATTRIBUTE_INTEGRATED,						18) \
	X(DEVICE_ATTRIBUTE_COMPUTE_MODE,					20) \
	X(DEVICE_ATTRIBUTE_PCI_BUS_ID,						33) \
	X(DEVICE_ATTRIBUTE_PCI_DEVICE_ID,					34) \
	X(DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT,					40) \
	X(DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING,					41) \
	X(DEVICE_ATTRIBUTE_PCI_DOMAIN_ID,					50) \
	X(DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,				75) \
	X(DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,				76) \
	X(DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,		91) \
	X(DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES,				98) \
	X(DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED,				99) \
	X(DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,			102) \
	X(DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,		103) \
	X(DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,			113) \
	X(DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS,			122) \
	X(DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR,			123)
enum cuda_device_attribute { CUDA_DEVICE_ATTRIBUTES(CUDA_AS_ENUM) };

#define CUDA_POINTER_ATTRIBUTES(X)		/* the type of the answer */ \
	X(POINTER_ATTRIBUTE_CONTEXT,			1)	/* struct cuda_context * */ \
	X(POINTER_ATTRIBUTE_MEMORY_TYPE,		2)	/* uint32_t, CUDA_MEMORYTYPE_* */ \
	X(POINTER_ATTRIBUTE_DEVICE_POINTER,		3)	/* cuda_address */ \
	X(POINTER_ATTRIBUTE_HOST_POINTER,		4)	/* void * */ \
	X(POINTER_ATTRIBUTE_BUFFER_ID,			7)	/* uint64_t, unique in the process */ \
	X(POINTER_ATTRIBUTE_IS_MANAGED,			8)	/* uint32_t, 0 or 1 */ \
	X(POINTER_ATTRIBUTE_DEVICE_ORDINAL,		9)	/* int */ \
	X(POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,	10)	/* uint32_t, 0 or 1 */ \
	X(POINTER_ATTRIBUTE_RANGE_START_ADDR,		11)	/* cuda_address */ \
	X(POINTER_ATTRIBUTE_RANGE_SIZE,			12)	/* size_t */ \
	X(POINTER_ATTRIBUTE_MAPPED,			13)	/* uint32_t, 0 or 1 */ \
	X(POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,	14)	/* uint64_t, mask of enum cuda_handle_type */
enum cuda_pointer_attribute { CUDA_POINTER_ATTRIBUTES(CUDA_AS_ENUM) };

#define CUDA_HANDLE_TYPES(X) \
	X(MEM_HANDLE_TYPE_NONE,				0) \
	X(MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,	1) \
	X(MEM_HANDLE_TYPE_FABRIC,			8)
enum cuda_handle_type { CUDA_HANDLE_TYPES(CUDA_AS_ENUM) };

#define CUDA_GRANULARITIES(X) \
	X(MEM_ALLOC_GRANULARITY_MINIMUM,	0) \
	X(MEM_ALLOC_GRANULARITY_RECOMMENDED,	1)
enum cuda_granularity { CUDA_GRANULARITIES(CUDA_AS_ENUM) };

/* Values of integers: flags of calls and fields of the structs above. */
#define CUDA_VALUES(X) \
	X(CTX_SCHED_BLOCKING_SYNC,			0x4) \
	X(MEMORYTYPE_HOST,				1) \
	X(MEMORYTYPE_DEVICE,				2) \
	X(MEMHOSTREGISTER_PORTABLE,			0x1)	/* for all contexts of the process */ \
	X(MEMHOSTREGISTER_DEVICEMAP,			0x2) \
	X(MEMHOSTREGISTER_READ_ONLY,			0x8) \
	X(IPC_MEM_LAZY_ENABLE_PEER_ACCESS,		0x1) \
	X(MEM_ALLOCATION_TYPE_PINNED,			1) \
	X(MEM_LOCATION_TYPE_DEVICE,			1) \
	X(MEM_ACCESS_FLAGS_PROT_NONE,			0) \
	X(MEM_ACCESS_FLAGS_PROT_READ,			1) \
	X(MEM_ACCESS_FLAGS_PROT_READWRITE,		3) \
	X(STREAM_DEFAULT,				0) \
	X(STREAM_NON_BLOCKING,				1)	/* knows nothing of the null stream */ \
	X(EVENT_DEFAULT,				0) \
	X(EVENT_BLOCKING_SYNC,				0x1) \
	X(EVENT_DISABLE_TIMING,				0x2) \
	X(STREAM_WRITE_VALUE_DEFAULT,			0)	/* after a fence: what went before is seen first */ \
	X(STREAM_WAIT_VALUE_GEQ,			0)	/* (int32_t)(*address - value) >= 0 */ \
	X(STREAM_WAIT_VALUE_EQ,				1) \
	X(STREAM_WAIT_VALUE_AND,			2) \
	X(STREAM_WAIT_VALUE_FLUSH,			(1 << 30)) \
	X(GET_PROC_ADDRESS_LEGACY_STREAM,		0x1)
enum { CUDA_VALUES(CUDA_AS_ENUM) };

/* Those of batch copies: in cuda.h from 12.8. */
#define CUDA_BATCH_VALUES(X) \
	X(MEMCPY_SRC_ACCESS_ORDER_STREAM,		1) \
	X(MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL,	2) \
	X(MEMCPY_SRC_ACCESS_ORDER_ANY,			3) \
	X(MEMCPY_FLAG_DEFAULT,				0) \
	X(MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE,	1)
enum { CUDA_BATCH_VALUES(CUDA_AS_ENUM) };

/* --- entry points ----------------------------------------------------------------------------------------------- */

/*
 * X(our name, name for cuGetProcAddress, name of the library's own symbol, version that brought this
 *   signature, NEEDED or OPTIONAL, parameters). All return enum cuda_result.
 */
#define CUDA_ENTRIES(X) \
	/* the driver itself */ \
	X(init, cuInit, cuInit, 2000, NEEDED, (unsigned int flags)) \
	X(driver_get_version, cuDriverGetVersion, cuDriverGetVersion, 2020, NEEDED, (int *version)) \
	X(get_error_name, cuGetErrorName, cuGetErrorName, 6000, NEEDED, \
		(enum cuda_result error, const char **name)) \
	X(get_error_string, cuGetErrorString, cuGetErrorString, 6000, NEEDED, \
		(enum cuda_result error, const char **text)) \
	/* devices */ \
	X(device_get_count, cuDeviceGetCount, cuDeviceGetCount, 2000, NEEDED, (int *count)) \
	X(device_get, cuDeviceGet, cuDeviceGet, 2000, NEEDED, (cuda_device *device, int ordinal)) \
	X(device_get_name, cuDeviceGetName, cuDeviceGetName, 2000, NEEDED, \
		(char *name, int bytes, cuda_device device)) \
	X(device_get_uuid, cuDeviceGetUuid, cuDeviceGetUuid_v2, 11040, NEEDED, \
		(struct cuda_uuid *uuid, cuda_device device)) \
	X(device_get_attribute, cuDeviceGetAttribute, cuDeviceGetAttribute, 2000, NEEDED, \
		(int *value, enum cuda_device_attribute attribute, cuda_device device)) \
	X(device_can_access_peer, cuDeviceCanAccessPeer, cuDeviceCanAccessPeer, 4000, NEEDED, \
		(int *can, cuda_device device, cuda_device peer)) \
	/* contexts */ \
	X(primary_retain, cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, NEEDED, \
		(struct cuda_context **context, cuda_device device)) \
	X(primary_release, cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, 11000, NEEDED, \
		(cuda_device device)) \
	X(primary_set_flags, cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2, 11000, NEEDED, \
		(cuda_device device, unsigned int flags)) \
	X(ctx_set_current, cuCtxSetCurrent, cuCtxSetCurrent, 4000, NEEDED, (struct cuda_context *context)) \
	X(ctx_get_current, cuCtxGetCurrent, cuCtxGetCurrent, 4000, NEEDED, (struct cuda_context **context)) \
	X(ctx_push_current, cuCtxPushCurrent, cuCtxPushCurrent_v2, 4000, NEEDED, (struct cuda_context *context)) \
	X(ctx_pop_current, cuCtxPopCurrent, cuCtxPopCurrent_v2, 4000, NEEDED, (struct cuda_context **context)) \
	X(ctx_get_device, cuCtxGetDevice, cuCtxGetDevice, 2000, NEEDED, (cuda_device *device)) \
	X(ctx_get_stream_priority_range, cuCtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange, 5050, NEEDED, \
		(int *least, int *greatest)) \
	/* device memory */ \
	X(mem_alloc, cuMemAlloc, cuMemAlloc_v2, 3020, NEEDED, (cuda_address *address, size_t bytes)) \
	X(mem_free, cuMemFree, cuMemFree_v2, 3020, NEEDED, (cuda_address address)) \
	X(mem_get_info, cuMemGetInfo, cuMemGetInfo_v2, 3020, NEEDED, (size_t *free_bytes, size_t *total_bytes)) \
	X(mem_get_address_range, cuMemGetAddressRange, cuMemGetAddressRange_v2, 3020, NEEDED, \
		(cuda_address *base, size_t *bytes, cuda_address address)) \
	X(pointer_get_attribute, cuPointerGetAttribute, cuPointerGetAttribute, 4000, NEEDED, \
		(void *value, enum cuda_pointer_attribute attribute, cuda_address address)) \
	/* host memory: CUDA_MEMHOSTREGISTER_* */ \
	X(host_register, cuMemHostRegister, cuMemHostRegister_v2, 6050, NEEDED, \
		(void *start, size_t bytes, unsigned int flags)) \
	X(host_unregister, cuMemHostUnregister, cuMemHostUnregister, 4000, NEEDED, (void *start)) \
	X(host_get_device_pointer, cuMemHostGetDevicePointer, cuMemHostGetDevicePointer_v2, 3020, NEEDED, \
		(cuda_address *address, void *host, unsigned int flags)) \
	/* copies */ \
	X(copy_to_device, cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020, NEEDED, \
		(cuda_address to, const void *from, size_t bytes)) \
	X(copy_to_host, cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020, NEEDED, \
		(void *to, cuda_address from, size_t bytes)) \
	X(copy_to_device_async, cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020, NEEDED, \
		(cuda_address to, const void *from, size_t bytes, struct cuda_stream *stream)) \
	X(copy_to_host_async, cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020, NEEDED, \
		(void *to, cuda_address from, size_t bytes, struct cuda_stream *stream)) \
	X(copy_batch_12, cuMemcpyBatchAsync, cuMemcpyBatchAsync, 12080, OPTIONAL, \
		(cuda_address *to, cuda_address *from, size_t *bytes, size_t n, \
		 struct cuda_copy_attributes *attributes, size_t *first, size_t n_attributes, \
		 size_t *failed, struct cuda_stream *stream)) \
	X(copy_batch_13, cuMemcpyBatchAsync, cuMemcpyBatchAsync_v2, 13000, OPTIONAL, \
		(cuda_address *to, cuda_address *from, size_t *bytes, size_t n, \
		 struct cuda_copy_attributes *attributes, size_t *first, size_t n_attributes, \
		 struct cuda_stream *stream)) \
	/* legacy IPC */ \
	X(ipc_get_handle, cuIpcGetMemHandle, cuIpcGetMemHandle, 4010, NEEDED, \
		(struct cuda_ipc_handle *handle, cuda_address address)) \
	X(ipc_open, cuIpcOpenMemHandle, cuIpcOpenMemHandle_v2, 11000, NEEDED, \
		(cuda_address *address, struct cuda_ipc_handle handle, unsigned int flags)) \
	X(ipc_close, cuIpcCloseMemHandle, cuIpcCloseMemHandle, 4010, NEEDED, (cuda_address address)) \
	/* virtual memory management (VMM) */ \
	X(mem_create, cuMemCreate, cuMemCreate, 10020, NEEDED, \
		(cuda_handle *handle, size_t bytes, const struct cuda_allocation *properties, \
		 unsigned long long flags)) \
	X(mem_release, cuMemRelease, cuMemRelease, 10020, NEEDED, (cuda_handle handle)) \
	X(mem_reserve, cuMemAddressReserve, cuMemAddressReserve, 10020, NEEDED, \
		(cuda_address *address, size_t bytes, size_t alignment, cuda_address wish, \
		 unsigned long long flags)) \
	X(mem_address_free, cuMemAddressFree, cuMemAddressFree, 10020, NEEDED, \
		(cuda_address address, size_t bytes)) \
	X(mem_map, cuMemMap, cuMemMap, 10020, NEEDED, \
		(cuda_address address, size_t bytes, size_t offset, cuda_handle handle, unsigned long long flags)) \
	X(mem_unmap, cuMemUnmap, cuMemUnmap, 10020, NEEDED, (cuda_address address, size_t bytes)) \
	X(mem_set_access, cuMemSetAccess, cuMemSetAccess, 10020, NEEDED, \
		(cuda_address address, size_t bytes, const struct cuda_access *access, size_t n)) \
	/* @shareable: for descriptors an int *, for import the descriptor itself as a pointer */ \
	X(mem_export, cuMemExportToShareableHandle, cuMemExportToShareableHandle, 10020, NEEDED, \
		(void *shareable, cuda_handle handle, enum cuda_handle_type type, unsigned long long flags)) \
	X(mem_import, cuMemImportFromShareableHandle, cuMemImportFromShareableHandle, 10020, NEEDED, \
		(cuda_handle *handle, void *shareable, enum cuda_handle_type type)) \
	X(mem_retain, cuMemRetainAllocationHandle, cuMemRetainAllocationHandle, 11000, NEEDED, \
		(cuda_handle *handle, void *address)) \
	X(mem_get_properties, cuMemGetAllocationPropertiesFromHandle, cuMemGetAllocationPropertiesFromHandle, \
		10020, NEEDED, (struct cuda_allocation *properties, cuda_handle handle)) \
	X(mem_get_granularity, cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, 10020, NEEDED, \
		(size_t *bytes, const struct cuda_allocation *properties, enum cuda_granularity which)) \
	/* streams */ \
	X(stream_create, cuStreamCreateWithPriority, cuStreamCreateWithPriority, 5050, NEEDED, \
		(struct cuda_stream **stream, unsigned int flags, int priority)) \
	X(stream_destroy, cuStreamDestroy, cuStreamDestroy_v2, 4000, NEEDED, (struct cuda_stream *stream)) \
	X(stream_synchronize, cuStreamSynchronize, cuStreamSynchronize, 2000, NEEDED, \
		(struct cuda_stream *stream)) \
	X(stream_query, cuStreamQuery, cuStreamQuery, 2000, NEEDED, (struct cuda_stream *stream)) \
	X(stream_wait_event, cuStreamWaitEvent, cuStreamWaitEvent, 3020, NEEDED, \
		(struct cuda_stream *stream, struct cuda_event *event, unsigned int flags)) \
	X(launch_host_function, cuLaunchHostFunc, cuLaunchHostFunc, 10000, NEEDED, \
		(struct cuda_stream *stream, cuda_host_function function, void *data)) \
	X(stream_write_value32, cuStreamWriteValue32, cuStreamWriteValue32_v2, 11070, OPTIONAL, \
		(struct cuda_stream *stream, cuda_address address, uint32_t value, unsigned int flags)) \
	X(stream_wait_value32, cuStreamWaitValue32, cuStreamWaitValue32_v2, 11070, OPTIONAL, \
		(struct cuda_stream *stream, cuda_address address, uint32_t value, unsigned int flags)) \
	/* events */ \
	X(event_create, cuEventCreate, cuEventCreate, 2000, NEEDED, \
		(struct cuda_event **event, unsigned int flags)) \
	X(event_destroy, cuEventDestroy, cuEventDestroy_v2, 4000, NEEDED, (struct cuda_event *event)) \
	X(event_record, cuEventRecord, cuEventRecord, 2000, NEEDED, \
		(struct cuda_event *event, struct cuda_stream *stream)) \
	X(event_query, cuEventQuery, cuEventQuery, 2000, NEEDED, (struct cuda_event *event)) \
	X(event_synchronize, cuEventSynchronize, cuEventSynchronize, 2000, NEEDED, (struct cuda_event *event))

/** struct cuda_driver - what an opened driver can do. */
struct cuda_driver {
	int version;			/* CUDA version that the driver speaks: 12080 is 12.8 */
#define CUDA_ENTRY_AS_FIELD(field, symbol, exported, since, need, parameters) enum cuda_result (*field) parameters;
	CUDA_ENTRIES(CUDA_ENTRY_AS_FIELD)
#undef CUDA_ENTRY_AS_FIELD
};

/**
 * cuda_driver_open() - the driver of this process: opened and initialized by the first call.
 * @library: file to open; NULL or "" for CUDA_LIBRARY. What another call has opened already stays:
 *	asking for a different one then is -EBUSY.
 * @why: CUDA_WHY bytes; on failure what happened and what to do.
 * @ret: written on success only; valid for the process's life.
 * Returns 0; -ENOENT: no such library, so no driver on this machine; -ENOSYS: the library lacks a needed
 * entry, or is older than CUDA_DRIVER_MIN; -ENODEV: a driver and no GPU that this process may use; -EIO:
 * it would not start. A failure is not remembered: the next call tries anew. Any thread.
 */
int cuda_driver_open(const char *library, char *why, const struct cuda_driver **ret);

/* "out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)" into @text (CUDA_TEXT bytes), which it returns. */
const char *cuda_error_text(const struct cuda_driver *driver, enum cuda_result result, char *text);

/* Is the context dead after @result, so that only a new process can go on? */
bool cuda_result_is_fatal(enum cuda_result result);

#endif
