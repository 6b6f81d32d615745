/*
 * Usable lengths: n is usable if every group asked for has, for all its parts, the chunks that its
 * window asks for in a prefix of n chunks: full: all of them; window w: the last min(w, n); state:
 * the last one. Pure functions; tests/ holds a brute-force oracle against them.
 */
#ifndef STOKER_ENGINE_USABLE_H
#define STOKER_ENGINE_USABLE_H

#include "src/engine/engine.h"

struct usable_group {
	uint32_t window;	/* 0 = full; STATE: 1 */
	uint64_t parts;		/* mask of the group's parts; 0: the group is not asked for */
};

/** struct usable - fed chunk after chunk, oldest first; plain data of a job. */
struct usable {
	uint32_t n_groups;
	struct usable_group groups[STOKER_GROUPS_MAX];
	uint32_t have;			/* leading chunks that count as there, for full groups only */
	uint32_t chunks;		/* fed so far */
	uint32_t run[STOKER_GROUPS_MAX];	/* chunks at the end of the prefix without a gap, by group */
	bool full_gap;			/* a full group has a gap: no longer length is usable */
	uint32_t longest;		/* greatest usable length so far */
};
void usable_init(struct usable *u, uint32_t n_groups, const struct usable_group *groups, uint32_t have);
/* Feed the next chunk: @there: mask of its parts that exist. Returns whether the length is usable now. */
bool usable_feed(struct usable *u, uint64_t there);

/* Is chunk @i needed by group @g in a prefix of @n chunks? (have is not looked at) */
bool usable_needs(const struct usable *u, uint32_t g, uint32_t i, uint32_t n);
/* Mask of parts of chunk @i that a prefix of @n chunks needs, with `have` taken into account. */
uint64_t usable_parts(const struct usable *u, uint32_t i, uint32_t n);

#endif
