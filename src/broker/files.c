/* Files that the broker keeps for itself; see files.h. */
#include "src/broker/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int files_why(int error, char *why, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, FILES_WHY, format, arguments);
	va_end(arguments);
	return -error;
}

int files_directory(const char *path, char *why)
{
	struct stat st;
	int dir;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return files_why(errno, why, "cannot make the directory %.120s: %m; make it, owned by uid %u",
				 path, (unsigned)geteuid());
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return files_why(errno, why, "cannot open the directory %.120s: %m", path);
	if (fstat(dir, &st) < 0)
		files_why(errno, why, "cannot look at the directory %.120s: %m", path);
	else if (st.st_uid != geteuid())
		files_why(EPERM, why, "the directory %.120s belongs to uid %u and the broker runs as %u; chown it",
			  path, (unsigned)st.st_uid, (unsigned)geteuid());
	else if (st.st_mode & 022)
		files_why(EPERM, why, "the directory %.120s can be written by others (mode %04o); chmod 0700 it",
			  path, (unsigned)st.st_mode & 07777);
	else
		return dir;
	close(dir);
	return -EPERM;
}

int files_open(int dir, const char *path, const char *name, int flags, char *why)
{
	struct stat st;
	/* Not blocking, because a fifo under that name would hold us up before we can refuse it; and
	 * blocking afterwards, because io_uring answers EAGAIN where it would have to wait. */
	int fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return files_why(errno, why, "cannot open %.100s/%.60s: %m", path, name);
	if (fstat(fd, &st) < 0)
		files_why(errno, why, "cannot look at %.100s/%.60s: %m", path, name);
	else if (!S_ISREG(st.st_mode))
		files_why(EPERM, why, "%.100s/%.60s is no regular file; move it away", path, name);
	else if (st.st_uid != geteuid())
		files_why(EPERM, why, "%.100s/%.60s belongs to uid %u and the broker runs as %u; move it away",
			  path, name, (unsigned)st.st_uid, (unsigned)geteuid());
	else if (fcntl(fd, F_SETFL, flags & (O_DIRECT | O_APPEND)) < 0)
		files_why(errno, why, "cannot use %.100s/%.60s: %m", path, name);
	else
		return fd;
	close(fd);
	return -EPERM;
}

int files_write(int fd, const void *bytes, size_t n, uint64_t offset)
{
	while (n > 0) {
		const ssize_t done = pwrite(fd, bytes, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		bytes = (const uint8_t *)bytes + done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

int files_read(int fd, void *bytes, size_t n, uint64_t offset)
{
	while (n > 0) {
		const ssize_t done = pread(fd, bytes, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -ENODATA;
		bytes = (uint8_t *)bytes + done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

int files_rename(int dir, const char *from, const char *to)
{
	if (renameat(dir, from, dir, to) < 0 || fsync(dir) < 0)
		return -errno;
	return 0;
}
