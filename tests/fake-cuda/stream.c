/* Streams of the fake and what is queued in them: events, host functions, values. See fake.h. */
#include "tests/fake-cuda/fake.h"

#include <stdlib.h>

struct cuda_stream *fake_streams;
static struct cuda_event *events;

/* --- streams ---------------------------------------------------------------------------------------------------- */

struct cuda_stream *fake_stream_new(struct cuda_context *context, unsigned flags, int priority)
{
	struct cuda_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		fake_die("the test's process is out of memory");
	*stream = (struct cuda_stream){
		.next = fake_streams, .context = context, .flags = flags, .priority = priority,
	};
	fake_streams = stream;
	return stream;
}

struct cuda_stream *fake_stream_of(struct cuda_stream *handle, const char *caller)
{
	if ((uintptr_t)handle <= 2)	/* NULL, the legacy one and that of the thread */
		return fake_current()->null_stream;
	for (struct cuda_stream *stream = fake_streams; stream; stream = stream->next) {
		if (stream != handle)
			continue;
		if (stream->destroyed)
			fake_die("%s on a stream that has been destroyed", caller);
		if (stream->context != fake_current())
			fake_die("%s on a stream of another context than the current one", caller);
		return stream;
	}
	fake_die("%s on %p, which is no stream", caller, (void *)handle);
}

void fake_queue(struct cuda_stream *stream, const struct fake_op *op)
{
	static uint64_t sequence;
	struct fake_op *mine = malloc(sizeof(*mine));

	if (!mine)
		fake_die("the test's process is out of memory");
	*mine = *op;
	mine->sequence = ++sequence;
	if (stream->last)
		stream->last->next = mine;
	else
		stream->first = mine;
	stream->last = mine;
	fake_run_start();
	pthread_cond_broadcast(&fake.changed);
}

enum cuda_result fake_drain(struct cuda_stream *stream)
{
	/* The null stream is drained when all that it has to wait for is: ask it for one thing more. */
	if (stream->is_null)
		fake_queue(stream, &(struct fake_op){ .deed = FAKE_RECORD });
	while (stream->first && fake.dead == CUDA_OK)
		pthread_cond_wait(&fake.changed, &fake.mutex);
	return fake.dead;
}

enum cuda_result fake_stream_create(struct cuda_stream **stream, unsigned int flags, int priority)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_create, FAKE_CONTEXT);

	if (result == CUDA_OK && (flags & ~(unsigned)CUDA_STREAM_NON_BLOCKING))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		*stream = fake_stream_new(fake_current(), flags, priority);
	return fake_leave(result);
}

enum cuda_result fake_stream_destroy(struct cuda_stream *handle)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_destroy, FAKE_CONTEXT);

	if (result == CUDA_OK && (uintptr_t)handle <= 2)
		result = CUDA_RESULT_INVALID_HANDLE;
	if (result == CUDA_OK)		/* what it still holds is executed all the same */
		fake_stream_of(handle, "cuStreamDestroy")->destroyed = true;
	return fake_leave(result);
}

enum cuda_result fake_stream_synchronize(struct cuda_stream *handle)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_synchronize, FAKE_CONTEXT);

	if (result == CUDA_OK)
		result = fake_drain(fake_stream_of(handle, "cuStreamSynchronize"));
	return fake_leave(result);
}

enum cuda_result fake_stream_query(struct cuda_stream *handle)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_query, FAKE_CONTEXT);

	if (result == CUDA_OK && fake_stream_of(handle, "cuStreamQuery")->first)
		result = CUDA_RESULT_NOT_READY;
	return fake_leave(result);
}

enum cuda_result fake_launch_host_function(struct cuda_stream *handle, cuda_host_function function, void *data)
{
	enum cuda_result result = fake_enter(FAKE_CALL_launch_host_function, FAKE_CONTEXT);

	if (result == CUDA_OK && !function)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		fake_queue(fake_stream_of(handle, "cuLaunchHostFunc"),
			   &(struct fake_op){ .deed = FAKE_FUNCTION, .function = function, .data = data });
	return fake_leave(result);
}

/* --- values ----------------------------------------------------------------------------------------------------- */

static enum cuda_result queue_value(struct cuda_stream *stream, cuda_address address, const struct fake_op *value)
{
	struct fake_span *span = fake_span_at(address);
	const bool writes = value->deed == FAKE_WRITE;
	struct fake_op op = *value;

	if (fake.config.lacks_stream_values)
		return CUDA_RESULT_NOT_SUPPORTED;
	if (address % 4 != 0)
		return CUDA_RESULT_INVALID_VALUE;
	if (!span || address - span->start > span->bytes - 4)
		fake_die("a value at %#llx, where no memory of a device is", address);
	if (span->kind == FAKE_HOST)
		fake_die("a value at %#llx, a host's address: streams want what cuMemHostGetDevicePointer says", address);
	if (span->kind == FAKE_HOST_ALIAS && writes && (span->flags & CUDA_MEMHOSTREGISTER_READ_ONLY))
		fake_die("a value is written at %#llx, which is registered as read-only", address);
	if (span->kind == FAKE_HOST_ALIAS && span->context != stream->context &&
	    !(span->flags & CUDA_MEMHOSTREGISTER_PORTABLE))
		fake_die("a value at %#llx, which is registered for another context", address);
	op.span = span;
	op.word = (_Atomic uint32_t *)(void *)(span->memory + (address - span->start));
	span->busy++;
	fake_queue(stream, &op);
	return CUDA_OK;
}

enum cuda_result fake_stream_write_value32(struct cuda_stream *handle, cuda_address address, uint32_t value,
					   unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_write_value32, FAKE_CONTEXT);

	if (result == CUDA_OK && flags != CUDA_STREAM_WRITE_VALUE_DEFAULT)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		result = queue_value(fake_stream_of(handle, "cuStreamWriteValue32"), address,
				     &(struct fake_op){ .deed = FAKE_WRITE, .value = value });
	return fake_leave(result);
}

enum cuda_result fake_stream_wait_value32(struct cuda_stream *handle, cuda_address address, uint32_t value,
					  unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_wait_value32, FAKE_CONTEXT);

	if (result == CUDA_OK && (flags & CUDA_STREAM_WAIT_VALUE_FLUSH))
		result = CUDA_RESULT_NOT_SUPPORTED;
	if (result == CUDA_OK && flags > CUDA_STREAM_WAIT_VALUE_AND)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		result = queue_value(fake_stream_of(handle, "cuStreamWaitValue32"), address,
				     &(struct fake_op){ .deed = FAKE_WAIT, .value = value, .flags = flags });
	return fake_leave(result);
}

/* --- events ----------------------------------------------------------------------------------------------------- */

static struct cuda_event *event_of(struct cuda_event *handle, const char *caller)
{
	for (struct cuda_event *event = events; event; event = event->next)
		if (event == handle && !event->destroyed)
			return event;
	fake_die("%s of %p, which is no event or has been destroyed", caller, (void *)handle);
}

enum cuda_result fake_event_create(struct cuda_event **event, unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_event_create, FAKE_CONTEXT);
	struct cuda_event *fresh;

	if (result == CUDA_OK && (flags & ~(unsigned)(CUDA_EVENT_BLOCKING_SYNC | CUDA_EVENT_DISABLE_TIMING)))
		result = CUDA_RESULT_INVALID_VALUE;
	if (result != CUDA_OK)
		return fake_leave(result);
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		fake_die("the test's process is out of memory");
	*fresh = (struct cuda_event){ .next = events, .context = fake_current() };
	events = fresh;
	*event = fresh;
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_event_destroy(struct cuda_event *handle)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_event_destroy, FAKE_CONTEXT);

	if (result == CUDA_OK)
		event_of(handle, "cuEventDestroy")->destroyed = true;
	return fake_leave(result);
}

enum cuda_result fake_event_record(struct cuda_event *handle, struct cuda_stream *stream)
{
	enum cuda_result result = fake_enter(FAKE_CALL_event_record, FAKE_CONTEXT);
	struct cuda_event *event = result == CUDA_OK ? event_of(handle, "cuEventRecord") : NULL;
	struct cuda_stream *into = result == CUDA_OK ? fake_stream_of(stream, "cuEventRecord") : NULL;

	if (result == CUDA_OK && event->context != into->context)
		result = CUDA_RESULT_INVALID_HANDLE;
	if (result == CUDA_OK)
		fake_queue(into, &(struct fake_op){
			.deed = FAKE_RECORD, .event = event, .generation = ++event->recorded });
	return fake_leave(result);
}

enum cuda_result fake_event_query(struct cuda_event *handle)
{
	enum cuda_result result = fake_enter(FAKE_CALL_event_query, FAKE_CONTEXT);
	const struct cuda_event *event = result == CUDA_OK ? event_of(handle, "cuEventQuery") : NULL;

	if (result == CUDA_OK && event->completed < event->recorded)
		result = CUDA_RESULT_NOT_READY;
	return fake_leave(result);
}

enum cuda_result fake_event_synchronize(struct cuda_event *handle)
{
	enum cuda_result result = fake_enter(FAKE_CALL_event_synchronize, FAKE_CONTEXT);
	const struct cuda_event *event = result == CUDA_OK ? event_of(handle, "cuEventSynchronize") : NULL;
	const uint64_t generation = event ? event->recorded : 0;

	while (result == CUDA_OK && event->completed < generation) {
		pthread_cond_wait(&fake.changed, &fake.mutex);
		result = fake.dead;
	}
	return fake_leave(result);
}

enum cuda_result fake_stream_wait_event(struct cuda_stream *handle, struct cuda_event *event, unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_stream_wait_event, FAKE_CONTEXT);

	if (result == CUDA_OK && flags != 0)
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK) {
		struct cuda_event *awaited = event_of(event, "cuStreamWaitEvent");

		fake_queue(fake_stream_of(handle, "cuStreamWaitEvent"), &(struct fake_op){
			.deed = FAKE_WAIT_EVENT, .event = awaited, .generation = awaited->recorded });
	}
	return fake_leave(result);
}
