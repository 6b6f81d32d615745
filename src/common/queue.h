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
#include <stddef.h>
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
struct shared_bell {
	_Atomic uint32_t armed;
};
struct bell {
	int fd;
	struct shared_bell shared;
};
int bell_init(struct bell *bell);	/* 0 or -errno */
void bell_fini(struct bell *bell);
void bell_arm(struct bell *bell);
void bell_disarm(struct bell *bell);	/* drains the eventfd too */
void bell_ring(struct bell *bell);	/* any thread */
bool bell_is_armed(const struct bell *bell);	/* any thread: a hint that the consumer sleeps */

/*
 * The same between two processes of this program that trust each other, in memory that both map: a queue
 * of 64-byte entries, and a bell of which each has the eventfd under a number of its own.
 */
#define QUEUE_ENTRY_BYTES 64u
struct shared_queue;
size_t shared_queue_bytes(uint32_t capacity);		/* @capacity: a power of two; one place stays empty */
struct shared_queue *shared_queue_make(void *memory, uint32_t capacity);	/* @memory: on 64 bytes */
struct shared_queue *shared_queue_of(void *memory);	/* the other side's view of what was made */
bool shared_queue_put(struct shared_queue *queue, const void *entry);	/* producer; false: full */
bool shared_queue_get(struct shared_queue *queue, void *entry);		/* consumer; false: empty */
bool shared_queue_is_empty(const struct shared_queue *queue);		/* consumer */

void shared_bell_arm(struct shared_bell *bell);
void shared_bell_disarm(struct shared_bell *bell, int fd);	/* drains the eventfd too */
void shared_bell_ring(struct shared_bell *bell, int fd);

#endif
