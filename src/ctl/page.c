/*
 * The control page of a broker, and whether that broker is still there.
 *
 * A page stays behind when its broker is killed. Whether anybody listens on its socket the kernel
 * says without the broker's help: connect() to a hung broker goes into its backlog, to a dead one is
 * refused. A socket that cannot be seen from here (a container that shares only /dev/shm) proves
 * nothing; then the page is shown as it is.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "src/ctl/ctl.h"

static bool nobody_listens(const struct control_page *page)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	bool refused;
	int sock;

	memcpy(address.sun_path, page->socket, sizeof(address.sun_path));
	address.sun_path[sizeof(address.sun_path) - 1] = '\0';
	if (address.sun_path[0] == '\0')
		return false;
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return false;
	refused = connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno == ECONNREFUSED;
	close(sock);
	return refused;
}

enum ctl_exit ctl_page(const struct ctl *ctl, const struct control_page **ret)
{
	const struct control_page *page;
	const int r = control_map(ctl->name, &page);

	if (r == 0 && !nobody_listens(page)) {
		*ret = page;
		return CTL_DONE;
	}
	switch (r) {
	case 0:
		control_unmap(page);
		return ctl_fail(CTL_NO_BROKER, "there is no broker \"%s\": its control page is a leftover of one that is "
				"gone; start stokerd --name %s", ctl->name, ctl->name);
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
