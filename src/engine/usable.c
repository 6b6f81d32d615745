/*
 * Usable lengths. For each group that is asked for it is enough to know how many chunks at the end
 * of the prefix have no gap: a full group needs as many as there are, a window of w the last w.
 */
#include "src/engine/usable.h"
#include "src/engine/check.h"

void usable_init(struct usable *u, uint32_t n_groups, const struct usable_group *groups, uint32_t have)
{
	ENGINE_ASSERT(n_groups <= STOKER_GROUPS_MAX);
	*u = (struct usable){ .n_groups = n_groups, .have = have };
	for (uint32_t g = 0; g < n_groups; g++)
		u->groups[g] = groups[g];
}

/* Chunks at the end of a prefix of @n that the group asks for. */
static uint32_t wanted(const struct usable_group *group, uint32_t n)
{
	return group->window == 0 || group->window > n ? n : group->window;
}

bool usable_feed(struct usable *u, uint64_t there)
{
	const uint32_t chunk = u->chunks++;
	bool usable = true;

	for (uint32_t g = 0; g < u->n_groups; g++) {
		const struct usable_group *group = &u->groups[g];
		const bool full = group->window == 0;

		if (group->parts == 0)
			continue;
		if ((there & group->parts) == group->parts || (full && chunk < u->have))
			u->run[g]++;
		else
			u->run[g] = 0;
		if (u->run[g] >= wanted(group, u->chunks))
			continue;
		usable = false;
		if (full)
			u->full_gap = true;
	}
	if (usable)
		u->longest = u->chunks;
	return usable;
}

bool usable_needs(const struct usable *u, uint32_t g, uint32_t i, uint32_t n)
{
	const struct usable_group *group = &u->groups[g];

	return group->parts != 0 && i < n && i >= n - wanted(group, n);
}

uint64_t usable_parts(const struct usable *u, uint32_t i, uint32_t n)
{
	uint64_t parts = 0;

	for (uint32_t g = 0; g < u->n_groups; g++) {
		if (u->groups[g].window == 0 && i < u->have)
			continue;	/* the asker holds it already */
		if (usable_needs(u, g, i, n))
			parts |= u->groups[g].parts;
	}
	return parts;
}
