/* Programs are started by a thread that has nothing of the process's open, and have what they are given. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#include "src/device/spawner.h"
#include "tests/suite.h"

#define AS	5

/* As sandboxes of containers do. */
static bool refuse(uint32_t call)
{
	struct sock_filter steps[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { .len = sizeof(steps) / sizeof(steps[0]), .filter = steps };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/* How many descriptors the thread of that name has; -1: there is none. */
static int files_of_thread(const char *name)
{
	DIR *tasks = opendir("/proc/self/task");
	int files = -1;

	for (struct dirent *task; files < 0 && (task = readdir(tasks));) {
		char path[300], is[32] = "";
		FILE *comm;
		DIR *fds;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
		comm = fopen(path, "re");
		if (!comm)
			continue;
		const bool found = fscanf(comm, "%31s", is) == 1 && strcmp(is, name) == 0;

		fclose(comm);
		snprintf(path, sizeof(path), "/proc/self/task/%s/fd", task->d_name);
		fds = found ? opendir(path) : NULL;
		for (struct dirent *fd; fds && (fd = readdir(fds));)
			files += fd->d_name[0] != '.';
		files += fds != NULL;
		if (fds)
			closedir(fds);
	}
	closedir(tasks);
	return files;
}

/* What the shell says to the end that it is given. Returns spawner_run()'s. */
static int said(const char *command, char *ret, size_t room)
{
	char *const arguments[] = { (char *)"sh", (char *)"-c", (char *)(uintptr_t)command, NULL };
	int pair[2], status, r;
	size_t n = 0;
	pid_t pid;

	ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
	r = spawner_run("/bin/sh", arguments, pair[1], AS, &pid);
	close(pair[1]);
	for (ssize_t more; r == 0 && n < room - 1 && (more = read(pair[0], ret + n, room - 1 - n)) > 0;)
		n += (size_t)more;
	ret[n] = '\0';
	close(pair[0]);
	if (r < 0)
		return r;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return 0;
}

static void is_apart(void)
{
	char text[200];
	int strangers[8];

	for (int i = 0; i < 8; i++)
		strangers[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	spawner_start();
	spawner_start();
	ck_assert_int_eq(files_of_thread("stoker-spawner"), 4);
	for (int i = 0; i < 8; i++) {
		ck_assert_int_ge(fcntl(strangers[i], F_GETFD), 0);
		close(strangers[i]);
	}
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(said("(ls /proc/$$/fd >&5); true", text, sizeof(text)), 0);
		ck_assert_str_eq(text, "0\n1\n2\n5\n");
	}
	ck_assert_int_eq(files_of_thread("stoker-spawner"), 4);
}

START_TEST(the_thread_that_starts_programs_has_nothing_of_others_open)
{
	is_apart();
}
END_TEST

START_TEST(it_has_nothing_of_others_open_in_a_sandbox_that_refuses_unshare_either)
{
	ck_assert(refuse(SYS_unshare));	/* for it makes namespaces too */
	is_apart();
}
END_TEST

START_TEST(where_there_can_be_no_such_thread_programs_are_started_all_the_same)
{
	char text[16];

	ck_assert(refuse(SYS_close_range));
	spawner_start();
	spawner_start();
	ck_assert_int_eq(said("echo yes >&5", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "yes\n");
}
END_TEST

START_TEST(what_cannot_be_started_is_said_and_the_next_one_starts)
{
	char *const arguments[] = { (char *)"none", NULL };
	char text[16];
	pid_t pid = -1;

	spawner_start();
	ck_assert_int_eq(spawner_run("/nowhere/none", arguments, 1, AS, &pid), -ENOENT);
	ck_assert_int_eq(pid, -1);
	ck_assert_int_eq(spawner_run("/bin/sh", arguments, 1023, AS, &pid), -EBADF);
	ck_assert_int_eq(said("echo yes >&5", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "yes\n");
}
END_TEST

START_TEST(a_child_that_has_no_such_thread_starts_programs_itself)
{
	char text[16];
	int status;
	pid_t pid;

	spawner_start();
	pid = fork();
	if (pid == 0)
		_exit(said("echo yes >&5", text, sizeof(text)) == 0 && strcmp(text, "yes\n") == 0 ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(said("echo yes >&5", text, sizeof(text)), 0);
}
END_TEST

START_TEST(without_the_thread_the_next_one_is_started_by_who_asks)
{
	char text[16];

	spawner_start();
	for (int fd = 3; fd < 64; fd++)
		shutdown(fd, SHUT_RDWR);	/* the one socket that there is: it is what the thread listens to */
	ck_assert_int_eq(said("echo yes >&5", text, sizeof(text)), -EPIPE);
	ck_assert_int_eq(said("echo yes >&5", text, sizeof(text)), 0);
	ck_assert_str_eq(text, "yes\n");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("device-spawner");
	TCase *tests = tcase_create("spawner");

	tcase_add_test(tests, the_thread_that_starts_programs_has_nothing_of_others_open);
	tcase_add_test(tests, it_has_nothing_of_others_open_in_a_sandbox_that_refuses_unshare_either);
	tcase_add_test(tests, where_there_can_be_no_such_thread_programs_are_started_all_the_same);
	tcase_add_test(tests, what_cannot_be_started_is_said_and_the_next_one_starts);
	tcase_add_test(tests, a_child_that_has_no_such_thread_starts_programs_itself);
	tcase_add_test(tests, without_the_thread_the_next_one_is_started_by_who_asks);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
