/*
 * A file whose close never ends, as a peer can make one that serves it (FUSE): where this process may mount. The
 * mount goes when the process ends.
 */
#ifndef TESTS_SLOW_FILE_H
#define TESTS_SLOW_FILE_H

#include <stdbool.h>
#include <sys/types.h>

struct slow_file {
	char directory[64];
	pid_t server;
	int fds[2];		/* of the same file: to close any of them takes until slow_file_end() */
};

bool slow_file_make(struct slow_file *file);	/* false: it cannot be had here */
void slow_file_end(struct slow_file *file);	/* its server ends, and whoever waits for it goes on */

#endif
