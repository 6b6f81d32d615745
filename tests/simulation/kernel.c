/*
 * The kernel under the broker's half of a GPU: each system call of src/device/cuda/minder.c and registry.c, and of the
 * bells, is led here by the linker. Descriptors are numbers of a table; a process is the simulated copier of the GPU
 * whose backend is being called.
 *
 * Calls fail now and then where the backend says what it does then. What is closed must be open, and it must be the
 * backend's: anything else stops the run.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "src/common/log.h"
#include "src/device/spawner.h"
#include "tests/simulation/gpu.h"

#define RING_ENTRIES	8u	/* of commands and of events: so few that they are full now and then */
#define SOCKET_MESSAGES	4u	/* that a socket holds */
#define ITEM_BYTES	(1ull << 19)	/* the largest copy has a third of that */

static struct sim_gpu *caller;

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
struct wire_segment *__real_wire_segment_make(void *memory, uint32_t commands, uint32_t events, uint64_t item_bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
struct wire_segment *__wrap_wire_segment_make(void *memory, uint32_t commands, uint32_t events, uint64_t item_bytes);
int __wrap_close(int fd);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_eventfd(unsigned int value, int flags);
int __wrap_eventfd_read(int fd, eventfd_t *ret);
int __wrap_eventfd_write(int fd, eventfd_t value);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_ftruncate(int fd, off_t bytes);
int __wrap_kill(pid_t pid, int signal);
int __wrap_memfd_create(const char *name, unsigned int flags);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]);
int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as);
void __wrap_spawner_start(void);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes);
int __wrap_socketpair(int domain, int type, int protocol, int pair[2]);
long __wrap_syscall(long number, ...);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);
int __wrap_wire_send(int fd, bool wait, const void *message, const int *fds, uint32_t n_fds);
int __wrap_wire_receive(int fd, void *message, size_t room, int *fds, uint32_t *n_fds);
__attribute__((format(printf, 2, 3))) void __wrap_log_at(enum log_level level, const char *format, ...);

/* ---- descriptors ------------------------------------------------------------------------------ */

void kernel_enter(struct sim_gpu *gpu)
{
	caller = gpu;
}

static int open_for(struct sim_gpus *gpus, struct sim *sim, struct sim_gpu *gpu, enum sim_fd_kind kind)
{
	for (int i = 0; i < (int)SIM_FDS; i++)
		if (gpus->fds[i].kind == FD_CLOSED) {
			gpus->fds[i].kind = kind;
			gpus->fds[i].gpu = gpu;
			gpus->n_fds++;
			return SIM_FD_FIRST + i;
		}
	sim_fail(sim, "more than %u descriptors are open", SIM_FDS);
}

int kernel_open(struct sim *sim, enum sim_fd_kind kind)
{
	return open_for(sim->gpus, sim, NULL, kind);
}

bool kernel_is_open(const struct sim *sim, int fd)
{
	return fd >= SIM_FD_FIRST && fd < SIM_FD_FIRST + (int)SIM_FDS &&
	       sim->gpus->fds[fd - SIM_FD_FIRST].kind != FD_CLOSED;
}

void kernel_close(struct sim *sim, int fd)
{
	if (!kernel_is_open(sim, fd))
		sim_fail(sim, "descriptor %d is closed, but it is not open", fd);
	sim->gpus->fds[fd - SIM_FD_FIRST].kind = FD_CLOSED;
	sim->gpus->n_fds--;
}

static enum sim_fd_kind kind_of(int fd)
{
	if (!kernel_is_open(caller->sim, fd))
		sim_fail(caller->sim, "descriptor %d is used, but it is not open", fd);
	return caller->sim->gpus->fds[fd - SIM_FD_FIRST].kind;
}

/* A new one, or none: the process has too many. */
static int open_one(enum sim_fd_kind kind)
{
	if (gpu_draws(caller, caller->mood.call)) {
		errno = EMFILE;
		return -1;
	}
	return open_for(caller->sim->gpus, caller->sim, caller, kind);
}

static int refused(int error)
{
	errno = error;
	return -1;
}

/* The broker's end of the pair is that of the GPU that is being served; the other one is the process's. */
int __wrap_close(int fd)
{
	if (kind_of(fd) == FD_SOCKET && caller->device && caller->device->minder.socket == fd)
		caller->copier.alone = true;
	kernel_close(caller->sim, fd);
	return 0;
}

int __wrap_fcntl(int fd, int command, ...)
{
	(void)kind_of(fd);
	return command == F_DUPFD_CLOEXEC ? open_one(FD_FENCE) : 0;
}

int __wrap_ftruncate(int fd, off_t bytes)
{
	(void)kind_of(fd);
	(void)bytes;
	return 0;
}

int __wrap_memfd_create(const char *name, unsigned int flags)
{
	(void)name;
	(void)flags;
	return open_one(FD_MEMORY);
}

/* Memory of nobody's, zero: both sides are here. */
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	(void)kind_of(fd);
	(void)flags;
	(void)offset;
	if (gpu_draws(caller, caller->mood.call)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap(at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

struct wire_segment *__wrap_wire_segment_make(void *memory, uint32_t commands, uint32_t events, uint64_t item_bytes)
{
	(void)commands;
	(void)events;
	(void)item_bytes;
	return __real_wire_segment_make(memory, RING_ENTRIES, RING_ENTRIES, ITEM_BYTES);
}

/* ---- bells ------------------------------------------------------------------------------------ */

int __wrap_eventfd(unsigned int value, int flags)
{
	(void)value;
	(void)flags;
	return open_one(FD_EVENT);
}

int __wrap_eventfd_read(int fd, eventfd_t *ret)
{
	*ret = 1;
	(void)kind_of(fd);
	return 0;
}

/* Who sleeps there wakes. */
int __wrap_eventfd_write(int fd, eventfd_t value)
{
	(void)value;
	(void)kind_of(fd);
	if (fd == caller->sim->gpus->core.fd)
		caller->sim->gpus->core_rung = true;
	else if (caller->device && fd == caller->device->minder.bell.fd)
		caller->stirred = true;
	else
		caller->copier.asleep = false;
	return 0;
}

int __wrap_epoll_create1(int flags)
{
	(void)flags;
	return open_one(FD_EPOLL);
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	(void)op;
	(void)event;
	if (kind_of(epoll) != FD_EPOLL)
		sim_fail(caller->sim, "descriptor %d is watched for by %d, which cannot do that", fd, epoll);
	(void)kind_of(fd);
	return 0;
}

/* ---- processes -------------------------------------------------------------------------------- */

int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
	(void)path;
	(void)actions;
	(void)attributes;
	(void)arguments;
	(void)environment;
	if (gpu_draws(caller, caller->mood.call))
		return EAGAIN;
	copier_spawn(caller);
	*pid = caller->copier.pid;
	return 0;
}

/* There is one thread here: processes are started by who asks for them. */
void __wrap_spawner_start(void)
{
}

int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as)
{
	(void)actions;
	(void)as;
	return kind_of(fd) == FD_SOCKET ? 0 : EBADF;
}

/* pidfd_open() alone. */
long __wrap_syscall(long number, ...)
{
	(void)number;
	return open_one(FD_PROCESS);
}

static void check_pid(pid_t pid)
{
	if (caller->copier.state == COPIER_NONE || caller->copier.pid != pid)
		sim_fail(caller->sim, "process %d is signalled or waited for, but it is no child", (int)pid);
}

int __wrap_kill(pid_t pid, int signal)
{
	check_pid(pid);
	if (signal != SIGKILL)
		sim_fail(caller->sim, "a copier is sent signal %d", signal);
	if (caller->copier.state != COPIER_ZOMBIE && caller->copier.state != COPIER_DYING)
		copier_die(caller, SIGKILL);
	return 0;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	struct sim_copier *copier = &caller->copier;

	(void)type;
	check_pid((pid_t)id);
	info->si_pid = 0;
	if (copier->state != COPIER_ZOMBIE &&
	    !(copier->state == COPIER_DYING && sim_is_planted(caller->sim, "early-reap")))
		return 0;
	info->si_pid = copier->pid;
	info->si_code = copier->status >= 256 ? CLD_EXITED : CLD_KILLED;
	info->si_status = copier->status & 255;
	if (!(options & WNOWAIT))
		copier_reap(caller);
	return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
	(void)status;
	(void)options;
	check_pid(pid);
	caller->copier.state = COPIER_ZOMBIE;
	copier_reap(caller);
	return pid;
}

/* A broker that stops: the process ends by itself, or is made to. */
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	(void)fds;
	(void)n;
	(void)timeout;
	if (caller->copier.hangs && caller->copier.state != COPIER_DYING)
		return 0;
	caller->copier.state = COPIER_ZOMBIE;
	return 1;
}

/* ---- the pair --------------------------------------------------------------------------------- */

int __wrap_socketpair(int domain, int type, int protocol, int pair[2])
{
	(void)domain;
	(void)type;
	(void)protocol;
	pair[0] = open_one(FD_SOCKET);
	if (pair[0] < 0)
		return -1;
	pair[1] = open_one(FD_SOCKET);
	if (pair[1] >= 0)
		return 0;
	kernel_close(caller->sim, pair[0]);
	return refused(EMFILE);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes)
{
	(void)level;
	(void)name;
	(void)value;
	(void)bytes;
	(void)kind_of(fd);
	return 0;
}

int __wrap_wire_send(int fd, bool wait, const void *message, const int *fds, uint32_t n_fds)
{
	const struct wire_header *header = message;
	struct lane *lane = caller->device->minder.lane;

	(void)wait;
	if (kind_of(fd) != FD_SOCKET)
		sim_fail(caller->sim, "a message is sent by %d, which is no socket", fd);
	for (uint32_t i = 0; i < n_fds; i++)
		(void)kind_of(fds[i]);
	if (header->type == WIRE_START) {
		lane->item_bytes = ITEM_BYTES;	/* as the segment has it */
		memcpy(&caller->copier.start, message, sizeof(caller->copier.start));
		return 0;
	}
	if (caller->copier.closed)
		return -EPIPE;
	if (caller->copier.in.n >= SOCKET_MESSAGES) {
		if (caller->copier.hangs)
			sim_reach(caller->sim, SIM_REACH_GPU_FULL);
		return -EAGAIN;
	}
	if (gpu_draws(caller, caller->mood.call))
		return -ENOBUFS;
	copier_take(caller, message);
	return 0;
}

int __wrap_wire_receive(int fd, void *message, size_t room, int *fds, uint32_t *n_fds)
{
	(void)fds;
	*n_fds = 0;
	if (kind_of(fd) != FD_SOCKET)
		sim_fail(caller->sim, "a message is taken from %d, which is no socket", fd);
	return copier_say(caller, message, room);
}

/* What the broker would log is told with --verbose. */
void __wrap_log_at(enum log_level level, const char *format, ...)
{
	char text[512];
	va_list arguments;

	(void)level;
	if (!caller->sim->verbose)
		return;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	sim_say(caller->sim, "%s", text);
}
