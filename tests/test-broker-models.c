/*
 * Models on the socket: opened by description and by digest, in numbers, too large; resets.
 * Descriptions themselves are in test-shm-model.c; what hostile clients get is in test-hostile.c.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/control-rig.h"

static struct message_model_open by_digest(const struct control_model *row)
{
	struct message_model_open message = { .flags = MESSAGE_MODEL_BY_DIGEST };

	memcpy(message.digest, row->digest, sizeof(message.digest));
	return message;
}

START_TEST(a_model_known_by_digest_alone_has_a_layout_when_a_worker_has_described_it)
{
	struct message_model_open message = { .flags = MESSAGE_MODEL_BY_DIGEST };
	struct message_answer answer;
	struct control_model row;
	char elsewhere[128];

	whole_launch();
	struct raw worker = attach(), scheduler = attach();
	/* Learn the digest from a broker that knows the model, then begin anew with one that does not. */
	ck_assert_int_ge(raw_model(&worker, "model", 4096), 0);
	ck_assert(control_read_model(whole_page(), 0, &row));
	message = by_digest(&row);
	raw_close(&worker);
	raw_close(&scheduler);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	whole_clean_objects();
	whole.options[1] = elsewhere;
	snprintf(elsewhere, sizeof(elsewhere), "--set=broker.state_directory=%s/other", whole.directory);
	whole_launch();
	worker = attach();
	scheduler = attach();
	ck_assert_int_eq(ask(&scheduler, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.layout_known, 0);
	const uint32_t number = answer.number;
	ck_assert_int_eq(raw_model(&worker, "model", 4096), (int)number);
	ck_assert_int_eq(ask(&scheduler, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.layout_known, 1);
	ck_assert_uint_eq(answer.number, number);
	ck_assert_uint_eq(answer.described_bytes, sizeof(struct model_wire) + sizeof(struct model_wire_group) +
			  sizeof(struct model_wire_row));
	raw_close(&worker);
	raw_close(&scheduler);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(many_workers_that_open_one_model_at_once_get_one_number)
{
	struct raw raw[8];
	pid_t child[8];

	whole_launch();
	raw[0] = attach();
	for (int i = 0; i < 8; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			struct raw own;

			_exit(raw_attach(whole.name, &own) == 0 && raw_model(&own, "same", 8192) == 0 ? 0 : 1);
		}
	}
	for (int i = 0; i < 8; i++) {
		int status;

		ck_assert_int_eq(waitpid(child[i], &status, 0), child[i]);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(raw_model(&raw[0], "same", 8192), 0);
	ck_assert_int_eq(raw_model(&raw[0], "other", 8192), 1);
	raw_close(&raw[0]);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(digests_that_nobody_describes_cannot_keep_models_out)
{
	struct message_model_open message = { .flags = MESSAGE_MODEL_BY_DIGEST };
	struct message_answer answer;
	uint32_t taken = 0;

	whole_launch();
	struct raw guesser = attach(), worker = attach();
	for (uint8_t i = 0; i < 64; i++) {
		message.digest[0] = (uint8_t)(i + 1);
		taken += ask(&guesser, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer) == STOKER_STATUS_OK;
	}
	ck_assert_uint_gt(taken, 0);
	ck_assert_uint_lt(taken, 64);
	ck_assert_int_ge(raw_model(&worker, "model", 4096), 0);
	/* When it leaves, its guesses are forgotten. */
	raw_close(&guesser);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == 1);
	ck_assert_int_eq(ask(&worker, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_OK);
	raw_close(&worker);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_model_of_more_sizes_than_the_arena_has_extents_is_told_which_setting_to_change)
{
	enum { SHARDS = 64 };
	struct {
		struct message_model_open open;
		struct model_wire wire;
		struct model_wire_group group;
		struct model_wire_row row[SHARDS];
	} message;
	struct message_answer answer;

	whole_launch();
	struct raw raw = attach();
	memset(&message, 0, sizeof(message));
	message.open.description_bytes = sizeof(message) - sizeof(message.open);
	strcpy(message.wire.name, "many sizes");
	message.wire.chunk_tokens = 16;
	message.wire.n_groups = 1;
	message.wire.n_rows = SHARDS;
	message.group = (struct model_wire_group){ .block_tokens = 16, .blocks = 1 };
	for (uint16_t i = 0; i < SHARDS; i++)
		message.row[i] = (struct model_wire_row){ .shard = i, .bytes = 4096u * (i + 1u) };
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_TOO_LARGE);
	ck_assert_msg(strstr(answer.reason, "have 64 sizes") && strstr(answer.reason, "lower arena.extent"), "%s",
		      answer.reason);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(an_object_that_does_not_fit_is_refused_with_the_chunk_that_would)
{
	struct {
		struct message_model_open open;
		struct model_wire wire;
		struct model_wire_group group;
		struct model_wire_row row;
	} message;
	struct message_answer answer;

	whole_launch();
	struct raw raw = attach();
	memset(&message, 0, sizeof(message));
	message.open.description_bytes = sizeof(message.wire) + sizeof(message.group) + sizeof(message.row);
	const size_t bytes = sizeof(message.open) + message.open.description_bytes;
	strcpy(message.wire.name, "large");
	message.wire.chunk_tokens = 256;
	message.wire.n_groups = message.wire.n_rows = 1;
	message.group = (struct model_wire_group){ .block_tokens = 16, .blocks = 16 };
	message.row.bytes = 1 << 20;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, bytes, &answer), STOKER_STATUS_TOO_LARGE);
	ck_assert_ptr_nonnull(strstr(answer.reason, "the longest chunk that fits is 16 tokens"));
	message.wire.chunk_tokens = 16;
	message.group.blocks = 1;
	message.row.bytes = 512 << 20;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, bytes, &answer), STOKER_STATUS_TOO_LARGE);
	ck_assert_ptr_nonnull(strstr(answer.reason, "no chunk fits; raise arena.size"));
	message.row.bytes = 1 << 20;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, bytes, &answer), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_reset_raises_the_epoch_and_a_restart_remembers_it)
{
	struct message_reset message = { 0 };
	struct message_answer answer;
	struct control_model row;

	whole_launch();
	struct raw raw = attach();
	message.model = (uint32_t)raw_model(&raw, "model", 4096);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.value, 1);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.value, 2);
	message.model = 5;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_BAD_REQUEST);
	raw_close(&raw);
	whole_end(SIGKILL);
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert(control_read_model(whole_page(), 0, &row));
	ck_assert_uint_eq(row.epoch, 2);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

static enum stoker_status answer_to(struct raw *raw, uint64_t request, struct message_answer *ret)
{
	ck_assert_int_eq(raw_receive(raw->socket, ret, sizeof(*ret), NULL, NULL), sizeof(*ret));
	return ret->header.request == request ? ret->status : STOKER_STATUS_END;
}

START_TEST(a_reset_is_answered_although_the_broker_stops_before_it_serves)
{
	struct message_reset reset = { .header = { MESSAGE_RESET, sizeof(reset), 77 } };
	struct message_reset bad = { .header = { MESSAGE_RESET, sizeof(bad), 78 }, .model = 63 };
	struct message_answer answer;
	enum stoker_status status;

	whole.memory = "128M";		/* it serves when that much is populated: some moments after this reset */
	whole_launch();
	struct raw raw = attach();
	reset.model = (uint32_t)raw_model(&raw, "model", 4096);
	ck_assert_int_eq(raw_send(raw.socket, &reset, sizeof(reset), NULL, 0), 0);
	/* When the second one is answered, the first has been read. */
	ck_assert_int_eq(raw_send(raw.socket, &bad, sizeof(bad), NULL, 0), 0);
	status = answer_to(&raw, 77, &answer);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	if (status == STOKER_STATUS_END)
		status = answer_to(&raw, 77, &answer);
	ck_assert(status == STOKER_STATUS_OK || status == STOKER_STATUS_STARTING);
	ck_assert(status == STOKER_STATUS_OK || strstr(answer.reason, "the epoch is not begun"));
	raw_close(&raw);
}
END_TEST

/* ---- models that are forgotten ------------------------------------------------------------------ */

static uint32_t files_of_models(void)
{
	char command[160];
	uint32_t n = 0;

	snprintf(command, sizeof(command), "ls %s/state/models | wc -l", whole.directory);
	FILE *pipe = popen(command, "r");
	ck_assert(pipe && fscanf(pipe, "%u", &n) == 1 && pclose(pipe) == 0);
	return n;
}

/* Open it, and leave: nobody has it open then. */
static void open_and_leave(const char *model, uint64_t gone)
{
	struct raw raw = attach();

	ck_assert_int_ge(raw_model(&raw, model, 4096), 0);
	raw_close(&raw);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == gone);
}

/* The epoch of the model at that place of the page, or -1. */
static int64_t epoch_at(uint32_t number)
{
	struct control_model row;

	ck_assert(control_read_model(whole_page(), number, &row));
	return row.used ? (int64_t)row.epoch : -1;
}

START_TEST(the_model_that_nobody_used_for_longest_makes_room_for_a_new_one)
{
	whole.options[1] = "--set=limits.models=3";
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	open_and_leave("first", 1);
	open_and_leave("second", 2);
	struct raw raw = attach();
	ck_assert_int_eq(raw_model(&raw, "third", 4096), 2);
	/* Used again: the second is older now. */
	open_and_leave("first", 3);
	ck_assert_int_eq(raw_model(&raw, "fourth", 4096), 1);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN), 1);
	ck_assert_uint_eq(files_of_models(), 3);
	ck_assert_int_eq(raw_model(&raw, "first", 4096), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN), 1);
	/* All of them are open. */
	ck_assert_int_lt(raw_model(&raw, "fifth", 4096), 0);
	whole_await_gauge(STOKER_GAUGE_MODELS, 3);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_refusal_for_want_of_a_place_says_what_to_do)
{
	struct message_model_open message = { .flags = MESSAGE_MODEL_BY_DIGEST, .digest = { 9 } };
	struct message_answer answer;

	whole.options[1] = "--set=limits.models=2";
	whole_launch();
	struct raw raw = attach();
	ck_assert_int_eq(raw_model(&raw, "first", 4096), 0);
	ck_assert_int_eq(raw_model(&raw, "second", 4096), 1);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_NO_MEMORY);
	ck_assert_ptr_nonnull(strstr(answer.reason, "let the clients of one of them leave, or raise"));
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(clients_that_want_the_same_place_at_once_all_get_an_answer)
{
	pid_t child[8];

	whole.options[1] = "--set=limits.models=4";
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	for (uint64_t i = 1; i <= 4; i++) {
		const char name[2] = { (char)('a' + i), '\0' };

		open_and_leave(name, i);
	}
	/* Pairs of them want the same model; some may find that theirs is just being forgotten. */
	for (int i = 0; i < 8; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			const char name[2] = { (char)(i < 4 ? 'b' + i / 2 : 'x' + i % 2), '\0' };
			struct raw own;

			_exit(raw_attach(whole.name, &own) == 0 && raw_model(&own, name, 4096) >= 0 ? 0 : 1);
		}
	}
	for (int i = 0; i < 8; i++) {
		int status;

		ck_assert_int_eq(waitpid(child[i], &status, 0), child[i]);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* The tag in the one file of a model that there is: after magic, format, a length, digest and tenant. */
static uint64_t tag_in_file(void)
{
	char command[192];
	uint64_t tag = 0;

	snprintf(command, sizeof(command), "od -A n -t u8 -j 112 -N 8 %s/state/models/*", whole.directory);
	FILE *pipe = popen(command, "r");
	ck_assert(pipe && fscanf(pipe, "%" SCNu64, &tag) == 1 && pclose(pipe) == 0);
	return tag;
}

START_TEST(a_model_whose_past_is_forgotten_does_not_bear_the_tag_of_the_first_epoch)
{
	struct message_reset message = { .has_tag = 1, .tag = 4711 };
	struct message_answer answer;

	whole.options[1] = "--set=limits.models=1";
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	struct raw raw = attach();
	ck_assert_int_eq(raw_model(&raw, "old", 4096), 0);
	ck_assert_uint_eq(tag_in_file(), 0);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(tag_in_file(), 4711);
	raw_close(&raw);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == 1);
	open_and_leave("another", 2);
	/* What was named by its digest and tag 0 is of weights that are gone. */
	open_and_leave("old", 3);
	ck_assert_uint_ne(tag_in_file(), 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(the_epoch_of_a_forgotten_model_is_never_begun_again)
{
	struct message_reset message = { 0 };
	struct message_answer answer;

	whole.options[1] = "--set=limits.models=1";
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	struct raw raw = attach();
	ck_assert_int_eq(raw_model(&raw, "old", 4096), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	raw_close(&raw);
	await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == 1);
	open_and_leave("new", 2);
	ck_assert_int_ge(epoch_at(0), 3);
	ck_assert_uint_eq(files_of_models(), 1);
	/* ... whatever becomes of the broker and of the file of its successor. */
	whole_end(SIGKILL);
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert_int_ge(epoch_at(0), 3);
	open_and_leave("old", 1);
	ck_assert_int_ge(epoch_at(0), 3);
	ck_assert_uint_eq(files_of_models(), 1);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_restart_with_fewer_places_keeps_the_models_that_were_used_last)
{
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	open_and_leave("a", 1);
	open_and_leave("b", 2);
	open_and_leave("c", 3);
	open_and_leave("a", 4);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	whole.options[1] = "--set=limits.models=2";
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert_uint_eq(files_of_models(), 2);
	struct raw raw = attach();
	ck_assert_int_ge(raw_model(&raw, "a", 4096), 0);
	ck_assert_int_ge(raw_model(&raw, "c", 4096), 0);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_MODELS_FORGOTTEN), 0);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-models");
	TCase *tests = tcase_create("broker-models");

	tcase_add_checked_fixture(tests, setup, whole_clean);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_model_known_by_digest_alone_has_a_layout_when_a_worker_has_described_it);
	tcase_add_test(tests, many_workers_that_open_one_model_at_once_get_one_number);
	tcase_add_test(tests, digests_that_nobody_describes_cannot_keep_models_out);
	tcase_add_test(tests, a_model_of_more_sizes_than_the_arena_has_extents_is_told_which_setting_to_change);
	tcase_add_test(tests, an_object_that_does_not_fit_is_refused_with_the_chunk_that_would);
	tcase_add_test(tests, a_reset_raises_the_epoch_and_a_restart_remembers_it);
	tcase_add_test(tests, a_reset_is_answered_although_the_broker_stops_before_it_serves);
	tcase_add_test(tests, the_model_that_nobody_used_for_longest_makes_room_for_a_new_one);
	tcase_add_test(tests, a_refusal_for_want_of_a_place_says_what_to_do);
	tcase_add_test(tests, clients_that_want_the_same_place_at_once_all_get_an_answer);
	tcase_add_test(tests, the_epoch_of_a_forgotten_model_is_never_begun_again);
	tcase_add_test(tests, a_model_whose_past_is_forgotten_does_not_bear_the_tag_of_the_first_epoch);
	tcase_add_test(tests, a_restart_with_fewer_places_keeps_the_models_that_were_used_last);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
