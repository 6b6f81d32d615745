/* See locks.h. flock() follows the open file description, which is what io_uring and copiers keep. */
#include "src/broker/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WHY		512u
#define PF_EXITING	0x4ul	/* of the kernel's task flags */
#define LEAVING_MS	2000	/* longest wait for a holder that is leaving */

/* Make a directory if it is absent, and refuse one that another user could have put there. */
static int directory_own(const char *path, mode_t mode, char *why)
{
	struct stat is;

	if (mkdir(path, mode) < 0 && errno != EEXIST) {
		snprintf(why, WHY, "directory %s could not be made: %m; name another one with broker.runtime_directory",
			 path);
		return -errno;
	}
	if (lstat(path, &is) < 0) {
		snprintf(why, WHY, "directory %s could not be looked at: %m", path);
		return -errno;
	}
	if (!S_ISDIR(is.st_mode) || is.st_uid != geteuid() || (is.st_mode & 022)) {
		snprintf(why, WHY, "%s is not a directory of uid %u that it alone may write: remove it, or name another "
			 "one with broker.runtime_directory", path, (unsigned)geteuid());
		return -EPERM;
	}
	/* The umask may have taken away what others need to reach the socket. */
	if ((is.st_mode & 0777) != mode && chmod(path, mode) < 0) {
		snprintf(why, WHY, "mode of directory %s could not be set: %m", path);
		return -errno;
	}
	return 0;
}

/* The directories above it, as mkdir -p makes them; what fails shows when the last one is made. */
static void parents_make(const char *path)
{
	char text[256];

	snprintf(text, sizeof(text), "%s", path);
	for (char *at = strchr(text + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = '\0';
		mkdir(text, 0755);
		*at = '/';
	}
}

static int lock_file(const struct locks *locks, const char *suffix, int *ret, char *why)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/private/%s.%s", locks->directory, locks->name, suffix);
	const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		const int r = -errno;

		snprintf(why, WHY, "lock %s could not be opened: %m", path);
		return r;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*ret = fd;
		return 0;
	}
	const int r = errno == EWOULDBLOCK ? -EBUSY : -errno;
	char holder[32] = "";
	const ssize_t n = pread(fd, holder, sizeof(holder) - 1, 0);

	holder[n > 0 ? strcspn(holder, "\n") : 0] = '\0';
	snprintf(why, WHY, "%s holds %s", holder[0] ? holder : "another process", path);
	close(fd);
	return r;
}

static void lock_sign(int fd)
{
	char text[32];
	const int n = snprintf(text, sizeof(text), "pid %d\n", (int)getpid());

	/* For people alone: that it is not there costs a word in a message. */
	if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) < 0)
		return;
}

/*
 * Is the holder, whom lock_file() named in @reason, on its way out? A process that was killed gives
 * back its memory first, which takes a while for a large arena, and its locks after that.
 */
static bool holder_is_leaving(const char *reason)
{
	unsigned long flags = 0;
	char path[64], text[512];
	int pid = 0;

	if (sscanf(reason, "pid %d ", &pid) != 1)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	/* The name may hold anything: what follows begins behind the last parenthesis. Field 9: flags. */
	const char *rest = strrchr(text, ')');
	return n <= 0 || (rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 && flags & PF_EXITING);
}

int locks_open(const char *directory, const char *name, char *why, struct locks *ret)
{
	struct locks locks = { .name_fd = -1, .io_fd = -1 };
	char path[300], reason[WHY];

	snprintf(locks.directory, sizeof(locks.directory), "%s", directory);
	snprintf(locks.name, sizeof(locks.name), "%s", name[0] == '/' ? name + 1 : name);
	parents_make(directory);
	int r = directory_own(directory, 0755, why);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/private", directory);
	r = directory_own(path, 0700, why);
	if (r < 0)
		return r;
	r = lock_file(&locks, "lock", &locks.name_fd, reason);
	for (int i = 0; i < LEAVING_MS && r == -EBUSY && holder_is_leaving(reason); i++) {
		usleep(1000);
		r = lock_file(&locks, "lock", &locks.name_fd, reason);
	}
	if (r == -EBUSY)
		snprintf(why, WHY, "the name %.72s is in use: %.240s; stop that broker (stokerctl --name %.72s stop), or "
			 "start this one with another --name", name, reason, name);
	else if (r < 0)
		snprintf(why, WHY, "%s", reason);
	if (r < 0)
		return r;
	lock_sign(locks.name_fd);
	*ret = locks;
	return 0;
}

/* Number 0 is made if it is absent; the others are there only if a broker once needed them. */
static int io_lock(const struct locks *locks, uint32_t number, bool make, int *ret, char *why)
{
	char suffix[16], path[400];

	if (number == 0)
		snprintf(suffix, sizeof(suffix), "io");
	else
		snprintf(suffix, sizeof(suffix), "io.%u", number);
	snprintf(path, sizeof(path), "%s/private/%s.%s", locks->directory, locks->name, suffix);
	if (number > 0 && !make && access(path, F_OK) < 0)
		return -ENOENT;
	return lock_file(locks, suffix, ret, why);
}

int locks_take_io(struct locks *locks, bool fresh, char *why)
{
	bool older = false;

	for (uint32_t i = 0; i < LOCKS_IO_MAX; i++) {
		int fd = -1;
		const int r = io_lock(locks, i, fresh && locks->io_fd < 0, &fd, why);

		if (r == -ENOENT)
			continue;
		if (r < 0 && r != -EBUSY)
			return r;
		older |= r == -EBUSY;
		if (r == 0 && locks->io_fd < 0)
			locks->io_fd = fd;
		else if (r == 0)
			close(fd);
	}
	if (locks->io_fd >= 0 && (!older || fresh)) {
		lock_sign(locks->io_fd);
		locks->io_fresh = older;
		return older ? 1 : 0;
	}
	if (locks->io_fd >= 0)
		close(locks->io_fd);
	locks->io_fd = -1;
	if (fresh) {
		snprintf(why, WHY, "all %u I/O locks %s/private/%s.io* are held by brokers that are gone: their disk I/O "
			 "hangs; start with another --name", LOCKS_IO_MAX, locks->directory, locks->name);
		return -EBUSY;
	}
	return -EAGAIN;
}

void locks_close(struct locks *locks)
{
	if (locks->io_fd >= 0)
		close(locks->io_fd);
	if (locks->name_fd >= 0)
		close(locks->name_fd);
	locks->io_fd = locks->name_fd = -1;
}
