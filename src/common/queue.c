/*
 * The one file that names Concurrency Kit. CK orders its stores and loads by instructions that
 * ThreadSanitizer does not understand, so this file is built without it and says itself what is
 * ordered: what came before a put is seen after the get that takes it.
 */
#include "src/common/queue.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <ck_ring.h>
#include <stdlib.h>

#ifdef STOKER_SANITIZE_THREAD
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#else
#define __tsan_acquire(address) ((void)(address))
#define __tsan_release(address) ((void)(address))
#endif

struct queue {
	ck_ring_t ring;
	ck_ring_buffer_t *buffer;
};

#define QUEUE_CAPACITY_MAX (1u << 30)

struct queue *queue_new(uint32_t capacity)
{
	struct queue *queue;
	uint32_t places = 2;

	if (capacity > QUEUE_CAPACITY_MAX)
		return NULL;
	while (places <= capacity)	/* CK keeps one place empty */
		places *= 2;
	if (posix_memalign((void **)&queue, 64, sizeof(*queue)) != 0)
		return NULL;
	queue->buffer = calloc(places, sizeof(*queue->buffer));
	if (!queue->buffer) {
		free(queue);
		return NULL;
	}
	ck_ring_init(&queue->ring, places);
	return queue;
}

void queue_free(struct queue *queue)
{
	if (!queue)
		return;
	free(queue->buffer);
	free(queue);
}

bool queue_put(struct queue *queue, void *message)
{
	__tsan_release(queue);
	return ck_ring_enqueue_spsc(&queue->ring, queue->buffer, message);
}

void *queue_get(struct queue *queue)
{
	void *message;

	if (!ck_ring_dequeue_spsc(&queue->ring, queue->buffer, &message))
		return NULL;
	__tsan_acquire(queue);
	return message;
}

bool queue_is_empty(const struct queue *queue)
{
	return ck_ring_size(&queue->ring) == 0;
}
