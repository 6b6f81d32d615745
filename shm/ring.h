/*
 * The two rings of a channel, seen from both ends.
 *
 * Request ring (client -> broker): an entry carries its own sequence number, written last, so that
 * arrival and content travel in one cache line and there is no shared tail to load or to distrust.
 * Entry i of the stream (from 0) lies at i mod size and bears the sequence i + 1. It has at least
 * four times as many entries as slots and is consumed in order: a client with at most three
 * unconsumed entries a slot (a stale cancel, the next submit, its cancel) never finds it full.
 *
 * Response ring (broker -> client): one word an entry, sequence 48 | slot 16. Entries are hints: a
 * client that does not read them is lapped, sees it by the sequence, and scans its pending slots.
 *
 * All indices run freely and are private to their side; the sizes are private copies.
 *
 * Wake protocol (both directions alike): the sleeper stores its want (need_wake, want_wake), then
 * loads what it waits for; the other side stores that, then loads the want. All four are
 * sequentially consistent: with release and acquire alone wakes are lost.
 */
#ifndef STOKER_SHM_RING_H
#define STOKER_SHM_RING_H

#include <stdbool.h>

#include "shm/layout.h"

struct request_producer {	/* private to the client */
	struct stoker_entry *entries;
	uint64_t next;		/* sequence of the next entry, less 1 */
	uint32_t mask;
};

struct request_consumer {	/* private to the broker */
	const struct stoker_entry *entries;
	uint64_t next;
	uint32_t mask;
};

struct response_producer {	/* private to the broker */
	_Atomic uint64_t *words;
	uint64_t next;
	uint32_t mask;
};

struct response_consumer {	/* private to the client */
	const _Atomic uint64_t *words;
	uint64_t next;
	uint32_t mask;
};

#define RESPONSE_SEQUENCE_MASK 0xffffffffffffull

static inline void request_put(struct request_producer *ring, const struct stoker_request_head *head)
{
	struct stoker_entry *entry = &ring->entries[ring->next & ring->mask];
	uint64_t words[7];

	__builtin_memcpy(words, head, sizeof(words));
	for (int i = 0; i < 7; i++)
		atomic_store_explicit(&entry->word[i], words[i], memory_order_relaxed);
	atomic_store_explicit(&entry->sequence, ++ring->next, memory_order_seq_cst);
}

/* Is there an entry to take? seq_cst: the broker asks this after it has stored need_wake. */
static inline bool request_waiting(const struct request_consumer *ring)
{
	const struct stoker_entry *entry = &ring->entries[ring->next & ring->mask];

	return atomic_load_explicit(&entry->sequence, memory_order_seq_cst) == ring->next + 1;
}

/*
 * Take the next entry. Returns 1 and the entry, 0 if there is none, -EBADMSG if the sequence found
 * there can only be a peer's invention (neither an earlier lap's, nor the next).
 */
int request_take(struct request_consumer *ring, struct stoker_request_head *ret);

static inline void response_put(struct response_producer *ring, uint32_t slot)
{
	_Atomic uint64_t *word = &ring->words[ring->next & ring->mask];

	ring->next++;
	atomic_store_explicit(word, (ring->next & RESPONSE_SEQUENCE_MASK) << 16 | (slot & 0xffff),
			      memory_order_release);
}

/*
 * Take the next hint. Returns 1 and the slot, 0 if there is none, -ESTALE if the reader has been
 * lapped: it now stands at the newest entry and must scan its pending slots once.
 */
int response_take(struct response_consumer *ring, uint32_t *ret_slot);

#endif
