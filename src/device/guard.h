/*
 * The guard against SIGBUS: memory that a client may truncate under our feet.
 *
 * Touching a page of a shared mapping that its file no longer has raises SIGBUS. In a guarded range
 * the handler puts anonymous memory in the place of the whole range, marks it faulted, and the copy
 * goes on into memory that means nothing; whoever copied looks at the mark afterwards. A fault
 * anywhere else is a fault of our own: it gets the action that was there before.
 *
 * The table is of the process, because signal handlers are. Every thread that touches guarded memory
 * must have SIGBUS unblocked.
 */
#ifndef STOKER_DEVICE_GUARD_H
#define STOKER_DEVICE_GUARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_RANGES_MAX 16384u

int guard_start(void);	/* 0 or -errno; counted: the handler stays until as many guard_stop() */
void guard_stop(void);

/*
 * Guard [@start, @start + @bytes), whole pages of one mapping; @faulted becomes 1 at its first
 * fault. Any thread. Returns 0 or -ENOSPC: the table is full.
 */
int guard_add(void *start, size_t bytes, _Atomic uint32_t *faulted);
void guard_remove(void *start);		/* nobody touches it any more; not guarded: nothing happens */

#endif
