/*
 * stokerd from outside: what it prints and how it exits, what it does while a dead broker's I/O is
 * landing, its verbs, what its end tells, and what a new configuration changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/control-rig.h"

/* ---- how it begins and ends ---------------------------------------------------------------------- */

START_TEST(it_says_ready_alone_and_ends_with_0_leaving_the_arena_alone)
{
	const struct control_page *page;
	char path[192];
	struct stat is;

	whole_launch();
	snprintf(path, sizeof(path), "%s", whole_page()->socket);
	ck_assert_int_eq(lstat(path, &is), 0);
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_int_lt(lstat(path, &is), 0);
	ck_assert_int_eq(control_map(whole.name, &page), -ENOENT);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", whole.name);
	ck_assert_int_eq(lstat(path, &is), 0);
	ck_assert_uint_eq(is.st_mode & 0777, 0600);
}
END_TEST

START_TEST(a_name_in_use_is_exit_3_and_harms_nobody)
{
	char said[128];

	whole_launch();
	const pid_t first = whole.broker;
	ck_assert_int_eq(whole_run(said, sizeof(said)), 3);
	ck_assert_str_eq(said, "");
	whole.broker = first;
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(so_it_is_where_the_other_has_another_runtime_directory)
{
	char said[128], other[200];

	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const pid_t first = whole.broker;
	snprintf(other, sizeof(other), "--set=broker.runtime_directory=%s/elsewhere", whole.directory);
	whole.options[1] = other;
	ck_assert_int_eq(whole_run(said, sizeof(said)), 3);
	ck_assert_str_eq(said, "");
	whole.broker = first;
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* A /dev/shm of @size that this process and its children alone see. */
static bool small_shm(const char *size)
{
	char option[32];

	snprintf(option, sizeof(option), "size=%s", size);
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", "/dev/shm", "tmpfs", 0, option) == 0;
}

START_TEST(an_arena_leaves_room_for_what_else_is_in_dev_shm)
{
	if (!small_shm("8M")) {
		printf("# skipped: only root can mount a /dev/shm of its own\n");
		return;
	}
	whole.memory = "64M";
	uint64_t before = 0;
	for (int life = 0; life < 2; life++) {
		whole_launch();
		whole_await_state(STOKER_STATE_DEGRADED);
		const uint64_t bytes = whole_gauge(STOKER_GAUGE_ARENA_BYTES);
		ck_assert_uint_ge(bytes, 2 << 20);
		ck_assert_uint_lt(bytes, 8 << 20);
		expect(life == 0 || bytes == before);	/* or the next one could not take it over */
		before = bytes;
		whole_await_gauge(STOKER_GAUGE_ARENA_POPULATED, bytes);	/* all of it was there to be had */
		struct raw raw = attach();
		ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
		raw_close(&raw);
		ck_assert_int_eq(whole_end(life ? SIGTERM : SIGKILL), life ? 0 : 1000 + SIGKILL);
	}
}
END_TEST

START_TEST(too_few_open_files_are_told_before_anything_is_begun)
{
	const struct rlimit limit = { 60, 60 };
	char said[128];

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(whole_run(said, sizeof(said)), 1);
	ck_assert_str_eq(said, "");
	ck_assert_uint_eq(whole_logged("60 open files are too few"), 1);
}
END_TEST

START_TEST(bad_options_and_sizes_are_exit_2)
{
	static const char *const bad[] = { "--bogus", "extra", "--memory=0", "--memory=900T", "--memory=x", "--name=a",
					   "--name=/a/b", "--tier=/tmp", "--tier=/tmp:0", "--set=arena.size", "--log-level=x",
					   "--config=/nonexistent", "--set=arena.extent=5000" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char said[128];

		whole.options[1] = bad[i];
		ck_assert_msg(whole_run(said, sizeof(said)) == 2, "%s", bad[i]);
		ck_assert_str_eq(said, "");
	}
}
END_TEST

START_TEST(a_directory_that_cannot_be_had_is_exit_1)
{
	whole.options[1] = "--set=broker.runtime_directory=/proc/stoker";
	ck_assert_int_eq(whole_try(), 1);
}
END_TEST

START_TEST(a_checked_configuration_is_printed_and_nothing_is_started)
{
	const struct control_page *page;
	char said[4096];

	whole.options[1] = "--check-config";
	ck_assert_int_eq(whole_run(said, sizeof(said)), 0);
	ck_assert_ptr_eq(strstr(said, "[broker]\n"), said);
	ck_assert_int_eq(control_map(whole.name, &page), -ENOENT);
}
END_TEST

START_TEST(the_service_manager_is_told)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[32] = "";

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", whole.directory);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	whole_launch();
	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	ck_assert_str_eq(text, "READY=1");
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_killed_broker_is_followed_by_one_that_tells_its_readers)
{
	const struct control_page *old;

	whole_launch();
	ck_assert_int_eq(control_map(whole.name, &old), 0);
	ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
	ck_assert_uint_eq(atomic_load(&old->dead), 0);
	whole_launch();
	ck_assert_uint_eq(atomic_load(&old->dead), 1);
	ck_assert_mem_ne(old->boot_id, whole_page()->boot_id, sizeof(old->boot_id));
	control_unmap(old);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- starting while the I/O of a dead broker lands ------------------------------------------------ */

static int hold_io_lock(void)
{
	char path[192];
	int fd;

	snprintf(path, sizeof(path), "%s/run/private%s.io", whole.directory, whole.name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

START_TEST(clients_attach_while_old_io_is_waited_for_and_models_when_it_is_over)
{
	whole_launch();
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	const int lock = hold_io_lock();
	whole_launch();
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	ck_assert_uint_eq(atomic_load(&whole_page()->state), STOKER_STATE_STARTING);
	close(lock);
	ck_assert_int_ge(raw_model(&raw, "later", 4096), 0);
	whole_await_state(STOKER_STATE_SERVING);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* What it asked is held back until then, but not that it has gone: that would be told again and again. */
START_TEST(a_client_that_leaves_while_old_io_is_waited_for_is_gone_at_once)
{
	whole_launch();
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	const int lock = hold_io_lock();
	whole_launch();
	struct raw raw = attach();
	struct message_drop drop = { .header = { .type = MESSAGE_POOL_DROP, .bytes = sizeof(drop), .request = 7 } };
	ck_assert_int_eq(raw_send(raw.socket, &drop, sizeof(drop), NULL, 0), 0);
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 1);
	raw_close(&raw);
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 0);
	ck_assert_uint_eq(atomic_load(&whole_page()->state), STOKER_STATE_STARTING);
	close(lock);
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(old_io_that_never_ends_means_a_fresh_arena_and_a_broker_that_says_so)
{
	char path[160];
	struct stat before, after;

	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", whole.name);
	ck_assert_int_eq(stat(path, &before), 0);
	const int lock = hold_io_lock();
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_int_eq(stat(path, &after), 0);
	ck_assert_uint_ne(before.st_ino, after.st_ino);
	close(lock);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* What the broker waits for, all its threads together. */
static uint32_t watched(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 256; fd++) {
		char path[64], line[256];

		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)whole.broker, fd);
		FILE *info = fopen(path, "re");
		while (info && fgets(line, sizeof(line), info))
			n += strncmp(line, "tfd:", 4) == 0;
		if (info)
			fclose(info);
	}
	return n;
}

/* As a process has that is being started, until it is executed. */
START_TEST(a_client_that_is_gone_is_forgotten_though_another_has_its_files_open)
{
	int copies[256], n = 0;

	whole_start();
	const uint32_t before = watched();
	struct raw raw = attach();
	ck_assert_uint_gt(watched(), before);
	const int broker = (int)syscall(SYS_pidfd_open, whole.broker, 0);
	ck_assert_int_ge(broker, 0);
	for (int fd = 3; fd < 256; fd++) {
		const int copy = (int)syscall(SYS_pidfd_getfd, broker, fd, 0);

		if (copy >= 0)
			copies[n++] = copy;
	}
	if (n == 0)
		printf("# nobody may copy a process's descriptors here (%s): its files were closed as ever\n", strerror(errno));
	raw_close(&raw);
	whole_await_gauge(STOKER_GAUGE_CLIENTS, 0);
	await(watched() == before);
	raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	while (n > 0)
		close(copies[--n]);
	close(broker);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- verbs, the end, new configurations ------------------------------------------------------------ */

START_TEST(the_verbs_are_answered_and_stop_ends_with_0)
{
	struct message_hello hello = { .header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello) }, .abi = STOKER_ABI,
				       .flags = MESSAGE_HELLO_ADMIN };
	struct message_admin verb = { .verb = ADMIN_VERB_PING };
	struct raw raw = { .next_request = 1 };

	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	raw.socket = raw_connect(whole.name);
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
	ck_assert_uint_eq(atomic_load(&whole_page()->state), STOKER_STATE_DRAINING);
	verb.verb = ADMIN_VERB_STOP;
	ck_assert_int_eq(ask(&raw, &verb, MESSAGE_ADMIN, sizeof(verb), NULL), STOKER_STATUS_OK);
	ck_assert_int_eq(whole_wait(), 0);
	close(raw.socket);
}
END_TEST

START_TEST(attached_clients_learn_of_the_end_by_page_socket_and_fence)
{
	char byte;

	whole_launch();
	const struct control_page *page = whole_page();		/* of this broker, and mapped while it lives */
	struct raw raw = attach();
	kill(whole.broker, SIGTERM);
	ck_assert(raw_is_expelled(&raw));
	ck_assert_uint_eq(atomic_load(&page->dead), 1);
	ck_assert_int_eq(whole_wait(), 0);
	ck_assert_int_eq(read(raw.fds[4], &byte, 1), 0);
	raw_close(&raw);
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

	snprintf(path, sizeof(path), "%s/stoker.conf", whole.directory);
	snprintf(option, sizeof(option), "--config=%s", path);
	snprintf(own, sizeof(own), "[tenant a]\nuids = %u\n", (unsigned)geteuid());
	write_config(path, "[tenant a]\nuids = 4000000\n");
	whole.options[1] = option;
	whole_launch();
	ck_assert_int_eq(raw_attach(whole.name, &raw), -EACCES);
	ck_assert_uint_eq(raw.welcome.status, STOKER_STATUS_NOT_PERMITTED);
	ck_assert_ptr_nonnull(strstr(raw.welcome.reason, "tenant.uids"));
	raw_close(&raw);
	write_config(path, own);
	kill(whole.broker, SIGHUP);
	await(raw_attach(whole.name, &raw) == 0 || (raw_close(&raw), false));
	raw_close(&raw);
	/* What is wrong is not taken over at all. */
	write_config(path, "[tenant a]\nuids = 4000000\n[arena]\nsize = nonsense\n");
	kill(whole.broker, SIGHUP);
	usleep(50000);
	raw = attach();
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_foreign_file_in_a_tiers_directory_is_left_alone_and_the_broker_serves_without_it)
{
	char path[128], file[192], option[200], text[32] = "";
	struct control_tier row;

	snprintf(path, sizeof(path), "%s/tier", whole.directory);
	snprintf(file, sizeof(file), "%s/stoker-tier", path);
	snprintf(option, sizeof(option), "--tier=%s:8M", path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	write_config(file, "somebody's thesis");
	whole.options[1] = option;
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	await(control_read_tier(whole_page(), 0, &row) && row.state == STOKER_TIER_FAILED);
	struct raw raw = attach();
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	FILE *is = fopen(file, "r");
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), is));
	fclose(is);
	ck_assert_str_eq(text, "somebody's thesis");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-life");
	TCase *tests = tcase_create("broker-life");

	tcase_add_checked_fixture(tests, setup, whole_clean);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, it_says_ready_alone_and_ends_with_0_leaving_the_arena_alone);
	tcase_add_test(tests, a_name_in_use_is_exit_3_and_harms_nobody);
	tcase_add_test(tests, so_it_is_where_the_other_has_another_runtime_directory);
	tcase_add_test(tests, too_few_open_files_are_told_before_anything_is_begun);
	tcase_add_test(tests, an_arena_leaves_room_for_what_else_is_in_dev_shm);
	tcase_add_test(tests, bad_options_and_sizes_are_exit_2);
	tcase_add_test(tests, a_directory_that_cannot_be_had_is_exit_1);
	tcase_add_test(tests, a_checked_configuration_is_printed_and_nothing_is_started);
	tcase_add_test(tests, the_service_manager_is_told);
	tcase_add_test(tests, a_killed_broker_is_followed_by_one_that_tells_its_readers);
	tcase_add_test(tests, clients_attach_while_old_io_is_waited_for_and_models_when_it_is_over);
	tcase_add_test(tests, a_client_that_leaves_while_old_io_is_waited_for_is_gone_at_once);
	tcase_add_test(tests, old_io_that_never_ends_means_a_fresh_arena_and_a_broker_that_says_so);
	tcase_add_test(tests, a_client_that_is_gone_is_forgotten_though_another_has_its_files_open);
	tcase_add_test(tests, the_verbs_are_answered_and_stop_ends_with_0);
	tcase_add_test(tests, attached_clients_learn_of_the_end_by_page_socket_and_fence);
	tcase_add_test(tests, hup_takes_over_who_may_attach);
	tcase_add_test(tests, a_foreign_file_in_a_tiers_directory_is_left_alone_and_the_broker_serves_without_it);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
