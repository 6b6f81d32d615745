/*
 * Helper threads: they run short tasks for one owner, the core thread.
 *
 * Each has a queue of tasks to run and a queue of those that it has run, and a bell to sleep on. The
 * owner never blocks: it puts tasks while a helper has room, and takes what they have finished. What
 * the owner wrote before workers_put() the helper sees, and the other way round at workers_take().
 */
#ifndef STOKER_DEVICE_WORKERS_H
#define STOKER_DEVICE_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/common/queue.h"

#define WORKERS_MAX	64u
#define WORKERS_DEPTH	8u	/* tasks that one helper is given at once, at most */

struct workers;

/** struct worker_task - embedded first in whatever is to be run; its owner's again once taken back. */
struct worker_task {
	void (*run)(struct worker_task *task);
	uint64_t bytes;		/* about how much work it is; set by the owner */
	uint32_t worker;	/* who runs it; set by workers_put() */
};

/*
 * @n helpers, 1 to WORKERS_MAX. None is given a further task while it has @bytes of work or more.
 * @owner is rung after every task. Returns 0 or -errno.
 */
int workers_start(uint32_t n, uint64_t bytes, struct bell *owner, struct workers **ret);
void workers_stop(struct workers *workers);	/* all tasks have been taken back; NULL is fine */

bool workers_have_room(const struct workers *workers);
void workers_put(struct workers *workers, struct worker_task *task);	/* there is room */
struct worker_task *workers_take(struct workers *workers);		/* a finished one, or NULL */
uint32_t workers_busy(const struct workers *workers);	/* tasks put and not taken back */

#endif
