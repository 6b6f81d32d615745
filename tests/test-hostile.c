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
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <stoker/stoker.h>

#include "tests/random.h"
#include "tests/raw-client.h"
#include "tests/suite.h"

enum { BROKER_UID = 64101, HONEST_UID = 64102, HOSTILE_UID = 64103, STRANGER_UID = 64104 };

static char name[64], directory[64];
static pid_t broker;

static void become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(99);
}

/* Run @child as @uid; its exit status, or 128 + signal. */
static int run_as(uid_t uid, int (*child)(void))
{
	int status;
	const pid_t pid = fork();

	if (pid == 0) {
		become(uid);
		_exit(child());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- the broker ---------------------------------------------------------------------------------- */

static void write_config(const char *path)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fprintf(file,
		"[broker]\nname = %s\nruntime_directory = %s/run\nstate_directory = %s/state\nlog_level = warning\n"
		"[arena]\nsize = 64M\nextent = 4M\n"
		"[limits]\nclients = 32\nclients_per_uid = 16\n"
		"[tenant honest]\nuids = %d\n[tenant hostile]\nuids = %d\n",
		name, directory, directory, HONEST_UID, HOSTILE_UID);
	ck_assert_int_eq(fclose(file), 0);
}

static void broker_start(void)
{
	const char *build = getenv("top_builddir") ? getenv("top_builddir") : ".";
	char path[512], config[128], line[128];
	int ready[2], binary;
	ssize_t n;

	snprintf(name, sizeof(name), "/stoker-hostile-%d", getpid());
	snprintf(directory, sizeof(directory), "/tmp/stoker-hostile-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chmod(directory, 0755), 0);
	snprintf(config, sizeof(config), "%s/stoker.conf", directory);
	write_config(config);
	ck_assert_int_eq(chown(directory, BROKER_UID, BROKER_UID), 0);
	snprintf(path, sizeof(path), "%s/stokerd", build);
	/* Opened as root: the build tree may lie where the broker's uid cannot go. */
	binary = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_msg(binary >= 0, "could not open %s", path);
	ck_assert_int_eq(pipe(ready), 0);
	broker = fork();
	ck_assert_int_ge(broker, 0);
	if (broker == 0) {
		char *arguments[] = { "stokerd", "--config", config, NULL };

		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		become(BROKER_UID);
		fexecve(binary, arguments, environ);
		_exit(127);
	}
	close(binary);
	close(ready[1]);
	n = read(ready[0], line, sizeof(line) - 1);
	ck_assert_msg(n > 6 && strncmp(line, "ready ", 6) == 0, "the broker did not say that it is ready");
	close(ready[0]);
}

static void broker_stop(void)
{
	char command[128];
	int status;

	ck_assert_msg(waitpid(broker, &status, WNOHANG) == 0, "the broker is dead");
	kill(broker, SIGTERM);
	ck_assert_int_eq(waitpid(broker, &status, 0), broker);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the broker ended with status %x", status);
	for (const char *const *end = (const char *const[]){ "", ".arena", ".table", NULL }; *end; end++) {
		char object[96];

		snprintf(object, sizeof(object), "%s%s", name, *end);
		shm_unlink(object);
	}
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static uint64_t counter(enum stoker_counter which)
{
	const struct control_page *page;
	uint64_t value;

	ck_assert_int_eq(control_map(name, &page), 0);
	value = control_counter(page, which);
	control_unmap(page);
	return value;
}

/* Of the control page, which is refreshed several times a second: wait until it has the value. */
static bool gauge_becomes(enum stoker_gauge which, uint64_t value)
{
	const struct control_page *page;
	bool is = false;

	if (control_map(name, &page) < 0)
		return false;
	for (int i = 0; i < 300 && !is; i++) {
		is = atomic_load(&page->gauges[which]) == value;
		if (!is)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	control_unmap(page);
	return is;
}

/* ---- the honest client --------------------------------------------------------------------------- */

enum { BLOCK = 8192, BLOCKS = 64, CHUNKS = 8 };

static uint8_t *honest_memory;
static struct stoker *honest;
static struct stoker_model *honest_model;
static struct stoker_pool *honest_pool;

static int honest_attach(void)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 256 };
	const struct stoker_plane_bytes row = { .bytes = BLOCK };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 256, .name = "honest", .revision = "1",
		.groups = &group, .n_groups = 1, .rows = &row, .n_rows = 1,
	};
	const struct stoker_options options = { .size = sizeof(options), .broker_uid = BROKER_UID };
	const int fd = memfd_create("honest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stoker_range range = { .fd = fd, .bytes = BLOCK * BLOCKS };
	struct stoker_plane plane = { .bytes = BLOCK, .block_stride = BLOCK };

	if (fd < 0 || ftruncate(fd, BLOCK * BLOCKS) < 0 || posix_fallocate(fd, 0, BLOCK * BLOCKS) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return 1;
	honest_memory = mmap(NULL, BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (stoker_attach(name, &options, &honest) < 0) {
		fprintf(stderr, "honest: %s\n", stoker_attach_error());
		return 2;
	}
	if (stoker_model_open(honest, &description, &honest_model) < 0 ||
	    stoker_region_add(honest, &range, 1, &plane.region) < 0 ||
	    stoker_pool_add(honest_model, 0, 0, BLOCKS, &plane, 1, &honest_pool) < 0) {
		fprintf(stderr, "honest: %s\n", stoker_error(honest));
		return 3;
	}
	return 0;
}

static int finish(struct stoker_job job, struct stoker_result *result)
{
	result->size = sizeof(*result);
	if (stoker_wait(honest, job, 10000000) < 0)
		return -1;
	return stoker_finish(honest, job, result, NULL, 0, NULL, 0);
}

/* Store CHUNKS chunks, find them, read them into other blocks, compare. 0: every byte is right. */
static int honest_round(uint32_t round)
{
	const struct stoker_retrieve_options last = { .size = sizeof(last), .flags = STOKER_RETRIEVE_END_SHARE };
	struct stoker_key keys[CHUNKS] = { 0 };
	uint32_t from[CHUNKS], to[CHUNKS];
	struct stoker_blocks blocks = { .pool = honest_pool, .chunks = CHUNKS, .ids = from };
	struct stoker_result result;
	struct stoker_job job;

	for (uint32_t i = 0; i < CHUNKS; i++) {
		memcpy(keys[i].bytes, &round, sizeof(round));
		keys[i].bytes[31] = (uint8_t)(i + 1);
		from[i] = i;
		to[i] = BLOCKS / 2 + i;
		memset(honest_memory + from[i] * BLOCK, (int)(round * 31 + i), BLOCK);
		memset(honest_memory + to[i] * BLOCK, 0xaa, BLOCK);
	}
	if (stoker_store(honest, honest_model, keys, CHUNKS, &blocks, 1, NULL, &job) < 0 ||
	    finish(job, &result) < 0 || result.status != STOKER_STATUS_OK || result.n != CHUNKS)
		return 11;
	if (stoker_lookup(honest, honest_model, keys, CHUNKS, NULL, &job) < 0 || finish(job, &result) < 0 ||
	    result.n != CHUNKS)
		return 12;
	blocks.ids = to;
	if (stoker_retrieve(honest, honest_model, &result.lease, &blocks, 1, &last, &job) < 0 ||
	    finish(job, &result) < 0 || result.n != CHUNKS)
		return 13;
	for (uint32_t i = 0; i < CHUNKS; i++)
		if (memcmp(honest_memory + from[i] * BLOCK, honest_memory + to[i] * BLOCK, BLOCK) != 0)
			return 14;
	return 0;
}

/* The honest client lives in a process of its own and makes a round for each byte that it is sent. */
static int honest_in, honest_out;
static pid_t honest_pid;

static void honest_start(void)
{
	int in[2], out[2];
	char answer = 99;

	ck_assert_int_eq(pipe(in), 0);
	ck_assert_int_eq(pipe(out), 0);
	honest_pid = fork();
	if (honest_pid == 0) {
		uint32_t round = 0;
		char byte;

		close(in[1]);
		become(HONEST_UID);
		byte = (char)honest_attach();
		while (write(out[1], &byte, 1) == 1 && read(in[0], &byte, 1) == 1)
			byte = (char)honest_round(++round);
		stoker_close(honest);
		_exit(0);
	}
	close(in[0]);
	close(out[1]);
	honest_in = in[1];
	honest_out = out[0];
	ck_assert_int_eq(read(honest_out, &answer, 1), 1);
	ck_assert_msg(answer == 0, "the honest client could not attach: %d", answer);
}

static void honest_is_served(void)
{
	char byte = 1;

	ck_assert_int_eq(write(honest_in, &byte, 1), 1);
	ck_assert_int_eq(read(honest_out, &byte, 1), 1);
	ck_assert_msg(byte == 0, "the honest client is not served any more: %d", byte);
}

static void setup(void)
{
	broker_start();
	honest_start();
	honest_is_served();
}

static void teardown(void)
{
	honest_is_served();
	close(honest_in);
	waitpid(honest_pid, NULL, 0);
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_CLIENTS, 0), "clients are left over");
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_LEASES, 0), "leases are left over");
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_POOLS, 0), "pools are left over");
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_ARENA_PINNED, 0), "something is pinned still");
	broker_stop();
}

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

	if (raw_attach(name, &raw) < 0)
		return 1;
	raw_submit(&raw, &impossible[attack_entry].head);
	return raw_is_expelled(&raw) ? 0 : 2;
}

START_TEST(an_impossible_entry_costs_its_sender_the_attachment_and_nobody_else_anything)
{
	const uint64_t before = counter(STOKER_COUNTER_CLIENTS_EXPELLED);

	attack_entry = _i;
	ck_assert_msg(run_as(HOSTILE_UID, send_impossible_entry) == 0, "%s was not answered by detaching",
		      impossible[_i].what);
	honest_is_served();
	ck_assert_uint_gt(counter(STOKER_COUNTER_CLIENTS_EXPELLED), before);
}
END_TEST

static int invent_a_sequence(void)
{
	struct stoker_request_head head = ping_head();
	struct raw raw;

	if (raw_attach(name, &raw) < 0)
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
	ck_assert_int_eq(run_as(HOSTILE_UID, invent_a_sequence), 0);
	honest_is_served();
}
END_TEST

static int submit_on_a_live_slot(void)
{
	/* A large slot: a chained lookup whose pieces never come lives on. */
	struct stoker_request_head head = { .op = STOKER_OP_LOOKUP, .slot = 16, .generation = 1, .n_keys = 1 };
	struct raw raw;
	int model;

	if (raw_attach(name, &raw) < 0)
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
	ck_assert_int_eq(run_as(HOSTILE_UID, submit_on_a_live_slot), 0);
	honest_is_served();
}
END_TEST

/* Garbage everywhere in the channel, entries with right sequences, for many attachments. */
static int write_garbage(void)
{
	struct rng random = { 20261123 };

	for (int i = 0; i < 40; i++) {
		struct raw raw;

		if (raw_attach(name, &raw) < 0)
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
	ck_assert_int_eq(run_as(HOSTILE_UID, write_garbage), 0);
	honest_is_served();
}
END_TEST

/* ---- attacks on the socket ------------------------------------------------------------------------ */

static int send_garbage_messages(void)
{
	struct rng random = { 7 };
	uint8_t message[4096];

	for (int i = 0; i < 200; i++) {
		struct message_header *header = (struct message_header *)message;
		const int fd = raw_connect(name);
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
	struct raw raw = { .socket = raw_connect(name) };
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
	const int fd = raw_connect(name);

	if (fd < 0 || raw_send(fd, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	if (raw_receive(fd, &welcome, sizeof(welcome), NULL, NULL) != (ssize_t)sizeof(welcome))
		return 2;
	return welcome.status != STOKER_STATUS_OK && strstr(welcome.reason, "42") ? 0 : 3;
}

static int hello_twice(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 }, .abi = STOKER_ABI,
		.geometry = { .slots_small = 8, .slots_large = 1, .ready_words = 1024 },
	};
	struct raw raw;

	if (raw_attach(name, &raw) < 0 || raw_send(raw.socket, &hello, sizeof(hello), NULL, 0) < 0)
		return 1;
	return raw_is_expelled(&raw) ? 0 : 2;
}

START_TEST(impossible_messages_detach_and_another_abi_is_told_both_versions)
{
	ck_assert_int_eq(run_as(HOSTILE_UID, send_garbage_messages), 0);
	ck_assert_int_eq(run_as(HOSTILE_UID, send_descriptors_where_none_are_expected), 0);
	ck_assert_int_eq(run_as(HOSTILE_UID, say_another_abi), 0);
	ck_assert_int_eq(run_as(HOSTILE_UID, hello_twice), 0);
	honest_is_served();
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

	if (raw_attach(name, &raw) < 0 || pipe(pipe_fds) < 0 || ftruncate(sparse, 65536) < 0 ||
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
	ck_assert_int_eq(run_as(HOSTILE_UID, offer_bad_regions), 0);
	honest_is_served();
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
	struct raw raw = { .socket = raw_connect(name), .next_request = 2 };

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
	const int r = raw_attach(name, &raw);

	return r == -EACCES && raw.welcome.reason[0] ? 0 : 1;
}

START_TEST(who_may_not_is_told_so)
{
	ck_assert_int_eq(run_as(HOSTILE_UID, ask_to_stop), 0);
	ck_assert_int_eq(run_as(STRANGER_UID, attach_as_a_stranger), 0);
	honest_is_served();
}
END_TEST

/* Connections that say nothing, as many as can be had, and clients beyond the limit of their uid. */
static int take_every_seat(void)
{
	static struct raw raws[64];
	int let_in = 0;

	for (int i = 0; i < 100; i++)
		raw_connect(name);
	for (int i = 0; i < 40; i++)
		let_in += raw_attach(name, &raws[i]) == 0;
	return let_in <= 16 ? 0 : 1;
}

START_TEST(nobody_can_take_every_seat)
{
	ck_assert_int_eq(run_as(HOSTILE_UID, take_every_seat), 0);
	honest_is_served();
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_CLIENTS, 1), "seats are still taken by the dead");
}
END_TEST

/* The other tenant's arena, table and locks cannot be opened, and its control page not written. */
static int look_where_nothing_is_to_be_seen(void)
{
	char object[96], path[160];

	for (const char *const *end = (const char *const[]){ ".arena", ".table", NULL }; *end; end++) {
		snprintf(object, sizeof(object), "%s%s", name, *end);
		if (shm_open(object, O_RDONLY, 0) >= 0)
			return 1;
	}
	if (shm_open(name, O_RDWR, 0) >= 0)
		return 2;
	snprintf(path, sizeof(path), "%s/run/private", directory);
	if (open(path, O_RDONLY | O_DIRECTORY) >= 0)
		return 3;
	return 0;
}

static int reopen_what_was_given(void)
{
	struct raw raw;

	if (raw_attach(name, &raw) < 0)
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
	ck_assert_int_eq(run_as(HOSTILE_UID, look_where_nothing_is_to_be_seen), 0);
	ck_assert_int_eq(run_as(HOSTILE_UID, reopen_what_was_given), 0);
	honest_is_served();
}
END_TEST

/* ---- death ---------------------------------------------------------------------------------------- */

static int work_until_killed(void)
{
	struct rng random = { (uint64_t)getpid() };
	struct raw raw;
	uint32_t generation[64] = { 0 };

	if (raw_attach(name, &raw) < 0)
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
			become(HOSTILE_UID);
			_exit(work_until_killed());
		}
		nanosleep(&(struct timespec){ .tv_nsec = (long)(rng_next(&random) % 20000000) }, NULL);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_CLIENTS, 1), "killed clients are still there");
	ck_assert_msg(gauge_becomes(STOKER_GAUGE_JOBS, 0), "jobs of killed clients are still there");
	honest_is_served();
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
	tcase_add_checked_fixture(all, setup, teardown);
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
	tcase_add_test(all, clients_killed_at_any_instant_leave_nothing);
	suite_add_tcase(suite, all);
	return suite_run(suite);
}
