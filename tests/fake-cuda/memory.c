/* Allocations on the fake's devices, and host memory registered with them. See fake.h. */
#include "tests/fake-cuda/fake.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)

static uint64_t pinned;			/* bytes that this process has registered */

static uint64_t pages_down(uint64_t address)
{
	return address / PAGE * PAGE;
}

static uint64_t pages_up(uint64_t address)
{
	return pages_down(address + PAGE - 1);
}

/* --- device memory ---------------------------------------------------------------------------------------------- */

bool fake_fits(cuda_device device, uint64_t bytes)
{
	const uint64_t used = fake_cuda_memory(fake.config.directory, fake_machine_device(device));

	return used <= fake.config.memory && bytes <= fake.config.memory - used;
}

uint8_t *fake_memory_map(int fd, uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		fake_die("could not map %llu bytes of device memory: %m", (unsigned long long)bytes);
	return memory;
}

enum cuda_result fake_mem_alloc(cuda_address *address, size_t bytes)
{
	enum cuda_result result = fake_enter(FAKE_CALL_mem_alloc, FAKE_CONTEXT);
	struct cuda_context *context = fake_current();
	struct fake_span *span;
	cuda_address start;

	if (result == CUDA_OK && bytes == 0)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK && !fake_fits(context->device, pages_up(bytes)))
		result = CUDA_RESULT_OUT_OF_MEMORY;
	if (result != CUDA_OK)
		return fake_leave(result);
	start = fake_addresses(bytes, FAKE_GRANULE);
	if (start == 0)
		return fake_leave(CUDA_RESULT_OUT_OF_MEMORY);
	span = fake_span_new(FAKE_ALLOCATION, start, bytes);
	span->context = context;
	span->device = context->device;
	span->fd = registry_create(fake.config.directory, "memory", fake_machine_device(context->device),
				   pages_up(bytes), span->name);
	if (span->fd < 0)
		fake_die("could not make %s in %s: %s", span->name, fake.config.directory, strerror(-span->fd));
	span->memory = fake_memory_map(span->fd, pages_up(bytes));
	*address = start;
	return fake_leave(CUDA_OK);
}

void fake_allocation_free(struct fake_span *span)
{
	if (registry_is_held(span->fd, REGISTRY_GUEST) && !atomic_load(&fake.control->lenient))
		fake_die("%llu bytes at %#llx are freed while another process has them imported",
			 (unsigned long long)span->bytes, span->start);
	munmap(span->memory, pages_up(span->bytes));
	if (!registry_is_held(span->fd, REGISTRY_GUEST))
		registry_unlink(fake.config.directory, span->name);
	close(span->fd);
	fake_addresses_free(span->start, span->bytes);
	fake_span_remove(span, "device memory is freed");
}

enum cuda_result fake_mem_free(cuda_address address)
{
	enum cuda_result result = fake_enter(FAKE_CALL_mem_free, FAKE_CONTEXT);
	struct fake_span *span = result == CUDA_OK ? fake_span_at(address) : NULL;

	if (result == CUDA_OK && (!span || span->kind != FAKE_ALLOCATION || span->start != address))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK && span->busy)
		fake_die("%llu bytes at %#llx are freed under %u queued copies or values",
			 (unsigned long long)span->bytes, span->start, span->busy);
	if (result == CUDA_OK)
		fake_allocation_free(span);
	return fake_leave(result);
}

enum cuda_result fake_mem_get_info(size_t *free_bytes, size_t *total_bytes)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_mem_get_info, FAKE_CONTEXT);
	uint64_t used;

	if (result != CUDA_OK)
		return fake_leave(result);
	used = fake_cuda_memory(fake.config.directory, fake_machine_device(fake_current()->device));
	*free_bytes = used < fake.config.memory ? fake.config.memory - used : 0;
	*total_bytes = fake.config.memory;
	return fake_leave(CUDA_OK);
}

/* --- host memory ------------------------------------------------------------------------------------------------ */

/* Is every page of the range mapped, and for writing if @writable? */
static bool is_mapped(uint64_t start, uint64_t end, bool writable)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];

	while (maps && start < end && fgets(line, sizeof(line), maps)) {
		unsigned long long from, to;
		char access[5];

		if (sscanf(line, "%llx-%llx %4s", &from, &to, access) != 3 || to <= start)
			continue;
		if (from > start || access[0] != 'r' || (writable && access[1] != 'w'))
			break;
		start = to;
	}
	if (maps)
		fclose(maps);
	return start >= end;
}

static enum cuda_result register_host(uint64_t start, uint64_t bytes, unsigned flags)
{
	const unsigned known = CUDA_MEMHOSTREGISTER_PORTABLE | CUDA_MEMHOSTREGISTER_DEVICEMAP |
			       CUDA_MEMHOSTREGISTER_READ_ONLY;
	const uint64_t first = pages_down(start), end = pages_up(start + bytes);

	if (start == 0 || bytes == 0 || (flags & ~known))
		return CUDA_RESULT_INVALID_VALUE;
	if ((flags & CUDA_MEMHOSTREGISTER_READ_ONLY) && fake.config.lacks_read_only)
		return CUDA_RESULT_NOT_SUPPORTED;
	if (fake_span_overlapping(first, end - first))
		return CUDA_RESULT_HOST_MEMORY_ALREADY_REGISTERED;
	if (bytes > fake.config.register_max) {
		fake_kill_context(CUDA_RESULT_UNKNOWN);		/* it stays, as with the real one */
		return CUDA_RESULT_UNKNOWN;
	}
	if (end - first > fake.config.pin_max || pinned > fake.config.pin_max - (end - first))
		return CUDA_RESULT_OUT_OF_MEMORY;
	if (!is_mapped(first, end, !(flags & CUDA_MEMHOSTREGISTER_READ_ONLY)))
		return CUDA_RESULT_INVALID_VALUE;
	return CUDA_OK;
}

enum cuda_result fake_host_register(void *start, size_t bytes, unsigned int flags)
{
	const uint64_t at = (uintptr_t)start;
	enum cuda_result result = fake_enter(FAKE_CALL_host_register, FAKE_CONTEXT);
	struct fake_span *span;
	cuda_address view = 0;

	if (result == CUDA_OK)
		result = register_host(at, bytes, flags);
	if (result == CUDA_OK)
		view = fake_addresses(bytes + at % PAGE, PAGE);
	if (result == CUDA_OK && view == 0)
		result = CUDA_RESULT_OUT_OF_MEMORY;
	if (result != CUDA_OK)
		return fake_leave(result);
	span = fake_span_new(FAKE_HOST, at, bytes);
	span->other = fake_span_new(FAKE_HOST_ALIAS, view + at % PAGE, bytes);
	*span->other = (struct fake_span){
		.kind = FAKE_HOST_ALIAS, .start = view + at % PAGE, .bytes = bytes, .id = span->id,
		.other = span, .fd = -1, .marker_fd = -1,
	};
	span->memory = span->other->memory = start;
	span->flags = span->other->flags = flags;
	span->context = span->other->context = fake_current();
	span->device = span->other->device = fake_current()->device;
	pinned += pages_up(at + bytes) - pages_down(at);
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_host_unregister(void *start)
{
	const uint64_t at = (uintptr_t)start;
	enum cuda_result result = fake_enter(FAKE_CALL_host_unregister, FAKE_CONTEXT);
	struct fake_span *span = result == CUDA_OK ? fake_span_at(at) : NULL;

	if (result == CUDA_OK && (!span || span->kind != FAKE_HOST || span->start != at))
		result = CUDA_RESULT_HOST_MEMORY_NOT_REGISTERED;
	if (result != CUDA_OK)
		return fake_leave(result);
	pinned -= pages_up(at + span->bytes) - pages_down(at);
	fake_addresses_free(span->other->start - at % PAGE, span->bytes + at % PAGE);
	fake_span_remove(span->other, "host memory is unregistered");
	fake_span_remove(span, "host memory is unregistered");
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_host_get_device_pointer(cuda_address *address, void *host, unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_host_get_device_pointer, FAKE_CONTEXT);
	const struct fake_span *span = result == CUDA_OK ? fake_span_at((uintptr_t)host) : NULL;

	if (result == CUDA_OK && (flags != 0 || !span || span->kind != FAKE_HOST ||
				  !(span->flags & CUDA_MEMHOSTREGISTER_DEVICEMAP)))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		*address = span->other->start + ((uintptr_t)host - span->start);
	return fake_leave(result);
}
