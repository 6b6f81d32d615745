/*
 * The two rings of a channel, at the wrap of every counter, with readers that lag or never read,
 * with the fullest ring that the protocol allows, and with a peer that invents sequences.
 */
#include "shm/ring.h"
#include "tests/suite.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 8u

/* Counters begin here. Beside each, what an earlier life of the ring has left in it: nothing has come
 * before 0; before 1 there was one entry; before the others many laps. */
static const uint64_t starts[] = { 0, 1, PLACES, UINT64_MAX - 1, UINT64_MAX - PLACES, INT64_MAX - 1 };
#define STARTS ((int)(sizeof(starts) / sizeof(starts[0])))

struct request_ring {
	struct stoker_entry *entries;
	struct request_producer producer;
	struct request_consumer consumer;
};

static struct request_ring request_ring_of(uint32_t places, uint64_t start)
{
	struct stoker_entry *entries = aligned_alloc(64, places * sizeof(*entries));

	expect(entries);
	memset(entries, 0, places * sizeof(*entries));
	for (uint64_t i = start; i < places && i > 0; i--)	/* a young ring: so many entries so far */
		atomic_store(&entries[i - 1].sequence, i);
	for (uint32_t i = 0; start >= places && i < places; i++)	/* an old one: the lap before this */
		atomic_store(&entries[(start + i) & (places - 1)].sequence, start + i + 1 - places);
	return (struct request_ring){
		.entries = entries,
		.producer = { entries, start, places - 1 },
		.consumer = { entries, start, places - 1 },
	};
}

static struct stoker_request_head head_of(uint64_t n)
{
	return (struct stoker_request_head){
		.op = STOKER_OP_LOOKUP, .priority = (uint8_t)(n & 7), .slot = (uint16_t)n,
		.generation = (uint32_t)n + 1, .flags = (uint32_t)n * 3, .model = (uint32_t)n * 5,
		.n_keys = (uint32_t)n * 7, .n_segments = (uint32_t)n * 11, .n_ids = (uint32_t)n * 13,
		.deadline_us = (uint32_t)n * 17, .session = n * 19, .lease = { n * 23, n * 29 },
	};
}

static void put(struct request_ring *ring, uint64_t n)
{
	const struct stoker_request_head head = head_of(n);

	request_put(&ring->producer, &head);
}

static void assert_taken(struct request_ring *ring, uint64_t n)
{
	const struct stoker_request_head expected = head_of(n);
	struct stoker_request_head head;

	expect(request_waiting(&ring->consumer));
	expect(request_take(&ring->consumer, &head) == 1);
	expect(memcmp(&head, &expected, sizeof(head)) == 0);
}

static void assert_empty(struct request_ring *ring)
{
	struct stoker_request_head head;

	expect(!request_waiting(&ring->consumer));
	expect(request_take(&ring->consumer, &head) == 0);
}

START_TEST(requests_come_out_whole_and_in_order_at_the_wrap_of_every_counter)
{
	struct request_ring ring = request_ring_of(PLACES, starts[_i]);
	uint64_t in = 0, out = 0;

	assert_empty(&ring);
	for (uint32_t round = 0; round < 5 * PLACES; round++) {
		for (uint32_t i = 0; i <= round % PLACES; i++)
			put(&ring, in++);
		while (out < in)
			assert_taken(&ring, out++);
		assert_empty(&ring);
	}
	free(ring.entries);
}
END_TEST

START_TEST(an_entry_of_the_lap_before_is_not_taken_for_a_new_one)
{
	struct request_ring ring = request_ring_of(PLACES, starts[_i]);

	for (uint32_t i = 0; i < PLACES; i++)
		put(&ring, i);
	for (uint32_t i = 0; i < PLACES; i++)
		assert_taken(&ring, i);
	assert_empty(&ring);	/* though every place holds an entry */
	put(&ring, 100);
	assert_taken(&ring, 100);
	assert_empty(&ring);
	free(ring.entries);
}
END_TEST

/* What lies at the consumer's place before the entry comes that is due there. */
static int take_of_sequence(uint64_t start, uint64_t sequence)
{
	struct request_ring ring = request_ring_of(PLACES, start);
	struct stoker_request_head head;
	int r;

	atomic_store(&ring.entries[start & (PLACES - 1)].sequence, sequence);
	r = request_take(&ring.consumer, &head);
	expect(ring.consumer.next == (r == 1 ? start + 1 : start));
	if (r != 1)
		expect(!request_waiting(&ring.consumer));
	free(ring.entries);
	return r;
}

START_TEST(nothing_or_an_earlier_lap_at_the_next_place_means_that_there_is_no_entry_yet)
{
	const uint64_t due = starts[_i] + 1;

	if (due != 0)
		ck_assert_int_eq(take_of_sequence(starts[_i], 0), 0);
	ck_assert_int_eq(take_of_sequence(starts[_i], due), 1);
	ck_assert_int_eq(take_of_sequence(starts[_i], due - PLACES), 0);
	ck_assert_int_eq(take_of_sequence(starts[_i], due - 1000 * PLACES), 0);
}
END_TEST

START_TEST(an_invented_sequence_is_refused)
{
	const uint64_t due = starts[_i] + 1;

	for (uint64_t off = 1; off < PLACES; off++) {
		if (due + off != 0)	/* 0 is what a place holds that nobody has written */
			ck_assert_int_eq(take_of_sequence(starts[_i], due + off), -EBADMSG);
		if (due - off != 0)
			ck_assert_int_eq(take_of_sequence(starts[_i], due - off), -EBADMSG);
		ck_assert_int_eq(take_of_sequence(starts[_i], due - 5 * PLACES - off), -EBADMSG);
	}
	/* A lap ahead would mean that a request was overwritten before it was taken. */
	if (due + PLACES != 0)
		ck_assert_int_eq(take_of_sequence(starts[_i], due + PLACES), -EBADMSG);
	ck_assert_int_eq(take_of_sequence(starts[_i], due + 1000 * PLACES), -EBADMSG);
}
END_TEST

START_TEST(every_sequence_but_those_few_is_refused)
{
	const uint64_t due = starts[_i] + 1;
	uint64_t x = 88172645463325252ull + (uint64_t)_i;

	for (int i = 0; i < 20000; i++) {
		uint64_t behind;
		int r;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		behind = due - x;
		r = take_of_sequence(starts[_i], x);
		if (behind % PLACES != 0 || behind > INT64_MAX)
			expect(r == -EBADMSG);
		else
			expect(r == 0);
	}
}
END_TEST

/* For every slot: a cancel that comes late, the next submit, and its cancel; nothing is consumed. */
static void fill_legally(struct request_ring *ring, uint32_t slots)
{
	for (uint32_t slot = 0; slot < slots; slot++) {
		const struct stoker_request_head stale = { .op = STOKER_OP_CANCEL, .slot = (uint16_t)slot, .generation = 1 };
		const struct stoker_request_head next = { .op = STOKER_OP_LOOKUP, .slot = (uint16_t)slot, .generation = 2 };
		const struct stoker_request_head cancel = { .op = STOKER_OP_CANCEL, .slot = (uint16_t)slot, .generation = 2 };

		request_put(&ring->producer, &stale);
		request_put(&ring->producer, &next);
		request_put(&ring->producer, &cancel);
	}
}

static void drain_legally(struct request_ring *ring, uint32_t slots)
{
	static const struct { uint8_t op; uint32_t generation; } order[] = {
		{ STOKER_OP_CANCEL, 1 }, { STOKER_OP_LOOKUP, 2 }, { STOKER_OP_CANCEL, 2 },
	};

	for (uint32_t slot = 0; slot < slots; slot++) {
		for (int i = 0; i < 3; i++) {
			struct stoker_request_head head;

			expect(request_take(&ring->consumer, &head) == 1);
			expect(head.slot == slot);
			expect(head.op == order[i].op);
			expect(head.generation == order[i].generation);
		}
	}
	assert_empty(ring);
}

START_TEST(the_fullest_legal_request_ring_has_room_left_for_every_geometry)
{
	static const struct channel_geometry geometries[] = {
		{ 1, 1, 1024, 0 }, { 3, 1, 1024, 0 }, { 64, 4, 1024, 0 }, { 48, 16, 1024, 0 },
		{ CHANNEL_SMALL_MAX, CHANNEL_LARGE_MAX, 1024, 0 },
	};

	for (size_t g = 0; g < sizeof(geometries) / sizeof(geometries[0]); g++) {
		struct channel_plan plan;
		struct request_ring ring;

		ck_assert_int_eq(channel_plan_make(&geometries[g], &plan), 0);
		ring = request_ring_of(plan.requests, starts[_i]);
		for (int lap = 0; lap < 4; lap++) {
			fill_legally(&ring, plan.slots);
			ck_assert_uint_lt(ring.producer.next - ring.consumer.next, plan.requests);
			drain_legally(&ring, plan.slots);
		}
		free(ring.entries);
	}
}
END_TEST

START_TEST(no_schedule_of_three_unconsumed_entries_a_slot_loses_one)
{
	const struct channel_geometry geometry = { 7, 1, 1024, 0 };
	struct channel_plan plan;
	struct request_ring ring;
	uint32_t unconsumed[8] = { 0 };
	uint16_t order[64];
	uint64_t in = 0, out = 0;

	ck_assert_int_eq(channel_plan_make(&geometry, &plan), 0);
	ring = request_ring_of(plan.requests, starts[_i]);
	srandom((unsigned int)_i + 1);
	for (int step = 0; step < 100000; step++) {
		const uint16_t slot = (uint16_t)(random() % 8);
		struct stoker_request_head head = { .op = STOKER_OP_PING, .slot = slot };

		if (random() % 100 < 60 && unconsumed[slot] < 3) {
			request_put(&ring.producer, &head);
			order[in++ % 64] = slot;
			unconsumed[slot]++;
		} else if (out < in) {
			expect(request_take(&ring.consumer, &head) == 1);
			expect(head.slot == order[out++ % 64]);
			unconsumed[head.slot]--;
		} else {
			expect(request_take(&ring.consumer, &head) == 0);
		}
	}
	free(ring.entries);
}
END_TEST

/* ---- responses --------------------------------------------------------------------------- */

#define SEQUENCES (RESPONSE_SEQUENCE_MASK + 1)
static const uint64_t response_starts[] = { 0, 1, PLACES, SEQUENCES - 2, SEQUENCES - PLACES, SEQUENCES,
					    SEQUENCES / 2 - 2, UINT64_MAX - 1, 5 * SEQUENCES - 1 };
#define RESPONSE_STARTS ((int)(sizeof(response_starts) / sizeof(response_starts[0])))

struct response_ring {
	_Atomic uint64_t words[PLACES + 2];	/* one more at each end, which nobody may touch */
	struct response_producer producer;
	struct response_consumer consumer;
};
#define GUARD 0x5a5a5a5a5a5a5a5aull

static void response_ring_init(struct response_ring *ring, uint64_t start)
{
	memset(ring, 0, sizeof(*ring));
	atomic_store(&ring->words[0], GUARD);
	atomic_store(&ring->words[PLACES + 1], GUARD);
	ring->producer = (struct response_producer){ ring->words + 1, start, PLACES - 1 };
	ring->consumer = (struct response_consumer){ ring->words + 1, start, PLACES - 1 };
	if (start < PLACES) {
		ring->producer.next = 0;
		while (ring->producer.next < start)
			response_put(&ring->producer, 0xeeee);
		return;
	}
	ring->producer.next = start - PLACES;
	for (uint32_t i = 0; i < PLACES; i++)
		response_put(&ring->producer, 0xeeee);
	ck_assert_uint_eq(ring->producer.next, start);
}

static void assert_guards(const struct response_ring *ring)
{
	ck_assert_uint_eq(atomic_load(&ring->words[0]), GUARD);
	ck_assert_uint_eq(atomic_load(&ring->words[PLACES + 1]), GUARD);
}

static void assert_hint(struct response_ring *ring, uint32_t slot)
{
	uint32_t got = UINT32_MAX;

	expect(response_take(&ring->consumer, &got) == 1);
	expect(got == slot);
}

static void assert_no_hint(struct response_ring *ring)
{
	uint32_t got;

	expect(response_take(&ring->consumer, &got) == 0);
}

START_TEST(hints_come_out_in_order_at_the_wrap_of_48_and_of_64_bits)
{
	struct response_ring ring;
	uint32_t in = 0, out = 0;

	response_ring_init(&ring, response_starts[_i]);
	assert_no_hint(&ring);
	for (uint32_t round = 0; round < 5 * PLACES; round++) {
		for (uint32_t i = 0; i <= round % PLACES; i++)
			response_put(&ring.producer, in++ & 0xffff);
		while (out < in)
			assert_hint(&ring, out++ & 0xffff);
		assert_no_hint(&ring);
	}
	assert_guards(&ring);
}
END_TEST

START_TEST(a_ring_full_of_unread_hints_has_not_lapped_its_reader)
{
	struct response_ring ring;

	response_ring_init(&ring, response_starts[_i]);
	for (uint32_t i = 0; i < PLACES; i++)
		response_put(&ring.producer, i);
	for (uint32_t i = 0; i < PLACES; i++)
		assert_hint(&ring, i);
	assert_no_hint(&ring);
}
END_TEST

START_TEST(a_lapped_reader_sees_it_once_and_goes_on_behind_the_newest_hint)
{
	for (uint32_t beyond = 1; beyond < 5 * PLACES; beyond++) {
		struct response_ring ring;
		uint32_t slot;

		response_ring_init(&ring, response_starts[_i]);
		for (uint32_t i = 0; i < PLACES + beyond; i++)
			response_put(&ring.producer, i);
		ck_assert_int_eq(response_take(&ring.consumer, &slot), -ESTALE);
		ck_assert_uint_eq(ring.consumer.next, ring.producer.next);
		assert_no_hint(&ring);
		response_put(&ring.producer, 77);
		assert_hint(&ring, 77);
		assert_no_hint(&ring);
	}
}
END_TEST

START_TEST(a_reader_that_never_reads_holds_up_nobody_and_nothing_outside_is_touched)
{
	struct response_ring ring;
	uint32_t slot;

	response_ring_init(&ring, response_starts[_i]);
	for (uint32_t i = 0; i < 100000; i++)
		response_put(&ring.producer, i & 0xffff);
	assert_guards(&ring);
	ck_assert_int_eq(response_take(&ring.consumer, &slot), -ESTALE);	/* it may still begin */
	assert_no_hint(&ring);
}
END_TEST

/* ---- two threads over one mapping -------------------------------------------------------- */

#define SLOTS  16u
#define ROUNDS 10000u

struct channel {
	struct request_ring requests;
	_Atomic uint64_t responses[2 * SLOTS];
	_Atomic uint64_t slots[SLOTS];
	_Atomic uint32_t acknowledged;
};

static void *echo(void *arg)
{
	struct channel *channel = arg;
	struct response_producer responses = { channel->responses, 0, 2 * SLOTS - 1 };

	for (uint64_t n = 0; n < (uint64_t)ROUNDS * SLOTS;) {
		struct stoker_request_head head, expected;
		const int r = request_take(&channel->requests.consumer, &head);

		expect(r >= 0);
		if (r == 0) {
			sched_yield();
			continue;
		}
		expected = head_of(head.session / 19);
		expected.slot = head.slot;
		expect(memcmp(&head, &expected, sizeof(head)) == 0);
		atomic_store(&channel->slots[head.slot], head.session);
		response_put(&responses, head.slot);
		n++;
	}
	return NULL;
}

START_TEST(two_threads_exchange_requests_and_hints_and_every_answer_is_its_own)
{
	struct channel channel = { .requests = request_ring_of(4 * SLOTS, starts[_i]) };
	struct response_consumer responses = { channel.responses, 0, 2 * SLOTS - 1 };
	uint64_t asked[SLOTS] = { 0 }, n = 0, answered = 0;
	uint32_t free_slots[SLOTS], n_free = SLOTS, slot;
	pthread_t thread;

	for (uint32_t i = 0; i < SLOTS; i++)
		free_slots[i] = i;
	ck_assert_int_eq(pthread_create(&thread, NULL, echo, &channel), 0);
	while (answered < (uint64_t)ROUNDS * SLOTS) {
		while (n_free > 0 && n < (uint64_t)ROUNDS * SLOTS) {
			struct stoker_request_head head = head_of(++n);

			head.slot = (uint16_t)free_slots[--n_free];
			asked[head.slot] = head.session;
			request_put(&channel.requests.producer, &head);
		}
		const int r = response_take(&responses, &slot);

		expect(r >= 0);	/* twice as many places as slots: this reader is never lapped */
		if (r == 0) {
			sched_yield();
			continue;
		}
		expect(atomic_load(&channel.slots[slot]) == asked[slot]);
		free_slots[n_free++] = slot;
		answered++;
	}
	pthread_join(thread, NULL);
	free(channel.requests.entries);
}
END_TEST

/* Answers come in rounds of one a slot, through a ring that is too small for them. */
static void *lap(void *arg)
{
	struct channel *channel = arg;
	struct response_producer responses = { channel->responses, SEQUENCES - 1000, 3 };

	for (uint32_t round = 1; round <= ROUNDS; round++) {
		for (uint32_t slot = 0; slot < SLOTS; slot++) {
			atomic_store(&channel->slots[slot], round);
			response_put(&responses, slot);
		}
		while (atomic_load(&channel->acknowledged) < round)
			sched_yield();
	}
	return NULL;
}

/* Count slots of this round that have not been found before: one, or all if @slot is UINT32_MAX. */
static uint32_t find(struct channel *channel, uint64_t *found, uint32_t slot, uint32_t round)
{
	const uint32_t first = slot == UINT32_MAX ? 0 : slot;
	const uint32_t end = slot == UINT32_MAX ? SLOTS : slot + 1;
	uint32_t n = 0;

	for (uint32_t i = first; i < end; i++) {
		if (found[i] < round && atomic_load(&channel->slots[i]) == round) {
			found[i] = round;
			n++;
		}
	}
	return n;
}

START_TEST(a_lapped_reader_that_scans_its_slots_misses_no_answer)
{
	struct channel channel = { 0 };
	struct response_consumer responses = { channel.responses, SEQUENCES - 1000, 3 };
	struct response_producer earlier = { channel.responses, SEQUENCES - 1004, 3 };
	uint64_t found[SLOTS] = { 0 };
	uint32_t lapped = 0;
	pthread_t thread;

	for (int i = 0; i < 4; i++)
		response_put(&earlier, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, lap, &channel), 0);
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		uint32_t n = 0;

		/* A missed answer leaves this loop only by the test's time limit. */
		while (n < SLOTS) {
			uint32_t slot = UINT32_MAX;
			const int r = response_take(&responses, &slot);

			if (r == 0)
				sched_yield();
			else
				n += find(&channel, found, r == 1 ? slot : UINT32_MAX, round);
			lapped += r == -ESTALE;
		}
		atomic_store(&channel.acknowledged, round);
	}
	pthread_join(thread, NULL);
	ck_assert_uint_gt(lapped, 0);	/* else nothing was tested */
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-ring");
	TCase *requests = tcase_create("requests");
	TCase *responses = tcase_create("responses");
	TCase *threads = tcase_create("threads");

	tcase_add_loop_test(requests, requests_come_out_whole_and_in_order_at_the_wrap_of_every_counter, 0, STARTS);
	tcase_add_loop_test(requests, an_entry_of_the_lap_before_is_not_taken_for_a_new_one, 0, STARTS);
	tcase_add_loop_test(requests, nothing_or_an_earlier_lap_at_the_next_place_means_that_there_is_no_entry_yet, 0, STARTS);
	tcase_add_loop_test(requests, an_invented_sequence_is_refused, 0, STARTS);
	tcase_add_loop_test(requests, every_sequence_but_those_few_is_refused, 0, STARTS);
	tcase_add_loop_test(requests, the_fullest_legal_request_ring_has_room_left_for_every_geometry, 0, STARTS);
	tcase_add_loop_test(requests, no_schedule_of_three_unconsumed_entries_a_slot_loses_one, 0, STARTS);
	tcase_add_loop_test(responses, hints_come_out_in_order_at_the_wrap_of_48_and_of_64_bits, 0, RESPONSE_STARTS);
	tcase_add_loop_test(responses, a_ring_full_of_unread_hints_has_not_lapped_its_reader, 0, RESPONSE_STARTS);
	tcase_add_loop_test(responses, a_lapped_reader_sees_it_once_and_goes_on_behind_the_newest_hint, 0, RESPONSE_STARTS);
	tcase_add_loop_test(responses, a_reader_that_never_reads_holds_up_nobody_and_nothing_outside_is_touched, 0, RESPONSE_STARTS);
	tcase_set_timeout(threads, 120);
	tcase_add_loop_test(threads, two_threads_exchange_requests_and_hints_and_every_answer_is_its_own, 0, STARTS);
	tcase_add_test(threads, a_lapped_reader_that_scans_its_slots_misses_no_answer);
	suite_add_tcase(s, requests);
	suite_add_tcase(s, responses);
	suite_add_tcase(s, threads);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
