/*
 * Noticing that the broker is gone, and what becomes of jobs then.
 *
 * Noticing: stoker_poll() of a pending job counts, and at every 16th reads the processor's tick
 * counter; if 10 ms have passed, gone_look() asks the socket (a peek) and the control page (dead?).
 * Whoever sleeps has the socket in its poll set. So a client knows within 10 ms.
 *
 * Ending: a LOOKUP, and all else that touches no pool, is over at once. A RETRIEVE or STORE may still
 * be copied by a helper of the dead broker: it is over when the fence pipe, whose write ends only
 * the broker and its copiers hold, is at end of file. What was DONE before stays as it is: its
 * channel is kept until the job is finished.
 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#ifdef __x86_64__
#include <x86intrin.h>
#endif

#include "src/client/client.h"

#define LOOK_NS		10000000u	/* how long a dead broker may go unnoticed */
#define CALIBRATE_NS	50000u		/* below this the two clocks say nothing about each other */

uint64_t gone_ticks(void)
{
#if defined __x86_64__
	return __rdtsc();
#elif defined __aarch64__
	uint64_t ticks;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
#else
	return talk_now_ns();
#endif
}

void gone_clock(struct stoker *c)
{
	const uint64_t ticks = gone_ticks();
	const uint64_t ns = talk_now_ns() - c->ns_0;

	if (ns >= CALIBRATE_NS && ticks > c->ticks_0)
		c->ticks_per_look = (uint64_t)((double)(ticks - c->ticks_0) / (double)ns * LOOK_NS);
	c->look_ticks = ticks + c->ticks_per_look;
}

bool gone_look(struct stoker *c)
{
	char byte;
	ssize_t n;

	gone_clock(c);
	if (!c->at)
		return true;
	if (!atomic_load_explicit(&c->at->page->dead, memory_order_acquire)) {
		n = recv(c->at->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (n > 0 && object_listen(c, c->at->sock, c->at->ordinal) == 0)
			return false;
	}
	gone_end(c);
	return true;
}

static bool op_touches_pools(uint8_t op)
{
	return op == STOKER_OP_RETRIEVE || op == STOKER_OP_STORE;
}

static void job_over(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];

	job->state = JOB_GONE;
	attachment_put(c, job->at);
	job->at = NULL;
	c->done[slot / 64] |= 1ull << (slot % 64);
}

static void job_end(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];

	job->live = 0;
	if (job->owner == OWNER_LIBRARY) {
		job->state = JOB_FREE;
		attachment_put(c, job->at);
		job->at = NULL;
		return;
	}
	if (job_is_done(job, slot)) {
		c->done[slot / 64] |= 1ull << (slot % 64);
		return;
	}
	if (op_touches_pools(job->op) && !attachment_is_quiet(job->at)) {
		job->state = JOB_FENCED;
		c->fenced++;
		return;
	}
	job_over(c, slot);
}

/* Objects are not open any more; a drop that was under way is answered by the fence. */
static void objects_end(struct stoker *c)
{
	for (struct object *object = c->objects; object; object = object->next) {
		if (object->request == 0)
			continue;
		object->request = 0;
		object->result = -EPIPE;
	}
}

void gone_end(struct stoker *c)
{
	struct attachment *at = c->at;
	const uint32_t fenced_before = c->fenced;	/* by brokers that went earlier */

	if (!at)
		return;
	c->at = NULL;
	c->n_slots = 0;
	c->phase = PHASE_AWAY;
	c->next_try_ns = 0;
	memset(c->free, 0, sizeof(c->free));
	c->own.n = 0;
	attachment_unwatch(c, at);
	attachment_hang_up(at);
	for (uint32_t slot = 0; slot < CLIENT_SLOTS_MAX; slot++) {
		if (c->jobs[slot].state == JOB_RUNNING && c->jobs[slot].at == at)
			job_end(c, slot);
	}
	if (c->fenced > fenced_before) {	/* whoever sleeps on stoker_fd() is to wake when the fence falls */
		struct epoll_event event = { .events = EPOLLHUP, .data.fd = at->fence };

		epoll_ctl(c->epoll, EPOLL_CTL_ADD, at->fence, &event);
	}
	objects_end(c);
	client_fail(c, 0, "the broker \"%s\" is gone; serve without cache: the library attaches again when there is one",
		    c->name);
	attachment_put(c, at);
}

void gone_fences(struct stoker *c)
{
	for (uint32_t slot = 0; slot < CLIENT_SLOTS_MAX && c->fenced > 0; slot++) {
		struct job *job = &c->jobs[slot];

		if (job->state != JOB_FENCED || !attachment_is_quiet(job->at))
			continue;
		c->fenced--;
		/* At end of file it would be ready for ever: nobody needs to be told twice. */
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, job->at->fence, NULL);
		job_over(c, slot);
	}
}
