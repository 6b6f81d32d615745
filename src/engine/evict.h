/*
 * Eviction: which chunk goes next. One instance for the arena, one for each disk tier.
 *
 * The lists hold only what can go: chunks with an object there, without pin or io, and without a
 * child there (leaf first). An unpinned prefix re-enters leaf first, root last, so that the leaf
 * goes first. Incomplete chunks (some parts missing) go before all others. A policy decides among
 * the rest; it is a row of functions over the lists (lru.c, arc.c).
 *
 * ARC counts bytes; its ghosts are index entries with keys only. An entry that left the arena and
 * still is on disk can be a ghost of the arena all the same: l1_list and disk_list say which list an
 * entry is in, ghost lists included.
 *
 * How the engine uses it:
 * - A use (a lookup's hit; a store) sets entry->touched to a count that rises with each chunk, leaf of
 *   the prefix first, root last; then evict_used() if it was there before. Lists are ordered by touched.
 * - After any change of masks or child counts, and when the last pin or io ends: evict_update() the
 *   entry, in the arena's instance and in its tier's. It sees by itself that the entry came or went (mask no longer 0, or 0).
 * - To make room: evict_next(e, ENGINE_NONE) names the victim; evict_gone(e, victim, true) before its
 *   mask is cleared leaves a ghost; then masks, index_mask_changed(), evict_update() of its parent,
 *   and index_remove() if nothing is left of it. A victim that does not suit: evict_next(e, victim).
 */
#ifndef STOKER_ENGINE_EVICT_H
#define STOKER_ENGINE_EVICT_H

#include "src/engine/index.h"

struct evict_list {
	uint32_t head, tail;	/* head = coldest */
	uint64_t bytes;
	uint32_t n;
};

struct evict {			/* one per arena or tier; plain data, embedded in the engine */
	struct index *index;
	const struct evict_policy *policy;
	bool disk;		/* which pair of links and which mask it looks at */
	uint64_t capacity;	/* bytes that the arena or tier can hold */
	struct evict_list lists[5];	/* by enum entry_list */
	struct evict_list ghosts[2];	/* ARC: recent, frequent */
	uint64_t handicap;	/* ARC: by how much faster than the frequent the recent ones age, x 65,536 */
	uint64_t newest;	/* greatest `touched` of any entry that entered a list */
	uint64_t resident_recent, resident_frequent;	/* bytes resident by list kind, pinned ones included */
	uint64_t (*bytes_of)(void *engine, uint32_t entry);	/* bytes of a chunk there, in whole 4,096s */
	void *engine;
	struct evict *peer;	/* the instance made before it on the same index */
};

#define EVICT_HANDICAP_NONE	65536u

struct evict_policy {
	const char *name;
	void (*came)(struct evict *e, uint32_t entry);		/* became resident (ghosts are looked at) */
	void (*used)(struct evict *e, uint32_t entry);		/* a hit: touch */
	void (*enter)(struct evict *e, uint32_t entry);		/* can go from now on: put into a list */
	void (*leave)(struct evict *e, uint32_t entry);		/* pinned, or got a child: taken from its list */
	void (*gone)(struct evict *e, uint32_t entry, bool ghost);	/* no longer resident */
	uint32_t (*next)(struct evict *e, uint32_t after);	/* victim candidates, coldest first; ENGINE_NONE: end */
};
extern const struct evict_policy evict_lru, evict_arc;

void evict_init(struct evict *e, struct index *index, enum engine_policy policy, bool disk, uint64_t capacity,
		uint64_t (*bytes_of)(void *, uint32_t), void *engine);

/*
 * Look at the entry again after anything changed: pins, io, masks, child counts. Enters or leaves
 * lists accordingly. @complete: no part of its groups is missing.
 */
void evict_update(struct evict *e, uint32_t entry, bool complete);
static inline void evict_used(struct evict *e, uint32_t entry)
{
	e->policy->used(e, entry);
}
static inline void evict_gone(struct evict *e, uint32_t entry, bool ghost)
{
	e->policy->gone(e, entry, ghost);
}
static inline uint32_t evict_next(struct evict *e, uint32_t after)
{
	return e->policy->next(e, after);
}
/* @entry is to come to another instance than @e: a ghost that @e has of it is forgotten. */
void evict_forget_one(struct evict *e, uint32_t entry);
/* Forget the coldest ghosts of @e until an entry comes free; false: none did. index_add() does it. */
bool evict_drop_ghost(struct evict *e);
/*
 * Is all as evict_update() would leave it? Returns NULL, or what is broken.
 */
const char *evict_audit(const struct evict *e);

/* ---- for the policies alone -------------------------------------------------------------------- */

/* Where the arena's or the tier's part of an entry is kept. */
struct evict_part {
	uint32_t *prev, *next, *units;
	uint8_t *list;
	uint64_t mask;
	uint32_t children;
	uint8_t resident, seen_twice;	/* flags */
};
struct evict_part evict_part(const struct evict *e, uint32_t entry);
uint64_t evict_bytes(const struct evict *e, uint32_t entry);	/* as counted last */
bool evict_is_there(const struct evict *e, uint32_t entry);	/* counted as being there */

void evict_put(struct evict *e, uint32_t entry, enum entry_list list);	/* where its `touched` belongs */
void evict_put_last(struct evict *e, uint32_t entry, enum entry_list list);
void evict_take(struct evict *e, uint32_t entry);			/* from the list it is in, if any */
void evict_count_in(struct evict *e, uint32_t entry, bool seen_twice);	/* it came */
void evict_count_out(struct evict *e, uint32_t entry);			/* it went */
/* The next after @after, the lists taken in that order. */
uint32_t evict_next_of(const struct evict *e, const uint8_t *lists, uint32_t n_lists, uint32_t after);
/* The coldest of a ghost list is forgotten; returns whether its entry came free. */
bool evict_forget(struct evict *e, enum entry_list ghosts);

#endif
