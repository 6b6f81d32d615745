/*
 * The inside of the slab allocator, for space.c (places in slabs) and space_runs.c (runs of extents)
 * alone.
 */
#ifndef STOKER_ENGINE_SPACE_INSIDE_H
#define STOKER_ENGINE_SPACE_INSIDE_H

#include "src/engine/space.h"

#define UNIT_BYTES	4096u
#define ORDERS		5u	/* runs are 1 << order extents long */
#define GROUP		16u	/* extents of the longest run */

/**
 * struct slab - its number is that of its first extent, which is a multiple of its length.
 * @hint: where the next search for a free place begins.
 */
struct slab {
	uint64_t use;
	uint32_t order, size;		/* size: units of a place; 0 = no slab begins here */
	uint32_t places, used, hint;
	uint32_t class;
	uint32_t prev, next;		/* slabs of its class that have a free place */
	uint32_t colder, hotter;	/* of its class, by use */
};

/** struct size_class - the slabs of one size; there is one while there is such a slab. */
struct size_class {
	uint32_t size;			/* 0 = free */
	uint32_t slabs;
	uint32_t head, tail;		/* of those with a free place */
	uint64_t free_places;
	uint32_t coldest, hottest;	/* of all of them */
	uint32_t chain;			/* classes whose sizes hash alike; or the next free class */
	uint32_t before, after;		/* all classes that there are */
};

struct space {
	uint32_t extents, extent_units;
	uint32_t present;		/* extents in use, in slabs or not */
	uint32_t idle;			/* of them, in no slab */
	uint64_t used_units;
	uint64_t newest;		/* use of any slab, ever */
	uint32_t class_first, class_free;
	uint32_t map_words;		/* of one extent; the words of a slab's extents are one map */
	uint32_t sum_words;
	uint64_t *idle_map;		/* a bit an extent: in use and in no slab */
	uint64_t *expected_map;		/* neither added nor lost */
	uint32_t *slab_of;		/* by extent; ENGINE_NONE: in no slab */
	struct slab *slabs;		/* by first extent */
	struct size_class *classes;
	uint32_t *class_heads;		/* by hash of the size */
	uint64_t *maps;			/* free places of slabs */
	uint64_t *sums;			/* which words of those are not 0 */
};

static inline bool bit_get(const uint64_t *map, uint32_t i)
{
	return (map[i / 64] >> i % 64 & 1) != 0;
}
static inline void bit_set(uint64_t *map, uint32_t i)
{
	map[i / 64] |= 1ull << i % 64;
}
static inline void bit_clear(uint64_t *map, uint32_t i)
{
	map[i / 64] &= ~(1ull << i % 64);
}

uint32_t class_find(const struct space *space, uint32_t size);	/* ENGINE_NONE: no slab of that size */

/* The run that a slab of that size should have now: its order and first extent; false: none can be had. */
bool run_find(const struct space *space, uint32_t size, uint32_t *ret_order, uint32_t *ret_extent);
/* The run in which space_alloc() would have put a place at @unit; false: no idle run fits it. */
bool run_around(const struct space *space, uint32_t size, uint32_t unit, uint32_t *ret_order, uint32_t *ret_extent);

static inline uint32_t run_places(const struct space *space, uint32_t size, uint32_t order)
{
	return (uint32_t)(((uint64_t)space->extent_units << order) / size);
}

#endif
