/*
 * stokerd from outside: what it prints and how it exits, who is told what on the socket, models,
 * regions and pools, resets, verbs, deaths, and what it does while a dead broker's I/O is landing.
 * What hostile clients get is in test-hostile.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/raw-client.h"
#include "tests/suite.h"

#define ARGUMENTS 24

static char name[64], directory[64], stokerd[512];
static pid_t broker;
static const struct control_page *page;

/* ---- a broker of the test's own ------------------------------------------------------------------ */

static void setup(void)
{
	const char *build = getenv("top_builddir") ? getenv("top_builddir") : ".";

	snprintf(stokerd, sizeof(stokerd), "%s/stokerd", build);
	snprintf(name, sizeof(name), "/stoker-control-%d", (int)getpid());
	strcpy(directory, "/tmp/stoker-control-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	broker = 0;
	page = NULL;
}

static void clean_up(void)
{
	char command[128];

	for (const char *const *end = (const char *const[]){ "", ".arena", ".table", NULL }; *end; end++) {
		char object[96];

		snprintf(object, sizeof(object), "%s%s", name, *end);
		shm_unlink(object);
	}
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

/* Run stokerd with these settings besides the test's own; its stdout is the pipe's end returned. */
static int spawn(const char *const *more)
{
	char runtime[128], state[128], own_name[96];
	char *arguments[ARGUMENTS] = { stokerd, own_name, runtime, state, (char *)"--memory=8M",
				       (char *)"--set=arena.extent=1M", (char *)"--log-level=error" };
	uint32_t n = 7;
	int out[2];

	snprintf(own_name, sizeof(own_name), "--name=%s", name);
	snprintf(runtime, sizeof(runtime), "--set=broker.runtime_directory=%s/run", directory);
	snprintf(state, sizeof(state), "--set=broker.state_directory=%s/state", directory);
	while (more && *more && n < ARGUMENTS - 1)
		arguments[n++] = (char *)(uintptr_t)*more++;
	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	broker = fork();
	ck_assert_int_ge(broker, 0);
	if (broker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);	/* a test that fails leaves no broker behind */
		dup2(out[1], STDOUT_FILENO);
		execv(stokerd, arguments);
		_exit(127);
	}
	close(out[1]);
	return out[0];
}

/* All that it prints until it closes stdout or has said "ready". */
static void read_output(int out, char *ret, size_t bytes)
{
	size_t n = 0;
	ssize_t got;

	while (n < bytes - 1 && (got = read(out, ret + n, bytes - 1 - n)) > 0) {
		n += (size_t)got;
		ret[n] = '\0';
		if (strchr(ret, '\n'))
			break;
	}
	ret[n] = '\0';
	close(out);
}

static int ending(void)
{
	int status;

	ck_assert_int_eq(waitpid(broker, &status, 0), broker);
	broker = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void start(const char *const *more)
{
	char line[128], expected[96];

	read_output(spawn(more), line, sizeof(line));
	snprintf(expected, sizeof(expected), "ready %s\n", name);
	ck_assert_str_eq(line, expected);
	ck_assert_int_eq(control_map(name, &page), 0);
}

static void stop(void)
{
	ck_assert_int_eq(kill(broker, SIGTERM), 0);
	ck_assert_int_eq(ending(), 0);
	control_unmap(page);
}

static void teardown(void)
{
	if (broker > 0) {
		kill(broker, SIGKILL);
		waitpid(broker, NULL, 0);
	}
	clean_up();
}

/* Until @what holds, looked at every millisecond; a test that waits in vain says for what. */
#define await(what) \
	do { \
		int left_ = 10000; \
		while (!(what) && left_-- > 0) \
			usleep(1000); \
		ck_assert_msg(left_ > 0, "waited in vain for: %s", #what); \
	} while (0)

static uint32_t state(void)
{
	return atomic_load(&page->state);
}

static struct raw attach(void)
{
	struct raw raw;

	ck_assert_int_eq(raw_attach(name, &raw), 0);
	return raw;
}

static enum stoker_status ask(struct raw *raw, void *message, uint32_t type, size_t bytes, struct message_answer *ret)
{
	struct message_header *header = message;
	static struct message_answer unused;

	header->type = type;
	ret = ret ? ret : &unused;
	ck_assert_int_eq(raw_ask(raw, header, bytes, NULL, 0, ret), 0);
	return ret->status;
}

static int ping(struct raw *raw)
{
	static uint32_t generation;
	const struct stoker_request_head head = { .op = STOKER_OP_PING, .slot = 1, .generation = ++generation };

	raw_submit(raw, &head);
	return raw_await(raw, 1, head.generation);
}

/* ---- how it begins and ends ---------------------------------------------------------------------- */

START_TEST(it_says_ready_alone_and_ends_with_0_leaving_the_arena_alone)
{
	char path[192];
	struct stat is;

	start(NULL);
	snprintf(path, sizeof(path), "%s", page->socket);
	ck_assert_int_eq(lstat(path, &is), 0);
	await(state() == STOKER_STATE_SERVING);
	stop();
	ck_assert_int_lt(lstat(path, &is), 0);
	ck_assert_int_eq(control_map(name, &page), -ENOENT);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", name);
	ck_assert_int_eq(lstat(path, &is), 0);
	ck_assert_uint_eq(is.st_mode & 0777, 0600);
}
END_TEST

START_TEST(a_name_in_use_is_exit_3_and_harms_nobody)
{
	char line[128];

	start(NULL);
	const pid_t first = broker;
	read_output(spawn(NULL), line, sizeof(line));
	ck_assert_str_eq(line, "");
	ck_assert_int_eq(ending(), 3);
	broker = first;
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	stop();
}
END_TEST

START_TEST(bad_options_and_sizes_are_exit_2)
{
	static const char *const bad[] = { "--bogus", "extra", "--memory=0", "--memory=900T", "--memory=x", "--name=a",
					   "--name=/a/b", "--tier=/tmp", "--tier=/tmp:0", "--set=arena.size", "--log-level=x",
					   "--config=/nonexistent", "--set=arena.extent=5000" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char line[128];

		read_output(spawn((const char *const[]){ bad[i], NULL }), line, sizeof(line));
		ck_assert_str_eq(line, "");
		ck_assert_msg(ending() == 2, "%s", bad[i]);
	}
}
END_TEST

START_TEST(a_directory_that_cannot_be_had_is_exit_1)
{
	char line[128];

	read_output(spawn((const char *const[]){ "--set=broker.runtime_directory=/proc/stoker", NULL }), line, sizeof(line));
	ck_assert_int_eq(ending(), 1);
}
END_TEST

START_TEST(a_checked_configuration_is_printed_and_nothing_is_started)
{
	char line[64];

	read_output(spawn((const char *const[]){ "--check-config", NULL }), line, sizeof(line));
	ck_assert_ptr_eq(strstr(line, "[broker]\n"), line);
	ck_assert_int_eq(ending(), 0);
	ck_assert_int_eq(control_map(name, &page), -ENOENT);
}
END_TEST

START_TEST(the_service_manager_is_told)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[32] = "";

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	start(NULL);
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "READY=1");
	stop();
}
END_TEST

START_TEST(a_killed_broker_is_followed_by_one_that_tells_its_readers)
{
	const struct control_page *old;

	start(NULL);
	old = page;
	kill(broker, SIGKILL);
	ck_assert_int_eq(ending(), 128 + SIGKILL);
	ck_assert_uint_eq(atomic_load(&old->dead), 0);
	start(NULL);
	ck_assert_uint_eq(atomic_load(&old->dead), 1);
	ck_assert_mem_ne(old->boot_id, page->boot_id, sizeof(page->boot_id));
	stop();
}
END_TEST

/* ---- starting while the I/O of a dead broker lands ------------------------------------------------ */

static int hold_io_lock(void)
{
	char path[192];
	int fd;

	snprintf(path, sizeof(path), "%s/run/private%s.io", directory, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

START_TEST(clients_attach_while_old_io_is_waited_for_and_models_when_it_is_over)
{
	start(NULL);
	stop();
	const int lock = hold_io_lock();
	start(NULL);
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	ck_assert_uint_eq(state(), STOKER_STATE_STARTING);
	close(lock);
	ck_assert_int_ge(raw_model(&raw, "later", 4096), 0);
	await(state() == STOKER_STATE_SERVING);
	raw_close(&raw);
	stop();
}
END_TEST

START_TEST(old_io_that_never_ends_means_a_fresh_arena_and_a_broker_that_says_so)
{
	char path[160];
	struct stat before, after;

	start(NULL);
	await(state() == STOKER_STATE_SERVING);
	stop();
	snprintf(path, sizeof(path), "/dev/shm%s.arena", name);
	ck_assert_int_eq(stat(path, &before), 0);
	const int lock = hold_io_lock();
	start(NULL);
	await(state() == STOKER_STATE_DEGRADED);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_uint_ne(before.st_ino, after.st_ino);
	close(lock);
	stop();
}
END_TEST

/* ---- models --------------------------------------------------------------------------------------- */

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

	start(NULL);
	struct raw worker = attach(), scheduler = attach();
	/* Learn the digest from a broker that knows the model, then begin anew with one that does not. */
	ck_assert_int_ge(raw_model(&worker, "model", 4096), 0);
	ck_assert(control_read_model(page, 0, &row));
	message = by_digest(&row);
	raw_close(&worker);
	raw_close(&scheduler);
	stop();
	clean_up();
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	start(NULL);
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
	stop();
}
END_TEST

START_TEST(many_workers_that_open_one_model_at_once_get_one_number)
{
	struct raw raw[8];
	pid_t child[8];

	start(NULL);
	raw[0] = attach();
	for (int i = 0; i < 8; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			struct raw own;

			_exit(raw_attach(name, &own) == 0 && raw_model(&own, "same", 8192) == 0 ? 0 : 1);
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
	stop();
}
END_TEST

START_TEST(digests_that_nobody_describes_cannot_keep_models_out)
{
	struct message_model_open message = { .flags = MESSAGE_MODEL_BY_DIGEST };
	struct message_answer answer;
	uint32_t taken = 0;

	start(NULL);
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
	await(control_counter(page, STOKER_COUNTER_CLIENTS_GONE) == 1);
	ck_assert_int_eq(ask(&worker, &message, MESSAGE_MODEL_OPEN, sizeof(message), &answer), STOKER_STATUS_OK);
	raw_close(&worker);
	stop();
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

	start(NULL);
	struct raw raw = attach();
	memset(&message, 0, sizeof(message));
	message.open.description_bytes = sizeof(message.wire) + sizeof(message.group) + sizeof(message.row);
	const size_t bytes = sizeof(message.open) + message.open.description_bytes;
	strcpy(message.wire.name, "large");
	message.wire.chunk_tokens = 256;
	message.wire.n_groups = message.wire.n_rows = 1;
	message.group = (struct model_wire_group){ .block_tokens = 16, .blocks = 16 };
	message.row.bytes = 1 << 20;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, bytes, &answer), STOKER_STATUS_REFUSED);
	ck_assert_ptr_nonnull(strstr(answer.reason, "the longest chunk that fits is 16 tokens"));
	message.wire.chunk_tokens = 16;
	message.group.blocks = 1;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_MODEL_OPEN, bytes, &answer), STOKER_STATUS_OK);
	raw_close(&raw);
	stop();
}
END_TEST

START_TEST(a_reset_raises_the_epoch_and_a_restart_remembers_it)
{
	struct message_reset message = { 0 };
	struct message_answer answer;
	struct control_model row;

	start(NULL);
	struct raw raw = attach();
	message.model = (uint32_t)raw_model(&raw, "model", 4096);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.value, 1);
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_OK);
	ck_assert_uint_eq(answer.value, 2);
	message.model = 5;
	ck_assert_int_eq(ask(&raw, &message, MESSAGE_RESET, sizeof(message), &answer), STOKER_STATUS_BAD_REQUEST);
	raw_close(&raw);
	kill(broker, SIGKILL);
	ending();
	start(NULL);
	await(state() == STOKER_STATE_SERVING);
	ck_assert(control_read_model(page, 0, &row));
	ck_assert_uint_eq(row.epoch, 2);
	stop();
}
END_TEST

/* ---- regions and pools ---------------------------------------------------------------------------- */

static int memory_of(size_t bytes)
{
	const int fd = memfd_create("region", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)bytes), 0);
	return fd;
}

static uint32_t region_add(struct raw *raw, size_t bytes)
{
	struct message_region_add message = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST, .n_fds = 1 };
	const int fd = memory_of(bytes);
	struct message_answer answer;

	message.ranges[0].bytes = bytes;
	ck_assert_int_eq(raw_ask(raw, &message.header, sizeof(message), &fd, 1, &answer), 0);
	ck_assert_msg(answer.status == STOKER_STATUS_OK, "%s", answer.reason);
	ck_assert_uint_eq(answer.value, bytes);
	close(fd);
	return answer.number;
}

static enum stoker_status pool_add(struct raw *raw, uint32_t model, uint32_t region, struct message_answer *ret)
{
	struct {
		struct message_pool_add add;
		struct message_plane plane;
	} message = { .add = { .model = model, .n_blocks = 8, .n_planes = 1 },
		      .plane = { .region = region, .block_stride = 4096, .bytes = 4096, .rows = 1 } };

	return ask(raw, &message, MESSAGE_POOL_ADD, sizeof(message), ret);
}

static enum stoker_status drop(struct raw *raw, uint32_t type, uint32_t number)
{
	struct message_drop message = { .number = number };

	return ask(raw, &message, type, sizeof(message), NULL);
}

START_TEST(pools_and_regions_are_dropped_in_order_and_once)
{
	struct message_answer answer;

	start(NULL);
	struct raw raw = attach();
	const uint32_t model = (uint32_t)raw_model(&raw, "model", 4096);
	const uint32_t region = region_add(&raw, 65536);
	ck_assert_int_eq(pool_add(&raw, model, region, &answer), STOKER_STATUS_OK);
	const uint32_t pool = answer.number;
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_REFUSED);
	ck_assert_int_eq(drop(&raw, MESSAGE_POOL_DROP, pool), STOKER_STATUS_OK);
	ck_assert_int_eq(drop(&raw, MESSAGE_POOL_DROP, pool), STOKER_STATUS_NOT_FOUND);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_OK);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_NOT_FOUND);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, 4000000000u), STOKER_STATUS_NOT_FOUND);
	raw_close(&raw);
	stop();
}
END_TEST

START_TEST(a_pool_that_does_not_fit_is_refused_with_a_reason)
{
	struct message_answer answer;

	start(NULL);
	struct raw raw = attach();
	const uint32_t model = (uint32_t)raw_model(&raw, "model", 4096);
	const uint32_t small = region_add(&raw, 4096);
	ck_assert_int_ne(pool_add(&raw, model, small, &answer), STOKER_STATUS_OK);
	ck_assert(answer.reason[0] != '\0');
	ck_assert_int_ne(pool_add(&raw, model, 17, &answer), STOKER_STATUS_OK);
	ck_assert_int_ne(pool_add(&raw, 3, small, &answer), STOKER_STATUS_OK);
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	stop();
}
END_TEST

/* ---- deaths, verbs, reload ------------------------------------------------------------------------ */

static int descriptors_of(pid_t pid)
{
	char path[64];
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *list = opendir(path);
	ck_assert_ptr_nonnull(list);
	while (readdir(list))
		n++;
	closedir(list);
	return n;
}

START_TEST(clients_that_are_killed_leave_no_descriptor_and_no_seat)
{
	start(NULL);
	await(state() == STOKER_STATE_SERVING);
	const int before = descriptors_of(broker);
	for (uint64_t i = 1; i <= 20; i++) {
		const pid_t child = fork();

		if (child == 0) {
			struct raw raw;

			if (raw_attach(name, &raw) < 0)
				_exit(1);
			const uint32_t region = region_add(&raw, 65536);
			pool_add(&raw, (uint32_t)raw_model(&raw, "model", 4096), region, NULL);
			raise(SIGKILL);
		}
		waitpid(child, NULL, 0);
		await(control_counter(page, STOKER_COUNTER_CLIENTS_GONE) == i);
	}
	await(descriptors_of(broker) == before);
	await(atomic_load(&page->gauges[STOKER_GAUGE_CLIENTS]) == 0);
	await(atomic_load(&page->gauges[STOKER_GAUGE_POOLS]) == 0);
	stop();
}
END_TEST

START_TEST(the_verbs_are_answered_and_stop_ends_with_0)
{
	struct message_hello hello = { .header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello) }, .abi = STOKER_ABI,
				       .flags = MESSAGE_HELLO_ADMIN };
	struct message_admin verb = { .verb = ADMIN_VERB_PING };
	struct raw raw = { .next_request = 1 };

	start(NULL);
	await(state() == STOKER_STATE_SERVING);
	raw.socket = raw_connect(name);
	ck_assert_int_ge(raw.socket, 0);
	ck_assert_int_eq(raw_send(raw.socket, &hello, sizeof(hello), NULL, 0), 0);
	ck_assert_int_eq(raw_receive(raw.socket, &raw.welcome, sizeof(raw.welcome), raw.fds, &raw.n_fds),
			 sizeof(raw.welcome));
	ck_assert_uint_eq(raw.welcome.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(raw.n_fds, 0);
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_OK);
	verb.verb = ADMIN_VERB_CLEAR;
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_OK);
	verb.verb = 99;
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_BAD_REQUEST);
	verb.verb = ADMIN_VERB_DRAIN;
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_OK);
	ck_assert_uint_eq(state(), STOKER_STATE_DRAINING);
	verb.verb = ADMIN_VERB_STOP;
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_OK);
	ck_assert_int_eq(ending(), 0);
	close(raw.socket);
	control_unmap(page);
}
END_TEST

START_TEST(attached_clients_learn_of_the_end_by_page_socket_and_fence)
{
	char byte;

	start(NULL);
	struct raw raw = attach();
	kill(broker, SIGTERM);
	ck_assert(raw_is_expelled(&raw));
	ck_assert_uint_eq(atomic_load(&page->dead), 1);
	ck_assert_int_eq(ending(), 0);
	ck_assert_int_eq(read(raw.fds[4], &byte, 1), 0);
	raw_close(&raw);
	control_unmap(page);
}
END_TEST

static void write_config(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	ck_assert_int_eq(fclose(file), 0);
}

START_TEST(hup_takes_over_who_may_attach)
{
	char path[128], option[160], own[64];
	struct raw raw;

	snprintf(path, sizeof(path), "%s/stoker.conf", directory);
	snprintf(option, sizeof(option), "--config=%s", path);
	snprintf(own, sizeof(own), "[tenant a]\nuids = %u\n", (unsigned)geteuid());
	write_config(path, "[tenant a]\nuids = 4000000\n");
	start((const char *const[]){ option, NULL });
	ck_assert_int_eq(raw_attach(name, &raw), -EACCES);
	ck_assert_uint_eq(raw.welcome.status, STOKER_STATUS_NOT_PERMITTED);
	ck_assert_ptr_nonnull(strstr(raw.welcome.reason, "tenant.uids"));
	raw_close(&raw);
	write_config(path, own);
	kill(broker, SIGHUP);
	await(raw_attach(name, &raw) == 0 || (raw_close(&raw), false));
	raw_close(&raw);
	/* What is wrong is not taken over at all. */
	write_config(path, "[tenant a]\nuids = 4000000\n[arena]\nsize = nonsense\n");
	kill(broker, SIGHUP);
	usleep(50000);
	raw = attach();
	raw_close(&raw);
	stop();
}
END_TEST

START_TEST(a_foreign_file_in_a_tiers_directory_is_left_alone_and_the_broker_serves_without_it)
{
	char path[128], file[192], option[200], text[32] = "";
	struct control_tier row;

	snprintf(path, sizeof(path), "%s/tier", directory);
	snprintf(file, sizeof(file), "%s/stoker-tier", path);
	snprintf(option, sizeof(option), "--tier=%s:8M", path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	write_config(file, "somebody's thesis");
	start((const char *const[]){ option, NULL });
	await(state() == STOKER_STATE_DEGRADED);
	await(control_read_tier(page, 0, &row) && row.state == STOKER_TIER_FAILED);
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	stop();
	FILE *is = fopen(file, "r");
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), is));
	fclose(is);
	ck_assert_str_eq(text, "somebody's thesis");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-control");
	TCase *tests = tcase_create("control");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, it_says_ready_alone_and_ends_with_0_leaving_the_arena_alone);
	tcase_add_test(tests, a_name_in_use_is_exit_3_and_harms_nobody);
	tcase_add_test(tests, bad_options_and_sizes_are_exit_2);
	tcase_add_test(tests, a_directory_that_cannot_be_had_is_exit_1);
	tcase_add_test(tests, a_checked_configuration_is_printed_and_nothing_is_started);
	tcase_add_test(tests, the_service_manager_is_told);
	tcase_add_test(tests, a_killed_broker_is_followed_by_one_that_tells_its_readers);
	tcase_add_test(tests, clients_attach_while_old_io_is_waited_for_and_models_when_it_is_over);
	tcase_add_test(tests, old_io_that_never_ends_means_a_fresh_arena_and_a_broker_that_says_so);
	tcase_add_test(tests, a_model_known_by_digest_alone_has_a_layout_when_a_worker_has_described_it);
	tcase_add_test(tests, many_workers_that_open_one_model_at_once_get_one_number);
	tcase_add_test(tests, digests_that_nobody_describes_cannot_keep_models_out);
	tcase_add_test(tests, an_object_that_does_not_fit_is_refused_with_the_chunk_that_would);
	tcase_add_test(tests, a_reset_raises_the_epoch_and_a_restart_remembers_it);
	tcase_add_test(tests, pools_and_regions_are_dropped_in_order_and_once);
	tcase_add_test(tests, a_pool_that_does_not_fit_is_refused_with_a_reason);
	tcase_add_test(tests, clients_that_are_killed_leave_no_descriptor_and_no_seat);
	tcase_add_test(tests, the_verbs_are_answered_and_stop_ends_with_0);
	tcase_add_test(tests, attached_clients_learn_of_the_end_by_page_socket_and_fence);
	tcase_add_test(tests, hup_takes_over_who_may_attach);
	tcase_add_test(tests, a_foreign_file_in_a_tiers_directory_is_left_alone_and_the_broker_serves_without_it);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
