/*
 * Bad input, with broker, honest client and hostile client under three uids, none of them 0.
 *
 * After every attack the honest client, which has been attached all the time, stores, finds and
 * retrieves, and every byte is right; what is impossible for an honest library has cost the
 * attacker its attachment; and the broker, looked at from outside, is alive and holds nothing of
 * the attackers any more. Needs root, to become the three: skipped without.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/hostile-rig.h"
#include "tests/random.h"

/* ---- attacks on the rings ------------------------------------------------------------------------ */

static struct stoker_request_head ping_head(void)
{
	return (struct stoker_request_head){ .op = STOKER_OP_PING, .slot = 1, .generation = 1 };
}

/* Each row is an entry that no honest library sends: the attacker loses its attachment. */
static const struct { const char *what; struct stoker_request_head head; } impossible[] = {
	{ "operation 0",             { .op = 0, .slot = 1, .generation = 1 } },
	{ "operation 200",           { .op = 200, .slot = 1, .generation = 1 } },
	{ "slot beyond the last",    { .op = STOKER_OP_PING, .slot = 999, .generation = 1 } },
	{ "generation 0",            { .op = STOKER_OP_PING, .slot = 1, .generation = 0 } },
	{ "priority 8",              { .op = STOKER_OP_PING, .slot = 1, .generation = 1, .priority = 8 } },
	{ "an unknown flag",         { .op = STOKER_OP_LOOKUP, .slot = 1, .generation = 1, .flags = 1u << 31, .n_keys = 1 } },
	{ "more keys than fit",      { .op = STOKER_OP_LOOKUP, .slot = 1, .generation = 1, .n_keys = 100000 } },
	{ "more ids than fit",       { .op = STOKER_OP_STORE, .slot = 1, .generation = 1, .n_keys = 1, .n_segments = 1, .n_ids = 0xffffffff } },
	{ "more segments than fit",  { .op = STOKER_OP_STORE, .slot = 1, .generation = 1, .n_keys = 1, .n_segments = 0x80000000, .n_ids = 1 } },
};

static int attack_entry;

static int send_impossible_entry(void)
{
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	raw_submit(&raw, &impossible[attack_entry].head);
	return raw_is_expelled(&raw) ? 0 : 2;
}

START_TEST(an_impossible_entry_costs_its_sender_the_attachment_and_nobody_else_anything)
{
	const uint64_t before = rig_counter(STOKER_COUNTER_CLIENTS_EXPELLED);

	attack_entry = _i;
	ck_assert_msg(rig_run_as(HOSTILE_UID, send_impossible_entry) == 0, "%s was not answered by detaching",
		      impossible[_i].what);
	rig_honest_is_served();
	ck_assert_uint_gt(rig_counter(STOKER_COUNTER_CLIENTS_EXPELLED), before);
}
END_TEST

static int invent_a_sequence(void)
{
	struct stoker_request_head head = ping_head();
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	raw_submit(&raw, &head);
	if (raw_await(&raw, 1, 1) != STOKER_STATUS_OK)
		return 2;
	atomic_store(&raw.requests.entries[1].sequence, 77777);
	if (write(raw.fds[2], "", 1) < 0)
		return 3;
	return raw_is_expelled(&raw) ? 0 : 4;
}

START_TEST(a_sequence_that_only_a_peer_can_have_invented_is_noticed)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, invent_a_sequence), 0);
	rig_honest_is_served();
}
END_TEST

static int submit_on_a_live_slot(void)
{
	/* A large slot: a chained lookup whose pieces never come lives on. */
	struct stoker_request_head head = { .op = STOKER_OP_LOOKUP, .slot = 16, .generation = 1, .n_keys = 1 };
	struct raw raw;
	int model;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	model = raw_model(&raw, "live", 4096);
	if (model < 0)
		return 3;
	head.model = (uint32_t)model;
	raw_slot(&raw, 16)->request.lookup.pieces = 3;
	raw_submit(&raw, &head);
	head.generation = 2;
	raw_submit(&raw, &head);
	return raw_is_expelled(&raw) ? 0 : 2;
}

START_TEST(a_submit_on_a_slot_whose_job_lives_detaches)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, submit_on_a_live_slot), 0);
	rig_honest_is_served();
}
END_TEST

/* Garbage everywhere in the channel, entries with right sequences, for many attachments. */
static int write_garbage(void)
{
	struct rng random = { 20261123 };

	for (int i = 0; i < 40; i++) {
		struct raw raw;

		if (raw_attach(rig_name, &raw) < 0)
			return 1;
		raw_model(&raw, "garbage", 4096);
		for (int round = 0; round < 50; round++) {
			struct stoker_request_head head;
			uint64_t *words = (uint64_t *)&head;

			for (size_t w = 0; w < sizeof(head) / 8; w++)
				words[w] = rng_next(&random);
			if (rng_next(&random) % 4) {		/* plausible ones go deeper */
				head = (struct stoker_request_head){
					.op = (uint8_t)(1 + rng_next(&random) % 10),
					.slot = (uint16_t)(rng_next(&random) % raw.plan.slots),
					.generation = (uint32_t)(round + 1),
					.flags = (uint32_t)rng_next(&random) & 0xff,
					.model = (uint32_t)rng_next(&random) % 3,
					.n_keys = (uint32_t)rng_next(&random) % 66,
					.n_segments = (uint32_t)rng_next(&random) % 4,
					.n_ids = (uint32_t)rng_next(&random) % 100,
					.deadline_us = 1000,
				};
			}
			for (int w = 0; w < 200; w++) {
				const uint64_t at = rng_next(&random) % ((raw.plan.bytes - 4096) / 8);

				if (4096 + at * 8 < raw.plan.request_offset + raw.plan.requests * 64 &&
				    4096 + at * 8 >= raw.plan.request_offset)
					continue;	/* the ring itself is written below */
				((uint64_t *)(raw.channel + 4096))[at] = rng_next(&random) >> rng_next(&random) % 64;
			}
			raw_submit(&raw, &head);
		}
		raw_close(&raw);
	}
	return 0;
}

START_TEST(garbage_in_a_channel_harms_nobody)
{
	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, write_garbage), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- attacks on the socket ------------------------------------------------------------------------ */

static int send_garbage_messages(void)
{
	struct rng random = { 7 };
	uint8_t message[4096];

	for (int i = 0; i < 200; i++) {
		struct message_header *header = (struct message_header *)message;
		const int fd = raw_connect(rig_name);
		size_t bytes = 1 + rng_next(&random) % sizeof(message);

		if (fd < 0)
			return 1;
		for (size_t b = 0; b < sizeof(message); b++)
			message[b] = (uint8_t)rng_next(&random);
		if (i % 2) {	/* with a head that looks right */
			header->type = 1 + i % 10;
			header->bytes = (uint32_t)bytes;
		}
		raw_send(fd, message, bytes, NULL, 0);
		close(fd);
	}
	return 0;
}

static int send_descriptors_where_none_are_expected(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 }, .abi = STOKER_ABI,
		.geometry = { .slots_small = 8, .slots_large = 1, .ready_words = 1024 },
	};
	struct raw raw = { .socket = raw_connect(rig_name) };
	const int fds[3] = { 0, 1, 2 };

	if (raw.socket < 0 || raw_send(raw.socket, &hello, sizeof(hello), fds, 3) < 0)
		return 1;
	return raw_is_expelled(&raw) ? 0 : 2;
}

static int say_another_abi(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 },
		.abi = STOKER_ABI + 41, .client_name = "from the future",
		.geometry = { .slots_small = 8, .slots_large = 1, .ready_words = 1024 },
	};
	struct message_welcome welcome;
	char theirs[32], ours[32];
	const int fd = raw_connect(rig_name);

	snprintf(theirs, sizeof(theirs), "version is %u,", hello.abi);
	snprintf(ours, sizeof(ours), "speaks %u;", STOKER_ABI);
	if (fd < 0 || raw_send(fd, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	if (raw_receive(fd, &welcome, sizeof(welcome), NULL, NULL) != (ssize_t)sizeof(welcome))
		return 2;
	return welcome.status != STOKER_STATUS_OK && strstr(welcome.reason, theirs) && strstr(welcome.reason, ours) ? 0 : 3;
}

static int hello_twice(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 }, .abi = STOKER_ABI,
		.geometry = { .slots_small = 8, .slots_large = 1, .ready_words = 1024 },
	};
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0 || raw_send(raw.socket, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	return raw_is_expelled(&raw) ? 0 : 2;
}

START_TEST(impossible_messages_detach_and_another_abi_is_told_both_versions)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, send_garbage_messages), 0);
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, send_descriptors_where_none_are_expected), 0);
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, say_another_abi), 0);
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, hello_twice), 0);
	rig_honest_is_served();
}
END_TEST

/* Descriptors that are no region: each is refused with a reason, and the client stays. */
static int offer_bad_regions(void)
{
	struct message_region_add message = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST,
					      .n_fds = 1, .ranges[0] = { .bytes = 65536 } };
	const int sparse = memfd_create("sparse", MFD_CLOEXEC), whole = memfd_create("whole", MFD_CLOEXEC);
	struct message_answer answer;
	struct raw raw;
	int pipe_fds[2], bad[6];

	if (raw_attach(rig_name, &raw) < 0 || pipe(pipe_fds) < 0 || ftruncate(sparse, 65536) < 0 ||
	    ftruncate(whole, 65536) < 0 || posix_fallocate(whole, 0, 65536) != 0)
		return 1;
	bad[0] = sparse;
	bad[1] = pipe_fds[0];
	bad[2] = open("/", O_RDONLY | O_DIRECTORY);
	bad[3] = open("/dev/zero", O_RDWR);
	bad[4] = raw.fds[1];	/* the channel is the broker's own */
	bad[5] = raw.fds[0];	/* so is the control page */
	for (int i = 0; i < 6; i++) {
		if (raw_ask(&raw, &message.header, sizeof(message), &bad[i], 1, &answer) < 0)
			return 10 + i;
		if (answer.status == STOKER_STATUS_OK || answer.reason[0] == '\0')
			return 20 + i;
	}
	message.ranges[0].bytes = 65536 + 4096;			/* beyond its end */
	if (raw_ask(&raw, &message.header, sizeof(message), &whole, 1, &answer) < 0 || answer.status == 0)
		return 30;
	message.ranges[0].offset = (uint64_t)-4096;		/* the sum wraps */
	message.ranges[0].bytes = 8192;
	if (raw_ask(&raw, &message.header, sizeof(message), &whole, 1, &answer) < 0 || answer.status == 0)
		return 31;
	message.ranges[0].offset = 0;
	message.ranges[0].bytes = 65536;
	if (raw_ask(&raw, &message.header, sizeof(message), &whole, 1, &answer) < 0 || answer.status != 0)
		return 32;					/* and a good one is taken */
	return 0;
}

START_TEST(a_descriptor_that_is_no_region_is_refused_with_a_reason)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, offer_bad_regions), 0);
	rig_honest_is_served();
}
END_TEST

static int ask_to_stop(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 }, .abi = STOKER_ABI,
		.flags = MESSAGE_HELLO_ADMIN,
	};
	struct message_admin stop = { .header.type = MESSAGE_ADMIN, .verb = ADMIN_VERB_STOP };
	struct message_answer answer;
	struct raw raw = { .socket = raw_connect(rig_name), .next_request = 2 };

	if (raw.socket < 0 || raw_send(raw.socket, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	if (raw_receive(raw.socket, &raw.welcome, sizeof(raw.welcome), NULL, NULL) <= 0)
		return 0;	/* not even let in */
	if (raw.welcome.status != STOKER_STATUS_OK)
		return 0;
	if (raw_ask(&raw, &stop.header, sizeof(stop), NULL, 0, &answer) < 0)
		return 0;
	return answer.status == STOKER_STATUS_NOT_PERMITTED ? 0 : 2;
}

static int attach_as_a_stranger(void)
{
	struct raw raw;
	const int r = raw_attach(rig_name, &raw);

	return r == -EACCES && raw.welcome.reason[0] ? 0 : 1;
}

START_TEST(who_may_not_is_told_so)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, ask_to_stop), 0);
	ck_assert_int_eq(rig_run_as(STRANGER_UID, attach_as_a_stranger), 0);
	rig_honest_is_served();
}
END_TEST

/* Connections that say nothing, as many as can be had, and clients beyond the limit of their uid. */
static int take_every_seat(void)
{
	static struct raw raws[64];
	int let_in = 0;

	for (int i = 0; i < 100; i++)
		raw_connect(rig_name);
	for (int i = 0; i < 40; i++)
		let_in += raw_attach(rig_name, &raws[i]) == 0;
	return let_in <= 20 ? 0 : 1;
}

START_TEST(nobody_can_take_every_seat)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, take_every_seat), 0);
	rig_honest_is_served();
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_CLIENTS, 1), "seats are still taken by the dead");
}
END_TEST

/* The other tenant's arena, table and locks cannot be opened, and its control page not written. */
static int look_where_nothing_is_to_be_seen(void)
{
	char object[96], path[160];

	for (const char *const *end = (const char *const[]){ ".arena", ".table", NULL }; *end; end++) {
		snprintf(object, sizeof(object), "%s%s", rig_name, *end);
		if (shm_open(object, O_RDONLY, 0) >= 0)
			return 1;
	}
	if (shm_open(rig_name, O_RDWR, 0) >= 0)
		return 2;
	snprintf(path, sizeof(path), "%s/run/private", rig_directory);
	if (open(path, O_RDONLY | O_DIRECTORY) >= 0)
		return 3;
	return 0;
}

static int reopen_what_was_given(void)
{
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	if (raw.welcome.flags & MESSAGE_WELCOME_ARENA)
		return 2;	/* two tenants, neither trusted: the arena is given to nobody */
	for (uint32_t i = 0; i < raw.n_fds; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", raw.fds[i]);
		if (i == 0 && open(path, O_RDWR) >= 0)
			return 3;	/* the control page, for writing */
	}
	if (ftruncate(raw.fds[1], 4096) == 0)
		return 4;
	return 0;
}

START_TEST(what_is_not_given_cannot_be_had)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, look_where_nothing_is_to_be_seen), 0);
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, reopen_what_was_given), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- another tenant's ------------------------------------------------------------------------------- */

static struct rig_loan stolen;

/* A right token in a wrong tenant's hands: RETRIEVE, MAP, renewal and RELEASE find no such lease. */
static int use_a_stolen_lease(void)
{
	static const uint8_t ops[] = { STOKER_OP_RETRIEVE, STOKER_OP_MAP, STOKER_OP_LOOKUP };
	struct raw raw;
	int model;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	/* The very same description: in another tenant it is another model. */
	model = raw_model(&raw, "honest", 8192);
	for (uint32_t i = 0; i < sizeof(ops); i++) {
		struct stoker_request_head head = {
			.op = ops[i], .slot = 1, .generation = i + 1, .model = (uint32_t)model,
			.lease = { stolen.lease[0], stolen.lease[1] },
			.flags = ops[i] == STOKER_OP_LOOKUP ? STOKER_F_RENEW : 0,
		};
		int status;

		memset(&raw_slot(&raw, 1)->request, 0, sizeof(union stoker_request_line));
		raw_submit(&raw, &head);
		status = raw_await(&raw, 1, i + 1);
		if (status == STOKER_STATUS_OK || status < 0)
			return 2 + (int)i;
	}
	raw_submit(&raw, &(struct stoker_request_head){ .op = STOKER_OP_RELEASE, .slot = 1, .generation = 9,
							.lease = { stolen.lease[0], stolen.lease[1] } });
	return raw_await(&raw, 1, 9) < 0 ? 9 : 0;
}

/* What the other tenant stored under these keys is no hit here, nor is its layout told, nor can it be reset. */
static int use_another_tenants_model(void)
{
	struct message_model_open open = { .header.type = MESSAGE_MODEL_OPEN, .flags = MESSAGE_MODEL_BY_DIGEST };
	struct message_reset reset = { .header.type = MESSAGE_RESET };
	struct message_answer answer;
	struct raw raw;

	memcpy(open.digest, stolen.digest, sizeof(open.digest));
	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	if (raw_ask(&raw, &open.header, sizeof(open), NULL, 0, &answer) < 0 || answer.status != 0 || answer.layout_known)
		return 2;
	reset.model = answer.number;
	if (raw_ask(&raw, &reset.header, sizeof(reset), NULL, 0, &answer) < 0 || answer.status == 0)
		return 3;
	for (reset.model = 0; reset.model < 70; reset.model++)
		if (raw_ask(&raw, &reset.header, sizeof(reset), NULL, 0, &answer) < 0 || answer.status == 0)
			return 4;
	const int model = raw_model(&raw, "honest", 8192);
	struct stoker_request_head head = { .op = STOKER_OP_LOOKUP, .slot = 1, .generation = 1, .n_keys = 1,
					    .model = (uint32_t)model };
	uint8_t *key = raw_input(&raw, 1);

	key[0] = 1;
	key[31] = 1;
	raw_submit(&raw, &head);
	return raw_await(&raw, 1, 1) == 0 && atomic_load(&raw_slot(&raw, 1)->broker.n) == 0 ? 0 : 5;
}

START_TEST(leases_and_models_of_another_tenant_are_worth_nothing)
{
	stolen = rig_honest_lends();
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, use_a_stolen_lease), 0);
	ck_assert(rig_gauge_becomes(STOKER_GAUGE_LEASES, 1));	/* it lives on */
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, use_another_tenants_model), 0);
	rig_honest_is_served();
}
END_TEST

/* As many rows as there can be, with the largest numbers, and some that overflow if added or multiplied. */
static int describe_the_largest_models(void)
{
	static struct {
		struct message_model_open open;
		struct model_wire wire;
		struct model_wire_group group;
		struct model_wire_row rows[MODEL_ROWS_MAX];
	} message;
	const uint32_t bytes[] = { 0xffffffff, 0x80000000, 1, 0 }, blocks[] = { 0xffffffff, 0x10000, 1, 0 };
	struct message_answer answer;
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	message.open.header.type = MESSAGE_MODEL_OPEN;
	message.wire.n_groups = 1;
	message.wire.n_rows = MODEL_ROWS_MAX;
	message.open.description_bytes = sizeof(message.wire) + sizeof(message.group) + sizeof(message.rows);
	for (uint32_t i = 0; i < 4; i++) {
		message.wire.chunk_tokens = blocks[i];
		message.group = (struct model_wire_group){ .kind = MODEL_GROUP_FULL, .block_tokens = 1, .blocks = blocks[i] };
		for (uint32_t k = 0; k < MODEL_ROWS_MAX; k++)
			message.rows[k] = (struct model_wire_row){ .shard = (uint16_t)(k / 1024), .layer = (uint16_t)(k % 1024),
								   .bytes = bytes[i] };
		if (raw_ask(&raw, &message.open.header, sizeof(message.open) + message.open.description_bytes, NULL, 0,
			    &answer) < 0)
			return 10 + (int)i;
		if (answer.status == STOKER_STATUS_OK && i != 2)
			return 20 + (int)i;
	}
	return 0;
}

START_TEST(the_largest_descriptions_are_read_or_refused)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, describe_the_largest_models), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- death ---------------------------------------------------------------------------------------- */

static int work_until_killed(void)
{
	struct rng random = { (uint64_t)getpid() };
	struct raw raw;
	uint32_t generation[64] = { 0 };

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	raw_model(&raw, "dying", 4096);
	for (;;) {
		const uint32_t slot = (uint32_t)(rng_next(&random) % raw.plan.geometry.slots_small);
		struct stoker_request_head head = { .op = STOKER_OP_LOOKUP, .slot = (uint16_t)slot, .n_keys = 4,
						    .flags = STOKER_F_PREFETCH | STOKER_F_PARTIAL };

		if (generation[slot] && raw_await(&raw, slot, generation[slot]) < 0)
			return 2;
		memset(&raw_slot(&raw, slot)->request, 0, 64);
		head.generation = ++generation[slot];
		raw_submit(&raw, &head);
	}
}

START_TEST(clients_killed_at_any_instant_leave_nothing)
{
	struct rng random = { 99 };

	for (int i = 0; i < 60; i++) {
		const pid_t pid = fork();
		int status;

		if (pid == 0) {
			rig_become(HOSTILE_UID);
			_exit(work_until_killed());
		}
		nanosleep(&(struct timespec){ .tv_nsec = (long)(rng_next(&random) % 20000000) }, NULL);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_CLIENTS, 1), "killed clients are still there");
	ck_assert_msg(rig_gauge_becomes(STOKER_GAUGE_JOBS, 0), "jobs of killed clients are still there");
	rig_honest_is_served();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hostile");
	TCase *all = tcase_create("three uids");

	if (geteuid() != 0) {
		printf("1..0 # SKIP broker, honest and hostile client need three uids, and only root can become them\n");
		return 0;
	}
	tcase_add_checked_fixture(all, rig_setup, rig_teardown);
	tcase_set_timeout(all, 120);
	tcase_add_loop_test(all, an_impossible_entry_costs_its_sender_the_attachment_and_nobody_else_anything, 0,
			    (int)(sizeof(impossible) / sizeof(impossible[0])));
	tcase_add_test(all, a_sequence_that_only_a_peer_can_have_invented_is_noticed);
	tcase_add_test(all, a_submit_on_a_slot_whose_job_lives_detaches);
	tcase_add_test(all, garbage_in_a_channel_harms_nobody);
	tcase_add_test(all, impossible_messages_detach_and_another_abi_is_told_both_versions);
	tcase_add_test(all, a_descriptor_that_is_no_region_is_refused_with_a_reason);
	tcase_add_test(all, who_may_not_is_told_so);
	tcase_add_test(all, nobody_can_take_every_seat);
	tcase_add_test(all, what_is_not_given_cannot_be_had);
	tcase_add_test(all, leases_and_models_of_another_tenant_are_worth_nothing);
	tcase_add_test(all, the_largest_descriptions_are_read_or_refused);
	tcase_add_test(all, clients_killed_at_any_instant_leave_nothing);
	suite_add_tcase(suite, all);
	return suite_run(suite);
}
