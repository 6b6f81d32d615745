#include "src/device/cuda/trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/device/cuda/driver.h"
#include "src/device/cuda/export.h"

#define SEGMENT_BYTES	(20ull << 20)
#define ALLOCATIONS_MAX	16u

static struct {
	const struct cuda_driver *cuda;
	cuda_device device;
	struct cuda_stream *load, *store;
	char name[128], why[CUDA_WHY];
	struct { uint64_t address, bytes; size_t each; } segments[ALLOCATIONS_MAX];	/* TRIAL_SEGMENTS alone */
} trial;

static int check(enum cuda_result result, const char *call)
{
	char text[CUDA_TEXT];

	if (result == CUDA_OK)
		return 0;
	snprintf(trial.why, sizeof(trial.why), "%s: %s", call, cuda_error_text(trial.cuda, result, text));
	return cuda_errno(result);
}

int trial_open(const char *library)
{
	struct cuda_context *context = NULL;
	int r = cuda_driver_open(library, trial.why, &trial.cuda);

	if (r == 0)
		r = check(trial.cuda->device_get(&trial.device, 0), "cuDeviceGet");
	if (r == 0)
		r = check(trial.cuda->primary_retain(&context, trial.device), "cuDevicePrimaryCtxRetain");
	if (r == 0)
		r = check(trial.cuda->ctx_set_current(context), "cuCtxSetCurrent");
	if (r == 0)
		r = check(trial.cuda->device_get_name(trial.name, sizeof(trial.name), trial.device), "cuDeviceGetName");
	if (r < 0)
		return r;
	trial.load = trial_stream();
	trial.store = trial_stream();
	return trial.load && trial.store ? 0 : -EIO;
}

const char *trial_why(void)
{
	return trial.why;
}

const char *trial_device(void)
{
	return trial.name;
}

int trial_version(void)
{
	return trial.cuda->version;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static int segment_map(uint64_t address, size_t bytes, const struct cuda_allocation *properties)
{
	cuda_handle handle;
	int r = check(trial.cuda->mem_create(&handle, bytes, properties, 0), "cuMemCreate");

	if (r < 0)
		return r;
	r = check(trial.cuda->mem_map(address, bytes, 0, handle, 0), "cuMemMap");
	trial.cuda->mem_release(handle);	/* the mapping keeps it */
	return r;
}

static int segments_alloc(uint64_t bytes, uint64_t *ret)
{
	const struct cuda_location here = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE, .id = 0 };
	const struct cuda_allocation properties = { .type = CUDA_MEM_ALLOCATION_TYPE_PINNED, .location = here,
						    .handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR };
	const struct cuda_access access = { .location = here, .flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE };
	size_t grain = 0, each;
	cuda_address address;
	uint32_t i = 0;
	int r;

	while (i < ALLOCATIONS_MAX && trial.segments[i].address)
		i++;
	if (i == ALLOCATIONS_MAX) {
		snprintf(trial.why, sizeof(trial.why), "more than %u ranges of segments are in use", ALLOCATIONS_MAX);
		return -ENOMEM;
	}
	r = check(trial.cuda->mem_get_granularity(&grain, &properties, CUDA_MEM_ALLOC_GRANULARITY_MINIMUM),
		  "cuMemGetAllocationGranularity");
	if (r < 0)
		return r;
	each = (SEGMENT_BYTES + grain - 1) / grain * grain;
	bytes = (bytes + each - 1) / each * each;
	r = check(trial.cuda->mem_reserve(&address, bytes, 0, 0, 0), "cuMemAddressReserve");
	for (uint64_t at = 0; r == 0 && at < bytes; at += each)
		r = segment_map(address + at, each, &properties);
	if (r == 0)
		r = check(trial.cuda->mem_set_access(address, bytes, &access, 1), "cuMemSetAccess");
	if (r < 0)
		return r;	/* the process is a trial: it ends */
	trial.segments[i].address = *ret = address;
	trial.segments[i].bytes = bytes;
	trial.segments[i].each = each;
	return 0;
}

int trial_alloc(enum trial_memory kind, uint64_t bytes, uint64_t *ret)
{
	cuda_address address;
	int r;

	if (kind == TRIAL_SEGMENTS)
		return segments_alloc(bytes, ret);
	r = check(trial.cuda->mem_alloc(&address, bytes), "cuMemAlloc");
	if (r == 0)
		*ret = address;
	return r;
}

int trial_free(uint64_t address)
{
	int r = 0;

	for (uint32_t i = 0; i < ALLOCATIONS_MAX; i++) {
		if (trial.segments[i].address != address)
			continue;
		for (uint64_t at = 0; r == 0 && at < trial.segments[i].bytes; at += trial.segments[i].each)
			r = check(trial.cuda->mem_unmap(address + at, trial.segments[i].each), "cuMemUnmap");
		if (r == 0)
			r = check(trial.cuda->mem_address_free(address, trial.segments[i].bytes), "cuMemAddressFree");
		trial.segments[i].address = 0;
		return r;
	}
	return check(trial.cuda->mem_free(address), "cuMemFree");
}

int trial_put(uint64_t to, const void *from, size_t bytes)
{
	const int r = check(trial.cuda->copy_to_device(to, from, bytes), "cuMemcpyHtoD");

	/* From memory that is not pinned it returns when all is staged; another process must not come before the rest. */
	return r == 0 ? check(trial.cuda->stream_synchronize(NULL), "cuStreamSynchronize") : r;
}

int trial_get(void *to, uint64_t from, size_t bytes)
{
	return check(trial.cuda->copy_to_host(to, from, bytes), "cuMemcpyDtoH");
}

int trial_used(uint64_t *ret)
{
	size_t free_bytes = 0, total = 0;
	const int r = check(trial.cuda->mem_get_info(&free_bytes, &total), "cuMemGetInfo");

	if (r == 0)
		*ret = total - free_bytes;
	return r;
}

int trial_pin(void *memory, size_t bytes)
{
	return check(trial.cuda->host_register(memory, bytes, CUDA_MEMHOSTREGISTER_PORTABLE), "cuMemHostRegister");
}

/* ---- streams ------------------------------------------------------------------------------------- */

void *trial_stream(void)
{
	struct cuda_stream *stream = NULL;

	return check(trial.cuda->stream_create(&stream, CUDA_STREAM_NON_BLOCKING, 0), "cuStreamCreateWithPriority") == 0 ?
		       stream : NULL;
}

int trial_synchronize(void *stream)
{
	return check(trial.cuda->stream_synchronize(stream), "cuStreamSynchronize");
}

bool trial_is_busy(void *stream)
{
	return trial.cuda->stream_query(stream) == CUDA_RESULT_NOT_READY;
}

int trial_enqueue(const struct trial_copy *c, void *stream)
{
	if (c->to_host)
		return check(trial.cuda->copy_to_host_async(c->host, c->device, c->bytes, stream), "cuMemcpyDtoHAsync");
	return check(trial.cuda->copy_to_device_async(c->device, c->host, c->bytes, stream), "cuMemcpyHtoDAsync");
}

int trial_copies(const struct trial_copy *copies, uint32_t n)
{
	bool loads = false, stores = false;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = trial_enqueue(&copies[i], copies[i].to_host ? trial.store : trial.load);
		loads |= !copies[i].to_host;
		stores |= copies[i].to_host;
	}
	if (r == 0 && loads)
		r = trial_synchronize(trial.load);
	if (r == 0 && stores)
		r = trial_synchronize(trial.store);
	return r;
}
