/*
 * One broker a name, and no broker into whose files the I/O of a dead one may still land. And the
 * control page, which is new at each boot and tells mappers of the old one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/broker/locks.h"
#include "src/broker/page.h"
#include "tests/suite.h"

static char directory[64], path[128], name[64], why[512];

static void setup(void)
{
	strcpy(directory, "/tmp/stoker-locks-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/run", directory);
	snprintf(name, sizeof(name), "/stoker-test-%d", (int)getpid());
}

static void teardown(void)
{
	char command[128];

	shm_unlink(name);
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static mode_t mode_of(const char *what)
{
	char text[192];
	struct stat is;

	snprintf(text, sizeof(text), "%s/%s", path, what);
	ck_assert_int_eq(lstat(text, &is), 0);
	return is.st_mode & 0777;
}

START_TEST(the_socket_can_be_reached_by_all_and_the_locks_by_nobody)
{
	struct locks locks;

	umask(077);	/* must not matter */
	ck_assert_msg(locks_open(path, "/stoker", why, &locks) == 0, "%s", why);
	ck_assert_uint_eq(mode_of("."), 0755);
	ck_assert_uint_eq(mode_of("private"), 0700);
	ck_assert_uint_eq(mode_of("private/stoker.lock"), 0600);
	ck_assert_int_ne(fcntl(locks.name_fd, F_GETFD) & FD_CLOEXEC, 0);
	locks_close(&locks);
	ck_assert_uint_eq(mode_of("private/stoker.lock"), 0600);	/* never unlinked */
}
END_TEST

START_TEST(a_name_in_use_is_refused_and_the_holder_is_named)
{
	struct locks first, second, other;
	char pid[32];

	ck_assert_int_eq(locks_open(path, "/stoker", why, &first), 0);
	ck_assert_int_eq(locks_open(path, "/stoker", why, &second), -EBUSY);
	snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
	ck_assert_ptr_nonnull(strstr(why, pid));
	ck_assert_ptr_nonnull(strstr(why, "/stoker is in use"));
	ck_assert_int_eq(locks_open(path, "/other", why, &other), 0);
	locks_close(&first);
	ck_assert_int_eq(locks_open(path, "/stoker", why, &second), 0);
	locks_close(&second);
	locks_close(&other);
}
END_TEST

START_TEST(a_directory_that_others_may_write_is_refused)
{
	struct locks locks;

	ck_assert_int_eq(mkdir(path, 0755), 0);
	ck_assert_int_eq(chmod(path, 0777), 0);
	ck_assert_int_lt(locks_open(path, "/stoker", why, &locks), 0);
	ck_assert_ptr_nonnull(strstr(why, path));
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("/tmp", path), 0);
	ck_assert_int_lt(locks_open(path, "/stoker", why, &locks), 0);
}
END_TEST

/* What the kernel does with the lock of a dead broker whose I/O has not landed: it keeps it. */
static int hold(const char *suffix)
{
	char file[192];

	snprintf(file, sizeof(file), "%s/private/stoker.%s", path, suffix);
	const int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

START_TEST(a_broker_waits_for_the_io_of_a_dead_one_and_then_takes_a_number_of_its_own)
{
	struct locks locks, next;

	ck_assert_int_eq(locks_open(path, "/stoker", why, &locks), 0);
	const int dead = hold("io");
	ck_assert_int_eq(locks_take_io(&locks, false, why), -EAGAIN);
	ck_assert_int_eq(locks.io_fd, -1);
	ck_assert_int_eq(locks_take_io(&locks, true, why), 1);
	ck_assert_int_ge(locks.io_fd, 0);
	ck_assert(locks.io_fresh);
	/* It dies as well, with I/O under way: whoever comes next finds number 0 free, and must not trust it. */
	const int its_io = dup(locks.io_fd);
	locks_close(&locks);
	close(dead);
	ck_assert_int_eq(locks_open(path, "/stoker", why, &next), 0);
	ck_assert_int_eq(locks_take_io(&next, false, why), -EAGAIN);
	close(its_io);
	ck_assert_int_eq(locks_take_io(&next, false, why), 0);
	ck_assert(!next.io_fresh);
	locks_close(&next);
}
END_TEST

START_TEST(a_page_is_whole_at_once_and_the_old_one_is_marked_dead)
{
	const struct control_page *first, *second;
	struct page old, new;

	ck_assert_msg(page_open(name, "/tmp/socket", why, &old) == 0, "%s", why);
	ck_assert_int_eq(control_map(name, &first), 0);
	ck_assert_str_eq(first->socket, "/tmp/socket");
	ck_assert_str_eq(first->name, name);
	/* The first broker is killed: nothing is taken down. The next one comes. */
	ck_assert_int_eq(page_open(name, "/tmp/socket", why, &new), 0);
	ck_assert_uint_eq(atomic_load(&first->dead), 1);
	ck_assert_int_eq(control_map(name, &second), 0);
	ck_assert_uint_eq(atomic_load(&second->dead), 0);
	ck_assert_mem_ne(first->boot_id, second->boot_id, sizeof(first->boot_id));
	page_close(&old);	/* not its name any more: it stays */
	control_unmap(second);
	ck_assert_int_eq(control_map(name, &second), 0);
	page_close(&new);
	ck_assert_uint_eq(atomic_load(&second->dead), 1);
	ck_assert_int_eq(control_map(name, &first), -ENOENT);
	control_unmap(second);
}
END_TEST

START_TEST(a_page_can_be_read_by_all_and_written_through_no_given_descriptor)
{
	struct page page;
	struct stat is;

	umask(077);
	ck_assert_int_eq(page_open(name, "/tmp/socket", why, &page), 0);
	ck_assert_int_eq(fstat(page.reader_fd, &is), 0);
	ck_assert_uint_eq(is.st_mode & 0777, 0644);
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page.reader_fd, 0), MAP_FAILED);
	page_close(&page);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-locks");
	TCase *tests = tcase_create("locks");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, the_socket_can_be_reached_by_all_and_the_locks_by_nobody);
	tcase_add_test(tests, a_name_in_use_is_refused_and_the_holder_is_named);
	tcase_add_test(tests, a_directory_that_others_may_write_is_refused);
	tcase_add_test(tests, a_broker_waits_for_the_io_of_a_dead_one_and_then_takes_a_number_of_its_own);
	tcase_add_test(tests, a_page_is_whole_at_once_and_the_old_one_is_marked_dead);
	tcase_add_test(tests, a_page_can_be_read_by_all_and_written_through_no_given_descriptor);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
