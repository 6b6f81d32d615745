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
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- between processes --------------------------------------------------------------------------- */

struct queue_entry { uint8_t bytes[QUEUE_ENTRY_BYTES]; };
CK_RING_PROTOTYPE(entry, queue_entry)

/** struct shared_queue - indices and places in one piece of memory, so that each side finds both. */
struct shared_queue {
	ck_ring_t ring;
	alignas(64) struct queue_entry entries[];
};

size_t shared_queue_bytes(uint32_t capacity)
{
	return sizeof(struct shared_queue) + capacity * sizeof(struct queue_entry);
}

struct shared_queue *shared_queue_make(void *memory, uint32_t capacity)
{
	struct shared_queue *queue = memory;

	ck_ring_init(&queue->ring, capacity);
	return queue;
}

struct shared_queue *shared_queue_of(void *memory)
{
	return memory;
}

bool shared_queue_put(struct shared_queue *queue, const void *entry)
{
	struct queue_entry copy;

	memcpy(copy.bytes, entry, sizeof(copy.bytes));
	__tsan_release(queue);
	return CK_RING_ENQUEUE_SPSC(entry, &queue->ring, queue->entries, &copy);
}

bool shared_queue_get(struct shared_queue *queue, void *entry)
{
	struct queue_entry copy;

	if (!CK_RING_DEQUEUE_SPSC(entry, &queue->ring, queue->entries, &copy))
		return false;
	__tsan_acquire(queue);
	memcpy(entry, copy.bytes, sizeof(copy.bytes));
	return true;
}

bool shared_queue_is_empty(const struct shared_queue *queue)
{
	return ck_ring_size(&queue->ring) == 0;
}
