/* See output.h. */
#include "src/common/output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

void output_begin(void)
{
	signal(SIGPIPE, SIG_IGN);
	/* The wrong way round, so that using it fails as it would have. */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
	}
}

int output_end(void)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	/* An earlier write may have failed: why is not known any more. */
	return errno ? -errno : -EIO;
}
