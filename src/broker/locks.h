/*
 * The broker's directory and its two locks. One broker a name:
 *
 *	DIR/			0755, ours: the socket NAME.sock, so that other users can reach it
 *	DIR/private/		0700: nobody else can open (and so lock) what is in it
 *	DIR/private/NAME.lock	held by the broker process alone; refused means: name in use
 *	DIR/private/NAME.io*	inherited by copiers and registered in every io_uring that touches arena
 *				or tiers: the kernel keeps it until the last DMA of a dead broker landed
 *
 * None is ever unlinked. A broker that comes up while an I/O lock of a dead one is still held waits a
 * while, then takes the next number (NAME.io.1 ...) and makes fresh files: whoever comes later has to
 * find all numbers free before it trusts what was left, because a dead broker may hold any of them.
 */
#ifndef STOKER_BROKER_LOCKS_H
#define STOKER_BROKER_LOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LOCKS_IO_MAX 8u

struct locks {
	int name_fd, io_fd;	/* -1 = not held */
	bool io_fresh;		/* an older one is still held */
	char directory[256];
	char name[72];		/* without the slash */
};

/*
 * Make the directories and take NAME.lock. Returns 0, -EBUSY (in use: @why says by whom) or -errno,
 * each with one line in @why (512 bytes).
 */
int locks_open(const char *directory, const char *name, char *why, struct locks *ret);

/*
 * Take the I/O lock. Returns 0 (nothing of an older broker runs), or -EAGAIN if an older one's is
 * still held: try again, or with @fresh, which takes the first free number and returns 1.
 */
int locks_take_io(struct locks *locks, bool fresh, char *why);

void locks_close(struct locks *locks);	/* the files stay */

#endif
