/*
 * The broker's side of a channel: what an entry may say, that it is used from a private copy, how
 * answers are published, and the wake protocol's half of it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/broker/channel.h"
#include "tests/suite.h"

static const struct channel_geometry geometry = { .slots_small = 4, .slots_large = 1, .ready_words = 1024 };
static struct channel *channel;		/* the broker's end */
static struct channel_ends ends;	/* the client's */
static struct request_producer requests;

/* One mapping for both sides: a sanitizer sees what they share by its address. */
static void setup(void)
{
	ck_assert_int_eq(channel_new(&geometry, 3, &ends, &channel), 0);
	requests = (struct request_producer){
		.entries = (struct stoker_entry *)(channel->base + channel->plan.request_offset),
		.mask = channel->plan.requests - 1,
	};
}

static void teardown(void)
{
	channel_ends_close(&ends);
	channel_free(channel);
}

static void put(const struct stoker_request_head *head)
{
	request_put(&requests, head);
}

static struct stoker_request_head head_of(uint8_t op)
{
	return (struct stoker_request_head){ .op = op, .slot = 1, .generation = 9 };
}

static void *input_of(uint32_t slot)
{
	return channel->base + plan_input_offset(&channel->plan, slot);
}

static enum channel_taken take(struct engine_request **ret)
{
	static struct engine_request *unused;

	return channel_take(channel, ret ? ret : &unused);
}

static void expect_broken(const struct stoker_request_head *head, const char *why)
{
	put(head);
	ck_assert_int_eq(take(NULL), CHANNEL_BROKEN);
	ck_assert_msg(strstr(channel->why, why), "\"%s\" is not in \"%s\"", why, channel->why);
	teardown();
	setup();
}

START_TEST(the_memory_is_sealed_private_and_as_large_as_planned)
{
	struct stat is;

	ck_assert_int_eq(fstat(ends.memory, &is), 0);
	ck_assert_uint_eq(is.st_mode & 0777, 0600);
	ck_assert_uint_eq((uint64_t)is.st_size, channel->plan.bytes);
	ck_assert_int_lt(ftruncate(ends.memory, 0), 0);
	ck_assert_int_lt(ftruncate(ends.memory, is.st_size * 2), 0);
	ck_assert_int_eq(fcntl(ends.memory, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}
END_TEST

START_TEST(a_geometry_out_of_bounds_makes_no_channel)
{
	const struct channel_geometry none = { 0, 0, 0, 0 };
	struct channel_ends unused;
	struct channel *ret = NULL;

	ck_assert_int_lt(channel_new(&none, 0, &unused, &ret), 0);
	ck_assert_ptr_null(ret);
}
END_TEST

START_TEST(a_ping_is_taken_once)
{
	struct stoker_request_head head = head_of(STOKER_OP_PING);
	struct engine_request *request;

	ck_assert_int_eq(take(&request), CHANNEL_NOTHING);
	put(&head);
	ck_assert_int_eq(take(&request), CHANNEL_REQUEST);
	ck_assert_mem_eq(&request->head, &head, sizeof(head));
	ck_assert_int_eq(take(&request), CHANNEL_NOTHING);
}
END_TEST

START_TEST(a_request_is_used_from_a_copy_that_the_client_cannot_change)
{
	struct stoker_request_head head = head_of(STOKER_OP_STORE);
	struct stoker_slot *slot = &channel->slots[1];
	struct engine_request *request;
	uint8_t *input = input_of(1);

	head.n_keys = 3;
	head.n_segments = 1;
	head.n_ids = 5;
	slot->request.store.flags = STOKER_STORE_TOKENS;
	slot->request.store.account = 77;
	for (uint32_t i = 0; i < 12; i++)
		((uint64_t *)input)[i] = i;
	const uint32_t tokens[4] = { 256, 256, 100, 0 };
	memcpy(input + 96, tokens, sizeof(tokens));
	const struct stoker_segment segment = { .pool = 2, .chunks = 3, .n_ids = 5 };
	memcpy(input + 112, &segment, sizeof(segment));
	const uint32_t ids[5] = { 10, 11, 12, 13, 14 };
	memcpy(input + 136, ids, sizeof(ids));
	put(&head);
	ck_assert_int_eq(take(&request), CHANNEL_REQUEST);
	memset(input, 0xff, plan_slot_input(&channel->plan, 1));
	memset(&slot->request, 0xff, sizeof(slot->request));
	ck_assert_uint_eq(request->keys[2].word[3], 11);
	ck_assert_mem_eq(request->tokens, tokens, 12);
	ck_assert_mem_eq(request->segments, &segment, sizeof(segment));
	ck_assert_mem_eq(request->ids, ids, sizeof(ids));
	ck_assert_uint_eq(request->line.store.account, 77);
	ck_assert_uint_ge(request->scratch_bytes, STOKER_SCRATCH_BYTES(STOKER_SMALL_KEYS, STOKER_SMALL_INPUT));
	ck_assert_uint_eq((uintptr_t)request->scratch % 64, 0);
}
END_TEST

START_TEST(what_no_honest_library_sends_is_broken)
{
	struct stoker_request_head head = head_of(0);

	expect_broken(&head, "unknown operation");
	head = head_of(200);
	expect_broken(&head, "unknown operation");
	head = head_of(STOKER_OP_PING);
	head.slot = 5;
	expect_broken(&head, "slot");
	head = head_of(STOKER_OP_PING);
	head.generation = 0;
	expect_broken(&head, "generation 0");
	head = head_of(STOKER_OP_PING);
	head.priority = 8;
	expect_broken(&head, "priority");
	head = head_of(STOKER_OP_PING);
	head.flags = STOKER_F_PROBE;
	expect_broken(&head, "flag");
	head = head_of(STOKER_OP_LOOKUP);
	head.flags = 0x8000;
	expect_broken(&head, "flag");
	head = head_of(STOKER_OP_LOOKUP);
	head.n_keys = STOKER_SMALL_KEYS + 1;
	expect_broken(&head, "keys");
	head = head_of(STOKER_OP_RELEASE);
	head.n_keys = 1;
	expect_broken(&head, "keys");
	head = head_of(STOKER_OP_RETRIEVE);
	head.n_segments = STOKER_SEGMENTS_MAX + 1;
	expect_broken(&head, "segments");
	head = head_of(STOKER_OP_RETRIEVE);
	head.n_ids = 0xffffffff;
	expect_broken(&head, "block ids");
	head = head_of(STOKER_OP_RETRIEVE);
	head.n_segments = 300;
	head.n_ids = 1000;
	expect_broken(&head, "larger than its slot");
}
END_TEST

START_TEST(a_reserved_bit_anywhere_is_broken)
{
	struct stoker_request_head head = head_of(STOKER_OP_LOOKUP);

	head.n_keys = 1;
	channel->slots[1].request.lookup.reserved[4] = 1;
	expect_broken(&head, "reserved");
	head = head_of(STOKER_OP_STORE);
	channel->slots[1].request.store.flags = 2;
	expect_broken(&head, "unknown flag");
	head = head_of(STOKER_OP_RETRIEVE);
	head.n_segments = 2;
	((struct stoker_segment *)input_of(1))[1].reserved = 7;
	expect_broken(&head, "segment");
}
END_TEST

START_TEST(an_invented_sequence_is_broken)
{
	atomic_store(&requests.entries[0].sequence, UINT64_MAX / 2);
	ck_assert_int_eq(take(NULL), CHANNEL_BROKEN);
}
END_TEST

START_TEST(a_slot_that_is_asked_for_while_its_job_lives_is_broken)
{
	struct stoker_request_head head = head_of(STOKER_OP_PING);
	const struct engine_answer probed = { .stage = STOKER_STAGE_PROBED };
	const struct engine_answer done = { .stage = STOKER_STAGE_DONE };

	put(&head);
	ck_assert_int_eq(take(NULL), CHANNEL_REQUEST);
	channel_publish(channel, 1, 9, &done);
	head.generation = 10;
	put(&head);
	ck_assert_int_eq(take(NULL), CHANNEL_REQUEST);
	channel_publish(channel, 1, 10, &probed);
	head.generation = 11;
	put(&head);
	ck_assert_int_eq(take(NULL), CHANNEL_BROKEN);
}
END_TEST

START_TEST(a_ready_word_that_there_is_not_is_refused_and_costs_nothing_more)
{
	struct stoker_request_head head = head_of(STOKER_OP_RETRIEVE);
	struct engine_request *request;

	head.flags = STOKER_F_READY;
	channel->slots[1].request.retrieve.ready_index = 1024;
	put(&head);
	ck_assert_int_eq(take(&request), CHANNEL_REFUSED);
	ck_assert_uint_eq(request->head.generation, 9);
	channel->slots[1].request.retrieve.ready_index = 1023;
	put(&head);
	ck_assert_int_eq(take(&request), CHANNEL_REQUEST);
}
END_TEST

START_TEST(a_cancel_takes_the_generation_from_the_cancel_word)
{
	struct stoker_request_head head = head_of(STOKER_OP_CANCEL);
	struct engine_request *request;

	atomic_store(&channel->slots[1].client.cancel, 42);
	put(&head);
	ck_assert_int_eq(take(&request), CHANNEL_CANCEL);
	ck_assert_uint_eq(request->head.slot, 1);
	ck_assert_uint_eq(request->head.generation, 42);
}
END_TEST

START_TEST(an_answer_is_published_whole)
{
	const uint64_t bitmap[64] = { 5, 6 };
	const uint8_t chunks[3] = { STOKER_CHUNK_STORED, STOKER_CHUNK_PRESENT, STOKER_CHUNK_REFUSED };
	const struct engine_answer answer = {
		.stage = STOKER_STAGE_DONE, .status = STOKER_STATUS_EXPIRED, .found = 1, .found_l1 = 2, .expected_us = 3,
		.ready = 4, .layers = 5, .n = 6, .counts = { 7, 8, 9 }, .lease_ms = 10, .lease = { 11, 12 },
		.bitmap_words = 64, .bitmap = bitmap, .n_chunks = 3, .chunks = chunks,
	};
	const struct stoker_slot_broker *line = &channel->slots[4].broker;
	const uint8_t *output = channel->base + plan_output_offset(&channel->plan, 4);
	struct response_consumer responses = {
		.words = (const _Atomic uint64_t *)(channel->base + channel->plan.response_offset),
		.mask = channel->plan.responses - 1,
	};
	uint32_t slot = 0;

	ck_assert(!channel_publish(channel, 4, 21, &answer));
	ck_assert_uint_eq(atomic_load(&line->word), slot_word(21, STOKER_STATUS_EXPIRED, STOKER_STAGE_DONE));
	ck_assert_uint_eq(atomic_load(&line->expected_us), 3);
	ck_assert_uint_eq(atomic_load(&line->counts[2]), 9);
	ck_assert_uint_eq(atomic_load(&line->lease[1]), 12);
	ck_assert_mem_eq(output, bitmap, sizeof(bitmap));
	ck_assert_mem_eq(output + plan_status_offset(&channel->plan, 4), chunks, sizeof(chunks));
	ck_assert_int_eq(response_take(&responses, &slot), 1);
	ck_assert_uint_eq(slot, 4);
}
END_TEST

START_TEST(a_job_that_ends_early_does_not_show_what_the_one_before_has_left)
{
	const uint64_t bitmap[64] = { [0 ... 63] = UINT64_MAX };
	const uint8_t chunks[64] = { [0 ... 63] = STOKER_CHUNK_RETRIEVED };
	const struct engine_answer whole = {
		.stage = STOKER_STAGE_DONE, .bitmap_words = 64, .bitmap = bitmap, .n_chunks = 64, .chunks = chunks,
	};
	const struct engine_answer early = { .stage = STOKER_STAGE_DONE, .status = STOKER_STATUS_EXPIRED };
	const struct engine_answer partly = {
		.stage = STOKER_STAGE_DONE, .status = STOKER_STATUS_CANCELLED, .n_chunks = 3, .chunks = chunks,
	};
	const uint8_t *output = channel->base + plan_output_offset(&channel->plan, 4);
	const uint8_t *statuses = output + plan_status_offset(&channel->plan, 4);
	const uint8_t none[512] = { 0 };

	channel_publish(channel, 4, 21, &whole);
	channel_publish(channel, 4, 22, &early);
	ck_assert_mem_eq(output, none, sizeof(bitmap));
	ck_assert_mem_eq(statuses, none, sizeof(chunks));
	channel_publish(channel, 4, 23, &whole);
	channel_publish(channel, 4, 24, &partly);
	ck_assert_mem_eq(output, none, sizeof(bitmap));
	ck_assert_mem_eq(statuses, chunks, 3);
	ck_assert_mem_eq(statuses + 3, none, sizeof(chunks) - 3);
}
END_TEST

START_TEST(only_the_generation_that_is_waited_for_asks_for_a_wake)
{
	const struct engine_answer probed = { .stage = STOKER_STAGE_PROBED };
	const struct engine_answer done = { .stage = STOKER_STAGE_DONE };
	char byte;

	atomic_store(&channel->slots[0].client.want_wake, 8);
	ck_assert(!channel_publish(channel, 0, 7, &done));
	ck_assert(!channel_publish(channel, 0, 8, &probed));
	ck_assert(channel_publish(channel, 0, 8, &done));
	channel_wake(channel);
	ck_assert_int_eq(read(ends.completion, &byte, 1), 1);
	ck_assert_int_lt(read(ends.completion, &byte, 1), 0);
}
END_TEST

START_TEST(only_a_job_that_a_device_waits_for_is_told_to_it_and_only_when_it_is_done)
{
	const struct engine_answer ending = { .stage = STOKER_STAGE_ENDING, .status = STOKER_STATUS_CANCELLED };
	const struct engine_answer done = { .stage = STOKER_STAGE_DONE };
	struct stoker_slot *slot = &channel->slots[0];

	channel_publish(channel, 0, 6, &done);
	ck_assert_uint_eq(atomic_load(&slot->device.done), 0);
	atomic_store(&slot->client.want_done, 8);
	channel_publish(channel, 0, 7, &done);
	channel_publish(channel, 0, 8, &ending);
	ck_assert_uint_eq(atomic_load(&slot->device.done), 0);
	channel_publish(channel, 0, 8, &done);
	ck_assert_uint_eq(atomic_load(&slot->device.done), 8);
}
END_TEST

START_TEST(a_client_that_never_reads_its_pipe_never_holds_up_a_wake)
{
	for (int i = 0; i < 100000; i++)
		channel_wake(channel);
	close(ends.completion);
	ends.completion = -1;
	signal(SIGPIPE, SIG_IGN);
	channel_wake(channel);
}
END_TEST

START_TEST(a_channel_with_an_entry_is_not_parked)
{
	const struct stoker_request_head head = head_of(STOKER_OP_PING);
	const struct channel_header *header = (const struct channel_header *)channel->base;

	ck_assert_uint_eq(atomic_load(&header->need_wake), 1);	/* it begins parked */
	channel_unpark(channel);
	ck_assert_uint_eq(atomic_load(&header->need_wake), 0);
	put(&head);
	ck_assert(!channel_park(channel));
	ck_assert_uint_eq(atomic_load(&header->need_wake), 0);
	take(NULL);
	ck_assert(channel_park(channel));
	ck_assert_uint_eq(atomic_load(&header->need_wake), 1);
}
END_TEST

START_TEST(any_bytes_in_the_ring_are_taken_or_broken_and_nothing_else)
{
	unsigned seed = 12345;
	struct engine_request *request;

	for (int round = 0; round < 20000; round++) {
		struct stoker_request_head head;
		uint8_t *bytes = (uint8_t *)&head;

		for (size_t i = 0; i < sizeof(head); i++)
			bytes[i] = (uint8_t)(rand_r(&seed) % (round % 3 ? 256 : 6));
		put(&head);
		if (take(&request) == CHANNEL_REQUEST)
			channel->slot[request->head.slot].busy = false;
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-channel");
	TCase *tests = tcase_create("channel");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, the_memory_is_sealed_private_and_as_large_as_planned);
	tcase_add_test(tests, a_geometry_out_of_bounds_makes_no_channel);
	tcase_add_test(tests, a_ping_is_taken_once);
	tcase_add_test(tests, a_request_is_used_from_a_copy_that_the_client_cannot_change);
	tcase_add_test(tests, what_no_honest_library_sends_is_broken);
	tcase_add_test(tests, a_reserved_bit_anywhere_is_broken);
	tcase_add_test(tests, an_invented_sequence_is_broken);
	tcase_add_test(tests, a_slot_that_is_asked_for_while_its_job_lives_is_broken);
	tcase_add_test(tests, a_ready_word_that_there_is_not_is_refused_and_costs_nothing_more);
	tcase_add_test(tests, a_cancel_takes_the_generation_from_the_cancel_word);
	tcase_add_test(tests, an_answer_is_published_whole);
	tcase_add_test(tests, a_job_that_ends_early_does_not_show_what_the_one_before_has_left);
	tcase_add_test(tests, only_the_generation_that_is_waited_for_asks_for_a_wake);
	tcase_add_test(tests, only_a_job_that_a_device_waits_for_is_told_to_it_and_only_when_it_is_done);
	tcase_add_test(tests, a_client_that_never_reads_its_pipe_never_holds_up_a_wake);
	tcase_add_test(tests, a_channel_with_an_entry_is_not_parked);
	tcase_add_test(tests, any_bytes_in_the_ring_are_taken_or_broken_and_nothing_else);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
