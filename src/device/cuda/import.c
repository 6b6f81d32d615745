/*
 * Imports by legacy IPC and by VMM descriptors, as import.h describes them.
 *
 * What the broker could not check is checked here: that a region lies within the allocation that a handle
 * stands for. A copy beyond it would kill the context, and with it the jobs of every worker on this GPU.
 */
#include "src/device/cuda/import.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/device/cuda/keep.h"
#include "src/device/refuse.h"

/** struct ipc_import - an opened handle, and how many regions lie in it. */
struct ipc_import {
	struct ipc_import *next;
	struct cuda_ipc_handle handle;
	cuda_address base;
	uint64_t bytes;
	uint32_t users;
};

static int error_of(enum cuda_result result)
{
	switch (result) {
	case CUDA_RESULT_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_RESULT_INVALID_VALUE:
	case CUDA_RESULT_INVALID_HANDLE:
	case CUDA_RESULT_INVALID_CONTEXT:
		return -EINVAL;
	case CUDA_RESULT_NOT_SUPPORTED:
	case CUDA_RESULT_NOT_PERMITTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

static void note_fatal(struct imports *imports, enum cuda_result result)
{
	if (cuda_result_is_fatal(result))
		imports->fatal = result;
}

/* A call of the driver for a region failed: note a dead context, and say it. */
static int refuse_result(struct imports *imports, char *why, uint32_t number, const char *what, enum cuda_result result)
{
	char text[CUDA_TEXT];

	note_fatal(imports, result);
	return refuse(why, error_of(result), "could not import region %u: %s: %s", number, what,
		      cuda_error_text(imports->cuda, result, text));
}

/*
 * Memory of another device than the one it was registered for: the driver would reach it over a bus, slowly and in
 * silence, or not at all. @ordinal: where the driver says that it lies; a driver that does not say is believed.
 */
static int refuse_elsewhere(const struct imports *imports, char *why, uint32_t number, int ordinal)
{
	if (ordinal < 0 || ordinal == imports->device)
		return 0;
	return refuse(why, -EXDEV, "cannot import region %u: it is memory of another GPU (here number %d) than it was "
		      "registered for; register each GPU's memory for itself", number, ordinal);
}

/* ---- legacy IPC ---------------------------------------------------------------------------------- */

/* What stands behind an opened handle: it lies on this device, and is so large. */
static int ipc_look(struct imports *imports, uint32_t number, struct ipc_import *ipc, char *why)
{
	enum cuda_result result;
	cuda_address start = 0;
	size_t bytes = 0;
	int ordinal = -1;

	if (imports->cuda->pointer_get_attribute(&ordinal, CUDA_POINTER_ATTRIBUTE_DEVICE_ORDINAL, ipc->base) != CUDA_OK)
		ordinal = -1;
	result = imports->cuda->mem_get_address_range(&start, &bytes, ipc->base);
	if (result != CUDA_OK)
		return refuse_result(imports, why, number, "asking for the allocation's size", result);
	ipc->bytes = bytes - (ipc->base - start);	/* the handle is of the allocation's start: all of it */
	return refuse_elsewhere(imports, why, number, ordinal);
}

static int ipc_open(struct imports *imports, uint32_t number, const struct cuda_ipc_handle *handle, char *why,
		    struct ipc_import **ret)
{
	struct ipc_import *ipc;
	enum cuda_result result;
	int r;

	*ret = NULL;
	for (ipc = imports->ipcs; ipc; ipc = ipc->next) {
		if (memcmp(&ipc->handle, handle, sizeof(*handle)) == 0) {
			*ret = ipc;
			return 0;
		}
	}
	ipc = calloc(1, sizeof(*ipc));
	if (!ipc)
		return refuse(why, -ENOMEM, "could not import region %u: the copier is out of memory", number);
	result = imports->cuda->ipc_open(&ipc->base, *handle, CUDA_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
	r = result == CUDA_OK ? ipc_look(imports, number, ipc, why) :
				refuse_result(imports, why, number, "opening the IPC handle", result);
	if (r < 0) {
		if (result == CUDA_OK)
			note_fatal(imports, imports->cuda->ipc_close(ipc->base));
		free(ipc);
		return r;
	}
	ipc->handle = *handle;
	imports->bytes += ipc->bytes;
	ipc->next = imports->ipcs;
	imports->ipcs = ipc;
	*ret = ipc;
	return 0;
}

static enum cuda_result ipc_put(struct imports *imports, struct ipc_import *ipc)
{
	struct ipc_import **at = &imports->ipcs;
	enum cuda_result result;

	if (ipc->users)
		return CUDA_OK;
	result = imports->cuda->ipc_close(ipc->base);
	while (*at != ipc)
		at = &(*at)->next;
	*at = ipc->next;
	if (result == CUDA_OK)
		imports->bytes -= ipc->bytes;
	free(ipc);
	return result;
}

static int take_ipc(struct imports *imports, struct device_region *region, const struct wire_region *message, char *why)
{
	struct cuda_ipc_handle handle;
	struct ipc_import *ipc;
	int r;

	static_assert(sizeof(handle) == sizeof(message->handle), "a handle is plain bytes");
	memcpy(&handle, message->handle, sizeof(handle));
	r = ipc_open(imports, message->region, &handle, why, &ipc);
	if (r < 0)
		return r;
	if (message->bytes > ipc->bytes || message->offset > ipc->bytes - message->bytes) {
		r = refuse(why, -ERANGE, "cannot import region %u: %llu bytes from %llu on lie beyond the allocation's %llu "
			   "bytes; register what was allocated", message->region, (unsigned long long)message->bytes,
			   (unsigned long long)message->offset, (unsigned long long)ipc->bytes);
		note_fatal(imports, ipc_put(imports, ipc));
		return r;
	}
	ipc->users++;
	region->ipc = ipc;
	region->base = ipc->base + message->offset;
	region->bytes = message->bytes;
	return 0;
}

/* ---- VMM ----------------------------------------------------------------------------------------- */

/* The ordinal of the device that memory lies on, or -1. */
static int device_of(const struct imports *imports, cuda_handle handle)
{
	struct cuda_allocation properties = { 0 };

	if (imports->cuda->mem_get_properties(&properties, handle) != CUDA_OK ||
	    properties.location.type != CUDA_MEM_LOCATION_TYPE_DEVICE)
		return -1;
	return properties.location.id;
}

static int take_parts(struct imports *imports, struct device_region *region, const struct wire_region *message,
		      const int *fds, char *why)
{
	const uint32_t n = region->n_parts + message->n_fds;
	int r;

	if (n > region->parts_room) {
		const uint32_t room = n > 2 * region->parts_room ? n : 2 * region->parts_room;
		struct vmm_part *parts = realloc(region->parts, room * sizeof(*parts));

		if (!parts)
			return refuse(why, -ENOMEM, "could not import region %u: the copier is out of memory",
				      message->region);
		region->parts = parts;
		region->parts_room = room;
	}
	for (uint32_t i = 0; i < message->n_fds; i++) {
		struct vmm_part *part = &region->parts[region->n_parts];
		enum cuda_result result;

		*part = (struct vmm_part){ .bytes = message->fd_bytes[i] };
		result = imports->cuda->mem_import(&part->handle, (void *)(intptr_t)fds[i],
						   CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
		if (result != CUDA_OK)
			return refuse_result(imports, why, message->region, "importing a descriptor", result);
		region->n_parts++;
		r = refuse_elsewhere(imports, why, message->region, device_of(imports, part->handle));
		if (r < 0)
			return r;
	}
	return 0;
}

/* All parts are here: put them one behind the other. */
static int map_parts(struct imports *imports, struct device_region *region, const struct wire_region *message, char *why)
{
	const struct cuda_access access = {
		.location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE, .id = imports->device },
		.flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE,
	};
	uint64_t bytes = 0, at = 0;
	enum cuda_result result;

	for (uint32_t i = 0; i < region->n_parts; i++)
		if (__builtin_add_overflow(bytes, region->parts[i].bytes, &bytes))
			return refuse(why, -ERANGE, "cannot import region %u: its parts are too large", message->region);
	if (message->bytes > bytes || message->offset > bytes - message->bytes)
		return refuse(why, -ERANGE, "cannot import region %u: %llu bytes from %llu on lie beyond the %llu bytes of "
			      "its descriptors", message->region, (unsigned long long)message->bytes,
			      (unsigned long long)message->offset, (unsigned long long)bytes);
	result = imports->cuda->mem_reserve(&region->reserved, bytes, 0, 0, 0);
	if (result != CUDA_OK)
		return refuse_result(imports, why, message->region, "reserving addresses", result);
	region->reserved_bytes = bytes;
	for (uint32_t i = 0; i < region->n_parts; i++) {
		struct vmm_part *part = &region->parts[i];

		result = imports->cuda->mem_map(region->reserved + at, part->bytes, 0, part->handle, 0);
		if (result != CUDA_OK)
			return refuse_result(imports, why, message->region, "mapping a descriptor's memory", result);
		part->mapped = true;
		imports->bytes += part->bytes;
		at += part->bytes;
	}
	result = imports->cuda->mem_set_access(region->reserved, bytes, &access, 1);
	if (result != CUDA_OK)
		return refuse_result(imports, why, message->region, "allowing access", result);
	region->base = region->reserved + message->offset;
	region->bytes = message->bytes;
	return 0;
}

/* Undo as much of a VMM import as there is; the first error, if any. */
static enum cuda_result put_parts(struct imports *imports, struct device_region *region)
{
	enum cuda_result first = CUDA_OK, result;
	uint64_t at = 0;

	for (uint32_t i = 0; i < region->n_parts; i++) {
		struct vmm_part *part = &region->parts[i];

		result = part->mapped ? imports->cuda->mem_unmap(region->reserved + at, part->bytes) : CUDA_OK;
		if (part->mapped && result == CUDA_OK)
			imports->bytes -= part->bytes;
		first = first == CUDA_OK ? result : first;
		result = imports->cuda->mem_release(part->handle);
		first = first == CUDA_OK ? result : first;
		at += part->bytes;
	}
	region->n_parts = 0;
	if (region->reserved_bytes) {
		result = imports->cuda->mem_address_free(region->reserved, region->reserved_bytes);
		first = first == CUDA_OK ? result : first;
		region->reserved_bytes = 0;
	}
	return first;
}

/* ---- both ---------------------------------------------------------------------------------------- */

/* The region of a message: the one whose parts have begun to come, or a new one. */
static struct device_region *region_of(struct imports *imports, uint32_t number)
{
	struct device_region *region = imports->regions;

	while (region && region->number != number)
		region = region->next;
	if (region || !(region = calloc(1, sizeof(*region))))
		return region;
	region->number = number;
	region->fence = -1;
	region->next = imports->regions;
	imports->regions = region;
	return region;
}

static int take_message(struct imports *imports, struct device_region *region, const struct wire_region *message,
			const int *fds, uint32_t n_fds, char *why)
{
	int r;

	if (message->n_fds + (message->fence != 0) != n_fds)
		return refuse(why, -EBADMSG, "could not import region %u: %u descriptors came, which is not what was told",
			      message->region, n_fds);
	if (message->kind == WIRE_REGION_IPC)
		return take_ipc(imports, region, message, why);
	r = take_parts(imports, region, message, fds, why);
	return r == 0 && !message->more ? map_parts(imports, region, message, why) : r;
}

int import_region(struct imports *imports, const struct wire_region *message, const int *fds, uint32_t n_fds, char *why)
{
	struct device_region *region = region_of(imports, message->region);
	char ignored[MESSAGE_REASON];
	int r;

	assert(!region || !region->open);	/* numbers are the broker's */
	if (region && region->error == 0) {
		region->error = take_message(imports, region, message, fds, n_fds, region->why);
		if (region->error < 0)		/* what is still to come is not wanted, but must come to its end */
			note_fatal(imports, put_parts(imports, region));
	}
	if (region && region->error == 0 && message->fence) {
		assert(region->fence < 0);
		region->fence = keep_put(fds[--n_fds]);
	}
	for (uint32_t i = 0; i < n_fds; i++)
		close(fds[i]);
	if (!region)
		return message->more ? -EAGAIN : refuse(why, -ENOMEM, "could not import region %u: the copier is out of "
							"memory", message->region);
	if (message->more)
		return -EAGAIN;
	r = region->error;
	if (r == 0) {
		region->open = true;
	} else {
		memcpy(why, region->why, MESSAGE_REASON);
		(void)import_close(imports, region, ignored);
	}
	return r;
}

struct device_region *import_find(struct imports *imports, uint32_t number)
{
	struct device_region *region = imports->regions;

	while (region && region->number != number)
		region = region->next;
	return region && region->open ? region : NULL;
}

int import_close(struct imports *imports, struct device_region *region, char *why)
{
	struct device_region **at = &imports->regions;
	enum cuda_result result = CUDA_OK;
	const uint32_t number = region->number;
	char text[CUDA_TEXT];

	assert(region->pools == 0);
	while (*at != region)
		at = &(*at)->next;
	*at = region->next;
	if (region->ipc) {
		region->ipc->users--;
		result = ipc_put(imports, region->ipc);
	} else {
		result = put_parts(imports, region);
	}
	keep_close(region->fence);	/* last: it says that nobody touches the memory */
	free(region->parts);
	free(region);
	note_fatal(imports, result);
	if (result == CUDA_OK)
		return 0;
	return refuse(why, -EIO, "could not close region %u: %s; its memory stays in use until the copier restarts",
		      number, cuda_error_text(imports->cuda, result, text));
}
