/* See slow-file.h: just as much of FUSE as an open takes. */
#include "tests/slow-file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void reply(int device, uint64_t to, int error, const void *data, size_t bytes)
{
	struct fuse_out_header head = { .len = (uint32_t)(sizeof(head) + bytes), .error = error, .unique = to };
	const struct iovec parts[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)data, bytes } };

	if (writev(device, parts, bytes ? 2 : 1) < 0)
		return;		/* whoever asked is gone */
}

static void answer(int device, const struct fuse_in_header *asked)
{
	const struct fuse_attr attributes = { .ino = asked->nodeid, .nlink = 1, .size = 4096,
					      .mode = asked->nodeid == 1 ? S_IFDIR | 0755 : S_IFREG | 0666 };
	const struct fuse_attr of_file = { .ino = 2, .nlink = 1, .size = 4096, .mode = S_IFREG | 0666 };

	switch (asked->opcode) {
	case FUSE_INIT:
		reply(device, asked->unique, 0, &(struct fuse_init_out){ .major = FUSE_KERNEL_VERSION, .minor = 31,
									 .max_write = 65536 }, sizeof(struct fuse_init_out));
		return;
	case FUSE_LOOKUP:
		reply(device, asked->unique, 0, &(struct fuse_entry_out){ .nodeid = 2, .attr = of_file },
		      sizeof(struct fuse_entry_out));
		return;
	case FUSE_GETATTR:
		reply(device, asked->unique, 0, &(struct fuse_attr_out){ .attr = attributes }, sizeof(struct fuse_attr_out));
		return;
	case FUSE_OPEN:
		reply(device, asked->unique, 0, &(struct fuse_open_out){ .fh = 1 }, sizeof(struct fuse_open_out));
		return;
	case FUSE_FLUSH:	/* what a close waits for */
	case FUSE_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		reply(device, asked->unique, -ENOSYS, NULL, 0);
	}
}

__attribute__((noreturn)) static void serve(int device)
{
	static union { struct fuse_in_header asked; char bytes[256u << 10]; } in;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (read(device, &in, sizeof(in)) >= (ssize_t)sizeof(in.asked))
			answer(device, &in.asked);
		else if (errno != EINTR && errno != ENOENT)
			_exit(0);
	}
}

bool slow_file_make(struct slow_file *file)
{
	const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[128], path[80];
	bool mounted;

	*file = (struct slow_file){ .fds = { -1, -1 } };
	snprintf(file->directory, sizeof(file->directory), "/tmp/stoker-slow-%d", (int)getpid());
	snprintf(path, sizeof(path), "%s/file", file->directory);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device, (int)getuid(),
		 (int)getgid());
	mounted = device >= 0 && mkdir(file->directory, 0700) == 0 &&
		  mount("stoker-slow", file->directory, "fuse", MS_NOSUID | MS_NODEV, options) == 0;
	if (mounted && (file->server = fork()) == 0)
		serve(device);
	if (device >= 0)
		close(device);
	for (int i = 0; i < 2 && file->server > 0; i++)
		file->fds[i] = open(path, O_RDWR | O_CLOEXEC);
	if (mounted)
		umount2(file->directory, MNT_DETACH);
	rmdir(file->directory);
	if (file->fds[1] >= 0)
		return true;
	slow_file_end(file);
	return false;
}

void slow_file_end(struct slow_file *file)
{
	if (file->server > 0) {
		kill(file->server, SIGKILL);
		waitpid(file->server, NULL, 0);
	}
	for (int i = 0; i < 2; i++)
		if (file->fds[i] >= 0)
			close(file->fds[i]);
}
