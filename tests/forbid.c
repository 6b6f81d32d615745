/*
 * forbid WHAT PROGRAM ARGUMENT...: run a program to which the kernel refuses something, as a container,
 * an older file system or a full disk would. WHAT: io_uring (io_uring_setup gives EPERM), o_direct (an
 * open with O_DIRECT gives EINVAL), beyond_16m (a pwrite at 16 MiB or beyond gives ENOSPC, as if a file
 * could not grow further), pidfd (there are none: pidfd_open gives ENOSYS, SO_PEERPIDFD ENOPROTOOPT), epoll_pwait2
 * (as a sandbox that does not know it: EPERM), or several with commas between.
 *
 * A seccomp filter by hand, so that no library is needed; it stays across exec().
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD	77
#endif

#define LOAD(field)	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value)	BPF_STMT(BPF_RET | BPF_K, (value))
#define ERROR(error)	ANSWER(SECCOMP_RET_ERRNO | (error))
/* Skip the next @n instructions unless what was loaded is @value, or has one of its bits. */
#define UNLESS_IS(value, n)	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (n))
#define UNLESS_HAS(bits, n)	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), 0, (n))

/* The flags are in the lower half of the third argument: the first four bytes of it, little endian. */
static struct sock_filter no_o_direct[] = {
	LOAD(nr),
	UNLESS_IS(SYS_openat, 3),
	LOAD(args[2]),
	UNLESS_HAS(O_DIRECT, 1),
	ERROR(EINVAL),
	ANSWER(SECCOMP_RET_ALLOW),
};

static struct sock_filter no_io_uring[] = {
	LOAD(nr),
	UNLESS_IS(SYS_io_uring_setup, 1),
	ERROR(EPERM),
	ANSWER(SECCOMP_RET_ALLOW),
};

static struct sock_filter no_room[] = {
	LOAD(nr),
	UNLESS_IS(SYS_pwrite64, 6),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3]) + 4),
	UNLESS_IS(0, 3),		/* the upper half: far beyond */
	LOAD(args[3]),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 16u << 20, 1, 0),
	ANSWER(SECCOMP_RET_ALLOW),
	ERROR(ENOSPC),
	ANSWER(SECCOMP_RET_ALLOW),
};

static struct sock_filter no_pidfd[] = {
	LOAD(nr),
	UNLESS_IS(SYS_pidfd_open, 1),
	ERROR(ENOSYS),
	UNLESS_IS(SYS_getsockopt, 5),
	LOAD(args[1]),
	UNLESS_IS(SOL_SOCKET, 3),
	LOAD(args[2]),
	UNLESS_IS(SO_PEERPIDFD, 1),
	ERROR(ENOPROTOOPT),
	ANSWER(SECCOMP_RET_ALLOW),
};

static struct sock_filter no_epoll_pwait2[] = {
	LOAD(nr),
	UNLESS_IS(SYS_epoll_pwait2, 1),
	ERROR(EPERM),
	ANSWER(SECCOMP_RET_ALLOW),
};

static int install(struct sock_filter *filter, size_t n)
{
	const struct sock_fprog program = { .len = (unsigned short)n, .filter = filter };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: forbid io_uring,o_direct,beyond_16m,pidfd,epoll_pwait2 PROGRAM ARGUMENT...\n");
		return 2;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    (strstr(argv[1], "io_uring") && install(no_io_uring, sizeof(no_io_uring) / sizeof(no_io_uring[0])) < 0) ||
	    (strstr(argv[1], "o_direct") && install(no_o_direct, sizeof(no_o_direct) / sizeof(no_o_direct[0])) < 0) ||
	    (strstr(argv[1], "pidfd") && install(no_pidfd, sizeof(no_pidfd) / sizeof(no_pidfd[0])) < 0) ||
	    (strstr(argv[1], "epoll_pwait2") &&
	     install(no_epoll_pwait2, sizeof(no_epoll_pwait2) / sizeof(no_epoll_pwait2[0])) < 0) ||
	    (strstr(argv[1], "beyond_16m") && install(no_room, sizeof(no_room) / sizeof(no_room[0])) < 0)) {
		perror("forbid: seccomp");
		return 77;
	}
	execv(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
