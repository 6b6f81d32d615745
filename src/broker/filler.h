/*
 * The filler populates the arena's extents behind a broker that serves already, so that nobody notices.
 *
 * Its thread is of the scheduling class SCHED_IDLE: whoever serves goes before it at once, and the
 * scheduler takes a processor that runs nothing else for an idle one. A thread that is merely nice does
 * not do: its processor counts as taken, so on a small machine the core thread and a client are put
 * together on the other one, where each waits until the other has stopped spinning (lookups of 60 and 120 us
 * where 1 us is due).
 *
 * Huge pages are made in one go of 0.1 ms, during which many kernels give the processor to nobody else. Where
 * processors are few, somebody would wait for it; so there they are made while the core thread sleeps, and
 * small pages while it serves.
 *
 * On a machine that is busy all over such a thread stands still. So it may hold nothing that others
 * need: it works in small parts, by calls that keep no lock of the address space over more than a page.
 * And its owner looks at filler_bytes(): if they do not grow, it calls filler_help().
 */
#ifndef STOKER_BROKER_FILLER_H
#define STOKER_BROKER_FILLER_H

#include "src/broker/arena.h"
#include "src/common/queue.h"

struct filler;

/*
 * Populate all extents from @first on; @core: the bell of the core thread. @stop ends it early. Returns 0 or
 * -ENOMEM; if its thread cannot be made, all is left to filler_help().
 */
int filler_start(struct arena *arena, uint32_t first, const struct bell *core, const _Atomic bool *stop,
		 struct filler **ret);
void filler_end(struct filler *filler);		/* waits for its thread; NULL is fine */

/* The owner's: an extent that is over, each once, and 0 or -errno for it. False: none is right now. */
bool filler_take(struct filler *filler, uint32_t *ret_extent, int *ret_result);
uint64_t filler_bytes(const struct filler *filler);	/* populated up to now */
void filler_help(struct filler *filler);		/* populate one extent in the calling thread, if one is left */

#endif
