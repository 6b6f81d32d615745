/*
 * Where a key lies: a table of buckets of one cache line, 8 entries each on average, placed by
 * XXH3-64 of the key, seeded with a secret of this boot and the model's incarnation.
 *
 * A probe reads the bucket's line and, where eight bits of the hash agree, the entry's first line. The
 * few buckets that overflow are lengthened by others into a chain. Chains are kept dense: a removal
 * moves the chain's last slot into the hole. So there can never be more than one lengthening bucket
 * for each BUCKET_SLOTS entries, that many are provided, and an insertion cannot fail.
 *
 * Waiting for memory is what a probe costs: a batch first prefetches its buckets, then its entries,
 * and hashes the next batch while they arrive.
 */
#include <stdlib.h>
#include <string.h>

/* xxHash's streaming half is not used here; what a compiler keeps of it at -O0 must need no symbol. */
#define malloc(bytes)	NULL
#define free(memory)	((void)(memory))
#define XXH_INLINE_ALL
#include <xxhash.h>
#undef malloc
#undef free

#include "src/engine/check.h"
#include "src/engine/index_inside.h"

#define BATCH		32u
#define LOAD		8u		/* entries a head has on average when the index is full */

uint32_t table_heads(uint32_t entries)
{
	return entries / LOAD + 1;
}

size_t table_buckets(uint32_t entries)
{
	return (size_t)table_heads(entries) + entries / BUCKET_SLOTS + 1;
}

struct spot {
	uint32_t head;
	uint8_t tag;
};

static inline struct spot spot_of(const struct index *index, uint32_t model, const struct stoker_wire_key *key)
{
	const uint64_t seed = index->seed ^ model * 0x9e3779b97f4a7c15ull;
	const uint64_t hash = XXH3_64bits_withSeed(key, sizeof(*key), seed);
	const uint8_t tag = (uint8_t)(hash >> 56);

	return (struct spot){
		.head = (uint32_t)((hash & 0xffffffffu) * index->heads >> 32),
		.tag = tag != 0 ? tag : 1,
	};
}

uint64_t index_print(const struct index *index, const struct stoker_wire_key *key)
{
	return XXH3_64bits_withSeed(key, sizeof(*key), index->seed);
}

/* A mask of the bytes of @word that equal those of @pattern, a bit each. Exact: no borrow spreads. */
static inline uint32_t bytes_equal(uint64_t word, uint64_t pattern)
{
	const uint64_t low = 0x7f7f7f7f7f7f7f7full;
	const uint64_t x = word ^ pattern;
	const uint64_t zero = ~(((x & low) + low) | x | low) >> 7;

	return (uint32_t)(zero * 0x0102040810204080ull >> 56);
}

/* A mask of the bucket's slots with that tag. */
static inline uint32_t slots_with(const struct bucket *bucket, uint8_t tag)
{
	const uint64_t pattern = tag * 0x0101010101010101ull;
	uint64_t low;
	uint32_t high;

	static_assert(BUCKET_SLOTS == sizeof(low) + sizeof(high), "two words hold the tags");
	memcpy(&low, bucket->tag, sizeof(low));
	memcpy(&high, bucket->tag + sizeof(low), sizeof(high));
	return bytes_equal(low, pattern) | (bytes_equal(high, pattern) & 0xfu) << 8;
}

static inline bool is_key(const struct entry *entry, uint32_t model, const struct stoker_wire_key *key)
{
	return ((entry->key.word[0] ^ key->word[0]) | (entry->key.word[1] ^ key->word[1]) |
		(entry->key.word[2] ^ key->word[2]) | (entry->key.word[3] ^ key->word[3]) |
		(entry->model ^ model)) == 0;
}

/* The entry of that key in the chain of @spot, with SLOT_GHOST if it is a ghost; ENGINE_NONE: none. */
static uint32_t chain_find(const struct index *index, struct spot spot, uint32_t model,
			   const struct stoker_wire_key *key)
{
	uint32_t number = spot.head;

	do {
		const struct bucket *bucket = &index->buckets[number];

		for (uint32_t slots = slots_with(bucket, spot.tag); slots != 0; slots &= slots - 1) {
			const uint32_t found = bucket->entry[__builtin_ctz(slots)];

			if (is_key(&index->open.entries[found & ~SLOT_GHOST], model, key))
				return found;
		}
		number = bucket->next;
	} while (number != 0);
	return ENGINE_NONE;
}

uint32_t table_find(const struct index *index, uint32_t model, const struct stoker_wire_key *key)
{
	const uint32_t found = chain_find(index, spot_of(index, model, key), model, key);

	return found == ENGINE_NONE ? ENGINE_NONE : found & ~SLOT_GHOST;
}

uint32_t index_find(struct index *index, uint32_t model, const struct stoker_wire_key *key)
{
	const uint32_t found = chain_find(index, spot_of(index, model, key), model, key);

	return found == ENGINE_NONE || (found & SLOT_GHOST) != 0 ? ENGINE_NONE : found;
}

/* ---- batches ----------------------------------------------------------------------------------- */

struct batch {
	struct spot spots[BATCH];
	uint32_t likely[BATCH];		/* the entry, if the first tag that agrees does not deceive */
};

static inline void batch_hash(const struct index *index, uint32_t model, const struct stoker_wire_key *keys,
			      uint32_t n, struct batch *batch)
{
	for (uint32_t i = 0; i < n; i++) {
		batch->spots[i] = spot_of(index, model, &keys[i]);
		__builtin_prefetch(&index->buckets[batch->spots[i].head]);
	}
}

static inline void batch_match(const struct index *index, uint32_t n, struct batch *batch)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct bucket *bucket = &index->buckets[batch->spots[i].head];
		const uint32_t slots = slots_with(bucket, batch->spots[i].tag);

		batch->likely[i] = slots != 0 ? bucket->entry[__builtin_ctz(slots)] : ENGINE_NONE;
		if ((batch->likely[i] & SLOT_GHOST) == 0)
			__builtin_prefetch(&index->open.entries[batch->likely[i]]);
	}
}

static inline uint32_t batch_take(const struct index *index, uint32_t model, const struct stoker_wire_key *key,
				  const struct batch *batch, uint32_t i)
{
	const uint32_t likely = batch->likely[i];
	uint32_t found;

	if ((likely & SLOT_GHOST) == 0 && is_key(&index->open.entries[likely], model, key))
		return likely;
	if (likely == ENGINE_NONE && index->buckets[batch->spots[i].head].next == 0)
		return ENGINE_NONE;
	found = chain_find(index, batch->spots[i], model, key);	/* a tag deceived, or the chain is longer */
	return found == ENGINE_NONE || (found & SLOT_GHOST) != 0 ? ENGINE_NONE : found;
}

uint32_t index_probe(struct index *index, uint32_t model, const struct stoker_wire_key *keys, uint32_t n,
		     bool stop_at_gap, uint64_t need, uint32_t *ret)
{
	struct batch batches[2];
	uint32_t turn = 0;
	uint32_t size = n < BATCH ? n : BATCH;

	batch_hash(index, model, keys, size, &batches[0]);
	for (uint32_t done = 0; done < n; turn ^= 1) {
		const uint32_t left = n - done - size;
		const uint32_t next = left < BATCH ? left : BATCH;

		batch_match(index, size, &batches[turn]);
		batch_hash(index, model, keys + done + size, next, &batches[turn ^ 1]);
		for (uint32_t i = 0; i < size; i++, done++) {
			ret[done] = batch_take(index, model, &keys[done], &batches[turn], i);
			if (!stop_at_gap)
				continue;
			if (ret[done] == ENGINE_NONE)
				return done + 1;

			const struct entry *entry = &index->open.entries[ret[done]];

			if (((entry->l1 | entry->disk) & need) != need)
				return done + 1;
		}
		size = next;
	}
	return n;
}

/* ---- changes ----------------------------------------------------------------------------------- */

static uint32_t slots_used(const struct bucket *bucket)
{
	return (uint32_t)__builtin_ctz(slots_with(bucket, 0) | 1u << BUCKET_SLOTS);
}

static uint32_t extra_take(struct index *index)
{
	uint32_t number = index->extra_free;

	if (number != 0)
		index->extra_free = index->buckets[number].next;
	else
		number = index->extra_fresh++;
	ENGINE_ASSERT(number < table_buckets(index->entries_max));
	index->buckets[number] = (struct bucket){ .next = 0 };
	return number;
}

void table_insert(struct index *index, uint32_t number)
{
	const struct entry *entry = &index->open.entries[number];
	const struct spot spot = spot_of(index, entry->model, &entry->key);
	struct bucket *bucket = &index->buckets[spot.head];
	uint32_t slot;

	while (bucket->next != 0)
		bucket = &index->buckets[bucket->next];
	slot = slots_used(bucket);
	if (slot == BUCKET_SLOTS) {
		bucket->next = extra_take(index);
		bucket = &index->buckets[bucket->next];
		slot = 0;
	}
	bucket->entry[slot] = number;
	bucket->tag[slot] = spot.tag;
}

/* The slot of @bucket that names the entry; BUCKET_SLOTS: none does. */
static uint32_t slot_in(const struct bucket *bucket, uint8_t tag, uint32_t number)
{
	for (uint32_t slots = slots_with(bucket, tag); slots != 0; slots &= slots - 1) {
		const uint32_t slot = (uint32_t)__builtin_ctz(slots);

		if ((bucket->entry[slot] & ~SLOT_GHOST) == number)
			return slot;
	}
	return BUCKET_SLOTS;
}

/* The bucket and slot of an entry that is in the table; @spot is its key's. */
static struct bucket *slot_of(struct index *index, struct spot spot, uint32_t number, uint32_t *ret_slot)
{
	struct bucket *bucket = &index->buckets[spot.head];

	for (;;) {
		*ret_slot = slot_in(bucket, spot.tag, number);
		if (*ret_slot != BUCKET_SLOTS)
			return bucket;
		ENGINE_ASSERT(bucket->next != 0);
		bucket = &index->buckets[bucket->next];
	}
}

void table_remove(struct index *index, uint32_t number)
{
	const struct entry *entry = &index->open.entries[number];
	const struct spot spot = spot_of(index, entry->model, &entry->key);
	uint32_t slot;
	struct bucket *hole = slot_of(index, spot, number, &slot);
	struct bucket *last = &index->buckets[spot.head], *before = NULL;
	uint32_t end;

	for (; last->next != 0; last = &index->buckets[last->next])
		before = last;
	end = slots_used(last) - 1;
	hole->entry[slot] = last->entry[end];
	hole->tag[slot] = last->tag[end];
	last->tag[end] = 0;
	if (end == 0 && before != NULL) {
		last->next = index->extra_free;
		index->extra_free = before->next;
		before->next = 0;
	}
}

void table_set_ghost(struct index *index, uint32_t number, bool ghost)
{
	const struct entry *entry = &index->open.entries[number];
	uint32_t slot;
	struct bucket *bucket = slot_of(index, spot_of(index, entry->model, &entry->key), number, &slot);

	bucket->entry[slot] = ghost ? number | SLOT_GHOST : number;
}

/* ---- audit ------------------------------------------------------------------------------------- */

static const char *slot_audit(const struct index *index, uint32_t head, const struct bucket *bucket, uint32_t i)
{
	const uint32_t number = bucket->entry[i] & ~SLOT_GHOST;
	const struct entry *entry = &index->open.entries[number];
	struct spot spot;

	if (number >= index->entries_fresh || entry->model == ENGINE_NONE)
		return "a bucket names an entry that is free";
	spot = spot_of(index, entry->model, &entry->key);
	if (spot.head != head || spot.tag != bucket->tag[i])
		return "an entry lies in a bucket that is not its key's";
	if (((entry->flags & (ENTRY_GHOST_RECENT | ENTRY_GHOST_FREQUENT)) != 0) != ((bucket->entry[i] & SLOT_GHOST) != 0))
		return "bucket and entry disagree on whether it is a ghost";
	return NULL;
}

const char *table_audit(const struct index *index)
{
	uint64_t n = 0;

	for (uint32_t head = 0; head < index->heads; head++) {
		for (uint32_t number = head;; number = index->buckets[number].next) {
			const struct bucket *bucket = &index->buckets[number];
			const uint32_t used = slots_used(bucket);

			if (bucket->next != 0 && used != BUCKET_SLOTS)
				return "a chain of buckets is not dense";
			if (number != head && used == 0)
				return "a chain of buckets ends with an empty one";
			for (uint32_t i = 0; i < used; i++) {
				const char *broken = slot_audit(index, head, bucket, i);

				if (broken != NULL)
					return broken;
			}
			n += used;
			if (n > index->used)
				return "the buckets name more entries than there are";
			if (bucket->next == 0)
				break;
		}
	}
	return n == index->used ? NULL : "the buckets name fewer entries than there are";
}
