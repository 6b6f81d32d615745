/*
 * The control page of a broker: a private copy of it, whose it is, and whether that broker is there.
 *
 * Anybody may make an object of any name in /dev/shm. So the page is read and never mapped: one that is
 * cut short meanwhile is a short read. It is believed if it is root's or the caller's own; or another
 * uid's if a broker of that very uid listens on the socket that it names, which the kernel says and not
 * the page. Verbs go to that listener alone. The page's texts lose what a terminal would obey before
 * anybody prints them.
 *
 * A page stays behind when its broker is killed. Whether anybody listens on its socket the kernel
 * says without the broker's help: connect() to a hung broker goes into its backlog, to a dead one is
 * refused. A socket that cannot be seen from here (a container that shares only /dev/shm) proves
 * nothing; then a page of root or of our own is shown as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "src/client/talk.h"
#include "src/ctl/ctl.h"

#define CONNECT_MS	5000u	/* longest wait for a place among those who wait to be let in */
#define SLEEPS_MAX	50	/* for rows that are being written, all together */
#define SLEEP_NS	100000

/* What is there, up to @bytes. */
static ssize_t read_up_to(int fd, void *to, size_t bytes, size_t offset)
{
	size_t done = 0;

	while (done < bytes) {
		const ssize_t n = pread(fd, (char *)to + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/*
 * Read the row at @offset of the copy again until nobody wrote it meanwhile. One that stays torn, as a
 * broker that was killed inside leaves it, becomes an unused one.
 */
static void row_settle(int fd, struct control_page *page, size_t offset, size_t bytes, int *sleeps)
{
	const struct timespec pause = { .tv_nsec = SLEEP_NS };
	char *row = (char *)page + offset;
	uint32_t before, after;

	for (;;) {
		if (read_up_to(fd, row, bytes, offset) != (ssize_t)bytes ||
		    read_up_to(fd, &after, sizeof(after), offset) != (ssize_t)sizeof(after))
			break;
		memcpy(&before, row, sizeof(before));
		if (before == after && before % 2 == 0)
			return;
		if ((*sleeps)++ >= SLEEPS_MAX)
			break;
		nanosleep(&pause, NULL);
	}
	memset(row, 0, bytes);
}

/* Fill @page from @fd: 0, or what control_check() says of it. */
static int page_copy(int fd, struct control_page *page)
{
	const ssize_t n = read_up_to(fd, page, sizeof(*page), 0);
	const int r = n < 0 ? (int)n : control_check(page, (size_t)n);
	int sleeps = 0;

	if (r < 0)
		return r;
	ctl_clean(page->version, sizeof(page->version));
	for (uint32_t i = 0; i < CONTROL_TIERS; i++) {
		struct control_tier *tier = &page->tiers[i];

		row_settle(fd, page, (size_t)((char *)tier - (char *)page), sizeof(*tier), &sleeps);
		ctl_clean(tier->name, sizeof(tier->name));
		ctl_clean(tier->path, sizeof(tier->path));
	}
	for (uint32_t i = 0; i < CONTROL_GPUS; i++) {
		struct control_gpu *gpu = &page->gpus[i];

		row_settle(fd, page, (size_t)((char *)gpu - (char *)page), sizeof(*gpu), &sleeps);
		ctl_clean(gpu->name, sizeof(gpu->name));
		ctl_clean(gpu->why, sizeof(gpu->why));
	}
	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client *client = &page->clients[i];

		row_settle(fd, page, (size_t)((char *)client - (char *)page), sizeof(*client), &sleeps);
		ctl_clean(client->name, sizeof(client->name));
	}
	return 0;
}

static int page_read(const char *name, struct control_page **ret, uid_t *ret_uid)
{
	/* Not blocking, because a fifo of that name would hold us up. */
	const int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	struct control_page *page;
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EPROTO;
	page = r == 0 ? mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : NULL;
	if (page == MAP_FAILED)
		r = -errno;
	if (r == 0) {
		r = page_copy(fd, page);
		if (r < 0)
			control_unmap(page);
	}
	close(fd);
	*ret = page;
	*ret_uid = st.st_uid;
	return r;
}

static void address_of(const struct control_page *page, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, page->socket, sizeof(ret->sun_path));
	ret->sun_path[sizeof(ret->sun_path) - 1] = '\0';
}

/* Connect to the socket that the page names: the socket; -EPERM: another uid than @owner listens; or -errno. */
static int owner_connect(const struct control_page *page, uid_t owner)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int sock, r;

	address_of(page, &address);
	if (address.sun_path[0] == '\0')
		return -ENOENT;
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0)
		r = errno == EPERM ? -EACCES : -errno;
	else if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		r = -errno;
	else
		r = peer.uid == owner ? 0 : -EPERM;
	if (r == 0)
		return sock;
	close(sock);
	return r;
}

enum listener { LISTENER_NONE, LISTENER_UNKNOWN, LISTENER_OF_OWNER };

/* Who listens on the page's socket, as owner_connect() found it with @sock: nobody, the uid that owns the page, or
 * somebody whom we cannot tell. */
static enum listener listener_of(const struct control_page *page, uid_t owner, int sock)
{
	struct sockaddr_un address;
	struct stat st;

	if (sock >= 0)
		return LISTENER_OF_OWNER;
	if (sock == -ECONNREFUSED)
		return LISTENER_NONE;
	address_of(page, &address);
	if (sock == -EAGAIN && stat(address.sun_path, &st) == 0 && st.st_uid == owner)
		return LISTENER_OF_OWNER;	/* it hangs, and its backlog is full */
	return LISTENER_UNKNOWN;
}

static enum ctl_exit say_page(const struct ctl *ctl, int r)
{
	switch (r) {
	case -ENOENT:
	case -EPIPE:
		return ctl_fail(CTL_NO_BROKER, "there is no broker \"%s\"; start stokerd --name %s, or name another with "
				"--name", ctl->name, ctl->name);
	case -EPROTO:
		return ctl_fail(CTL_FAILED, "the shared memory object \"%s\" is not a broker's control page; remove "
				"/dev/shm%s if nobody else needs it", ctl->name, ctl->name);
	case -EPROTONOSUPPORT:
		return ctl_fail(CTL_FAILED, "the broker \"%s\" has another layout version than %u; use the stokerctl of "
				"its release", ctl->name, STOKER_ABI);
	case -EACCES:
		return ctl_fail(CTL_NOT_PERMITTED, "no right to read the control page of \"%s\"; ask whoever runs it",
				ctl->name);
	default:
		return ctl_fail(CTL_FAILED, "could not read the control page of \"%s\": %s", ctl->name, strerror(-r));
	}
}

static bool is_trusted(uid_t owner)
{
	return owner == 0 || owner == geteuid();
}

static enum ctl_exit say_listener(const struct ctl *ctl, enum listener listener, uid_t owner)
{
	if (listener == LISTENER_NONE)
		return ctl_fail(CTL_NO_BROKER, "there is no broker \"%s\": its control page is a leftover of one that is "
				"gone; start stokerd --name %s", ctl->name, ctl->name);
	return ctl_fail(CTL_NOT_PERMITTED, "the control page of \"%s\" belongs to uid %u, and no broker of that uid is "
			"seen on the socket that it names: it may be anybody's; ask that uid, or remove /dev/shm%s",
			ctl->name, (unsigned)owner, ctl->name);
}

/* The page may be believed, and yet its socket could not be connected to. */
static enum ctl_exit say_connect(const struct ctl *ctl, const char *path, int r)
{
	char clean[sizeof(((struct control_page *)NULL)->socket)];

	snprintf(clean, sizeof(clean), "%s", path);
	ctl_clean(clean, sizeof(clean));
	switch (r) {
	case -ENOENT:
		return ctl_fail(CTL_NO_BROKER, "could not ask the broker \"%s\": there is no broker's socket %s here; ask where "
				"that path is seen, or start stokerd --name %s", ctl->name, clean, ctl->name);
	case -EAGAIN:
		return ctl_fail(CTL_FAILED, "could not ask the broker \"%s\": too many are waiting to be let in; try again; if "
				"it hangs, stokerctl status works all the same", ctl->name);
	case -EACCES:
		return ctl_fail(CTL_NOT_PERMITTED, "no right to connect to %s; ask whoever runs the broker \"%s\"", clean,
				ctl->name);
	default:
		return ctl_fail(CTL_FAILED, "could not connect to %s of the broker \"%s\": %s", clean, ctl->name,
				strerror(-r));
	}
}

/* Where too many wait to be let in, wait with them. */
static int owner_connect_wait(const struct control_page *page, uid_t owner)
{
	const uint64_t end = talk_now_ns() + CONNECT_MS * 1000000ull;
	int sock;

	while ((sock = owner_connect(page, owner)) == -EAGAIN && talk_now_ns() < end)
		poll(NULL, 0, 1);
	return sock;
}

enum ctl_exit ctl_page(const struct ctl *ctl, const struct control_page **ret)
{
	struct control_page *page = NULL;
	enum listener listener;
	uid_t owner = 0;
	const int r = page_read(ctl->name, &page, &owner);
	int sock;

	if (r < 0)
		return say_page(ctl, r);
	sock = owner_connect(page, owner);
	if (sock >= 0)
		close(sock);
	listener = listener_of(page, owner, sock);
	if (listener == LISTENER_OF_OWNER || (listener == LISTENER_UNKNOWN && is_trusted(owner))) {
		*ret = page;
		return CTL_DONE;
	}
	control_unmap(page);
	return say_listener(ctl, listener, owner);
}

enum ctl_exit ctl_connect(const struct ctl *ctl, int *ret_sock)
{
	struct control_page *page = NULL;
	enum ctl_exit e = CTL_DONE;
	enum listener listener;
	uid_t owner = 0;
	const int r = page_read(ctl->name, &page, &owner);
	int sock;

	if (r < 0)
		return say_page(ctl, r);
	sock = owner_connect_wait(page, owner);
	listener = listener_of(page, owner, sock);
	if (sock >= 0)
		*ret_sock = sock;
	else if (listener == LISTENER_OF_OWNER || (listener == LISTENER_UNKNOWN && is_trusted(owner) && sock != -EPERM))
		e = say_connect(ctl, page->socket, sock);
	else
		e = say_listener(ctl, listener, owner);
	control_unmap(page);
	return e;
}

uint64_t ctl_gauge(const struct control_page *page, enum stoker_gauge gauge)
{
	return atomic_load_explicit(&page->gauges[gauge], memory_order_relaxed);
}

uint64_t ctl_uptime_ns(uint64_t since_ns)
{
	struct timespec now;
	uint64_t ns;

	clock_gettime(CLOCK_BOOTTIME, &now);
	ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return ns > since_ns ? ns - since_ns : 0;
}
