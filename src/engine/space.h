/*
 * Space of the arena and of disk tiers: one slab allocator for both.
 *
 * An extent is the unit of populating and registering. A slab is a run of 1, 2, 4, 8 or 16
 * neighbouring extents that holds objects of one size: the shortest run with at most 1/8 waste, else
 * the least wasteful that can be had. Objects are multiples of 4,096 bytes; a place is a count of
 * such units from the start. An object may cross extents within its slab.
 *
 * Invariants: a place belongs to one slab; a slab with no object gives its extents back; no
 * allocation after init; all is plain data, so that an audit can recount it.
 */
#ifndef STOKER_ENGINE_SPACE_H
#define STOKER_ENGINE_SPACE_H

#include "src/engine/engine.h"

struct space;

size_t space_bytes(uint32_t extents, uint64_t extent_bytes);
struct space *space_init(void *memory, uint32_t extents, uint64_t extent_bytes);

void space_extent_add(struct space *space, uint32_t extent);	/* into use */
/*
 * It will never come. Until it is added or lost, an extent is expected: a slab with more than 1/8
 * waste is not made while a better run lacks only expected extents (or a busy start would be paid
 * for until the next one).
 */
void space_extent_lost(struct space *space, uint32_t extent);

/* A place for @bytes; ENGINE_NONE: none free. @near: a place that it should follow if it can. */
uint32_t space_alloc(struct space *space, uint64_t bytes, uint32_t near);
/*
 * Recovery: take this very place, in extents that have been added; false if it overlaps or does not fit
 * the slab that is there. The slab is made as space_alloc() would have made it.
 */
bool space_take(struct space *space, uint32_t unit, uint64_t bytes);
void space_free(struct space *space, uint32_t unit);

/* Recency of a slab, for the choice of the coldest: the newest use of any of its objects. A slab begins
 * as the hottest there is. */
void space_touch(struct space *space, uint32_t unit, uint64_t use);
/*
 * The coldest slabs of other sizes than @bytes, coldest first, each so that @bytes would find room if it
 * were empty; then those of which several neighbours must be emptied, the coldest neighbours first: ask
 * again after emptying one. Returns how many. Objects of them by space_slab_object().
 *
 * Costs what there are sizes of objects; only for objects that ask for longer runs, one pass over the extents.
 */
#define SPACE_COLDEST 16u
uint32_t space_coldest(const struct space *space, uint64_t bytes, uint32_t ret[SPACE_COLDEST]);
/* The i-th place of a slab (0 up): true and *unit, with *used whether an object is there; false: end. */
bool space_slab_object(const struct space *space, uint32_t slab, uint32_t i, uint32_t *unit, bool *used);

uint64_t space_total(const struct space *space);	/* bytes of extents in use */
uint64_t space_used(const struct space *space);		/* bytes of places given out */
const char *space_audit(const struct space *space);

#endif
