/*
 * Who is at the other end of a socket: the kernel's word alone. The pidfd is of the process that
 * connected, also where a pid could have been used again: since Linux 6.5 the kernel gives it with
 * the socket; before that it is opened by pid, and believed if the socket is still open afterwards,
 * because then the process lived when it was opened.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/broker/session.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static bool socket_is_open(int fd)
{
	char byte;
	const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return n > 0 || (n < 0 && errno == EAGAIN);
}

int peer_identify(int fd, struct ucred *ret, int *ret_pidfd)
{
	socklen_t bytes = sizeof(*ret);
	int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &bytes) < 0)
		return -errno;
	bytes = sizeof(pidfd);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) < 0) {
		pidfd = -1;
		/* pid 0: of another pid namespace. End of file alone tells of its death. */
		if (ret->pid > 0)
			pidfd = (int)syscall(SYS_pidfd_open, ret->pid, 0);
		if (pidfd >= 0 && !socket_is_open(fd)) {
			close(pidfd);
			return -EPIPE;
		}
	}
	*ret_pidfd = pidfd;
	return 0;
}
