/*
 * Taking entries from the two rings of a channel; putting them is inline in shm/ring.h.
 *
 * The broker's side believes nothing: an entry whose sequence is not the next one is left alone if
 * it can be what an honest client left there (nothing yet, or an entry of an earlier lap), and is
 * an invention otherwise. The client's side believes the broker, but may have been lapped by it.
 *
 * Sequences are compared by their difference, so both rings go on through the wrap of their
 * counters: 64 bits of a request's sequence, 48 of a response's.
 */
#include "shm/ring.h"

#include <errno.h>

/* Can an honest client have left @found where @expected is due? */
static bool sequence_is_of_before(uint64_t found, uint64_t expected, uint32_t mask)
{
	const uint64_t behind = expected - found;

	if (found == 0)
		return true;	/* nobody has written here yet */
	return (behind & mask) == 0 && behind <= INT64_MAX;
}

int request_take(struct request_consumer *ring, struct stoker_request_head *ret)
{
	const struct stoker_entry *entry = &ring->entries[ring->next & ring->mask];
	const uint64_t expected = ring->next + 1;
	const uint64_t found = atomic_load_explicit(&entry->sequence, memory_order_seq_cst);

	if (found != expected)
		return sequence_is_of_before(found, expected, ring->mask) ? 0 : -EBADMSG;
	shm_take(ret, entry->word, sizeof(*ret));
	ring->next = expected;
	return 1;
}

/* How far the entry at the reader's place is ahead of the one it expects; a lap behind: 2^48 - size. */
static uint64_t response_ahead(const struct response_consumer *ring, uint32_t *ret_slot)
{
	const uint64_t word = atomic_load_explicit(&ring->words[ring->next & ring->mask],
						   memory_order_acquire);

	*ret_slot = (uint32_t)word & 0xffff;
	return ((word >> 16) - (ring->next + 1)) & RESPONSE_SEQUENCE_MASK;
}

/*
 * The reader has been lapped. Go on behind the newest entry: what the hints on the way say is found
 * by the scan that the caller owes, because a slot's word is written before its hint, and each hint
 * that is passed here has been loaded with acquire. One lap is enough to pass.
 */
static void response_skip(struct response_consumer *ring, uint64_t ahead)
{
	uint32_t slot;

	ring->next += ahead + 1;
	for (uint32_t i = 0; i < ring->mask && response_ahead(ring, &slot) == 0; i++)
		ring->next++;
}

int response_take(struct response_consumer *ring, uint32_t *ret_slot)
{
	uint32_t slot;
	const uint64_t ahead = response_ahead(ring, &slot);

	if (ahead > RESPONSE_SEQUENCE_MASK / 2)
		return 0;	/* an entry of the lap before, or none yet */
	if (ahead > 0) {
		response_skip(ring, ahead);
		return -ESTALE;
	}
	ring->next++;
	*ret_slot = slot;
	return 1;
}
