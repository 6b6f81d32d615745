/*
 * Lanes, marks and movers, as streams.h describes them.
 *
 * Order of memory: a mark is put into the stream behind the copies, and the driver's write of a word
 * carries a fence; who has loaded the word (acquire) or heard of the event sees all that a store has
 * brought, and may let others write what a load has read.
 *
 * Batched copies take the order of their source's reads from an attribute. A store's source is the worker's
 * memory: reads in stream order, or they could come before what the stream has waited for. A load's source
 * is the arena, or the bounce buffer, which nobody writes before the slice has ended: any order will do.
 */
#include "src/device/cuda/streams.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/device/refuse.h"

#define WORD_STRIDE	64u
#define WORDS_BYTES	4096u
#define TRIAL		0xfffffff0u	/* numbers begin here, so that every process passes the wrap soon */
#define TRIAL_PIECE	256u		/* of a trial of batched copies, which has two, apart on both sides */
#define TRIAL_STRIDE	512u

/* ---- movers -------------------------------------------------------------------------------------- */

static enum cuda_result move_singly(struct streams *s, struct lane *lane, const struct moves *moves)
{
	enum cuda_result result = CUDA_OK;

	for (uint32_t i = 0; i < moves->n && result == CUDA_OK; i++) {
		if (lane->store)
			result = s->cuda->copy_to_host_async((void *)(uintptr_t)moves->to[i], moves->from[i],
							     moves->bytes[i], lane->stream);
		else
			result = s->cuda->copy_to_device_async(moves->to[i], (const void *)(uintptr_t)moves->from[i],
							       moves->bytes[i], lane->stream);
	}
	return result;
}

static struct cuda_copy_attributes attributes_of(const struct lane *lane)
{
	return (struct cuda_copy_attributes){
		.source_order = lane->store ? CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM : CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY,
		.flags = CUDA_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE,
	};
}

static enum cuda_result move_batch_13(struct streams *s, struct lane *lane, const struct moves *moves)
{
	struct cuda_copy_attributes attributes = attributes_of(lane);
	size_t first = 0;

	if (moves->n == 1)
		return move_singly(s, lane, moves);
	return s->cuda->copy_batch_13(moves->to, moves->from, moves->bytes, moves->n, &attributes, &first, 1, lane->stream);
}

static enum cuda_result move_batch_12(struct streams *s, struct lane *lane, const struct moves *moves)
{
	struct cuda_copy_attributes attributes = attributes_of(lane);
	size_t first = 0, failed;

	if (moves->n == 1)
		return move_singly(s, lane, moves);
	return s->cuda->copy_batch_12(moves->to, moves->from, moves->bytes, moves->n, &attributes, &first, 1, &failed,
				      lane->stream);
}

static const struct mover singly = { "a copy for each run", 512, move_singly };
static const struct mover singly_instead = { "a copy for each run (batched copies do not work here)", 512, move_singly };
static const struct mover batch_13 = { "batched copies (CUDA 13)", 4096, move_batch_13 };
static const struct mover batch_12 = { "batched copies (CUDA 12.8)", 4096, move_batch_12 };

/* ---- opening ------------------------------------------------------------------------------------- */

static int refuse_result(const struct streams *s, char *why, const char *what, enum cuda_result result)
{
	char text[CUDA_TEXT];

	return refuse(why, result == CUDA_RESULT_OUT_OF_MEMORY ? -ENOMEM : -EIO, "could not %s: %s", what,
		      cuda_error_text(s->cuda, result, text));
}

static int open_lanes(struct streams *s, uint32_t loads, uint32_t stores, char *why)
{
	int least = 0, greatest = 0;
	enum cuda_result result = s->cuda->ctx_get_stream_priority_range(&least, &greatest);

	s->n_loads = loads < 1 ? 1 : loads > LANES_MAX ? LANES_MAX : loads;
	s->n_lanes = s->n_loads + (stores < 1 ? 1 : stores > LANES_MAX ? LANES_MAX : stores);
	for (uint32_t i = 0; i < s->n_lanes && result == CUDA_OK; i++) {
		struct lane *lane = &s->lanes[i];

		lane->store = i >= s->n_loads;
		lane->depth = lane->store ? STORE_DEPTH : LOAD_DEPTH;
		lane->issued = TRIAL;
		result = s->cuda->stream_create(&lane->stream, CUDA_STREAM_NON_BLOCKING,
						lane->store ? least : greatest);
	}
	return result == CUDA_OK ? 0 : refuse_result(s, why, "make streams", result);
}

/* Can a stream write words that we see? What says no is not an error: events serve too. */
static bool words_work(struct streams *s)
{
	struct lane *lane = &s->lanes[0];

	if (!s->cuda->stream_write_value32)
		return false;
	for (uint32_t i = 0; i < s->n_lanes; i++) {
		uint8_t *word = (uint8_t *)s->word_memory + i * WORD_STRIDE;

		s->lanes[i].word = (_Atomic uint32_t *)(void *)word;
		atomic_store_explicit(s->lanes[i].word, i ? TRIAL : 0, memory_order_relaxed);
		if (s->cuda->host_get_device_pointer(&s->lanes[i].word_address, word, 0) != CUDA_OK)
			return false;
	}
	return s->cuda->stream_write_value32(lane->stream, lane->word_address, TRIAL, 0) == CUDA_OK &&
	       s->cuda->stream_synchronize(lane->stream) == CUDA_OK &&
	       atomic_load_explicit(lane->word, memory_order_acquire) == TRIAL;
}

static bool open_words(struct streams *s)
{
	static_assert(2 * LANES_MAX * WORD_STRIDE <= WORDS_BYTES, "a line a word");
	s->word_memory = mmap(NULL, WORDS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (s->word_memory == MAP_FAILED)
		return false;
	s->word_registered = s->cuda->host_register(s->word_memory, WORDS_BYTES, CUDA_MEMHOSTREGISTER_DEVICEMAP) == CUDA_OK;
	return s->word_registered && words_work(s);
}

/* Two pieces the way of @lane, and the end of it. */
static enum cuda_result try_batch(struct streams *s, struct lane *lane, cuda_address device, uint8_t *host)
{
	cuda_address there[2], here[2];
	size_t bytes[2] = { TRIAL_PIECE, TRIAL_PIECE };
	const struct moves moves = { .to = lane->store ? here : there, .from = lane->store ? there : here, .bytes = bytes,
				     .n = 2 };
	enum cuda_result result;

	for (uint32_t i = 0; i < 2; i++) {
		here[i] = (uintptr_t)host + i * TRIAL_STRIDE;
		there[i] = device + i * TRIAL_STRIDE;
	}
	result = s->mover->move(s, lane, &moves);
	return result == CUDA_OK ? s->cuda->stream_synchronize(lane->stream) : result;
}

/*
 * Batched copies have rules that a driver may understand differently than we do: they are used where a trial of
 * both ways brings every byte back. Where there is nothing to try them with, move() finds out.
 */
static enum cuda_result choose_mover(struct streams *s)
{
	static_assert(2 * LANES_MAX * WORD_STRIDE + 4 * TRIAL_STRIDE <= WORDS_BYTES, "the trial has the rest of the page");
	uint8_t *sent = (uint8_t *)s->word_memory + 2 * LANES_MAX * WORD_STRIDE, *got = sent + 2 * TRIAL_STRIDE;
	enum cuda_result result;
	cuda_address device;

	s->mover = s->cuda->copy_batch_13 ? &batch_13 : s->cuda->copy_batch_12 ? &batch_12 : &singly;
	if (s->mover == &singly || !s->word_registered || s->cuda->mem_alloc(&device, 2 * TRIAL_STRIDE) != CUDA_OK)
		return CUDA_OK;
	for (uint32_t i = 0; i < 2 * TRIAL_STRIDE; i++)
		sent[i] = (uint8_t)(i % TRIAL_STRIDE < TRIAL_PIECE ? i * 7 + i / TRIAL_STRIDE + 1 : 0);
	result = try_batch(s, &s->lanes[0], device, sent);
	if (result == CUDA_OK)
		result = try_batch(s, &s->lanes[s->n_loads], device, got);
	/* Where something may still be under way the little that it takes is left to it. */
	if (!cuda_result_is_fatal(result) && s->cuda->stream_query(s->lanes[0].stream) == CUDA_OK &&
	    s->cuda->stream_query(s->lanes[s->n_loads].stream) == CUDA_OK)
		(void)s->cuda->mem_free(device);
	if (result != CUDA_OK || memcmp(sent, got, 2 * TRIAL_STRIDE) != 0)
		s->mover = &singly_instead;
	return cuda_result_is_fatal(result) ? result : CUDA_OK;
}

static int open_events(struct streams *s, char *why)
{
	for (uint32_t i = 0; i < s->n_lanes; i++) {
		for (uint32_t k = 0; k < s->lanes[i].depth; k++) {
			const enum cuda_result result = s->cuda->event_create(&s->lanes[i].events[k],
									      CUDA_EVENT_DISABLE_TIMING);

			if (result != CUDA_OK)
				return refuse_result(s, why, "make events", result);
		}
	}
	return 0;
}

int streams_open(struct streams *s, const struct cuda_driver *cuda, uint8_t *arena, uint32_t loads, uint32_t stores,
		 char *why)
{
	enum cuda_result result;
	int r;

	*s = (struct streams){ .cuda = cuda, .arena = arena };
	r = open_lanes(s, loads, stores, why);
	if (r < 0)
		return r;
	s->words = open_words(s);
	result = choose_mover(s);
	if (result != CUDA_OK)
		return refuse_result(s, why, "try batched copies", result);
	return s->words ? 0 : open_events(s, why);
}

void streams_how(const struct streams *s, char *text, size_t bytes)
{
	snprintf(text, bytes, "%s on %u streams for loads and %u for stores, ends told by %s", s->mover->name, s->n_loads,
		 s->n_lanes - s->n_loads, s->words ? "stream-ordered writes" : "polled events (no stream-ordered writes here)");
}

/* ---- giving ------------------------------------------------------------------------------------- */

struct lane *streams_lane(struct streams *s, bool store)
{
	struct lane *best = NULL;

	for (uint32_t i = store ? s->n_loads : 0; i < (store ? s->n_lanes : s->n_loads); i++) {
		struct lane *lane = &s->lanes[i];

		if (lane->n < lane->depth && (!best || lane->n < best->n))
			best = lane;
	}
	return best;
}

static bool moves_room(struct moves *moves, uint32_t n)
{
	void *arrays;

	if (n <= moves->room)
		return true;
	arrays = calloc(n, 2 * sizeof(cuda_address) + sizeof(size_t));
	if (!arrays)
		return false;
	free(moves->to);
	moves->to = arrays;
	moves->from = moves->to + n;
	moves->bytes = (size_t *)(moves->from + n);
	moves->room = n;
	return true;
}

/* Where a run begins in memory that the device can reach, or NULL. */
static uint8_t *host_address(const struct streams *s, struct pin *pin, struct slice *slice, const struct plan_run *run)
{
	if (pin_covers(pin, run->host, run->bytes))
		return s->arena + run->host;
	return slice->bounce ? bounce_place(pin, slice->bounce, run) : NULL;
}

/* Runs as moves, zeros written. False: not all of them. */
static bool make_moves(struct streams *s, struct lane *lane, struct slice *slice, const struct plan *plan, struct pin *pin)
{
	struct moves *moves = &s->moves;

	moves->n = 0;
	if (plan->short_of_memory || !moves_room(moves, plan->n))
		return false;
	for (uint32_t i = 0; i < plan->n; i++) {
		const struct plan_run *run = &plan->runs[i];
		uint8_t *host;

		if (run->device == PLAN_ZEROS) {
			memset(s->arena + run->host, 0, run->bytes);
			continue;
		}
		host = host_address(s, pin, slice, run);
		if (!host)
			return false;
		moves->to[moves->n] = lane->store ? (uintptr_t)host : run->device;
		moves->from[moves->n] = lane->store ? run->device : (uintptr_t)host;
		moves->bytes[moves->n++] = run->bytes;
	}
	return true;
}

static enum cuda_result move(struct streams *s, struct lane *lane)
{
	enum cuda_result result = s->moves.n ? s->mover->move(s, lane, &s->moves) : CUDA_OK;

	/* An entry that is there and does not work: such drivers exist. What of it is in the stream is copied again. */
	if ((result == CUDA_RESULT_NOT_SUPPORTED || result == CUDA_RESULT_INVALID_VALUE) && s->mover->move != move_singly) {
		result = move_singly(s, lane, &s->moves);
		if (result == CUDA_OK)
			s->mover = &singly_instead;
	}
	return result;
}

static enum cuda_result put_mark(struct streams *s, struct lane *lane, uint32_t number)
{
	if (s->words)
		return s->cuda->stream_write_value32(lane->stream, lane->word_address, number,
						     CUDA_STREAM_WRITE_VALUE_DEFAULT);
	return s->cuda->event_record(lane->events[number % lane->depth], lane->stream);
}

enum cuda_result streams_issue(struct streams *s, struct lane *lane, struct slice *slice, const struct plan *plan,
			       struct pin *pin, uint64_t now_ns)
{
	enum cuda_result result = CUDA_OK;

	assert(lane->n < lane->depth);
	slice->failed = !make_moves(s, lane, slice, plan, pin);
	if (!slice->failed)
		result = move(s, lane);
	if (cuda_result_is_fatal(result))
		return result;
	slice->failed |= result != CUDA_OK;
	slice->number = ++lane->issued;
	result = put_mark(s, lane, slice->number);
	if (result != CUDA_OK)		/* the end of what may be in the stream cannot be known */
		return cuda_result_is_fatal(result) ? result : CUDA_RESULT_UNKNOWN;
	slice->next = NULL;
	if (lane->last)
		lane->last->next = slice;
	else
		lane->first = slice;
	lane->last = slice;
	if (lane->n++ == 0)
		lane->since_ns = now_ns;
	return CUDA_OK;
}

/* ---- taking back --------------------------------------------------------------------------------- */

static enum cuda_result look_for_mark(struct streams *s, const struct lane *lane, const struct slice *slice)
{
	if (!s->words)
		return s->cuda->event_query(lane->events[slice->number % lane->depth]);
	/* Numbers wrap: what counts is how far apart they are. */
	return (int32_t)(atomic_load_explicit(lane->word, memory_order_acquire) - slice->number) >= 0 ? CUDA_OK
												       : CUDA_RESULT_NOT_READY;
}

struct slice *streams_ended(struct streams *s, struct lane *lane, uint64_t now_ns, enum cuda_result *ret)
{
	struct slice *slice = lane->first;

	*ret = CUDA_OK;
	if (!slice)
		return NULL;
	const enum cuda_result result = look_for_mark(s, lane, slice);

	if (result != CUDA_OK) {
		if (result != CUDA_RESULT_NOT_READY)	/* the stream's copies failed: they are never over */
			*ret = cuda_result_is_fatal(result) ? result : CUDA_RESULT_UNKNOWN;
		return NULL;
	}
	lane->first = slice->next;
	if (!lane->first)
		lane->last = NULL;
	lane->n--;
	lane->since_ns = now_ns;
	return slice;
}

enum cuda_result streams_look(struct streams *s)
{
	for (uint32_t i = 0; i < s->n_lanes; i++) {
		const enum cuda_result result = s->lanes[i].n ? s->cuda->stream_query(s->lanes[i].stream) : CUDA_OK;

		if (result != CUDA_OK && result != CUDA_RESULT_NOT_READY)
			return cuda_result_is_fatal(result) ? result : CUDA_RESULT_UNKNOWN;
	}
	return CUDA_OK;
}
