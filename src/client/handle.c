/*
 * The handle: made by stoker_attach(), ended by stoker_close(), entered and left by every call.
 *
 * A handle belongs to one thread at a time. That is enforced as far as it costs next to nothing: a
 * call that finds another one running answers -EBUSY and touches nothing. In a forked child all
 * answer -EOWNERDEAD.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/client/client.h"

#define KNOWN_OPTIONS (STOKER_OPTION_NO_REATTACH | STOKER_OPTION_NO_ARENA)

static _Thread_local char attach_error[TALK_WHY];

const char *stoker_attach_error(void)
{
	return attach_error;
}

int client_enter(struct stoker *c)
{
	if (!c)
		return -EINVAL;
	if (c->forked)
		return client_fail(c, -EOWNERDEAD, "this handle belongs to the process that attached; a forked child "
				   "attaches for itself");
	/* Two relaxed accesses, no exchange: it finds misuse, it does not make misuse safe. */
	if (atomic_load_explicit(&c->busy, memory_order_relaxed))
		return -EBUSY;
	atomic_store_explicit(&c->busy, 1, memory_order_relaxed);
	return 0;
}

int client_leave(struct stoker *c, int r)
{
	atomic_store_explicit(&c->busy, 0, memory_order_relaxed);
	return r;
}

int client_need_broker(struct stoker *c)
{
	if (c->at && c->look_ticks == 0)	/* its doorbell was found broken */
		gone_look(c);
	if (c->at)
		return 0;
	if (!(c->flags & STOKER_OPTION_NO_REATTACH) && away_step(c) == 0)
		return 0;
	return -EPIPE;
}

int client_take_struct(void *to, size_t bytes, const void *from)
{
	uint32_t size;

	memset(to, 0, bytes);
	if (!from)
		return 0;
	memcpy(&size, from, sizeof(size));
	if (size < sizeof(size) || size > 65536)
		return -EINVAL;
	for (size_t i = bytes; i < size; i++) {
		if (((const unsigned char *)from)[i] != 0)
			return -E2BIG;
	}
	memcpy(to, from, size < bytes ? size : bytes);
	return 0;
}

int client_take_options(struct stoker *c, void *to, size_t bytes, const void *from)
{
	const int r = client_take_struct(to, bytes, from);

	if (r == -EINVAL)
		return client_fail(c, r, "the size of the options is not set, or cannot be");
	if (r == -E2BIG)
		return client_fail(c, r, "an option is set that this library does not know; compile against the library's "
				   "own header");
	return r;
}

static int attach_fail(int r, const char *text)
{
	snprintf(attach_error, sizeof(attach_error), "%s", text);
	return r;
}

static uint32_t at_most(uint32_t value, uint32_t otherwise, uint32_t most)
{
	if (value == 0)
		value = otherwise;
	return value < most ? value : most;
}

static void handle_set(struct stoker *c, const struct stoker_options *options)
{
	const uint32_t words = at_most(options->ready_words, 1024, CHANNEL_READY_MAX);

	c->flags = options->flags;
	c->attach_timeout_ms = options->attach_timeout_ms ? options->attach_timeout_ms : 1000;
	c->rules.broker_uid = options->broker_uid;
	c->wish.slots_small = at_most(options->slots_small, 64, CHANNEL_SMALL_MAX - CLIENT_RESERVED) + CLIENT_RESERVED;
	c->wish.slots_large = at_most(options->slots_large, 4, CHANNEL_LARGE_MAX);
	c->wish.ready_words = (words + 1023) / 1024 * 1024;
	snprintf(c->client_name, sizeof(c->client_name), "%s",
		 options->client_name ? options->client_name : program_invocation_short_name);
}

static void handle_free(struct stoker *c)
{
	if (c->epoll >= 0)
		close(c->epoll);
	free(c->message);
	free(c->name);
	free(c);
}

static struct stoker *handle_new(const char *name, const struct stoker_options *options)
{
	struct stoker *c = aligned_alloc(STOKER_LINE, (sizeof(*c) + STOKER_LINE - 1) / STOKER_LINE * STOKER_LINE);

	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->coming = -1;
	c->phase = PHASE_AWAY;
	c->ticks_0 = gone_ticks();
	c->ns_0 = talk_now_ns();
	c->ticks_per_look = 10000000;	/* at 1 GHz or more no later than 10 ms, until it is measured */
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->name = strdup(name);
	c->message = malloc(MESSAGE_BYTES_MAX);
	if (c->epoll < 0 || !c->name || !c->message) {
		handle_free(c);
		return NULL;
	}
	handle_set(c, options);
	return c;
}

int stoker_attach(const char *name, const struct stoker_options *options, struct stoker **ret)
{
	struct stoker_options own;
	struct stoker *c;
	int r;

	if (!name || !ret)
		return attach_fail(-EINVAL, "a name and a place for the handle are needed");
	r = client_take_struct(&own, sizeof(own), options);
	if (r == 0 && (own.flags & ~KNOWN_OPTIONS))
		r = -EINVAL;
	if (r < 0)
		return attach_fail(r, "an option is set that this library does not know, or the size of the options "
				   "is not set; compile against the library's own header");
	c = handle_new(name, &own);
	if (!c)
		return attach_fail(-ENOMEM, "out of memory or of descriptors");
	fork_watch(c);
	r = away_until(c, talk_now_ns() + c->attach_timeout_ms * 1000000ull);
	if (r < 0) {
		attach_fail(r, c->error);
		stoker_close(c);
		return r;
	}
	c->error[0] = '\0';
	*ret = c;
	return 0;
}

static void forget_jobs(struct stoker *c)
{
	for (uint32_t slot = 0; slot < CLIENT_SLOTS_MAX; slot++) {
		if (c->jobs[slot].at)
			attachment_put(c, c->jobs[slot].at);
		c->jobs[slot].at = NULL;
	}
}

void stoker_close(struct stoker *c)
{
	if (!c)
		return;
	fork_forget(c);
	if (c->device)
		c->device->close(c->device, c->forked);
	away_stop(c);
	forget_jobs(c);
	while (c->objects) {
		struct object *object = c->objects;

		object_forget(object);
		object_free(object);
	}
	if (c->at)
		attachment_put(c, c->at);
	while (c->attachments) {	/* kept by mappings that were not unmapped */
		c->attachments->references = 1;
		attachment_put(c, c->attachments);
	}
	if (c->ready && !c->forked)
		munmap((void *)c->ready, c->n_ready * sizeof(uint32_t));
	handle_free(c);
}

bool stoker_is_attached(const struct stoker *c)
{
	return c && !c->forked && c->at != NULL;
}

uint32_t stoker_attachments(const struct stoker *c)
{
	return c && c->at ? c->at->ordinal : 0;
}

static int reattach(struct stoker *c)
{
	if (c->at && !gone_look(c))
		return 0;
	return away_until(c, talk_now_ns() + c->attach_timeout_ms * 1000000ull);
}

int stoker_reattach(struct stoker *c)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, reattach(c));
}

volatile uint32_t *stoker_ready_words(struct stoker *c, uint32_t *ret_n)
{
	if (!c || c->forked)
		return NULL;
	if (ret_n)
		*ret_n = c->n_ready;
	return c->ready;
}

void stoker_ready_set(struct stoker *c, uint32_t index, uint32_t value)
{
	if (c && !c->forked && index < c->n_ready)
		atomic_store_explicit((_Atomic uint32_t *)(uintptr_t)&c->ready[index], value, memory_order_release);
}
