/*
 * Which memory can be given to another process, and by which way.
 *
 * cudaMalloc: the driver says that a pointer is capable of legacy IPC; its handle stands for all of the
 * allocation, so the place of the range in it goes along. Virtual memory (VMM): the range is walked from
 * allocation to allocation, for the driver's idea of "the range around an address" is one allocation and
 * not all that is mapped beside it; each must have been made exportable as a descriptor. Everything else
 * (managed memory, CUDA's own memory pools, VMM memory made without a handle type) is refused here, with
 * what to do about it: memory that can only be reached by a detour would be slow for ever, and nobody would know why.
 *
 * Invariants: a handle that was retained is released in the same call; on failure no descriptor stays
 * open; the worker's context is pushed and popped, never set.
 */
#include "src/device/cuda/export.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int cuda_errno(enum cuda_result result)
{
	switch (result) {
	case CUDA_RESULT_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_RESULT_INVALID_VALUE:
	case CUDA_RESULT_INVALID_CONTEXT:
	case CUDA_RESULT_INVALID_HANDLE:
		return -EINVAL;
	case CUDA_RESULT_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

__attribute__((format(printf, 3, 4))) static int fail(char *why, int r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, CUDA_WHY, format, arguments);
	va_end(arguments);
	return r;
}

/* A call of the driver went wrong: which, about which memory, what it said. */
static int fail_call(const struct cuda_driver *cuda, char *why, const char *call, uint64_t address,
		     enum cuda_result result)
{
	char text[CUDA_TEXT];

	return fail(why, cuda_errno(result), "cannot register device memory at 0x%llx: %s said: %s",
		    (unsigned long long)address, call, cuda_error_text(cuda, result, text));
}

/* ---- contexts ------------------------------------------------------------------------------------ */

struct visit {			/* a context that was pushed */
	bool retained;
	cuda_device device;
};

/* Memory of the VMM belongs to no context: then the device's primary one serves, which the worker has too. */
static int visit_begin(const struct cuda_driver *cuda, const struct cuda_memory *memory, char *why,
		       struct visit *visit)
{
	struct cuda_context *context = NULL;
	enum cuda_result result;

	*visit = (struct visit){ 0 };
	result = cuda->pointer_get_attribute(&context, CUDA_POINTER_ATTRIBUTE_CONTEXT, memory->address);
	if (result != CUDA_OK || !context) {
		result = cuda->device_get(&visit->device, memory->ordinal);
		if (result == CUDA_OK)
			result = cuda->primary_retain(&context, visit->device);
		if (result != CUDA_OK)
			return fail_call(cuda, why, "cuDevicePrimaryCtxRetain", memory->address, result);
		visit->retained = true;
	}
	result = cuda->ctx_push_current(context);
	if (result == CUDA_OK)
		return 0;
	if (visit->retained)
		cuda->primary_release(visit->device);
	return fail_call(cuda, why, "cuCtxPushCurrent", memory->address, result);
}

static void visit_end(const struct cuda_driver *cuda, const struct visit *visit)
{
	struct cuda_context *context;

	cuda->ctx_pop_current(&context);
	if (visit->retained)
		cuda->primary_release(visit->device);
}

/* ---- which memory this is ------------------------------------------------------------------------ */

static int look_at_kind(const struct cuda_driver *cuda, struct cuda_memory *memory, char *why)
{
	uint32_t type = 0, managed = 0;
	struct cuda_uuid uuid;
	cuda_device device;
	enum cuda_result result;

	result = cuda->pointer_get_attribute(&type, CUDA_POINTER_ATTRIBUTE_MEMORY_TYPE, memory->address);
	if (result == CUDA_RESULT_INVALID_VALUE || (result == CUDA_OK && type != CUDA_MEMORYTYPE_DEVICE))
		return fail(why, -EINVAL, "cannot register 0x%llx: it is no device memory of this process; memory of the "
			    "host is registered by stoker_region_add()", (unsigned long long)memory->address);
	if (result != CUDA_OK)
		return fail_call(cuda, why, "cuPointerGetAttribute", memory->address, result);
	result = cuda->pointer_get_attribute(&managed, CUDA_POINTER_ATTRIBUTE_IS_MANAGED, memory->address);
	if (result == CUDA_OK && managed)
		return fail(why, -EOPNOTSUPP, "cannot register managed memory at 0x%llx: it has no one place; allocate "
			    "the KV cache by cudaMalloc", (unsigned long long)memory->address);
	result = cuda->pointer_get_attribute(&memory->ordinal, CUDA_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory->address);
	if (result == CUDA_OK)
		result = cuda->device_get(&device, memory->ordinal);
	if (result == CUDA_OK)
		result = cuda->device_get_uuid(&uuid, device);
	if (result != CUDA_OK)
		return fail_call(cuda, why, "cuDeviceGetUuid", memory->address, result);
	memcpy(memory->uuid, uuid.bytes, sizeof(memory->uuid));
	return 0;
}

static int look_at_allocation(const struct cuda_driver *cuda, struct cuda_memory *memory, char *why)
{
	const uint64_t end = memory->address + memory->bytes;
	size_t bytes = 0;
	enum cuda_result result = cuda->mem_get_address_range(&memory->base, &bytes, memory->address);

	if (result != CUDA_OK)
		return fail_call(cuda, why, "cuMemGetAddressRange", memory->address, result);
	if (end > memory->base + bytes)
		return fail(why, -EINVAL, "cannot register %llu bytes at 0x%llx: the allocation ends after %llu of them; "
			    "register each allocation of cudaMalloc by itself", (unsigned long long)memory->bytes,
			    (unsigned long long)memory->address,
			    (unsigned long long)(memory->base + bytes - memory->address));
	result = cuda->ipc_get_handle(&memory->handle, memory->base);
	if (result == CUDA_OK) {
		memory->n_allocations = 1;
		return 0;
	}
	fail_call(cuda, why, "cuIpcGetMemHandle", memory->address, result);
	snprintf(why + strlen(why), CUDA_WHY - strlen(why), "; where legacy CUDA IPC is forbidden, allocate by the virtual "
		 "memory API (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True)");
	return cuda_errno(result);
}

/* The allocation around @at: its handle, retained, and where it lies. */
static int allocation_at(const struct cuda_driver *cuda, uint64_t at, char *why, cuda_handle *ret_handle,
			 cuda_address *ret_base, uint64_t *ret_bytes)
{
	struct cuda_allocation properties;
	size_t bytes = 0;
	enum cuda_result result = cuda->mem_retain(ret_handle, (void *)(uintptr_t)at);

	if (result != CUDA_OK)
		return fail(why, -EOPNOTSUPP, "cannot register device memory at 0x%llx: neither legacy CUDA IPC nor the "
			    "virtual memory API gives it to another process (it is of a memory pool, as those of "
			    "cudaMallocAsync, or not mapped); set PYTORCH_CUDA_ALLOC_CONF=backend:native, or allocate by "
			    "cudaMalloc", (unsigned long long)at);
	result = cuda->mem_get_address_range(ret_base, &bytes, at);
	if (result == CUDA_OK)
		result = cuda->mem_get_properties(&properties, *ret_handle);
	if (result != CUDA_OK) {
		cuda->mem_release(*ret_handle);
		return fail_call(cuda, why, "cuMemGetAddressRange", at, result);
	}
	if (*ret_base > at || *ret_base + bytes <= at) {
		cuda->mem_release(*ret_handle);
		return fail(why, -EIO, "cannot register device memory at 0x%llx: the driver says that its allocation is %llu "
			    "bytes at 0x%llx", (unsigned long long)at, (unsigned long long)bytes, *ret_base);
	}
	if (!(properties.handle_types & CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)) {
		cuda->mem_release(*ret_handle);
		return fail(why, -EOPNOTSUPP, "cannot register device memory at 0x%llx: it was made by cuMemCreate without "
			    "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR in requestedHandleTypes, so no other process can be "
			    "given it; set that, or PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False", (unsigned long long)at);
	}
	*ret_bytes = bytes;
	return 0;
}

static int look_at_virtual(const struct cuda_driver *cuda, struct cuda_memory *memory, char *why)
{
	const uint64_t end = memory->address + memory->bytes;
	cuda_address base, expected = 0;
	cuda_handle handle;
	uint64_t bytes;

	memory->vmm = true;
	for (uint64_t at = memory->address; at < end; at = base + bytes) {
		const int r = allocation_at(cuda, at, why, &handle, &base, &bytes);

		if (r < 0)
			return r;
		cuda->mem_release(handle);
		if (memory->n_allocations == 0)
			memory->base = base;
		else if (base != expected)
			return fail(why, -EIO, "cannot register device memory at 0x%llx: the driver says that its allocation "
				    "begins at 0x%llx, within another one", (unsigned long long)at, base);
		expected = base + bytes;
		memory->n_allocations++;
	}
	return 0;
}

int cuda_memory_look(const struct cuda_driver *cuda, uint64_t address, uint64_t bytes, char *why,
		     struct cuda_memory *ret)
{
	struct cuda_memory memory = { .address = address, .bytes = bytes };
	enum cuda_result result;
	struct visit visit;
	uint32_t legacy = 0;
	int r;

	if (bytes == 0 || address == 0 || address + bytes < address)
		return fail(why, -EINVAL, "cannot register %llu bytes at 0x%llx: that is no range of memory",
			    (unsigned long long)bytes, (unsigned long long)address);
	r = look_at_kind(cuda, &memory, why);
	if (r == 0)
		r = visit_begin(cuda, &memory, why, &visit);
	if (r < 0)
		return r;
	result = cuda->pointer_get_attribute(&legacy, CUDA_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, address);
	r = result == CUDA_OK && legacy ? look_at_allocation(cuda, &memory, why) : look_at_virtual(cuda, &memory, why);
	visit_end(cuda, &visit);
	if (r == 0)
		*ret = memory;
	return r;
}

/* ---- descriptors --------------------------------------------------------------------------------- */

static int export_one(const struct cuda_driver *cuda, uint64_t at, int *ret_fd, uint64_t *ret_bytes, char *why)
{
	enum cuda_result result;
	cuda_address base;
	cuda_handle handle;
	int fd = -1;
	int r = allocation_at(cuda, at, why, &handle, &base, ret_bytes);

	if (r < 0)
		return r;
	result = cuda->mem_export(&fd, handle, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	cuda->mem_release(handle);
	if (result != CUDA_OK)
		return fail_call(cuda, why, "cuMemExportToShareableHandle", at, result);
	*ret_fd = fd;
	return 0;
}

int cuda_memory_export(const struct cuda_driver *cuda, const struct cuda_memory *memory, uint64_t *at,
		       int *fds, uint64_t *bytes, uint32_t max, char *why)
{
	const uint64_t end = memory->address + memory->bytes;
	struct visit visit;
	uint32_t n = 0;
	int r = visit_begin(cuda, memory, why, &visit);

	if (r < 0)
		return r;
	while (r == 0 && n < max && *at < end) {
		r = export_one(cuda, *at, &fds[n], &bytes[n], why);
		if (r == 0)
			*at += bytes[n++];
	}
	visit_end(cuda, &visit);
	while (r < 0 && n > 0)
		close(fds[--n]);
	return r < 0 ? r : (int)n;
}
