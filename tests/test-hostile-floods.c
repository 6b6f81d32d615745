/*
 * Attacks on what all clients share: the control thread's time, seats, models, tables, descriptors.
 * See tests/hostile-rig.h for who is who. However many an attacker takes and whatever it hands over,
 * an honest client goes on, and an honest newcomer is let in meanwhile, not only afterwards.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <stoker/stoker.h>

#include "tests/hostile-rig.h"
#include "tests/random.h"

/* An attacker that says when it is ready, and holds what it has until it is killed. */
static int stage[2];

static pid_t besiege(int (*attack)(void))
{
	char byte = 99;
	pid_t pid;

	ck_assert_int_eq(pipe(stage), 0);
	pid = rig_start_as(HOSTILE_UID, attack);
	close(stage[1]);
	if (read(stage[0], &byte, 1) != 1)
		byte = 98;
	close(stage[0]);
	ck_assert_msg(byte == 0, "the attacker could not do what it wanted: %d", byte);
	return pid;
}

static int hold(char result)
{
	if (write(stage[1], &result, 1) != 1)
		return 1;
	for (;;)
		pause();
}

static void lift(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- descriptors whose close takes as long as a peer likes ------------------------------------------ */

/* A TCP connection with bytes that nobody takes, and an hour of lingering: close() waits for that hour. */
static int lingering_socket(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct linger linger = { .l_onoff = 1, .l_linger = 3600 };
	const int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	socklen_t bytes = sizeof(address);
	static char junk[65536];

	if (bind(server, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(server, 1) < 0 ||
	    getsockname(server, (struct sockaddr *)&address, &bytes) < 0)
		return -1;
	if (connect(client, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS)
		return -1;
	if (accept(server, NULL, NULL) < 0)
		return -1;
	while (write(client, junk, sizeof(junk)) > 0)
		;
	if (setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) < 0)
		return -1;
	return client;
}

static int hand_over_what_lingers(void)
{
	struct message_region_add message = {
		.header = { .type = MESSAGE_REGION_ADD, .bytes = sizeof(message), .request = 5 },
		.kind = MESSAGE_REGION_HOST, .n_fds = 1, .ranges[0] = { .bytes = 65536 },
	};
	const int fd = lingering_socket();
	struct raw raw;

	if (fd < 0)
		return hold(3);
	if (raw_attach(rig_name, &raw) < 0)
		return hold(1);
	if (raw_send(raw.socket, &message, sizeof(message), &fd, 1) < 0)
		return hold(2);
	close(fd);
	return hold(0);
}

/* The same in a hello, with as many as a message can carry, and in messages that are never taken. */
static int hand_over_all_that_lingers(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 }, .abi = STOKER_ABI,
	};
	const int fd = lingering_socket();
	int fds[RAW_FDS_MAX];

	if (fd < 0)
		return hold(3);
	for (int i = 0; i < RAW_FDS_MAX; i++)
		fds[i] = fd;
	for (int i = 0; i < 100; i++) {
		const int connection = raw_connect(rig_name);

		if (connection < 0)
			return hold(1);
		/* The second is still in the queue when the first has cost the connection. */
		for (int k = 0; k < 3; k++)
			raw_send(connection, &hello, i % 2 ? sizeof(hello) : 1, fds, i % 3 ? RAW_FDS_MAX : 3);
		close(connection);
	}
	close(fd);
	return hold(0);
}

START_TEST(a_descriptor_that_takes_an_hour_to_close_keeps_nobody_out)
{
	const pid_t attacker = besiege(hand_over_what_lingers);

	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
}
END_TEST

START_TEST(nor_do_hundreds_of_them_in_messages_that_nobody_takes)
{
	const uint32_t before = rig_broker_fds();
	const pid_t attacker = besiege(hand_over_all_that_lingers);

	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
	rig_newcomer_is_served();
	/* One of them may be what the closing thread waits for; none is held. */
	for (int i = 0; i < 500 && rig_broker_fds() > before; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	ck_assert_uint_le(rig_broker_fds(), before);
}
END_TEST

/* ---- seats ------------------------------------------------------------------------------------------ */

/* As many connections as there can be, that never say hello; and a new one for each that is let go. */
static int connect_and_say_nothing(void)
{
	for (int i = 0; i < 300; i++) {
		const int fd = raw_connect(rig_name);

		if (fd < 0)
			return hold(1);
	}
	return hold(0);
}

START_TEST(whoever_connects_and_says_nothing_keeps_no_other_uid_out)
{
	pid_t attackers[3];

	for (int i = 0; i < 3; i++)
		attackers[i] = besiege(connect_and_say_nothing);
	rig_newcomer_is_served();
	rig_honest_is_served();
	for (int i = 0; i < 3; i++)
		lift(attackers[i]);
}
END_TEST

/* Ask to be let in, and do not wait for the answer. */
static int say_hello_and_hang_up(void)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 },
		.abi = STOKER_ABI + 1,		/* who is turned away is counted */
	};

	for (int i = 0; i < 50; i++) {
		const int fd = raw_connect(rig_name);

		if (fd < 0 || raw_send(fd, &hello, sizeof(hello), NULL, 0) < 0)
			return 1;
		close(fd);
	}
	return 0;
}

START_TEST(for_whoever_says_hello_and_hangs_up_no_answer_is_made)
{
	const uint64_t before = rig_counter(STOKER_COUNTER_CLIENTS_REFUSED);

	rig_broker_pause(true);
	const int r = rig_run_as(HOSTILE_UID, say_hello_and_hang_up);
	rig_broker_pause(false);
	ck_assert_int_eq(r, 0);
	rig_newcomer_is_served();	/* who came behind them */
	ck_assert_uint_eq(rig_counter(STOKER_COUNTER_CLIENTS_REFUSED), before);
}
END_TEST

/* ---- models ----------------------------------------------------------------------------------------- */

static int open_every_model(void)
{
	struct message_model_open bare = { .header.type = MESSAGE_MODEL_OPEN, .flags = MESSAGE_MODEL_BY_DIGEST };
	struct message_answer answer;
	struct raw raw;
	int opened = 0;

	if (raw_attach(rig_name, &raw) < 0)
		return hold(1);
	for (int i = 0; i < 100; i++) {
		char model[32];

		snprintf(model, sizeof(model), "one of many %d", i);
		opened += raw_model(&raw, model, 4096) >= 0;
	}
	for (int i = 0; i < 100; i++) {
		bare.digest[i % 32]++;
		if (raw_ask(&raw, &bare.header, sizeof(bare), NULL, 0, &answer) < 0)
			return hold(2);
	}
	return hold(opened > 0 && opened < 64 ? 0 : 3);
}

START_TEST(a_tenant_that_opens_every_model_leaves_places_to_the_others)
{
	const pid_t attacker = besiege(open_every_model);

	rig_newcomer_is_served();	/* with a model that is new */
	rig_honest_is_served();
	lift(attacker);
}
END_TEST

/* Attacker and test take turns. */
static int go[2];

static void tell_and_await(void)
{
	char byte = 0;

	if (write(stage[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
		_exit(97);
}

static bool await_telling(void)
{
	char byte;

	return read(stage[0], &byte, 1) == 1;
}

/* A model that the engine refuses, asked for by several clients before the first answer has come. */
static int ask_at_once_for_what_is_refused(void)
{
	struct {
		struct message_model_open open;
		struct model_wire wire;
		struct model_wire_group group;
		struct model_wire_row row;
	} message = {
		.open.header.type = MESSAGE_MODEL_OPEN,
		.wire = { .name = "too large", .chunk_tokens = 256, .n_groups = 1, .n_rows = 1 },
		.group = { .kind = MODEL_GROUP_FULL, .block_tokens = 256, .blocks = 1 },
		.row.bytes = 48 << 20,
	};
	static struct raw raws[12];
	struct message_answer answer;

	message.open.description_bytes = sizeof(message.wire) + sizeof(message.group) + sizeof(message.row);
	message.open.header.bytes = (uint32_t)sizeof(message.open) + message.open.description_bytes;
	for (int i = 0; i < 12; i++)
		if (raw_attach(rig_name, &raws[i]) < 0)
			return 1;
	tell_and_await();
	for (int i = 0; i < 12; i++)
		if (raw_send(raws[i].socket, &message, message.open.header.bytes, NULL, 0) < 0)
			return 2;
	tell_and_await();
	for (int i = 0; i < 12; i++) {
		if (raw_receive(raws[i].socket, &answer, sizeof(answer), NULL, NULL) != (ssize_t)sizeof(answer))
			return 3;
		if (answer.status != STOKER_STATUS_TOO_LARGE && answer.status != STOKER_STATUS_NO_MEMORY)
			return 4;
	}
	return 0;
}

START_TEST(a_refused_model_is_refused_to_all_who_asked_meanwhile)
{
	pid_t attacker;
	int status;

	ck_assert_int_eq(pipe(stage), 0);
	ck_assert_int_eq(pipe(go), 0);
	attacker = rig_start_as(HOSTILE_UID, ask_at_once_for_what_is_refused);
	ck_assert(await_telling());
	rig_broker_pause(true);		/* it finds all of them at once */
	ck_assert_int_eq(write(go[1], "", 1), 1);
	ck_assert(await_telling());
	rig_broker_pause(false);
	ck_assert_int_eq(write(go[1], "", 1), 1);
	ck_assert_int_eq(waitpid(attacker, &status, 0), attacker);
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- tables that all share -------------------------------------------------------------------------- */

enum { BLOCK = 8192, CLIENTS = 16, POOLS = 64 };

static int small_region(struct raw *raw, uint32_t *ret)
{
	struct message_region_add add = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST, .n_fds = 1,
					  .ranges[0].bytes = BLOCK };
	struct message_answer answer;
	const int fd = memfd_create("small", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, BLOCK) < 0 || posix_fallocate(fd, 0, BLOCK) != 0 ||
	    raw_ask(raw, &add.header, sizeof(add), &fd, 1, &answer) < 0 || answer.status != 0)
		return -1;
	close(fd);
	*ret = answer.number;
	return 0;
}

static int register_every_pool(void)
{
	static struct raw raws[CLIENTS];
	int pools = 0;

	for (int i = 0; i < CLIENTS; i++) {
		struct {
			struct message_pool_add add;
			struct message_plane plane;
		} message = {
			.add = { .header.type = MESSAGE_POOL_ADD, .n_blocks = 1, .n_planes = 1 },
			.plane = { .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 },
		};
		struct message_answer answer;

		if (raw_attach(rig_name, &raws[i]) < 0)
			return hold(1);
		message.add.model = (uint32_t)raw_model(&raws[i], "pools", BLOCK);
		if (small_region(&raws[i], &message.plane.region) < 0)
			return hold(2);
		for (int k = 0; k < POOLS; k++)
			pools += raw_ask(&raws[i], &message.add.header, sizeof(message), NULL, 0, &answer) == 0 &&
				 answer.status == STOKER_STATUS_OK;
	}
	return hold(pools > 0 ? 0 : 3);
}

START_TEST(a_tenant_that_registers_every_pool_leaves_some_to_the_others)
{
	const pid_t attacker = besiege(register_every_pool);

	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
}
END_TEST

/* Attach as often as one is let in: another uid may not find all seats taken. */
static int attach_as_often_as_it_goes(void)
{
	static struct raw raws[64];
	int n = 0;

	while (n < 64 && raw_attach(rig_name, &raws[n]) == 0)
		n++;
	if (n == 64 || raws[n].welcome.status != STOKER_STATUS_REFUSED)
		return hold(1);
	return hold(strstr(raws[n].welcome.reason, "clients_per_uid") ? 0 : 2);
}

START_TEST(whoever_attaches_as_often_as_it_can_leaves_seats_to_other_uids)
{
	const pid_t attacker = besiege(attach_as_often_as_it_goes);

	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
}
END_TEST

/* Regions of 16 ranges each that anybody could shrink: every one takes a guard and a mapping. */
static int guard_as_much_as_it_goes(void)
{
	struct message_region_add add = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST,
					  .n_fds = MESSAGE_FDS_MAX };
	static struct raw raws[CLIENTS];
	const int fd = memfd_create("unsealed", MFD_CLOEXEC);
	int fds[MESSAGE_FDS_MAX], refused = 0;

	if (fd < 0 || ftruncate(fd, BLOCK) < 0 || posix_fallocate(fd, 0, BLOCK) != 0)
		return hold(1);
	for (uint32_t i = 0; i < MESSAGE_FDS_MAX; i++) {
		fds[i] = fd;
		add.ranges[i].bytes = BLOCK;
	}
	for (int i = 0; i < CLIENTS; i++) {
		if (raw_attach(rig_name, &raws[i]) < 0)
			return hold(2);
		for (int k = 0; k < 64 && refused < 64; k++) {
			struct message_answer answer;

			if (raw_ask(&raws[i], &add.header, sizeof(add), fds, MESSAGE_FDS_MAX, &answer) < 0)
				return hold(3);
			refused += answer.status == STOKER_STATUS_REFUSED;
		}
	}
	return hold(refused ? 0 : 4);
}

static int register_what_is_not_sealed(void)
{
	uint32_t region;
	struct raw raw;

	return raw_attach(rig_name, &raw) < 0 ? 1 : small_region(&raw, &region) < 0 ? 2 : 0;
}

START_TEST(whoever_has_all_guards_that_it_can_get_leaves_some_to_other_uids)
{
	const pid_t attacker = besiege(guard_as_much_as_it_goes);

	ck_assert_int_eq(rig_run_as(HONEST_UID, register_what_is_not_sealed), 0);
	ck_assert_int_eq(rig_run_as(NEIGHBOUR_UID, register_what_is_not_sealed), 0);
	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
}
END_TEST

/* Of a tenant's pools a uid leaves some to the other uids of that tenant. */
static int register_a_pool(void)
{
	struct {
		struct message_pool_add add;
		struct message_plane plane;
	} message = {
		.add = { .header.type = MESSAGE_POOL_ADD, .n_blocks = 1, .n_planes = 1 },
		.plane = { .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 },
	};
	struct message_answer answer;
	struct raw raw;

	if (raw_attach(rig_name, &raw) < 0)
		return 1;
	message.add.model = (uint32_t)raw_model(&raw, "pools", BLOCK);
	if (small_region(&raw, &message.plane.region) < 0)
		return 2;
	if (raw_ask(&raw, &message.add.header, sizeof(message), NULL, 0, &answer) < 0)
		return 3;
	return answer.status == STOKER_STATUS_OK ? 0 : 4;
}

START_TEST(a_uid_that_registers_every_pool_leaves_some_to_others_of_its_tenant)
{
	const pid_t attacker = besiege(register_every_pool);

	ck_assert_int_eq(rig_run_as(NEIGHBOUR_UID, register_a_pool), 0);
	lift(attacker);
}
END_TEST

/* ---- leases ----------------------------------------------------------------------------------------- */

static struct stoker *client;
static struct stoker_model *model;
static struct stoker_pool *pool;

static int attach_with_a_pool(void)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 256 };
	const struct stoker_plane_bytes row = { .bytes = BLOCK };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 256, .name = "leases", .revision = "1",
		.groups = &group, .n_groups = 1, .rows = &row, .n_rows = 1,
	};
	const struct stoker_options options = { .size = sizeof(options), .broker_uid = BROKER_UID };
	const int fd = memfd_create("leases", MFD_CLOEXEC);
	struct stoker_range range = { .fd = fd, .bytes = BLOCK };
	struct stoker_plane plane = { .bytes = BLOCK, .block_stride = BLOCK };

	if (fd < 0 || ftruncate(fd, BLOCK) < 0 || posix_fallocate(fd, 0, BLOCK) != 0)
		return -1;
	if (stoker_attach(rig_name, &options, &client) < 0 || stoker_model_open(client, &description, &model) < 0 ||
	    stoker_region_add(client, &range, 1, &plane.region) < 0)
		return -1;
	return stoker_pool_add(model, 0, 0, 1, &plane, 1, &pool);
}

static int result_of(struct stoker_job job, struct stoker_result *result)
{
	result->size = sizeof(*result);
	if (stoker_wait(client, job, 10000000) < 0)
		return -1;
	return stoker_finish(client, job, result, NULL, 0, NULL, 0);
}

/* Store a chunk, and look it up until there is no lease to be had, @most times: how many, or -1. */
static int leases_got(int most)
{
	const struct stoker_key key = { .bytes = { 1 } };
	const uint32_t id = 0;
	const struct stoker_blocks blocks = { .pool = pool, .chunks = 1, .ids = &id };
	struct stoker_result result;
	struct stoker_job job;
	int n = 0;

	if (stoker_store(client, model, &key, 1, &blocks, 1, NULL, &job) < 0 || result_of(job, &result) < 0 ||
	    result.status != STOKER_STATUS_OK)
		return -1;
	for (; n < most; n++) {
		if (stoker_lookup(client, model, &key, 1, NULL, &job) < 0 || result_of(job, &result) < 0)
			return -1;
		if (result.status == STOKER_STATUS_NO_MEMORY)
			return n;
		if (result.status != STOKER_STATUS_OK || result.n != 1)
			return -1;
	}
	return n;
}

/* Half of the 4,096 are its tenant's; of those it gets half, for it has to leave as many. */
static int take_every_lease(void)
{
	if (attach_with_a_pool() < 0)
		return hold(1);
	return hold(leases_got(5000) == 1024 ? 0 : 2);
}

static int take_some_leases(void)
{
	return attach_with_a_pool() < 0 ? 1 : leases_got(100) == 100 ? 0 : 2;
}

START_TEST(whoever_takes_every_lease_it_can_leaves_others_theirs)
{
	const uint64_t before = rig_counter(STOKER_COUNTER_JOBS_BOUNDED);
	const pid_t attacker = besiege(take_every_lease);

	ck_assert_uint_gt(rig_counter(STOKER_COUNTER_JOBS_BOUNDED), before);
	ck_assert_int_eq(rig_run_as(NEIGHBOUR_UID, take_some_leases), 0);
	ck_assert_int_eq(rig_run_as(HONEST_UID, take_some_leases), 0);
	rig_newcomer_is_served();
	rig_honest_is_served();
	lift(attacker);
	ck_assert(rig_gauge_becomes(STOKER_GAUGE_LEASES, 0));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hostile floods");
	TCase *all = tcase_create("three uids");

	if (geteuid() != 0) {
		printf("1..0 # SKIP broker, honest and hostile client need three uids, and only root can become them\n");
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(all, rig_setup, rig_teardown);
	tcase_set_timeout(all, 120);
	tcase_add_test(all, nor_do_hundreds_of_them_in_messages_that_nobody_takes);
	tcase_add_test(all, whoever_connects_and_says_nothing_keeps_no_other_uid_out);
	tcase_add_test(all, for_whoever_says_hello_and_hangs_up_no_answer_is_made);
	tcase_add_test(all, a_tenant_that_opens_every_model_leaves_places_to_the_others);
	tcase_add_test(all, a_refused_model_is_refused_to_all_who_asked_meanwhile);
	tcase_add_test(all, a_tenant_that_registers_every_pool_leaves_some_to_the_others);
	tcase_add_test(all, a_uid_that_registers_every_pool_leaves_some_to_others_of_its_tenant);
	tcase_add_test(all, whoever_takes_every_lease_it_can_leaves_others_theirs);
	tcase_add_test(all, whoever_attaches_as_often_as_it_can_leaves_seats_to_other_uids);
	tcase_add_test(all, whoever_has_all_guards_that_it_can_get_leaves_some_to_other_uids);
	tcase_add_test(all, a_descriptor_that_takes_an_hour_to_close_keeps_nobody_out);
	suite_add_tcase(suite, all);
	return suite_run(suite);
}
