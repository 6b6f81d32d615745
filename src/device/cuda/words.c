#include "src/device/cuda/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/device/cuda/export.h"

static int fail_call(const struct words *words, char *why, const char *what, enum cuda_result result)
{
	char text[CUDA_TEXT];

	snprintf(why, CUDA_WHY, "could not %s: %s", what, cuda_error_text(words->cuda, result, text));
	return cuda_errno(result);
}

/* ---- memory -------------------------------------------------------------------------------------- */

/* A second mapping of the same pages: an old size of 0 asks for that. */
static int map_again(struct words *words, const uint8_t *channel, const struct channel_plan *plan, char *why)
{
	const uint64_t bytes = plan->slot_offset + plan->slots * sizeof(struct stoker_slot) - plan->ready_offset;
	void *map;

	words->bytes = (bytes + STOKER_PAGE - 1) & ~(size_t)(STOKER_PAGE - 1);
	map = mremap((void *)(channel + plan->ready_offset), 0, words->bytes, MREMAP_MAYMOVE);
	if (map == MAP_FAILED) {
		snprintf(why, CUDA_WHY, "could not map the ready words for the device: %s", strerror(errno));
		return -errno;
	}
	madvise(map, words->bytes, MADV_DONTFORK);
	words->map = map;
	return 0;
}

/* Where the driver refuses, host callbacks raise the words, and there are no waits. */
static void register_map(struct words *words)
{
	enum cuda_result result;

	if (words->ways->no_register)
		return;
	result = words->cuda->host_register(words->map, words->bytes,
					    CUDA_MEMHOSTREGISTER_PORTABLE | CUDA_MEMHOSTREGISTER_DEVICEMAP);
	words->registered = result == CUDA_OK;
	if (words->registered || result == CUDA_RESULT_INVALID_CONTEXT)
		return;
	words->ways->no_register = true;
	cuda_error_text(words->cuda, result, words->ways->why_register);
}

int words_new(const struct cuda_driver *cuda, struct words_ways *ways, const uint8_t *channel,
	      const struct channel_plan *plan, uint32_t ordinal, char *why, struct words **ret)
{
	struct words *words = calloc(1, sizeof(*words));
	int r;

	if (!words) {
		snprintf(why, CUDA_WHY, "out of memory");
		return -ENOMEM;
	}
	words->cuda = cuda;
	words->ways = ways;
	words->ordinal = ordinal;
	words->n_ready = plan->geometry.ready_words;
	words->n_slots = plan->slots;
	r = map_again(words, channel, plan, why);
	if (r < 0) {
		free(words);
		return r;
	}
	gate_init(&words->gate, words_slot(words, 0));
	if (cuda->ctx_get_current(&words->seen) != CUDA_OK)
		words->seen = NULL;
	register_map(words);
	*ret = words;
	return 0;
}

/* Where the present context sees the map. 0, or -EINVAL: the thread has none. */
static int address_of(struct words *words, char *why)
{
	struct cuda_context *context = NULL;
	enum cuda_result result = words->cuda->ctx_get_current(&context);

	if (result == CUDA_OK && !context)
		result = CUDA_RESULT_INVALID_CONTEXT;
	if (result != CUDA_OK) {
		fail_call(words, why, "enqueue anything", result);
		snprintf(why + strlen(why), CUDA_WHY - strlen(why), "; make the stream's device current in this thread "
			 "first (cudaSetDevice)");
		return -EINVAL;
	}
	words->seen = context;
	if (!words->registered)
		register_map(words);
	if (!words->registered || words->context == context)
		return 0;
	result = words->cuda->host_get_device_pointer(&words->address, words->map, 0);
	if (result != CUDA_OK)
		return fail_call(words, why, "find the device's address of the ready words", result);
	words->context = context;
	return 0;
}

/* ---- which streams have work here ----------------------------------------------------------------- */

static bool stream_is_past(const struct words *words, uint32_t i)
{
	return words->cuda->event_query(words->streams[i].event) != CUDA_RESULT_NOT_READY;
}

/* The place of @stream, else a new one, else that of a stream that has passed its work. */
static uint32_t place_of(struct words *words, struct cuda_stream *stream)
{
	uint32_t past = WORDS_STREAMS;

	for (uint32_t i = 0; i < words->n_streams; i++) {
		if (words->streams[i].stream == stream)
			return i;
	}
	if (words->n_streams < WORDS_STREAMS)
		return words->n_streams;
	for (uint32_t i = 0; i < words->n_streams && past == WORDS_STREAMS; i++)
		past = stream_is_past(words, i) ? i : past;
	return past;
}

/* Something has been enqueued: remember until when. A stream's event is one of its own context. */
static void stream_note(struct words *words, struct cuda_stream *stream)
{
	const uint32_t i = place_of(words, stream);
	struct cuda_event *event = NULL;

	if (i == WORDS_STREAMS) {
		words->untracked = true;
		return;
	}
	if (i < words->n_streams && words->streams[i].stream == stream) {
		if (words->cuda->event_record(words->streams[i].event, stream) == CUDA_OK)
			return;
		words->untracked = true;
		return;
	}
	if (words->cuda->event_create(&event, CUDA_EVENT_DISABLE_TIMING) != CUDA_OK ||
	    words->cuda->event_record(event, stream) != CUDA_OK) {
		words->untracked = true;
		if (event)
			words->cuda->event_destroy(event);
		return;
	}
	if (i < words->n_streams)
		words->cuda->event_destroy(words->streams[i].event);
	else
		words->n_streams++;
	words->streams[i].stream = stream;
	words->streams[i].event = event;
}

static bool is_quiet(const struct words *words)
{
	for (uint32_t i = 0; i < words->n_streams; i++) {
		if (!stream_is_past(words, i))
			return false;
	}
	return !words->untracked;
}

/*
 * The driver answers for no stream, and takes nothing back, where no context is current: a thread that closes a
 * handle may have none. False: there is none to be had, so the one that was used is gone, and its streams with it.
 */
static bool context_enter(const struct words *words, bool *ret_pushed)
{
	struct cuda_context *now = NULL;

	*ret_pushed = false;
	if (words->cuda->ctx_get_current(&now) != CUDA_OK)
		return false;
	if (!now)
		*ret_pushed = words->seen && words->cuda->ctx_push_current(words->seen) == CUDA_OK;
	return now || *ret_pushed;
}

static void context_leave(const struct words *words, bool pushed)
{
	struct cuda_context *context;

	if (pushed)
		words->cuda->ctx_pop_current(&context);
}

static void driver_forgets(const struct words *words)
{
	for (uint32_t i = 0; i < words->n_streams; i++)
		words->cuda->event_destroy(words->streams[i].event);
	if (words->registered)
		words->cuda->host_unregister(words->map);
}

bool words_free(struct words *words, bool forked)
{
	bool pushed = false;
	const bool alive = !forked && context_enter(words, &pushed);
	const bool quiet = !alive || is_quiet(words);

	if (quiet)
		gate_stop(&words->gate, forked);
	if (quiet && alive)
		driver_forgets(words);
	context_leave(words, pushed);
	if (!quiet)
		return false;
	if (!forked)
		munmap(words->map, words->bytes);
	free(words);
	return true;
}

/* ---- ready words ---------------------------------------------------------------------------------- */

/* On a thread of the driver's, in the order of the stream. */
static void callback(void *data)
{
	struct words_callback *c = data;

	atomic_store_explicit(c->word, c->value, memory_order_release);
	atomic_store_explicit(&c->busy, false, memory_order_release);
}

static int raise_by_callback(struct words *words, uint32_t index, uint32_t value, void *stream, char *why)
{
	struct words_callback *c = NULL;
	enum cuda_result result;

	for (uint32_t i = 0; i < WORDS_CALLBACKS && !c; i++) {
		if (!atomic_load_explicit(&words->callbacks[i].busy, memory_order_acquire))
			c = &words->callbacks[i];
	}
	if (!c) {
		snprintf(why, CUDA_WHY, "%u ready words wait for their streams already, each by a host callback; try again "
			 "when some have passed", WORDS_CALLBACKS);
		return -EAGAIN;
	}
	c->value = value;
	c->word = (_Atomic uint32_t *)words->map + index;
	atomic_store_explicit(&c->busy, true, memory_order_relaxed);
	result = words->cuda->launch_host_function(stream, callback, c);
	if (result == CUDA_OK)
		return 0;
	atomic_store_explicit(&c->busy, false, memory_order_relaxed);
	return fail_call(words, why, "enqueue a host callback", result);
}

int words_raise(struct words *words, uint32_t index, uint32_t value, void *stream, char *why)
{
	struct words_ways *ways = words->ways;
	int r = address_of(words, why);

	if (r < 0)
		return r;
	if (!ways->no_write && !words->cuda->stream_write_value32) {
		ways->no_write = true;
		snprintf(ways->why_write, sizeof(ways->why_write), "the driver is older than CUDA 11.7");
	}
	if (words->registered && !ways->no_write) {
		const enum cuda_result result = words->cuda->stream_write_value32(
			stream, words->address + index * sizeof(uint32_t), value, CUDA_STREAM_WRITE_VALUE_DEFAULT);

		if (result != CUDA_OK && result != CUDA_RESULT_NOT_SUPPORTED)
			return fail_call(words, why, "enqueue the write of a ready word", result);
		if (result == CUDA_OK) {
			stream_note(words, stream);
			return 0;
		}
		ways->no_write = true;
		cuda_error_text(words->cuda, result, ways->why_write);
	}
	r = raise_by_callback(words, index, value, stream, why);
	if (r == 0)
		stream_note(words, stream);
	return r;
}

/* ---- waits --------------------------------------------------------------------------------------- */

static int cannot_wait(const struct words *words, char *why)
{
	const struct words_ways *ways = words->ways;

	snprintf(why, CUDA_WHY, "a stream cannot wait for a job here: %s; poll the job, and enqueue what needs it afterwards",
		 ways->no_wait ? ways->why_wait : ways->why_register);
	return -EOPNOTSUPP;
}

int words_wait(struct words *words, uint32_t slot, uint32_t generation, void *stream, char *why)
{
	struct words_ways *ways = words->ways;
	enum cuda_result result;
	int r = address_of(words, why);

	if (r < 0)
		return r;
	if (!ways->no_wait && !words->cuda->stream_wait_value32) {
		ways->no_wait = true;
		snprintf(ways->why_wait, sizeof(ways->why_wait), "the driver is older than CUDA 11.7");
	}
	if (ways->no_wait || !words->registered)
		return cannot_wait(words, why);
	gate_expect(&words->gate, slot, generation);
	result = words->cuda->stream_wait_value32(
		stream, words->address + (uint64_t)((uint8_t *)&words_slot(words, slot)->device.done - words->map), generation,
		CUDA_STREAM_WAIT_VALUE_GEQ);
	if (result == CUDA_RESULT_NOT_SUPPORTED) {
		ways->no_wait = true;
		cuda_error_text(words->cuda, result, ways->why_wait);
		return cannot_wait(words, why);
	}
	if (result != CUDA_OK)
		return fail_call(words, why, "enqueue the wait for a job", result);
	stream_note(words, stream);
	return 0;
}
