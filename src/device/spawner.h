/*
 * A thread that starts other programs, with a table of descriptors of its own in which there is nothing.
 *
 * A process that is started has, until it is executed, all that its starter has open, and then closes it. What
 * clients hand over is among that, and to close a file may take as long as the client likes that serves it (FUSE):
 * that process would never begin, could not be killed, and would keep whatever else it has, fences and locks too.
 * closer.h of the broker is the same for closing; here nothing of it is ever opened.
 */
#ifndef STOKER_DEVICE_SPAWNER_H
#define STOKER_DEVICE_SPAWNER_H

#include <sys/types.h>

/*
 * Start the thread, once in a process: before anything is open that a stranger has handed over. Without it, and
 * where the kernel refuses it, programs are started with the caller's descriptors.
 */
void spawner_start(void);

/*
 * Run @program with @arguments and the process's environment. It has @fd as @as, /dev/null as 0 and 1, and 2.
 * Signals that ask for an end (TERM, INT, HUP) are blocked in it. Waits until it is executed. 0 or -errno.
 */
int spawner_run(const char *program, char *const *arguments, int fd, int as, pid_t *ret);

#endif
