/*
 * See spawner.h. The thread takes a descriptor by message, because its table is another one: numbers of the two
 * mean different files, which is why it speaks to the kernel by system calls alone (tools that look after
 * descriptors take a number for one file).
 *
 * It lives as long as the process: a program that asked to be told of its parent's death is told when the thread ends
 * that started it.
 */
#include "src/device/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/common/log.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2u
#endif

#define OWN_FD 3	/* of the thread: its end of the pair */

/** struct task - what is asked for: the caller's, and the thread's until it has answered. */
struct task {
	const char *program;
	char *const *arguments;
	int as;
	pid_t pid;
	int result;
};

static struct {
	pthread_mutex_t lock;
	pid_t tried;			/* process in which its start was tried; 0: none */
	bool runs;			/* there */
	int fd;
	_Atomic(struct task *) task;	/* NULL when it is done */
} spawner = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

/*
 * The signals that end a broker come to all that a supervisor finds in its group: a copier must outlast the
 * broker's own end, and follows it when its end of the pair is closed.
 */
static int attributes_make(posix_spawnattr_t *attributes)
{
	sigset_t blocked, defaults;
	int r = posix_spawnattr_init(attributes);

	if (r != 0)
		return r;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGHUP);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGXFSZ);
	posix_spawnattr_setsigmask(attributes, &blocked);
	posix_spawnattr_setsigdefault(attributes, &defaults);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	return 0;
}

/* It has @fd and standard error, and nothing else: all that is ours is closed by exec. */
static int run(const struct task *task, int fd, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r = attributes_make(&attributes);

	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_init(&actions);
	if (r == 0) {
		r = posix_spawn_file_actions_adddup2(&actions, fd, task->as);
		for (int i = 0; i < 2 && r == 0; i++)
			r = posix_spawn_file_actions_addopen(&actions, i, "/dev/null", O_RDWR, 0);
		if (r == 0)
			r = posix_spawn(ret, task->program, &actions, &attributes, task->arguments, environ);
		posix_spawn_file_actions_destroy(&actions);
	}
	posix_spawnattr_destroy(&attributes);
	return -r;
}

/* ---- the thread ------------------------------------------------------------------------------ */

union one_descriptor {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* False: the other end is closed, or what came has no descriptor. */
static bool take(int *ret_fd)
{
	struct iovec part = { .iov_base = &(int){ 0 }, .iov_len = sizeof(int) };
	union one_descriptor room;
	struct msghdr in = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes,
			     .msg_controllen = CMSG_LEN(sizeof(int)) };
	long n;

	do
		n = syscall(SYS_recvmsg, OWN_FD, &in, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(int) || in.msg_controllen < CMSG_LEN(sizeof(int)))
		return false;
	memcpy(ret_fd, CMSG_DATA(&room.header), sizeof(int));
	return true;
}

/*
 * A table of its own, with standard files and the pair: nothing of a stranger's is open yet. Not by unshare(), which
 * containers refuse, as it makes namespaces too.
 */
static int table_make(int thread_fd)
{
	if (syscall(SYS_close_range, thread_fd + 1, ~0u, CLOSE_RANGE_UNSHARE) < 0)
		return -errno;
	if (thread_fd == OWN_FD)
		return 0;
	if (syscall(SYS_dup3, thread_fd, OWN_FD, O_CLOEXEC) < 0)
		return -errno;
	return syscall(SYS_close_range, OWN_FD + 1, ~0u, 0) < 0 ? -errno : 0;
}

static bool say(int result)
{
	return syscall(SYS_sendto, OWN_FD, &result, sizeof(result), MSG_NOSIGNAL, NULL, 0) == sizeof(result);
}

static void *spawner_main(void *arg)
{
	const int thread_fd = (int)(intptr_t)arg;
	int r, fd;

	prctl(PR_SET_NAME, "stoker-spawner");
	r = table_make(thread_fd);
	if (r < 0) {
		/* The caller knows of no other table, and closes both ends. */
		(void)syscall(SYS_sendto, thread_fd, &r, sizeof(r), MSG_NOSIGNAL, NULL, 0);
		return NULL;
	}
	if (!say(0))
		return NULL;
	while (take(&fd)) {
		struct task *task = atomic_load_explicit(&spawner.task, memory_order_acquire);

		task->result = run(task, fd, &task->pid);
		atomic_store_explicit(&spawner.task, NULL, memory_order_release);
		(void)syscall(SYS_close, fd);
		if (!say(0))
			break;
	}
	return NULL;
}

/* ---- its users -------------------------------------------------------------------------------- */

static int hear(void)
{
	int result = -EPIPE;
	ssize_t n;

	do
		n = recv(spawner.fd, &result, sizeof(result), 0);
	while (n < 0 && errno == EINTR);
	return n == sizeof(result) ? result : -EPIPE;
}

static int thread_start(int thread_fd)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, &attributes, spawner_main, (void *)(intptr_t)thread_fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -r;
}

static int start(void)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	spawner.fd = pair[0];
	r = thread_start(pair[1]);
	if (r == 0)
		r = hear();
	if (r < 0)
		close(pair[0]);
	close(pair[1]);
	return r;
}

void spawner_start(void)
{
	int r;

	pthread_mutex_lock(&spawner.lock);
	/* Not later either: what strangers have handed over by then would have to be closed first. */
	if (spawner.tried != getpid()) {
		spawner.tried = getpid();
		r = start();
		spawner.runs = r == 0;
		if (r < 0)
			log_warning("copiers will be started with all that clients have handed over, which a client can make "
				    "last: there is no thread with files of its own: %s; allow close_range() in the sandbox",
				    strerror(-r));
	}
	pthread_mutex_unlock(&spawner.lock);
}

static int ask(struct task *task, int fd)
{
	struct iovec part = { .iov_base = &(int){ 0 }, .iov_len = sizeof(int) };
	union one_descriptor room = { .bytes = { 0 } };
	struct msghdr out = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes,
			      .msg_controllen = sizeof(room.bytes) };
	ssize_t n;
	int r;

	room.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					.cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(&room.header), &fd, sizeof(int));
	atomic_store_explicit(&spawner.task, task, memory_order_release);
	do
		n = sendmsg(spawner.fd, &out, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	r = hear();
	if (r == 0 && atomic_load_explicit(&spawner.task, memory_order_acquire) == NULL)
		return task->result;
	return -EPIPE;
}

int spawner_run(const char *program, char *const *arguments, int fd, int as, pid_t *ret)
{
	struct task task = { .program = program, .arguments = arguments, .as = as };
	int r;

	pthread_mutex_lock(&spawner.lock);
	r = spawner.runs && spawner.tried == getpid() ? ask(&task, fd) : run(&task, fd, &task.pid);
	if (r == -EPIPE && spawner.runs) {
		spawner.runs = false;	/* who asks again is served without it */
		log_warning("the thread that starts copiers is gone: they are started as if there had been none");
	}
	pthread_mutex_unlock(&spawner.lock);
	if (r == 0)
		*ret = task.pid;
	return r;
}
