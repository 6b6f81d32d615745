/*
 * Holds driver.h against NVIDIA's own cuda.h: sizes, offsets, values and the type of every entry point.
 *
 * Compiled by --with-cuda where a cuda.h of 12.0 or later is found; nothing of it is ever run. Whatever
 * driver.h says wrongly is an error of the compiler here. What a header is too old to know is passed over.
 */
#include <assert.h>
#include <cuda.h>
#include <cudaTypedefs.h>
#include <stddef.h>

#include "src/device/cuda/driver.h"

/* --- values ----------------------------------------------------------------------------------------------------- */

#define SAME_RESULT(name, value, fatal) \
	static_assert((int)CUDA_RESULT_##name == (int)CUDA_ERROR_##name, "CUDA_ERROR_" #name);
CUDA_RESULTS(SAME_RESULT)
static_assert((int)CUDA_OK == (int)CUDA_SUCCESS, "CUDA_SUCCESS");

#define SAME_VALUE(name, value) static_assert((int)CUDA_##name == (int)CU_##name, "CU_" #name);
CUDA_DEVICE_ATTRIBUTES(SAME_VALUE)
CUDA_POINTER_ATTRIBUTES(SAME_VALUE)
CUDA_HANDLE_TYPES(SAME_VALUE)
CUDA_GRANULARITIES(SAME_VALUE)
CUDA_VALUES(SAME_VALUE)
#if CUDA_VERSION >= 12080
CUDA_BATCH_VALUES(SAME_VALUE)
#endif

/* --- layouts ---------------------------------------------------------------------------------------------------- */

#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), #theirs);
#define SAME_FIELD(ours, our_field, theirs, their_field) \
	static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field) && \
		      sizeof(((ours *)0)->our_field) == sizeof(((theirs *)0)->their_field), #theirs "." #their_field);

SAME_SIZE(cuda_device, CUdevice)
SAME_SIZE(cuda_address, CUdeviceptr)
SAME_SIZE(cuda_handle, CUmemGenericAllocationHandle)
SAME_SIZE(cuda_host_function, CUhostFn)
SAME_SIZE(struct cuda_uuid, CUuuid)
SAME_SIZE(struct cuda_ipc_handle, CUipcMemHandle)

SAME_SIZE(struct cuda_location, CUmemLocation)
SAME_FIELD(struct cuda_location, type, CUmemLocation, type)
SAME_FIELD(struct cuda_location, id, CUmemLocation, id)

SAME_SIZE(struct cuda_allocation, CUmemAllocationProp)
SAME_FIELD(struct cuda_allocation, type, CUmemAllocationProp, type)
SAME_FIELD(struct cuda_allocation, handle_types, CUmemAllocationProp, requestedHandleTypes)
SAME_FIELD(struct cuda_allocation, location, CUmemAllocationProp, location)
SAME_FIELD(struct cuda_allocation, windows, CUmemAllocationProp, win32HandleMetaData)
SAME_FIELD(struct cuda_allocation, flags.compression, CUmemAllocationProp, allocFlags.compressionType)
SAME_FIELD(struct cuda_allocation, flags.rdma, CUmemAllocationProp, allocFlags.gpuDirectRDMACapable)
SAME_FIELD(struct cuda_allocation, flags.usage, CUmemAllocationProp, allocFlags.usage)
SAME_FIELD(struct cuda_allocation, flags.reserved, CUmemAllocationProp, allocFlags.reserved)

SAME_SIZE(struct cuda_access, CUmemAccessDesc)
SAME_FIELD(struct cuda_access, location, CUmemAccessDesc, location)
SAME_FIELD(struct cuda_access, flags, CUmemAccessDesc, flags)

#if CUDA_VERSION >= 12080
SAME_SIZE(struct cuda_copy_attributes, CUmemcpyAttributes)
SAME_FIELD(struct cuda_copy_attributes, source_order, CUmemcpyAttributes, srcAccessOrder)
SAME_FIELD(struct cuda_copy_attributes, source, CUmemcpyAttributes, srcLocHint)
SAME_FIELD(struct cuda_copy_attributes, destination, CUmemcpyAttributes, dstLocHint)
SAME_FIELD(struct cuda_copy_attributes, flags, CUmemcpyAttributes, flags)
#endif

/* --- functions -------------------------------------------------------------------------------------------------- */

/* From here on the tags in the table of entries mean cuda.h's own types, so that functions can be compared. */
#define cuda_context		CUctx_st
#define cuda_stream		CUstream_st
#define cuda_event		CUevent_st
#define cuda_uuid		CUuuid_st
#define cuda_ipc_handle		CUipcMemHandle_st
#define cuda_allocation		CUmemAllocationProp_st
#define cuda_access		CUmemAccessDesc_st
#define cuda_result		cudaError_enum
#define cuda_device_attribute	CUdevice_attribute_enum
#define cuda_pointer_attribute	CUpointer_attribute_enum
#define cuda_handle_type	CUmemAllocationHandleType_enum
#define cuda_granularity	CUmemAllocationGranularity_flags_enum
#if CUDA_VERSION >= 12080
#define cuda_copy_attributes	CUmemcpyAttributes_st
#endif

/* Entries that this cuda.h does not know yet are what we say: nothing is compared. */
#define AS_WE_SAY(field, symbol, exported, since, need, parameters) \
	typedef enum cuda_result (*own_##field) parameters;
CUDA_ENTRIES(AS_WE_SAY)
#if CUDA_VERSION < 12080
typedef own_copy_batch_12 PFN_cuMemcpyBatchAsync_v12080;
#endif
#if CUDA_VERSION < 13000
typedef own_copy_batch_13 PFN_cuMemcpyBatchAsync_v13000;
#endif

#define SAME_FUNCTION(field, symbol, exported, since, need, parameters) \
	static_assert(__builtin_types_compatible_p(own_##field, PFN_##symbol##_v##since), #symbol);
CUDA_ENTRIES(SAME_FUNCTION)
