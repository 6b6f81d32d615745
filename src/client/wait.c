/*
 * Waiting: spin a little, then sleep.
 *
 * The one wake protocol, from the client's side: store want_wake, load the slot's word; the broker
 * stores the word, then loads want_wake. All four are sequentially consistent, so at least one side
 * sees the other. The sleep is on an epoll descriptor with the completion pipe, the socket (the
 * broker's death) and the fences of brokers that died.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "src/client/client.h"

#define SPIN_SHARE	512	/* spin for this part of 10 ms: 20 us, some three wakes of a process */

void wait_relax(void)
{
#if defined __x86_64__
	__builtin_ia32_pause();
#elif defined __aarch64__
	__asm__ volatile("yield");
#endif
}

static void completion_drain(struct stoker *c)
{
	char bytes[64];
	ssize_t n;

	do
		n = read(c->at->completion, bytes, sizeof(bytes));
	while (n == (ssize_t)sizeof(bytes) || (n < 0 && errno == EINTR));
}

/* Something woke us, or nothing did: take what there is. */
static void woken(struct stoker *c, const struct epoll_event *events, int n)
{
	for (int i = 0; i < n; i++) {
		if (c->at && events[i].data.fd == c->at->completion) {
			completion_drain(c);
			/* Its write end is the broker's: when that closes, the socket's other end has too. */
			if (events[i].events & (EPOLLHUP | EPOLLERR))
				gone_look(c);
		} else if (c->at && events[i].data.fd == c->at->sock) {
			gone_look(c);
		} else {
			gone_fences(c);
		}
	}
}

static void sleep_until(struct stoker *c, uint64_t deadline_ns)
{
	struct epoll_event events[4];
	const uint64_t now = talk_now_ns();
	const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
	const uint64_t seconds = left / 1000000000u;
	const struct timespec time = { .tv_sec = seconds < 1000000u ? (time_t)seconds : 1000000,
				       .tv_nsec = (long)(left % 1000000000u) };
	int n = epoll_pwait2(c->epoll, events, 4, &time, NULL);

	/* Kernels before 5.11 and some sandboxes lack that call; the older one sleeps whole milliseconds. */
	if (n < 0 && (errno == ENOSYS || errno == EPERM))
		n = epoll_wait(c->epoll, events, 4, (int)time.tv_sec * 1000 + (int)((time.tv_nsec + 999999) / 1000000));
	woken(c, events, n);
}

/* Ask for a wake at the DONE of @slot. Returns whether it is over already. */
static bool want_wake(struct stoker *c, uint32_t slot)
{
	struct job *job = &c->jobs[slot];
	uint64_t word;

	if (job->live == 0)
		return job_is_done(job, slot);
	atomic_store_explicit(&c->slots[slot].client.want_wake, job->generation, memory_order_seq_cst);
	word = atomic_load_explicit(&c->slots[slot].broker.word, memory_order_seq_cst);
	return slot_word_generation(word) == job->generation && slot_word_stage(word) == STOKER_STAGE_DONE;
}

static bool want_wake_job(struct stoker *c, struct stoker_job id)
{
	const struct batch *batch = batch_find(c, id);
	bool over = true;

	if (!batch)
		return want_wake(c, id.slot);
	for (uint32_t i = 0; i < batch->n_parts; i++)
		over &= want_wake(c, batch->slot[i]);
	return over;
}

int wait_until(struct stoker *c, struct stoker_job id, uint64_t deadline_ns)
{
	const uint64_t spin_end = gone_ticks() + c->ticks_per_look / SPIN_SHARE;

	if (!batch_find(c, id) && !job_find(c, id))
		return -ENOENT;
	while (gone_ticks() < spin_end) {
		if (stoker_poll(c, id) == STOKER_STAGE_DONE)
			return 0;
		wait_relax();
	}
	for (;;) {
		if (want_wake_job(c, id) || stoker_poll(c, id) == STOKER_STAGE_DONE)
			return 0;
		if (talk_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		sleep_until(c, deadline_ns);
	}
}

int stoker_wait(struct stoker *c, struct stoker_job job, uint64_t timeout_us)
{
	const uint64_t now = talk_now_ns();
	const bool ever = timeout_us > (UINT64_MAX - now) / 1000;
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, wait_until(c, job, ever ? UINT64_MAX : now + timeout_us * 1000));
}

int stoker_fd(const struct stoker *c)
{
	return !c ? -EINVAL : c->forked ? -EOWNERDEAD : c->epoll;
}

static int arm(struct stoker *c)
{
	bool over = false;

	if (c->at) {
		completion_drain(c);
		gone_look(c);
	}
	if (c->fenced > 0)
		gone_fences(c);
	for (uint32_t slot = 0; slot < CLIENT_SLOTS_MAX; slot++) {
		if (c->jobs[slot].state != JOB_FREE && c->jobs[slot].owner == OWNER_CALLER)
			over |= want_wake(c, slot);
	}
	for (uint32_t i = 0; i < CLIENT_BATCHES; i++) {
		if (c->batches[i].n_parts > 0)
			over |= want_wake_job(c, (struct stoker_job){ CLIENT_BATCH_BASE + i, c->batches[i].generation });
	}
	return over ? -EAGAIN : 0;
}

int stoker_arm(struct stoker *c)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, arm(c));
}
