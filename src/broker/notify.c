/* See notify.h. A service manager that cannot be reached notices by its own time-out: it is only said. */
#include "src/broker/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/common/log.h"

void notify_ready(void)
{
	static const char text[] = "READY=1";
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n == 0)
		return;
	if ((path[0] != '/' && path[0] != '@') || n >= sizeof(address.sun_path)) {
		log_warning("NOTIFY_SOCKET=%s is no socket's path: nobody is told that the broker is ready", path);
		return;
	}
	memcpy(address.sun_path, path, n);
	if (path[0] == '@')
		address.sun_path[0] = '\0';	/* an abstract name */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, text, sizeof(text) - 1, MSG_NOSIGNAL, (const struct sockaddr *)&address,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_warning("the service manager could not be told that the broker is ready: %m");
	if (fd >= 0)
		close(fd);
}
