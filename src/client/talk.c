/*
 * Messages on the attachment socket, and the way to it. The peer is believed as far as its uid is
 * (talk_connect() looks at it); lengths and descriptor counts are checked all the same, so that a
 * broken broker costs an attachment and nothing more.
 *
 * Invariants: no call waits beyond its deadline; no descriptor that came along is ever lost.
 */
#include "src/client/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm/control.h"

uint64_t talk_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void talk_why(char *why, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, TALK_WHY, format, arguments);
	va_end(arguments);
}

void talk_fds_close(struct talk_fds *fds)
{
	for (uint32_t i = 0; i < fds->n; i++) {
		if (fds->fd[i] >= 0)
			close(fds->fd[i]);
	}
	fds->n = 0;
}

/* Poll one descriptor until @deadline_ns. 0 when it is ready (or broken), -ETIMEDOUT, -errno. */
static int poll_until(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd set = { .fd = fd, .events = events };
		const uint64_t now = talk_now_ns();
		const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
		const struct timespec time = {
			.tv_sec = (time_t)(left / 1000000000u < 1000000u ? left / 1000000000u : 1000000u),
			.tv_nsec = (long)(left % 1000000000u),
		};
		const int n = ppoll(&set, 1, &time, NULL);

		if (n > 0)
			return 0;
		if (n == 0 && talk_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int talk_wait(int sock, uint64_t deadline_ns)
{
	return poll_until(sock, POLLIN, deadline_ns);
}

union control_room {
	char bytes[CMSG_SPACE(sizeof(int) * TALK_FDS_MAX)];
	struct cmsghdr align;
};

int talk_send(int sock, const void *message, size_t bytes, const int *fds, uint32_t n_fds, uint64_t deadline_ns)
{
	struct iovec part = { .iov_base = (void *)message, .iov_len = bytes };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };
	union control_room control;

	if (n_fds > 0) {
		struct cmsghdr *rights;

		memset(&control, 0, sizeof(control));
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		rights = CMSG_FIRSTHDR(&head);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * n_fds);
	}
	for (;;) {
		const ssize_t n = sendmsg(sock, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r;

		if (n >= 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno == ECONNRESET || errno == ENOTCONN)
			return -EPIPE;
		if (errno != EAGAIN)
			return -errno;
		r = poll_until(sock, POLLOUT, deadline_ns);
		if (r < 0)
			return r;
	}
}

/* Take the descriptors out of @head: all of them, so that none is lost when the message is bad. */
static void take_fds(struct msghdr *head, struct talk_fds *ret)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
		const unsigned char *data = CMSG_DATA(c);
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, data + i * sizeof(int), sizeof(int));
			if (ret->n < TALK_FDS_MAX)
				ret->fd[ret->n++] = fd;
			else
				close(fd);
		}
	}
}

ssize_t talk_receive(int sock, void *buffer, size_t bytes, struct talk_fds *ret_fds, uint32_t max_fds)
{
	struct iovec part = { .iov_base = buffer, .iov_len = bytes };
	union control_room control;
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1,
			       .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	struct talk_fds fds = { 0 };
	struct message_header first;
	ssize_t n;

	do
		n = recvmsg(sock, &head, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : -errno;
	if (n == 0)
		return -EPIPE;
	take_fds(&head, &fds);
	memset(&first, 0, sizeof(first));
	memcpy(&first, buffer, (size_t)n < sizeof(first) ? (size_t)n : sizeof(first));
	if ((size_t)n < sizeof(first) || first.bytes != (size_t)n || fds.n > max_fds ||
	    (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		talk_fds_close(&fds);
		return -EBADMSG;
	}
	if (ret_fds)
		*ret_fds = fds;
	return n;
}

/* ---- from a name to a socket ------------------------------------------------------------------ */

static bool uid_is_allowed(const struct talk_rules *rules, uid_t uid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	return rules->broker_uid != 0 && uid == rules->broker_uid;
}

static int say_uid(const char *name, const char *what, uid_t uid, char *why)
{
	talk_why(why, "cannot attach to \"%s\": its %s belongs to uid %u, which is neither root nor uid %u nor "
		 "configured; set broker_uid if that broker is to be trusted", name, what, (unsigned)uid,
		 (unsigned)geteuid());
	return -EACCES;
}

static int say_page(const char *name, int r, char *why)
{
	if (r == -ENOENT || r == -EPIPE) {
		talk_why(why, "could not attach to \"%s\": there is no broker of that name; start stokerd --name %s",
			 name, name);
		return -ENOENT;
	}
	if (r == -EPROTONOSUPPORT)
		talk_why(why, "cannot attach to \"%s\": its layout version is not %u; install the client library "
			 "of the broker's release", name, STOKER_ABI);
	else if (r == -EPROTO)
		talk_why(why, "cannot attach to \"%s\": the shared memory object of that name is not a broker's "
			 "control page; give the broker another name", name);
	else
		talk_why(why, "could not attach to \"%s\": its control page could not be read: %s", name, strerror(-r));
	return r;
}

/* The socket's path and the owner, from the control page of @name. */
static int page_read(const char *name, const struct talk_rules *rules, struct sockaddr_un *ret, uid_t *ret_uid,
		     char *why)
{
	const struct control_page *page = NULL;
	/* Not blocking, because anybody may have put a fifo there, or have a lease on a file of his. */
	const int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	struct stat st;
	int r;

	if (fd < 0)
		return say_page(name, -errno, why);
	r = fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0 && !uid_is_allowed(rules, st.st_uid)) {
		close(fd);
		return say_uid(name, "control page", st.st_uid, why);
	}
	if (r == 0)
		r = control_map_fd(fd, &page);
	close(fd);
	if (r < 0)
		return say_page(name, r, why);
	memcpy(ret->sun_path, page->socket, sizeof(ret->sun_path));
	ret->sun_path[sizeof(ret->sun_path) - 1] = '\0';
	control_unmap(page);
	*ret_uid = st.st_uid;
	return 0;
}

static int say_connect(const char *name, const char *path, int r, char *why)
{
	if (r == -ENOENT || r == -ECONNREFUSED) {
		talk_why(why, "could not attach to \"%s\": nobody listens on %s: the broker is gone; start stokerd",
			 name, path);
		return -ENOENT;
	}
	if (r == -EAGAIN)
		talk_why(why, "could not attach to \"%s\": too many clients are waiting to be let in; try again", name);
	else if (r == -EACCES || r == -EPERM)
		talk_why(why, "cannot attach to \"%s\": no right to connect to %s: %s; ask whoever runs the broker",
			 name, path, strerror(-r));
	else
		talk_why(why, "could not attach to \"%s\": could not connect to %s: %s", name, path, strerror(-r));
	return r == -EPERM ? -EACCES : r;
}

static int connect_checked(const char *name, const struct sockaddr_un *address, const struct talk_rules *rules,
			   uid_t *uid, bool uid_known, char *why)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	const int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (sock < 0) {
		r = -errno;
		talk_why(why, "could not attach to \"%s\": could not make a socket: %s", name, strerror(-r));
		return r;
	}
	if (connect(sock, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		r = say_connect(name, address->sun_path, -errno, why);
	} else if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		r = -errno;
		talk_why(why, "cannot attach to \"%s\": the kernel does not say whose its socket is: %s", name,
			 strerror(-r));
	} else if (!uid_is_allowed(rules, peer.uid)) {
		r = say_uid(name, "socket", peer.uid, why);
	} else if (uid_known && peer.uid != *uid) {
		talk_why(why, "cannot attach to \"%s\": its control page belongs to uid %u and its socket to uid %u; "
			 "one of them is not the broker's", name, (unsigned)*uid, (unsigned)peer.uid);
		r = -EACCES;
	} else {
		*uid = peer.uid;
		return sock;
	}
	close(sock);
	return r;
}

int talk_connect(const char *name, const struct talk_rules *rules, uid_t *ret_uid, char *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const bool by_page = control_name_check(name) == 0;
	uid_t uid = 0;
	int r;

	if (by_page) {
		r = page_read(name, rules, &address, &uid, why);
		if (r < 0)
			return r;
	} else if (strchr(name, '/') && strlen(name) < sizeof(address.sun_path)) {
		memcpy(address.sun_path, name, strlen(name) + 1);
	} else {
		talk_why(why, "cannot attach to \"%s\": a name is / and 1 to 64 of [A-Za-z0-9._-], or the path of "
			 "a broker's socket of at most %zu bytes", name, sizeof(address.sun_path) - 1);
		return -EINVAL;
	}
	r = connect_checked(name, &address, rules, &uid, by_page, why);
	if (r >= 0)
		*ret_uid = uid;
	return r;
}

/* ---- HELLO and WELCOME -------------------------------------------------------------------------- */

int talk_hello(int sock, uint32_t flags, const char *client_name, const struct channel_geometry *geometry,
	       uint64_t deadline_ns)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 },
		.abi = STOKER_ABI,
		.flags = flags,
	};

	snprintf(hello.client_name, sizeof(hello.client_name), "%s", client_name);
	if (geometry)
		hello.geometry = *geometry;
	return talk_send(sock, &hello, sizeof(hello), NULL, 0, deadline_ns);
}

static int welcome_errno(uint32_t status)
{
	switch (status) {
	case STOKER_STATUS_OK:
		return 0;
	case STOKER_STATUS_NO_MEMORY:
		return -ENOMEM;
	case STOKER_STATUS_BAD_REQUEST:
		return -EPROTO;
	default:
		return -EACCES;
	}
}

int talk_welcome_check(const struct message_welcome *welcome, size_t bytes, const char *name, char *why)
{
	int r;

	if (bytes < offsetof(struct message_welcome, boot_id) || welcome->header.type != MESSAGE_WELCOME) {
		talk_why(why, "cannot attach to \"%s\": what answers there does not speak this protocol", name);
		return -EPROTO;
	}
	if (welcome->abi != STOKER_ABI || bytes != sizeof(*welcome)) {
		talk_why(why, "cannot attach to \"%s\": its layout version is %u, this library speaks %u; install the "
			 "client library of the broker's release", name, welcome->abi, STOKER_ABI);
		return -EPROTONOSUPPORT;
	}
	r = welcome_errno(welcome->status);
	if (r < 0)
		talk_why(why, "the broker \"%s\" refused: %.*s", name, (int)strnlen(welcome->reason, MESSAGE_REASON),
			 welcome->reason);
	return r;
}
