/*
 * Queues between threads of one process: Concurrency Kit's SPSC ring of pointers, and the one file
 * (queue.c) that names CK. Memory order: what the producer wrote before queue_put() is seen by the
 * consumer after queue_get(); nothing else is promised. queue.c is built without
 * -fsanitize=thread and tells TSan of that edge itself.
 *
 * A queue carries pointers to messages that one side owns at a time. Waking is not its business:
 * pair it with a `struct bell`.
 */
#ifndef STOKER_COMMON_QUEUE_H
#define STOKER_COMMON_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

struct queue;

/* @capacity: entries that fit, rounded up to a power of two. NULL: no memory. */
struct queue *queue_new(uint32_t capacity);
void queue_free(struct queue *queue);			/* NULL is fine */
bool queue_put(struct queue *queue, void *message);	/* producer; false: full */
void *queue_get(struct queue *queue);			/* consumer; NULL: empty */
bool queue_is_empty(const struct queue *queue);		/* consumer */

/*
 * A bell: an eventfd of this process alone (never shared with a peer) for a consumer that sleeps.
 * The consumer calls bell_arm(), looks at its queues once more, sleeps on bell_fd(), and calls
 * bell_disarm() when it is awake. bell_ring() makes a system call only while the bell is armed.
 */
struct bell {
	int fd;
	_Atomic uint32_t armed;
};
int bell_init(struct bell *bell);	/* 0 or -errno */
void bell_fini(struct bell *bell);
void bell_arm(struct bell *bell);
void bell_disarm(struct bell *bell);	/* drains the eventfd too */
void bell_ring(struct bell *bell);	/* any thread */

#endif
