/*
 * The broker's side of a client's channel: shared memory, pipes, and the private memory into which
 * requests are copied before anybody looks at them.
 *
 * - Sizes, places and indices come from the private plan; nothing here is read back from the header.
 * - A request is loaded once (head, line, the used part of its payload), checked, and used from the
 *   copy. The copy of a slot stays as it is until its DONE has been published.
 * - A slot that is asked for while its job lives is impossible for an honest library, as are unknown
 *   operations, flags and counts that its operation does not have, and reserved bits: channel_take()
 *   says so and the client is expelled. What an honest application can get wrong is left to the engine.
 *
 * Threads: the control thread makes a channel and, when the core has said that it is gone, frees it;
 * between the two it is the core's, but for the fields that say otherwise.
 */
#ifndef STOKER_BROKER_CHANNEL_H
#define STOKER_BROKER_CHANNEL_H

#include "shm/layout.h"
#include "shm/ring.h"
#include "src/broker/order.h"
#include "src/engine/engine.h"

#define CHANNEL_POOLS_MAX	128u	/* pools of one client */

/** struct channel_slot - private: what was copied out of a slot, and whether its job lives. */
struct channel_slot {
	alignas(64) struct engine_request request;
	uint64_t taken_ns;		/* when the round began in which it was taken */
	bool busy;
	bool watched;			/* its ready word is being watched */
	uint32_t watch_next, watch_prev;	/* slots of this client that are watched: see watch.c */
	uint32_t watch_lap;		/* of the core, in which it was looked at last */
	uint32_t ready_index, ready_value;
};

/** struct channel_ends - descriptors that go to the client, and are closed once they are sent. */
struct channel_ends {
	int memory, doorbell, completion, fence;
};

struct channel {
	/* The core's, in every round: */
	alignas(64) struct request_consumer requests;
	uint64_t active;		/* ns; when the round began in which it last had an entry */
	struct channel_slot *slot;
	uint8_t *base;			/* of the shared memory */
	uint32_t number;		/* of the client */
	uint32_t hot_at;		/* place in the core's list of polled channels */
	bool hot, wake, out, expelled;

	alignas(64) struct response_producer responses;
	struct stoker_slot *slots;	/* shared */
	int doorbell, completion;	/* ours: read end, write end; non-blocking */
	uint8_t *memory;		/* private: slots, inputs, scratch */
	size_t memory_bytes;
	struct channel_plan plan;
	uint32_t tenant;
	const char *why;		/* why it is expelled */
	struct channel *watch_next, *watch_prev;	/* clients with watched slots */
	uint32_t n_watched, watch_slot;	/* slots whose words are watched; which is looked at next */
	struct device_pool *pools[CHANNEL_POOLS_MAX];
	uint32_t pool_model[CHANNEL_POOLS_MAX];	/* engine's number */
	struct order expelled_order, gone_order;
	struct control_client row;	/* of the control page: who it is; figures are added */

	/* Written by the control thread, read by the core: models that this client opened, a bit each. */
	alignas(64) _Atomic uint64_t models;

	/* The control thread's: */
	alignas(64) void *session;
	int fence;			/* write end: closed with the broker, or with the channel */
};

/*
 * Make a channel of that geometry (checked here) for client @number. Returns 0, -EINVAL (geometry) or
 * -errno. @ret_ends are the caller's.
 */
int channel_new(const struct channel_geometry *geometry, uint32_t number, struct channel_ends *ret_ends,
		struct channel **ret);
void channel_ends_close(struct channel_ends *ends);
void channel_free(struct channel *channel);	/* NULL is fine */

/* --- the core thread --- */

enum channel_taken {
	CHANNEL_NOTHING,
	CHANNEL_REQUEST,	/* *ret is a request of the engine's: its slot is busy now */
	CHANNEL_CANCEL,		/* *ret has head.slot and the generation to cancel */
	CHANNEL_REFUSED,	/* *ret cannot be asked: answer BAD_REQUEST; its slot is not busy */
	CHANNEL_BROKEN,		/* impossible: expel; channel->why says it */
};
/* Take the next entry. The model's number is left as the client named it. */
enum channel_taken channel_take(struct channel *channel, struct engine_request **ret);

/*
 * Write an answer into its slot: fields, then the word, then the hint. Returns true if the client
 * sleeps and waits for this one.
 */
bool channel_publish(struct channel *channel, uint32_t slot, uint32_t generation,
		     const struct engine_answer *answer);

/* The wake protocol, the broker's half of it. */
bool channel_park(struct channel *channel);	/* false: an entry has come meanwhile, it stays polled */
void channel_unpark(struct channel *channel);
bool channel_doorbell_drain(struct channel *channel);	/* false: the client has closed its end */
void channel_wake(struct channel *channel);	/* write its completion pipe */

uint32_t channel_ready_word(const struct channel *channel, uint32_t index);

#endif
