/*
 * Copies of the fake: looked at when they are asked for, cut into moves between memory that is one piece
 * on both sides, and queued. See fake.h.
 *
 * What a GPU would answer by a fault much later, or not at all, is an abort here and now: an address that
 * is nothing, a copy past an allocation or past a registered range, memory without access for this device,
 * asynchronous copies of host memory that nobody registered.
 */
#include "tests/fake-cuda/fake.h"

#include <stdlib.h>
#include <string.h>

/* What a caller says that an address is. */
enum side { HOST, DEVICE, EITHER };

struct batch {
	struct fake_move *moves;
	uint64_t n, room;
	struct cuda_context *context;
	bool pageable;			/* unregistered host memory may take part */
	bool staged;			/* some did, as a destination */
	enum side to, from;
};

/** struct part - memory behind the beginning of a range. */
struct part {
	struct fake_span *span;		/* NULL: pageable */
	uint8_t *memory;
	uint64_t bytes;
};

static bool is_host_kind(const struct fake_span *span)
{
	return span->kind == FAKE_HOST || span->kind == FAKE_HOST_ALIAS;
}

static void check_span(const struct batch *batch, const struct fake_span *span, cuda_address address, bool writes)
{
	const cuda_device device = batch->context->device;

	if (is_host_kind(span)) {
		if (writes && (span->flags & CUDA_MEMHOSTREGISTER_READ_ONLY))
			fake_die("a copy to %#llx, which is registered as read-only", address);
		if (span->context != batch->context && !(span->flags & CUDA_MEMHOSTREGISTER_PORTABLE))
			fake_die("a copy of %#llx, which is registered for another context", address);
	} else if (span->kind == FAKE_MAPPING) {
		const uint8_t needed = writes ? CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE : CUDA_MEM_ACCESS_FLAGS_PROT_READ;

		if ((span->access[device] & needed) != needed)
			fake_die("a copy of %#llx, which is mapped without access for device %d", address, device);
	} else if (span->device != device && fake.config.lacks_peer) {
		fake_die("a copy of %#llx, memory of device %d, by device %d", address, span->device, device);
	}
}

/* The memory at @address, as much of @bytes as lies behind one span. */
static struct part part_of(struct batch *batch, cuda_address address, uint64_t bytes, enum side side, bool writes)
{
	struct fake_span *span = fake_span_at(address);
	uint64_t left;

	if (!span && side != DEVICE) {
		if (!batch->pageable)
			fake_die("an asynchronous copy of %llu bytes at %#llx, host memory that is not registered: the "
				 "driver would copy it slowly, through memory of its own", (unsigned long long)bytes, address);
		if (fake_span_overlapping(address, bytes))
			fake_die("a copy of %llu bytes at %#llx, of which a part is registered",
				 (unsigned long long)bytes, address);
		batch->staged |= writes;
		return (struct part){ NULL, (uint8_t *)(uintptr_t)address, bytes };
	}
	if (!span)
		fake_die("a copy of %llu bytes at %#llx, where no device memory is", (unsigned long long)bytes, address);
	if (side != EITHER && is_host_kind(span) != (side == HOST))
		fake_die("a copy of %#llx, which is no memory of a %s", address, side == HOST ? "host" : "device");
	check_span(batch, span, address, writes);
	left = span->bytes - (address - span->start);
	if (left < bytes && span->kind != FAKE_MAPPING)
		fake_die("a copy of %llu bytes at %#llx runs %llu bytes past the end of its %s", (unsigned long long)bytes,
			 address, (unsigned long long)(bytes - left), is_host_kind(span) ? "registered range" : "allocation");
	return (struct part){ span, span->memory + (address - span->start), left < bytes ? left : bytes };
}

static void add_move(struct batch *batch, const struct part *to, const struct part *from, uint64_t bytes)
{
	if (batch->n == batch->room) {
		batch->room = batch->room ? 2 * batch->room : 16;
		batch->moves = realloc(batch->moves, batch->room * sizeof(struct fake_move));
		if (!batch->moves)
			fake_die("the test's process is out of memory");
	}
	batch->moves[batch->n++] = (struct fake_move){
		.to_span = to->span, .from_span = from->span, .to = to->memory, .from = from->memory, .bytes = bytes,
	};
	if (to->span)
		to->span->busy++;
	if (from->span)
		from->span->busy++;
}

/* What is read now, for sources that may be read before the stream gets there. */
static void take_snapshot(struct fake_move *move)
{
	uint8_t *copy = malloc(move->bytes);

	if (!copy)
		fake_die("the test's process is out of memory");
	memcpy(copy, move->from, move->bytes);
	if (move->from_span)
		move->from_span->busy--;
	move->from_span = NULL;
	move->from = copy;
	move->snapshot = true;
}

static void add_copy(struct batch *batch, cuda_address to, cuda_address from, uint64_t bytes, uint32_t order)
{
	while (bytes > 0) {
		const struct part behind_to = part_of(batch, to, bytes, batch->to, true);
		const struct part behind_from = part_of(batch, from, bytes, batch->from, false);
		const uint64_t n = behind_to.bytes < behind_from.bytes ? behind_to.bytes : behind_from.bytes;

		add_move(batch, &behind_to, &behind_from, n);
		/* ANY allows now as well as late: both happen. Pageable memory is staged within the call. */
		if (order == CUDA_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL || !behind_from.span ||
		    (order == CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY && fake_below(2) == 0))
			take_snapshot(&batch->moves[batch->n - 1]);
		to += n;
		from += n;
		bytes -= n;
	}
}

/* Queue what has been gathered; the moves are the stream's then. */
static enum cuda_result queue(struct batch *batch, struct cuda_stream *stream, bool wait)
{
	if (batch->n > 0)
		fake_queue(stream, &(struct fake_op){ .deed = FAKE_MOVES, .moves = batch->moves, .n_moves = batch->n });
	return wait || batch->staged ? fake_drain(stream) : CUDA_OK;
}

/* --- one at a time ---------------------------------------------------------------------------------------------- */

static enum cuda_result copy(enum fake_call call, cuda_address to, cuda_address from, uint64_t bytes,
			     bool to_device, bool wait, struct cuda_stream *handle)
{
	enum cuda_result result = fake_enter(call, FAKE_CONTEXT);
	struct batch batch = {
		.context = fake_current(), .pageable = wait || fake.config.pageable,
		.to = to_device ? DEVICE : HOST, .from = to_device ? HOST : DEVICE,
	};
	struct cuda_stream *stream;

	if (result != CUDA_OK)
		return fake_leave(result);
	stream = fake_stream_of(handle, "a copy");
	add_copy(&batch, to, from, bytes, CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM);
	return fake_leave(queue(&batch, stream, wait));
}

enum cuda_result fake_copy_to_device(cuda_address to, const void *from, size_t bytes)
{
	return copy(FAKE_CALL_copy_to_device, to, (uintptr_t)from, bytes, true, true, NULL);
}

enum cuda_result fake_copy_to_host(void *to, cuda_address from, size_t bytes)
{
	return copy(FAKE_CALL_copy_to_host, (uintptr_t)to, from, bytes, false, true, NULL);
}

enum cuda_result fake_copy_to_device_async(cuda_address to, const void *from, size_t bytes, struct cuda_stream *stream)
{
	return copy(FAKE_CALL_copy_to_device_async, to, (uintptr_t)from, bytes, true, false, stream);
}

enum cuda_result fake_copy_to_host_async(void *to, cuda_address from, size_t bytes, struct cuda_stream *stream)
{
	return copy(FAKE_CALL_copy_to_host_async, (uintptr_t)to, from, bytes, false, false, stream);
}

/* --- many at once ----------------------------------------------------------------------------------------------- */

static int by_destination(const void *a, const void *b)
{
	const struct fake_move *x = a, *y = b;

	return x->to < y->to ? -1 : x->to > y->to;
}

/* Copies of a batch have no order: two that write the same bytes are a mistake. Then they get some order. */
static void mix(struct batch *batch)
{
	qsort(batch->moves, batch->n, sizeof(struct fake_move), by_destination);
	for (uint64_t i = 1; i < batch->n; i++)
		if (batch->moves[i - 1].to + batch->moves[i - 1].bytes > batch->moves[i].to)
			fake_die("two copies of one batch write the same bytes, in no order");
	for (uint64_t i = batch->n; i > 1; i--) {
		const uint64_t other = fake_below(i);
		const struct fake_move move = batch->moves[i - 1];

		batch->moves[i - 1] = batch->moves[other];
		batch->moves[other] = move;
	}
}

static enum cuda_result check_attributes(const struct cuda_copy_attributes *attributes, const size_t *first,
					 size_t n_attributes, size_t n)
{
	if (n == 0 || !attributes || !first || n_attributes == 0 || n_attributes > n || first[0] != 0)
		return CUDA_RESULT_INVALID_VALUE;
	for (size_t i = 0; i < n_attributes; i++)
		if (attributes[i].source_order < CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM ||
		    attributes[i].source_order > CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY || first[i] >= n ||
		    (i > 0 && first[i] <= first[i - 1]))
			return CUDA_RESULT_INVALID_VALUE;
	return CUDA_OK;
}

static enum cuda_result copy_batch(enum fake_call call, const cuda_address *to, const cuda_address *from,
				   const size_t *bytes, size_t n, const struct cuda_copy_attributes *attributes,
				   const size_t *first, size_t n_attributes, struct cuda_stream *handle)
{
	enum cuda_result result = fake_enter(call, FAKE_CONTEXT);
	struct batch batch = {
		.context = fake_current(), .pageable = fake.config.pageable, .to = EITHER, .from = EITHER,
	};
	struct cuda_stream *stream;
	size_t attribute = 0;

	if (result == CUDA_OK && fake.config.lacks_batch)
		result = CUDA_RESULT_NOT_SUPPORTED;
	if (result == CUDA_OK && (uintptr_t)handle <= 2)	/* the null stream, by any of its names */
		result = CUDA_RESULT_INVALID_VALUE;
	if (result == CUDA_OK)
		result = check_attributes(attributes, first, n_attributes, n);
	for (size_t i = 0; result == CUDA_OK && i < n; i++)
		if (bytes[i] == 0)
			result = CUDA_RESULT_INVALID_VALUE;
	if (result != CUDA_OK)
		return fake_leave(result);
	stream = fake_stream_of(handle, "cuMemcpyBatchAsync");
	for (size_t i = 0; i < n; i++) {
		if (attribute + 1 < n_attributes && first[attribute + 1] == i)
			attribute++;
		add_copy(&batch, to[i], from[i], bytes[i], attributes[attribute].source_order);
	}
	mix(&batch);
	return fake_leave(queue(&batch, stream, false));
}

enum cuda_result fake_copy_batch_12(cuda_address *to, cuda_address *from, size_t *bytes, size_t n,
				    struct cuda_copy_attributes *attributes, size_t *first, size_t n_attributes,
				    size_t *failed, struct cuda_stream *stream)
{
	const enum cuda_result result = copy_batch(FAKE_CALL_copy_batch_12, to, from, bytes, n, attributes, first,
						   n_attributes, stream);

	if (result != CUDA_OK && failed)
		*failed = SIZE_MAX;	/* no copy of them in particular */
	return result;
}

enum cuda_result fake_copy_batch_13(cuda_address *to, cuda_address *from, size_t *bytes, size_t n,
				    struct cuda_copy_attributes *attributes, size_t *first, size_t n_attributes,
				    struct cuda_stream *stream)
{
	return copy_batch(FAKE_CALL_copy_batch_13, to, from, bytes, n, attributes, first, n_attributes, stream);
}
