/* Devices and contexts of the fake. See fake.h. */
#include "tests/fake-cuda/fake.h"

#include <stdio.h>

#define CONTEXTS_DEEP 8u

static struct cuda_context contexts[FAKE_DEVICES_MAX];	/* the primary ones, by ordinal */
static _Thread_local struct cuda_context *stack[CONTEXTS_DEEP];
static _Thread_local unsigned depth;

bool fake_device_is(cuda_device device)
{
	return device >= 0 && device < (cuda_device)fake.config.n_devices;
}

unsigned fake_machine_device(cuda_device device)
{
	return fake.config.devices[device];
}

struct cuda_context *fake_current(void)
{
	struct cuda_context *context = depth > 0 ? stack[depth - 1] : NULL;

	return context && context->references > 0 ? context : NULL;
}

/* --- devices ---------------------------------------------------------------------------------------------------- */

enum cuda_result fake_device_get_count(int *count)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_device_get_count, FAKE_INITIALIZED);

	if (result == CUDA_OK)
		*count = (int)fake.config.n_devices;
	return fake_leave(result);
}

enum cuda_result fake_device_get(cuda_device *device, int ordinal)
{
	enum cuda_result result = fake_enter(FAKE_CALL_device_get, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(ordinal))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK)
		*device = ordinal;
	return fake_leave(result);
}

enum cuda_result fake_device_get_name(char *name, int bytes, cuda_device device)
{
	enum cuda_result result = fake_enter(FAKE_CALL_device_get_name, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK)
		snprintf(name, (size_t)bytes, "Fake GPU %u", fake_machine_device(device));
	return fake_leave(result);
}

enum cuda_result fake_device_get_uuid(struct cuda_uuid *uuid, cuda_device device)
{
	enum cuda_result result = fake_enter(FAKE_CALL_device_get_uuid, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK)
		fake_cuda_uuid(fake_machine_device(device), uuid);
	return fake_leave(result);
}

static int attribute_of(enum cuda_device_attribute attribute, unsigned machine)
{
	const struct fake_config *config = &fake.config;

	switch (attribute) {
	case CUDA_DEVICE_ATTRIBUTE_PCI_BUS_ID:
		return (int)machine + 1;
	case CUDA_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
		return 2;
	case CUDA_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
		return 9;
	case CUDA_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
	case CUDA_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
	case CUDA_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
	case CUDA_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
		return 1;
	case CUDA_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
		return !config->lacks_vmm;
	case CUDA_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
		return !config->lacks_posix_handles;
	case CUDA_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED:
		return !config->lacks_read_only;
	case CUDA_DEVICE_ATTRIBUTE_INTEGRATED:
	case CUDA_DEVICE_ATTRIBUTE_COMPUTE_MODE:
	case CUDA_DEVICE_ATTRIBUTE_PCI_DEVICE_ID:
	case CUDA_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID:
	case CUDA_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
	/* A device has a view of host memory at addresses of its own here, so that who mixes them is found. */
	case CUDA_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
	case CUDA_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES:
		return 0;
	}
	return -1;
}

enum cuda_result fake_device_get_attribute(int *value, enum cuda_device_attribute attribute, cuda_device device)
{
	enum cuda_result result = fake_enter(FAKE_CALL_device_get_attribute, FAKE_INITIALIZED);
	int answer = -1;

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK)
		answer = attribute_of(attribute, fake_machine_device(device));
	if (result == CUDA_OK && answer < 0)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		*value = answer;
	return fake_leave(result);
}

enum cuda_result fake_device_can_access_peer(int *can, cuda_device device, cuda_device peer)
{
	enum cuda_result result = fake_enter(FAKE_CALL_device_can_access_peer, FAKE_INITIALIZED);

	if (result == CUDA_OK && (!fake_device_is(device) || !fake_device_is(peer)))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK)
		*can = device != peer && !fake.config.lacks_peer;
	return fake_leave(result);
}

/* --- contexts --------------------------------------------------------------------------------------------------- */

enum cuda_result fake_primary_retain(struct cuda_context **context, cuda_device device)
{
	enum cuda_result result = fake_enter(FAKE_CALL_primary_retain, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK) {
		struct cuda_context *mine = &contexts[device];

		mine->device = device;
		mine->references++;
		if (!mine->null_stream)
			mine->null_stream = fake_stream_new(mine, CUDA_STREAM_DEFAULT, 0);
		mine->null_stream->is_null = true;
		*context = mine;
	}
	return fake_leave(result);
}

/* The last one gone takes all with it that was made in the context. */
static void destroy_context(struct cuda_context *context)
{
	for (struct cuda_stream *stream = fake_streams; stream; stream = stream->next)
		if (stream->context == context) {
			if (stream->first)
				fake_die("a context is released for good while a stream of it has work");
			stream->destroyed = stream != context->null_stream;
		}
	for (unsigned i = fake_span_count(); i-- > 0;) {
		struct fake_span *span = fake_span_number(i);

		if (span->context == context && span->kind == FAKE_ALLOCATION)
			fake_allocation_free(span);
		else if (span->context == context && span->kind == FAKE_IMPORT)
			fake_import_close(span);
	}
}

enum cuda_result fake_primary_release(cuda_device device)
{
	enum cuda_result result = fake_enter(FAKE_CALL_primary_release, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK && contexts[device].references == 0)
		result = CUDA_RESULT_INVALID_CONTEXT;
	if (result == CUDA_OK && --contexts[device].references == 0)
		destroy_context(&contexts[device]);
	return fake_leave(result);
}

enum cuda_result fake_primary_set_flags(cuda_device device, unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_primary_set_flags, FAKE_INITIALIZED);

	if (result == CUDA_OK && !fake_device_is(device))
		result = CUDA_RESULT_INVALID_DEVICE;
	if (result == CUDA_OK && (flags & ~(unsigned)CUDA_CTX_SCHED_BLOCKING_SYNC))
		result = CUDA_RESULT_INVALID_VALUE;
	return fake_leave(result);
}

enum cuda_result fake_ctx_set_current(struct cuda_context *context)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ctx_set_current, FAKE_INITIALIZED);

	if (result == CUDA_OK && context && context->references == 0)
		result = CUDA_RESULT_INVALID_CONTEXT;
	if (result == CUDA_OK && context) {
		depth = depth ? depth : 1;
		stack[depth - 1] = context;
	} else if (result == CUDA_OK && depth > 0) {
		depth--;
	}
	return fake_leave(result);
}

enum cuda_result fake_ctx_get_current(struct cuda_context **context)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_ctx_get_current, FAKE_INITIALIZED);

	if (result == CUDA_OK)
		*context = depth > 0 ? stack[depth - 1] : NULL;
	return fake_leave(result);
}

enum cuda_result fake_ctx_push_current(struct cuda_context *context)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ctx_push_current, FAKE_INITIALIZED);

	if (result == CUDA_OK && (!context || context->references == 0))
		result = CUDA_RESULT_INVALID_CONTEXT;
	if (result == CUDA_OK && depth == CONTEXTS_DEEP)
		fake_die("%u contexts have been pushed and not popped", depth);
	if (result == CUDA_OK)
		stack[depth++] = context;
	return fake_leave(result);
}

enum cuda_result fake_ctx_pop_current(struct cuda_context **context)
{
	enum cuda_result result = fake_enter(FAKE_CALL_ctx_pop_current, FAKE_INITIALIZED);

	if (result == CUDA_OK && depth == 0)
		result = CUDA_RESULT_INVALID_CONTEXT;
	if (result == CUDA_OK) {
		depth--;
		if (context)
			*context = stack[depth];
	}
	return fake_leave(result);
}

enum cuda_result fake_ctx_get_device(cuda_device *device)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_ctx_get_device, FAKE_CONTEXT);

	if (result == CUDA_OK)
		*device = fake_current()->device;
	return fake_leave(result);
}

enum cuda_result fake_ctx_get_stream_priority_range(int *least, int *greatest)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_ctx_get_stream_priority_range, FAKE_CONTEXT);

	if (result == CUDA_OK && least)
		*least = 0;
	if (result == CUDA_OK && greatest)
		*greatest = -5;
	return fake_leave(result);
}
