/* Legacy IPC of the fake: handles that name a file of the directory, and imports of them. See fake.h. */
#include "tests/fake-cuda/fake.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x65736c6166616475)

/* What a handle's 64 bytes say. */
struct ipc {
	uint64_t magic, bytes;
	char name[REGISTRY_NAME];
	uint32_t device, pid;		/* the machine's number; of the owner */
};
static_assert(sizeof(struct ipc) == sizeof(struct cuda_ipc_handle), "a handle has 64 bytes");

enum cuda_result fake_ipc_get_handle(struct cuda_ipc_handle *handle, cuda_address address)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ipc_get_handle, FAKE_CONTEXT);
	const struct fake_span *span = result == CUDA_OK ? fake_span_at(address) : NULL;
	struct ipc ipc = { .magic = MAGIC, .pid = (uint32_t)getpid() };

	if (result == CUDA_OK && (!span || span->kind != FAKE_ALLOCATION || fake.config.lacks_ipc))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result != CUDA_OK)
		return fake_leave(result);
	if (span->start != address)
		fake_die("cuIpcGetMemHandle of %#llx, which is %llu bytes into its allocation: the handle would "
			 "silently mean the allocation's start", address, address - span->start);
	ipc.bytes = span->bytes;
	ipc.device = fake_machine_device(span->device);
	memcpy(ipc.name, span->name, sizeof(ipc.name));
	memcpy(handle, &ipc, sizeof(ipc));
	return fake_leave(CUDA_OK);
}

/* This process's ordinal of the machine's device, or -1. */
static cuda_device ordinal_of(uint32_t machine)
{
	for (cuda_device device = 0; fake_device_is(device); device++)
		if (fake_machine_device(device) == machine)
			return device;
	return -1;
}

static struct fake_span *import_named(const char *name, const struct cuda_context *context)
{
	for (unsigned i = 0; i < fake_span_count(); i++) {
		struct fake_span *span = fake_span_number(i);

		if (span->kind == FAKE_IMPORT && span->context == context && strcmp(span->name, name) == 0)
			return span;
	}
	return NULL;
}

static enum cuda_result import(const struct ipc *ipc, struct cuda_context *context, cuda_address *ret)
{
	const int fd = registry_join(fake.config.directory, ipc->name);
	struct fake_span *span;
	cuda_address start;

	if (fd < 0)
		return CUDA_RESULT_INVALID_HANDLE;	/* freed, or its process is dead */
	start = fake_addresses(ipc->bytes, FAKE_GRANULE);
	if (start == 0) {
		close(fd);
		return CUDA_RESULT_MAP_FAILED;
	}
	span = fake_span_new(FAKE_IMPORT, start, ipc->bytes);
	span->context = context;
	span->device = ordinal_of(ipc->device);
	span->fd = fd;
	span->memory = fake_memory_map(fd, ipc->bytes);
	span->references = 1;
	memcpy(span->name, ipc->name, sizeof(span->name));
	span->marker_fd = registry_create(fake.config.directory, "import", ipc->device, 0, span->marker);
	if (span->marker_fd < 0)
		fake_die("could not make %s in %s", span->marker, fake.config.directory);
	*ret = start;
	return CUDA_OK;
}

enum cuda_result fake_ipc_open(cuda_address *address, struct cuda_ipc_handle handle, unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ipc_open, FAKE_CONTEXT);
	struct cuda_context *context = fake_current();
	struct fake_span *known;
	struct ipc ipc;

	if (result != CUDA_OK)
		return fake_leave(result);
	memcpy(&ipc, &handle, sizeof(ipc));
	if (flags != CUDA_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	if (ipc.magic != MAGIC || memchr(ipc.name, '\0', sizeof(ipc.name)) == NULL || strchr(ipc.name, '/') ||
	    fake.config.lacks_ipc)
		return fake_leave(CUDA_RESULT_INVALID_HANDLE);
	if (ipc.pid == (uint32_t)getpid())
		return fake_leave(CUDA_RESULT_INVALID_CONTEXT);	/* its own memory: not by this way */
	if (ordinal_of(ipc.device) < 0)
		return fake_leave(CUDA_RESULT_INVALID_DEVICE);
	if (ordinal_of(ipc.device) != context->device && fake.config.lacks_peer)
		return fake_leave(CUDA_RESULT_PEER_ACCESS_UNSUPPORTED);
	known = import_named(ipc.name, context);
	if (known) {
		known->references++;
		*address = known->start;
		return fake_leave(CUDA_OK);
	}
	return fake_leave(import(&ipc, context, address));
}

void fake_import_close(struct fake_span *span)
{
	munmap(span->memory, span->bytes);
	close(span->fd);
	close(span->marker_fd);
	registry_unlink(fake.config.directory, span->marker);
	fake_addresses_free(span->start, span->bytes);
	fake_span_remove(span, "an import is closed");
}

enum cuda_result fake_ipc_close(cuda_address address)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ipc_close, FAKE_CONTEXT);
	struct fake_span *span = result == CUDA_OK ? fake_span_at(address) : NULL;

	if (result == CUDA_OK && (!span || span->kind != FAKE_IMPORT || span->start != address))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result != CUDA_OK)
		return fake_leave(result);
	if (span->busy)
		fake_die("the import at %#llx is closed under %u queued copies or values", address, span->busy);
	if (--span->references == 0)
		fake_import_close(span);
	return fake_leave(CUDA_OK);
}
