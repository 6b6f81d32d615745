/*
 * Physical memory, reservations and mappings of the fake (VMM). See fake.h.
 *
 * Physical memory is a file; a handle is this process's name for it. The file is free when no process has
 * a handle, a mapping or an exported descriptor any more, wherever the descriptor is on its way.
 */
#include "tests/fake-cuda/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct reservation {
	struct reservation *next;
	cuda_address start;
	uint64_t bytes;
};

static struct fake_physical *all_physical;
static struct reservation *reservations;
static cuda_handle last_handle = 0x7000;

static enum cuda_result enter(enum fake_call call)
{
	const enum cuda_result result = fake_enter(call, FAKE_INITIALIZED);

	return result == CUDA_OK && fake.config.lacks_vmm ? CUDA_RESULT_NOT_SUPPORTED : result;
}

/* --- physical memory -------------------------------------------------------------------------------------------- */

static struct fake_physical *physical_of(cuda_handle handle, const char *caller)
{
	for (struct fake_physical *physical = all_physical; physical; physical = physical->next)
		if (physical->handle == handle && physical->references > 0)
			return physical;
	fake_die("%s of handle %#llx, which is none or has been released", caller, handle);
}

static struct fake_physical *physical_new(uint64_t bytes, const struct cuda_allocation *properties)
{
	struct fake_physical *physical = calloc(1, sizeof(*physical));

	if (!physical)
		fake_die("the test's process is out of memory");
	*physical = (struct fake_physical){
		.next = all_physical, .handle = ++last_handle, .references = 1, .properties = *properties,
		.bytes = bytes, .fd = -1, .marker_fd = -1,
	};
	all_physical = physical;
	return physical;
}

/* Nobody here has it any more: closed, and gone if nobody elsewhere has. */
static void physical_settle(struct fake_physical *physical)
{
	struct fake_physical **at = &all_physical;

	if (physical->references > 0 || physical->mappings > 0)
		return;
	while (*at != physical)
		at = &(*at)->next;
	*at = physical->next;
	if (physical->marker_fd >= 0) {
		close(physical->marker_fd);
		registry_unlink(fake.config.directory, physical->marker);
	}
	if (!registry_is_held(physical->fd, REGISTRY_OWNER) && !registry_is_held(physical->fd, REGISTRY_GUEST))
		registry_unlink(fake.config.directory, physical->name);
	close(physical->fd);
	free(physical);
}

/* May memory be made like this? */
static enum cuda_result check_properties(const struct cuda_allocation *properties)
{
	if (properties->type != CUDA_MEM_ALLOCATION_TYPE_PINNED || properties->windows ||
	    properties->location.type != CUDA_MEM_LOCATION_TYPE_DEVICE)
		return CUDA_RESULT_INVALID_VALUE;
	if (!fake_device_is(properties->location.id))
		return CUDA_RESULT_INVALID_DEVICE;
	if (properties->handle_types & ~(uint32_t)CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_RESULT_NOT_SUPPORTED;
	return properties->handle_types && fake.config.lacks_posix_handles ? CUDA_RESULT_NOT_SUPPORTED : CUDA_OK;
}

enum cuda_result fake_mem_create(cuda_handle *handle, size_t bytes, const struct cuda_allocation *properties,
				 unsigned long long flags)
{
	enum cuda_result result = enter(FAKE_CALL_mem_create);
	struct fake_physical *physical;
	unsigned machine;

	if (result == CUDA_OK)
		result = check_properties(properties);
	if (result == CUDA_OK && (flags != 0 || bytes == 0 || bytes % FAKE_GRANULE))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK && !fake_fits(properties->location.id, bytes))
		result = CUDA_RESULT_OUT_OF_MEMORY;
	if (result != CUDA_OK)
		return fake_leave(result);
	machine = fake_machine_device(properties->location.id);
	physical = physical_new(bytes, properties);
	physical->fd = registry_create(fake.config.directory, "memory", machine, bytes, physical->name);
	if (physical->fd < 0)
		fake_die("could not make %s in %s", physical->name, fake.config.directory);
	*handle = physical->handle;
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_mem_release(cuda_handle handle)
{
	const enum cuda_result result = enter(FAKE_CALL_mem_release);
	struct fake_physical *physical;

	if (result != CUDA_OK)
		return fake_leave(result);
	physical = physical_of(handle, "cuMemRelease");
	physical->references--;
	physical_settle(physical);
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_mem_retain(cuda_handle *handle, void *address)
{
	enum cuda_result result = enter(FAKE_CALL_mem_retain);
	struct fake_span *span = result == CUDA_OK ? fake_span_at((uintptr_t)address) : NULL;

	if (result == CUDA_OK && (!span || span->kind != FAKE_MAPPING))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK) {
		span->physical->references++;
		*handle = span->physical->handle;
	}
	return fake_leave(result);
}

enum cuda_result fake_mem_get_properties(struct cuda_allocation *properties, cuda_handle handle)
{
	const enum cuda_result result = enter(FAKE_CALL_mem_get_properties);

	if (result == CUDA_OK)
		*properties = physical_of(handle, "cuMemGetAllocationPropertiesFromHandle")->properties;
	return fake_leave(result);
}

enum cuda_result fake_mem_get_granularity(size_t *bytes, const struct cuda_allocation *properties,
					  enum cuda_granularity which)
{
	enum cuda_result result = enter(FAKE_CALL_mem_get_granularity);

	(void)which;
	if (result == CUDA_OK)
		result = check_properties(properties);
	if (result == CUDA_OK)
		*bytes = FAKE_GRANULE;
	return fake_leave(result);
}

/* --- descriptors ------------------------------------------------------------------------------------------------ */

enum cuda_result fake_mem_export(void *shareable, cuda_handle handle, enum cuda_handle_type type,
				 unsigned long long flags)
{
	const enum cuda_result result = enter(FAKE_CALL_mem_export);
	const struct fake_physical *physical;
	int fd;

	if (result != CUDA_OK)
		return fake_leave(result);
	physical = physical_of(handle, "cuMemExportToShareableHandle");
	if (flags != 0 || type != CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
	    !(physical->properties.handle_types & type))
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	fd = registry_reopen(physical->fd);
	if (fd < 0)
		return fake_leave(CUDA_RESULT_OPERATING_SYSTEM);
	*(int *)shareable = fd;
	return fake_leave(CUDA_OK);
}

/* Is @fd memory of ours? Its name and the machine's device then. */
static bool describes_memory(int fd, char *name, unsigned *device)
{
	char link[64], path[4096];
	const char *base;
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0)
		return false;
	path[length] = '\0';
	base = strrchr(path, '/');
	if (!base || sscanf(base, "/memory-%u-", device) != 1)
		return false;
	snprintf(name, REGISTRY_NAME, "%.*s", (int)strcspn(base + 1, " "), base + 1);
	return true;
}

enum cuda_result fake_mem_import(cuda_handle *handle, void *shareable, enum cuda_handle_type type)
{
	const int fd = (int)(intptr_t)shareable;
	struct cuda_allocation properties = {
		.type = CUDA_MEM_ALLOCATION_TYPE_PINNED, .handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE, .id = -1 },
	};
	enum cuda_result result = enter(FAKE_CALL_mem_import);
	struct fake_physical *physical;
	char name[REGISTRY_NAME];
	struct stat file;
	unsigned machine;
	int copy;

	if (result != CUDA_OK)
		return fake_leave(result);
	if (type != CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || !describes_memory(fd, name, &machine))
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	for (cuda_device device = 0; fake_device_is(device); device++)
		if (fake_machine_device(device) == machine)
			properties.location.id = device;
	if (properties.location.id < 0)
		return fake_leave(CUDA_RESULT_INVALID_DEVICE);
	copy = registry_reopen(fd);
	if (copy < 0 || fstat(copy, &file) < 0)
		return fake_leave(CUDA_RESULT_OPERATING_SYSTEM);
	physical = physical_new((uint64_t)file.st_size, &properties);
	physical->fd = copy;
	memcpy(physical->name, name, sizeof(name));
	physical->marker_fd = registry_create(fake.config.directory, "import", machine, 0, physical->marker);
	if (physical->marker_fd < 0)
		fake_die("could not make %s in %s", physical->marker, fake.config.directory);
	*handle = physical->handle;
	return fake_leave(CUDA_OK);
}

/* --- addresses -------------------------------------------------------------------------------------------------- */

enum cuda_result fake_mem_reserve(cuda_address *address, size_t bytes, size_t alignment, cuda_address wish,
				  unsigned long long flags)
{
	enum cuda_result result = enter(FAKE_CALL_mem_reserve);
	struct reservation *reservation;
	cuda_address start = 0;

	(void)wish;			/* a hint, which a driver need not follow */
	if (result == CUDA_OK && (flags != 0 || bytes == 0 || bytes % FAKE_GRANULE ||
				  (alignment & (alignment - 1)) != 0))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		start = fake_addresses(bytes, alignment > FAKE_GRANULE ? alignment : FAKE_GRANULE);
	if (result == CUDA_OK && start == 0)
		result = CUDA_RESULT_OUT_OF_MEMORY;
	reservation = result == CUDA_OK ? malloc(sizeof(*reservation)) : NULL;
	if (reservation) {
		*reservation = (struct reservation){ .next = reservations, .start = start, .bytes = bytes };
		reservations = reservation;
		*address = start;
	}
	return fake_leave(result);
}

enum cuda_result fake_mem_address_free(cuda_address address, size_t bytes)
{
	enum cuda_result result = enter(FAKE_CALL_mem_address_free);
	struct reservation **at = &reservations, *reservation;

	while (result == CUDA_OK && *at && (*at)->start != address)
		at = &(*at)->next;
	if (result == CUDA_OK && (!*at || (*at)->bytes != bytes || fake_span_overlapping(address, bytes)))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result != CUDA_OK)
		return fake_leave(result);
	reservation = *at;
	*at = reservation->next;
	fake_addresses_free(address, bytes);
	free(reservation);
	return fake_leave(CUDA_OK);
}

static bool is_reserved(cuda_address address, uint64_t bytes)
{
	for (const struct reservation *at = reservations; at; at = at->next)
		if (address >= at->start && address - at->start < at->bytes &&
		    bytes <= at->bytes - (address - at->start))
			return true;
	return false;
}

enum cuda_result fake_mem_map(cuda_address address, size_t bytes, size_t offset, cuda_handle handle,
			      unsigned long long flags)
{
	enum cuda_result result = enter(FAKE_CALL_mem_map);
	struct fake_physical *physical;
	struct fake_span *span;

	if (result != CUDA_OK)
		return fake_leave(result);
	physical = physical_of(handle, "cuMemMap");
	if (flags != 0 || offset != 0 || bytes == 0 || bytes % FAKE_GRANULE || address % FAKE_GRANULE ||
	    bytes > physical->bytes || !is_reserved(address, bytes))
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	if (fake_span_overlapping(address, bytes))
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	span = fake_span_new(FAKE_MAPPING, address, bytes);
	span->physical = physical;
	span->device = physical->properties.location.id;
	span->memory = fake_memory_map(physical->fd, bytes);
	physical->mappings++;
	return fake_leave(CUDA_OK);
}

/* Is the range made of whole mappings, one after another? */
static bool is_whole(cuda_address address, uint64_t bytes)
{
	while (bytes > 0) {
		const struct fake_span *span = fake_span_at(address);

		if (!span || span->kind != FAKE_MAPPING || span->start != address || span->bytes > bytes)
			return false;
		address += span->bytes;
		bytes -= span->bytes;
	}
	return true;
}

enum cuda_result fake_mem_unmap(cuda_address address, size_t bytes)
{
	enum cuda_result result = enter(FAKE_CALL_mem_unmap);
	const cuda_address end = address + bytes;

	if (result == CUDA_OK && (bytes == 0 || !is_whole(address, bytes)))
		result = CUDA_RESULT_INVALID_VALUE;
	while (result == CUDA_OK && address < end) {
		struct fake_span *span = fake_span_at(address);
		struct fake_physical *physical = span->physical;

		if (span->busy)
			fake_die("%llu bytes at %#llx are unmapped under %u queued copies or values",
				 (unsigned long long)span->bytes, span->start, span->busy);
		address += span->bytes;
		munmap(span->memory, span->bytes);
		fake_span_remove(span, "device memory is unmapped");
		physical->mappings--;
		physical_settle(physical);
	}
	return fake_leave(result);
}

enum cuda_result fake_mem_set_access(cuda_address address, size_t bytes, const struct cuda_access *access, size_t n)
{
	enum cuda_result result = enter(FAKE_CALL_mem_set_access);

	if (result == CUDA_OK && (bytes == 0 || !is_whole(address, bytes)))
		result = CUDA_RESULT_INVALID_VALUE;
	for (size_t i = 0; result == CUDA_OK && i < n; i++) {
		const cuda_device device = access[i].location.id;

		if (access[i].location.type != CUDA_MEM_LOCATION_TYPE_DEVICE || !fake_device_is(device))
			result = CUDA_RESULT_INVALID_DEVICE;
		else if (device != fake_span_at(address)->device && fake.config.lacks_peer)
			result = CUDA_RESULT_PEER_ACCESS_UNSUPPORTED;
		for (uint64_t done = 0; result == CUDA_OK && done < bytes;) {
			struct fake_span *span = fake_span_at(address + done);

			span->access[device] = (uint8_t)access[i].flags;
			done += span->bytes;
		}
	}
	return fake_leave(result);
}
