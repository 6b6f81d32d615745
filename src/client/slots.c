/*
 * Slots: who has which, and the submit.
 *
 * Three lists of free slots: small ones, large ones, and a few small ones kept back so that a
 * client that has used up all the others can still RELEASE. A slot is submitted only when its job
 * before is over, and has one cancel entry at most, so that the request ring, which has four entries
 * a slot, is never full: there is nothing to look at before an entry is written.
 *
 * A submit makes no system call while the broker is awake: it stores the entry, then loads need_wake
 * (both sequentially consistent, as shm/ring.h says), and rings only if the broker sleeps.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/client/client.h"

static enum slot_class class_of(const struct stoker *c, uint32_t slot)
{
	const uint32_t small = c->at->plan.geometry.slots_small;

	if (slot >= small)
		return SLOT_LARGE;
	return slot >= small - c->kept_back ? SLOT_KEPT_BACK : SLOT_SMALL;
}

static void list_push(struct slot_list *list, uint32_t slot)
{
	assert(list->n < CLIENT_SLOTS_MAX);
	list->slot[list->n++] = (uint16_t)slot;
}

/* Jobs of attachments before keep their numbers until they are finished; those slots are left out. */
void slots_lay_out(struct stoker *c)
{
	const struct attachment *at = c->at;
	const struct channel_plan *plan = &at->plan;

	c->requests = (struct request_producer){
		.entries = (struct stoker_entry *)(at->channel + plan->request_offset),
		.mask = plan->requests - 1,
	};
	c->responses = (struct response_consumer){
		.words = (const _Atomic uint64_t *)(at->channel + plan->response_offset),
		.mask = plan->responses - 1,
	};
	/* A broker that gives less than was asked for leaves the caller at least half. */
	c->kept_back = plan->geometry.slots_small / 2 < CLIENT_RESERVED ? plan->geometry.slots_small / 2 : CLIENT_RESERVED;
	memset(c->free, 0, sizeof(c->free));
	for (uint32_t slot = plan->slots; slot-- > 0;) {
		if (c->jobs[slot].state == JOB_FREE)
			list_push(&c->free[class_of(c, slot)], slot);
	}
	c->slots = attachment_slot(at, 0);
	c->n_slots = plan->slots;
}

static int list_pop(struct slot_list *list)
{
	return list->n > 0 ? list->slot[--list->n] : -EAGAIN;
}

int slot_take(struct stoker *c, enum slot_class class)
{
	int slot = list_pop(&c->free[class]);

	if (slot < 0 && c->own.n > 0) {
		slots_recycle(c);
		slot = list_pop(&c->free[class]);
	}
	/* A larger slot serves as well, and so does a small one where one is kept back. */
	if (slot < 0 && class == SLOT_KEPT_BACK)
		slot = list_pop(&c->free[SLOT_SMALL]);
	if (slot < 0 && class != SLOT_LARGE)
		slot = list_pop(&c->free[SLOT_LARGE]);
	return slot;
}

void slot_give_back(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];

	if (job->at)
		attachment_put(c, job->at);
	job->at = NULL;
	job->live = 0;
	job->state = JOB_FREE;
	c->done[slot / 64] &= ~(1ull << (slot % 64));
	if (c->at && slot < c->at->plan.slots)
		list_push(&c->free[class_of(c, slot)], slot);
}

/*
 * Write a byte into the doorbell. A pipe whose reader died raises SIGPIPE, and a library must not do
 * that to its caller: the signal is held back, and taken if it came of this.
 */
static void ring_doorbell(struct stoker *c)
{
	static const struct timespec no_time;
	sigset_t broken, before;
	ssize_t n;

	sigemptyset(&broken);
	sigaddset(&broken, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &broken, &before);
	do
		n = write(c->at->doorbell, "", 1);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EPIPE) {
		sigtimedwait(&broken, NULL, &no_time);
		c->look_ticks = 0;	/* the next call looks whether the broker is gone */
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void entry_put(struct stoker *c, const struct stoker_request_head *head)
{
	struct channel_header *header = (struct channel_header *)c->at->channel;

	request_put(&c->requests, head);
	if (atomic_load_explicit(&header->need_wake, memory_order_seq_cst))
		ring_doorbell(c);
}

void slot_submit(struct stoker *c, uint32_t slot, struct stoker_request_head *head, enum job_owner owner)
{
	struct job *job = &c->jobs[slot];

	assert(job->state == JOB_FREE);
	if (++job->generation == 0)
		job->generation = 1;
	job->live = job->generation;
	job->state = JOB_RUNNING;
	job->owner = (uint8_t)owner;
	job->op = head->op;
	job->cancelled = false;
	job->n_keys = job->n_chunks = 0;
	job->at = attachment_get(c->at);
	if (owner == OWNER_LIBRARY)
		list_push(&c->own, slot);
	head->slot = (uint16_t)slot;
	head->generation = job->generation;
	atomic_store_explicit(&c->slots[slot].client.generation, job->generation, memory_order_relaxed);
	entry_put(c, head);
}

void slot_cancel(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];
	const struct stoker_request_head head = { .op = STOKER_OP_CANCEL, .slot = (uint16_t)slot,
						  .generation = job->generation };

	if (job->live == 0 || job->cancelled)
		return;
	job->cancelled = true;
	atomic_store_explicit(&c->slots[slot].client.cancel, job->generation, memory_order_release);
	entry_put(c, &head);
}

void slot_disown(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];

	c->done[slot / 64] &= ~(1ull << (slot % 64));
	if (job->live == 0) {
		slot_give_back(c, slot);
		return;
	}
	job->owner = OWNER_LIBRARY;
	list_push(&c->own, slot);
}

/* A MAP that was given up may still have been granted: its hold is given back, or it would last. */
static void recycle(struct stoker *c, uint32_t slot)
{
	struct stoker_slot_broker *line = &c->slots[slot].broker;
	const uint64_t word = atomic_load_explicit(&line->word, memory_order_acquire);
	struct stoker_request_head unmap = { .op = STOKER_OP_UNMAP };
	const bool held = c->jobs[slot].op == STOKER_OP_MAP && slot_word_status(word) == STOKER_STATUS_OK;

	for (int i = 0; i < 2; i++)
		unmap.lease[i] = atomic_load_explicit(&line->lease[i], memory_order_relaxed);
	slot_give_back(c, slot);
	if (held && (slot = (uint32_t)list_pop(&c->free[class_of(c, slot)])) < CLIENT_SLOTS_MAX)
		slot_submit(c, slot, &unmap, OWNER_LIBRARY);
}

void slots_recycle(struct stoker *c)
{
	for (uint32_t i = c->own.n; i-- > 0;) {
		const uint32_t slot = c->own.slot[i];

		if (!job_is_done(&c->jobs[slot], slot))
			continue;
		c->own.slot[i] = c->own.slot[--c->own.n];
		recycle(c, slot);
	}
}
