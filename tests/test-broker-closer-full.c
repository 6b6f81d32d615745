/*
 * Files whose close() takes long: the test has a close() of its own, which waits for one of them, and counts the
 * others, so that they need not be there.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/broker/closer.h"
#include "tests/suite.h"

#define HANGS	1000000		/* this number, and those from here on, are no files */
#define FILES	1000001

static _Atomic bool held;
static _Atomic uint32_t n_waiting, n_closed;

int close(int fd)
{
	if (fd < HANGS)
		return (int)syscall(SYS_close, fd);
	if (fd < FILES) {
		atomic_fetch_add(&n_waiting, 1);
		while (atomic_load(&held))
			usleep(1000);
	}
	atomic_fetch_add(&n_closed, 1);
	return 0;
}

static void await_waiting(uint32_t n)
{
	while (atomic_load(&n_waiting) < n)
		usleep(1000);
}

static void await_closed(uint32_t n)
{
	while (atomic_load(&n_closed) < n)
		usleep(1000);
}

static void hang(uid_t uid, int fd)
{
	const uint32_t before = atomic_load(&n_waiting);

	atomic_store(&held, true);
	closer_take(uid, fd);
	await_waiting(before + 1);
}

START_TEST(what_waits_behind_a_file_that_hangs_is_closed_when_that_ends_however_many_there_are)
{
	hang(1000, HANGS);
	for (int i = 0; i < 20000; i++)
		closer_take(1000, FILES + i);
	ck_assert_uint_eq(atomic_load(&n_closed), 0);
	atomic_store(&held, false);
	await_closed(20001);
}
END_TEST

START_TEST(a_uid_whose_files_hang_is_told_apart_and_others_do_not_wait_for_it)
{
	hang(1000, HANGS);
	ck_assert_int_eq(closer_room(1000), CLOSER_ROOM);
	for (int i = 0; i < 5000; i++)
		closer_take(1000, FILES + i);
	ck_assert_int_ne(closer_room(1000), CLOSER_ROOM);
	while (closer_room(1000) != CLOSER_HANGS)
		usleep(1000);
	ck_assert_int_eq(closer_room(1001), CLOSER_ROOM);
	closer_take(1001, FILES);
	await_closed(1);
	atomic_store(&held, false);
	await_closed(5002);
	ck_assert_int_eq(closer_room(1000), CLOSER_ROOM);
}
END_TEST

/* Otherwise nobody else could connect, and what comes with a message while there is no room is closed where it came. */
START_TEST(a_uid_whose_files_hang_cannot_have_most_of_those_that_may_be_open)
{
	struct rlimit limit;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = 1024;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	hang(1000, HANGS);
	for (int i = 0; i < 100; i++)
		closer_take(1000, FILES + i);
	ck_assert_int_eq(closer_room(1000), CLOSER_ROOM);
	for (int i = 100; i < 200; i++)
		closer_take(1000, FILES + i);
	ck_assert_int_ne(closer_room(1000), CLOSER_ROOM);
	atomic_store(&held, false);
	await_closed(201);
}
END_TEST

START_TEST(more_uids_than_there_are_threads_for_lose_no_file_either)
{
	/* Each has a thread of its own that hangs, as far as there are threads; the last ones stand behind others. */
	atomic_store(&held, true);
	for (uid_t uid = 1000; uid < 1064; uid++)
		closer_take(uid, HANGS);
	await_waiting(64);
	for (uid_t uid = 2000; uid < 2100; uid++)
		closer_take(uid, FILES);
	ck_assert_uint_eq(atomic_load(&n_closed), 0);
	atomic_store(&held, false);
	await_closed(164);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-closer-full");
	TCase *tests = tcase_create("full");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, what_waits_behind_a_file_that_hangs_is_closed_when_that_ends_however_many_there_are);
	tcase_add_test(tests, a_uid_whose_files_hang_is_told_apart_and_others_do_not_wait_for_it);
	tcase_add_test(tests, a_uid_whose_files_hang_cannot_have_most_of_those_that_may_be_open);
	tcase_add_test(tests, more_uids_than_there_are_threads_for_lose_no_file_either);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
