/*
 * The wake protocol of shm/ring.h between two threads, both of which really sleep: a broker that
 * parks its channel and sleeps on the doorbell, a client that sleeps on the completion pipe. Nobody
 * has a time-out, so one lost wake leaves both asleep for ever, and Check's time limit ends the test.
 * (tests/model/wake.c looks at all interleavings of the same steps; here are the real instructions.)
 */
#include "shm/ring.h"
#include "tests/suite.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 4u

#ifdef __SANITIZE_THREAD__
#define JOBS 10000u
#else
#define JOBS 40000u
#endif

struct channel {
	struct stoker_entry entries[4 * SLOTS];
	_Atomic uint32_t need_wake;
	struct stoker_slot slots[SLOTS];
	uint32_t jobs;
	int doorbell[2], completion[2];
	uint32_t broker_slept, client_slept;	/* each written by its own thread */
};

static void pipe_make(int fds[2])
{
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void ring_pipe(int fd)
{
	const char byte = 0;

	(void)!write(fd, &byte, 1);	/* a full pipe wakes as well */
}

static void drain(int fd)
{
	char bytes[64];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

static void sleep_on(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	expect(poll(&pollfd, 1, -1) == 1);
	drain(fd);
}

static struct channel *channel_new(uint32_t jobs)
{
	struct channel *channel = aligned_alloc(64, sizeof(*channel));

	ck_assert_ptr_nonnull(channel);
	memset(channel, 0, sizeof(*channel));
	channel->jobs = jobs;
	pipe_make(channel->doorbell);
	pipe_make(channel->completion);
	return channel;
}

static void channel_free(struct channel *channel)
{
	for (int i = 0; i < 2; i++) {
		close(channel->doorbell[i]);
		close(channel->completion[i]);
	}
	free(channel);
}

/* Answer one request: the slot's word, and a wake if the client wants one for that generation. */
static void answer(struct channel *channel, const struct stoker_request_head *head)
{
	struct stoker_slot *slot = &channel->slots[head->slot];

	atomic_store_explicit(&slot->broker.word, slot_word(head->generation, STOKER_STATUS_OK, STOKER_STAGE_DONE),
			      memory_order_seq_cst);
	if (atomic_load_explicit(&slot->client.want_wake, memory_order_seq_cst) == head->generation)
		ring_pipe(channel->completion[1]);
}

/* A few steps that differ from job to job, so that the two meet at ever other points. */
static void dawdle(uint64_t *x)
{
	*x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
	for (volatile uint64_t i = *x % 256; i > 0; i--)
		;
}

static void *broker(void *arg)
{
	struct channel *channel = arg;
	struct request_consumer ring = { channel->entries, 0, 4 * SLOTS - 1 };
	uint64_t x = 2463534242ull;

	for (uint32_t served = 0; served < channel->jobs;) {
		struct stoker_request_head head;

		if (request_take(&ring, &head) == 1) {
			answer(channel, &head);
			served++;
			continue;
		}
		dawdle(&x);
		atomic_store_explicit(&channel->need_wake, 1, memory_order_seq_cst);
		if (!request_waiting(&ring)) {
			channel->broker_slept++;
			sleep_on(channel->doorbell[0]);
		}
		atomic_store_explicit(&channel->need_wake, 0, memory_order_seq_cst);
	}
	return NULL;
}

static void submit(struct channel *channel, struct request_producer *ring, uint32_t slot, uint32_t generation)
{
	const struct stoker_request_head head = { .op = STOKER_OP_PING, .slot = (uint16_t)slot, .generation = generation };

	request_put(ring, &head);
	if (atomic_load_explicit(&channel->need_wake, memory_order_seq_cst))
		ring_pipe(channel->doorbell[1]);
}

static bool is_done(struct stoker_slot *slot, uint32_t generation)
{
	const uint64_t word = atomic_load_explicit(&slot->broker.word, memory_order_seq_cst);

	return slot_word_generation(word) == generation && slot_word_stage(word) == STOKER_STAGE_DONE;
}

/* Look @polls times, then sleep: who sees the answer at once submits while the broker is parking. */
static void wait_for(struct channel *channel, uint32_t slot, uint32_t generation, uint32_t polls)
{
	struct stoker_slot *s = &channel->slots[slot];

	while (polls > 0 && !is_done(s, generation))
		polls--;
	while (!is_done(s, generation)) {
		atomic_store_explicit(&s->client.want_wake, generation, memory_order_seq_cst);
		if (is_done(s, generation))
			break;
		channel->client_slept++;
		sleep_on(channel->completion[0]);
	}
}

/* Keep @depth jobs under way, and wait for the oldest. */
static void run(uint32_t depth, uint32_t polls, uint32_t jobs)
{
	struct channel *channel = channel_new(jobs);
	struct request_producer ring = { channel->entries, 0, 4 * SLOTS - 1 };
	uint64_t x = 88172645463325252ull;
	uint32_t submitted = 0;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, broker, channel), 0);
	for (uint32_t done = 0; done < jobs; done++) {
		while (submitted < jobs && submitted - done < depth) {
			submit(channel, &ring, submitted % depth, submitted + 1);
			submitted++;
			dawdle(&x);
		}
		wait_for(channel, done % depth, done + 1, polls);
	}
	pthread_join(thread, NULL);
	ck_assert_uint_gt(channel->broker_slept, 0);	/* else nothing was tested */
	if (polls == 0)
		ck_assert_uint_gt(channel->client_slept, 0);
	channel_free(channel);
}

START_TEST(no_wake_is_lost_with_one_job_at_a_time)
{
	run(1, 0, JOBS);
}
END_TEST

START_TEST(no_wake_is_lost_with_jobs_in_every_slot)
{
	run(SLOTS, 0, JOBS);
}
END_TEST

START_TEST(no_wake_is_lost_when_a_client_that_polls_submits_to_a_broker_that_parks)
{
	run(1, 20000, 10 * JOBS);	/* each takes a tenth of the time of one that sleeps */
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-wake");
	TCase *sleepers = tcase_create("sleepers");

	tcase_set_timeout(sleepers, 60);
	tcase_add_test(sleepers, no_wake_is_lost_with_one_job_at_a_time);
	tcase_add_test(sleepers, no_wake_is_lost_with_jobs_in_every_slot);
	tcase_add_test(sleepers, no_wake_is_lost_when_a_client_that_polls_submits_to_a_broker_that_parks);
	suite_add_tcase(s, sleepers);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
