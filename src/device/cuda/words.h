/*
 * The words of one attachment's channel as a device of the worker sees them: the ready words, which its streams
 * raise, and the slots, for which they wait. A mapping of its own, registered with the driver: what is
 * enqueued on a stream may come to run long after the attachment is over, and must still find memory there.
 * So the pages are given back only when every stream that was given work on them has passed it.
 */
#ifndef STOKER_DEVICE_CUDA_WORDS_H
#define STOKER_DEVICE_CUDA_WORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"
#include "src/device/cuda/driver.h"
#include "src/device/cuda/gate.h"

#define WORDS_STREAMS	64u	/* streams with work under way on the words of one attachment */
#define WORDS_CALLBACKS	1024u

struct words;

/** struct words_ways - how it is done on this machine; found out by trying, and kept for all attachments. */
struct words_ways {
	bool no_register, no_write, no_wait;	/* refused once: not tried again */
	char why_register[CUDA_TEXT], why_write[CUDA_TEXT], why_wait[CUDA_TEXT];
};

struct words_callback {		/* a ready word that a host callback raises */
	_Atomic bool busy;
	uint32_t value;
	_Atomic uint32_t *word;
};

struct words {
	struct words *next;
	const struct cuda_driver *cuda;
	struct words_ways *ways;
	uint32_t ordinal;		/* of the attachment */
	uint8_t *map;			/* ready words, then slots */
	size_t bytes;
	uint32_t n_ready, n_slots;
	bool registered;
	struct cuda_context *seen;	/* that was current last; for calls where none is */
	struct cuda_context *context;	/* for which `address` holds */
	cuda_address address;		/* of `map` */
	struct gate gate;
	uint32_t n_streams;
	bool untracked;			/* an event could not be had: kept for the life of the process */
	struct { struct cuda_stream *stream; struct cuda_event *event; } streams[WORDS_STREAMS];
	struct words_callback callbacks[WORDS_CALLBACKS];
};

/*
 * Map the ready words and slots of @channel (@plan, mapped) once more, and register them with the driver
 * if it lets us. 0, -ENOMEM or -errno with a text in @why (CUDA_WHY bytes).
 */
int words_new(const struct cuda_driver *cuda, struct words_ways *ways, const uint8_t *channel,
	      const struct channel_plan *plan, uint32_t ordinal, char *why, struct words **ret);
/* Enqueue: ready word @index := @value. 0, -EAGAIN or -errno with a text. */
int words_raise(struct words *words, uint32_t index, uint32_t value, void *stream, char *why);
/* Enqueue: wait until `done` of @slot is @generation or later. 0, -EOPNOTSUPP or -errno with a text. */
int words_wait(struct words *words, uint32_t slot, uint32_t generation, void *stream, char *why);
/* Free it if no stream has work on it any more. Returns whether it is gone. In a forked child only what it
 * is made of goes: mapping, registration and thread are the parent's. */
bool words_free(struct words *words, bool forked);

static inline struct stoker_slot *words_slot(const struct words *words, uint32_t slot)
{
	return (struct stoker_slot *)(words->map + words->n_ready * sizeof(uint32_t)) + slot;
}

#endif
