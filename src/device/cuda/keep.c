/*
 * See keep.h. A number that nobody uses is kept from others by a descriptor of /dev/null.
 */
#include "src/device/cuda/keep.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

static struct {
	uint32_t n;
	int numbers[KEEP_MAX];	/* rising */
	bool used[KEEP_MAX];
	int nothing;
} keep = { .nothing = -1 };

void keep_open(void)
{
	struct rlimit files;
	uint32_t most = KEEP_MAX;

	keep.nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (keep.nothing < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	if (files.rlim_cur / 4 < most)
		most = (uint32_t)(files.rlim_cur / 4);
	while (keep.n < most) {
		const int number = fcntl(keep.nothing, F_DUPFD_CLOEXEC, 3);

		if (number < 0)
			return;
		keep.numbers[keep.n++] = number;
	}
}

int keep_put(int fd)
{
	for (uint32_t i = 0; i < keep.n; i++) {
		if (keep.used[i] || dup3(fd, keep.numbers[i], O_CLOEXEC) < 0)
			continue;
		keep.used[i] = true;
		close(fd);
		return keep.numbers[i];
	}
	return fd;
}

void keep_close(int fd)
{
	for (uint32_t i = 0; i < keep.n; i++) {
		if (keep.numbers[i] != fd || !keep.used[i])
			continue;
		keep.used[i] = false;
		if (dup3(keep.nothing, fd, O_CLOEXEC) < 0)
			break;
		return;
	}
	if (fd >= 0)
		close(fd);
}
