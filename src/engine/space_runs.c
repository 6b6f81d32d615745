/*
 * Runs of extents: which one becomes a slab, and which slabs should give way to one.
 *
 * A run begins at a multiple of its length, as a buddy does. That costs little, keeps free extents
 * together, and makes recovery find the very slab in which a place lay. A run is cut from the shortest
 * free block that holds it.
 */
#include "src/engine/check.h"
#include "src/engine/space_inside.h"

/* Bits of @map where an aligned block of that order begins of which all bits are set. */
static uint64_t blocks(uint64_t map, uint32_t order)
{
	static const uint64_t starts[ORDERS] = {
		~0ull, 0x5555555555555555ull, 0x1111111111111111ull, 0x0101010101010101ull, 0x0001000100010001ull,
	};

	for (uint32_t i = 0; i < order; i++)
		map &= map >> (1u << i);
	return map & starts[order];
}

/* Blocks of that order whose buddy is not wholly set: to take one breaks nothing longer. */
static uint64_t odd_blocks(uint64_t map, uint32_t order)
{
	uint64_t longer;

	if (order == ORDERS - 1)
		return blocks(map, order);
	longer = blocks(map, order + 1);
	return blocks(map, order) & ~(longer | longer << (1u << order));
}

static uint32_t words(const struct space *space)
{
	return (space->extents + 63) / 64;
}

static bool is_thrifty(const struct space *space, uint32_t size, uint32_t order)
{
	const uint64_t units = (uint64_t)space->extent_units << order;

	return units >= size && units % size * 8 <= units;
}

/*
 * The order to take among @orders (a mask): the shortest with at most 1/8 waste, else the least
 * wasteful. ORDERS: none holds a place.
 */
static uint32_t order_of(const struct space *space, uint32_t size, uint32_t orders)
{
	uint32_t best = ORDERS;
	uint64_t least = UINT64_MAX;

	for (uint32_t order = 0; order < ORDERS; order++) {
		const uint64_t units = (uint64_t)space->extent_units << order;
		const uint64_t waste = units % size << (ORDERS - 1 - order);	/* of the longest run's length */

		if ((orders & 1u << order) == 0 || units < size)
			continue;
		if (is_thrifty(space, size, order))
			return order;
		if (waste < least) {
			least = waste;
			best = order;
		}
	}
	return best;
}

static uint32_t all_orders(void)
{
	return (1u << ORDERS) - 1;
}

/* Is it better to wait: could a thrifty run still be had that lacks nothing but expected extents? */
static bool is_waiting(const struct space *space, uint32_t size)
{
	const uint32_t order = order_of(space, size, all_orders());

	if (order == ORDERS || !is_thrifty(space, size, order))
		return false;
	for (uint32_t i = 0; i < words(space); i++) {
		const uint64_t both = space->idle_map[i] | space->expected_map[i];

		if ((blocks(both, order) & ~blocks(space->idle_map[i], order)) != 0)
			return true;
	}
	return false;
}

/* Of those orders, which ones may be used for that size now. */
static uint32_t usable_orders(const struct space *space, uint32_t size, uint32_t orders)
{
	uint32_t thrifty = 0;

	for (uint32_t order = 0; order < ORDERS; order++)
		thrifty |= (uint32_t)is_thrifty(space, size, order) << order;
	if ((orders & thrifty) != 0)
		return orders & thrifty;
	return is_waiting(space, size) ? 0 : orders;
}

bool run_find(const struct space *space, uint32_t size, uint32_t *ret_order, uint32_t *ret_extent)
{
	uint32_t orders = 0, order;

	if (space->idle == 0)
		return false;
	for (uint32_t i = 0; i < words(space); i++)
		for (order = 0; space->idle_map[i] != 0 && order < ORDERS; order++)
			orders |= (uint32_t)(blocks(space->idle_map[i], order) != 0) << order;
	order = order_of(space, size, usable_orders(space, size, orders));
	if (order == ORDERS)
		return false;
	*ret_order = order;
	for (; order < ORDERS; order++) {
		for (uint32_t i = 0; i < words(space); i++) {
			const uint64_t found = odd_blocks(space->idle_map[i], order);

			if (found != 0) {
				*ret_extent = i * 64 + (uint32_t)__builtin_ctzll(found);
				return true;
			}
		}
	}
	return false;
}

bool run_around(const struct space *space, uint32_t size, uint32_t unit, uint32_t *ret_order, uint32_t *ret_extent)
{
	const uint32_t extent = unit / space->extent_units;
	uint32_t orders = 0;

	for (uint32_t order = 0; order < ORDERS; order++) {
		const uint32_t first = extent >> order << order;
		const uint64_t offset = unit - (uint64_t)first * space->extent_units;

		if ((blocks(space->idle_map[extent / 64], order) >> first % 64 & 1) != 0 && offset % size == 0 &&
		    offset / size < run_places(space, size, order))
			orders |= 1u << order;
	}
	*ret_order = order_of(space, size, orders);
	if (*ret_order == ORDERS)
		return false;
	*ret_extent = extent >> *ret_order << *ret_order;
	return true;
}

/* ---- who gives way ------------------------------------------------------------------------------ */

/** struct coldest - up to SPACE_COLDEST of what is offered, coldest first; @cost: its use. */
struct coldest { uint32_t n; struct { uint64_t cost; uint32_t slab; } each[SPACE_COLDEST]; };

static void offer(struct coldest *coldest, uint64_t cost, uint32_t slab)
{
	uint32_t at = coldest->n;

	if (at == SPACE_COLDEST && coldest->each[at - 1].cost <= cost)
		return;
	if (at < SPACE_COLDEST)
		coldest->n++;
	else
		at--;
	for (; at > 0 && coldest->each[at - 1].cost > cost; at--)
		coldest->each[at] = coldest->each[at - 1];
	coldest->each[at].cost = cost;
	coldest->each[at].slab = slab;
}

/*
 * Where one extent is enough any slab will do, and the coldest of all sizes are among the coldest sizes':
 * the lists of those are merged.
 */
static uint32_t coldest_of_classes(const struct space *space, uint32_t size, uint32_t ret[SPACE_COLDEST])
{
	struct coldest heads = { .n = 0 };
	uint32_t n = 0;

	for (uint32_t class = space->class_first; class != ENGINE_NONE; class = space->classes[class].after)
		if (space->classes[class].size != size)
			offer(&heads, space->slabs[space->classes[class].coldest].use, space->classes[class].coldest);
	while (heads.n > 0 && n < SPACE_COLDEST) {
		const uint32_t slab = heads.each[0].slab, next = space->slabs[slab].hotter;

		ret[n++] = slab;
		heads.n--;
		for (uint32_t i = 0; i < heads.n; i++)
			heads.each[i] = heads.each[i + 1];
		if (next != ENGINE_NONE)
			offer(&heads, space->slabs[next].use, next);
	}
	return n;
}

/** struct window - an aligned block of extents, and the slabs in it that would have to go. */
struct window {
	uint32_t first, slabs, coldest;
	uint64_t use;		/* the newest of any of them */
};

/* Look at the block of that order around @extent: false: not all of it could be had. */
static bool window_at(const struct space *space, uint32_t size, uint32_t extent, uint32_t order, struct window *ret)
{
	const uint32_t first = extent >> order << order, end = first + (1u << order);
	uint32_t before = ENGINE_NONE;

	*ret = (struct window){ .first = first, .coldest = ENGINE_NONE };
	if (end > space->extents)
		return false;
	for (uint32_t i = first; i < end; i++) {
		const uint32_t slab = space->slab_of[i];

		if (slab == ENGINE_NONE && !bit_get(space->idle_map, i))
			return false;
		if (slab == ENGINE_NONE || slab == before)
			continue;
		before = slab;
		if (space->slabs[slab].size == size)
			return false;
		if (ret->coldest == ENGINE_NONE || space->slabs[slab].use < space->slabs[ret->coldest].use)
			ret->coldest = slab;
		if (ret->use < space->slabs[slab].use)
			ret->use = space->slabs[slab].use;
		ret->slabs++;
	}
	return ret->slabs > 0;
}

/* A longer run: slabs that are long enough, or alone in a block that is; then blocks of several. */
static uint32_t coldest_of_blocks(const struct space *space, uint32_t size, uint32_t order, uint32_t ret[SPACE_COLDEST])
{
	struct coldest alone = { .n = 0 }, several = { .n = 0 };
	struct window window;
	uint32_t n = 0;

	for (uint32_t i = 0; i < space->extents; i += 1u << order) {
		const uint32_t slab = space->slab_of[i];

		if (slab != ENGINE_NONE && space->slabs[slab].order >= order) {
			if (slab == i && space->slabs[slab].size != size)
				offer(&alone, space->slabs[slab].use, slab);
		} else if (window_at(space, size, i, order, &window)) {
			offer(window.slabs == 1 ? &alone : &several, window.use, window.coldest);
		}
	}
	for (uint32_t i = 0; i < alone.n; i++)
		ret[n++] = alone.each[i].slab;
	for (uint32_t i = 0; i < several.n && n < SPACE_COLDEST; i++)
		ret[n++] = several.each[i].slab;
	return n;
}

uint32_t space_coldest(const struct space *space, uint64_t bytes, uint32_t ret[SPACE_COLDEST])
{
	const uint64_t units = (bytes + UNIT_BYTES - 1) / UNIT_BYTES;
	const uint32_t first = space->class_first;
	uint32_t order = 0;

	if (units == 0 || units > (uint64_t)space->extent_units * GROUP || first == ENGINE_NONE)
		return 0;
	if (space->classes[first].size == units && space->classes[first].after == ENGINE_NONE)
		return 0;		/* there is no other size */
	if (is_waiting(space, (uint32_t)units))
		order = order_of(space, (uint32_t)units, all_orders());
	else
		while ((uint64_t)space->extent_units << order < units)
			order++;
	return order == 0 ? coldest_of_classes(space, (uint32_t)units, ret)
			  : coldest_of_blocks(space, (uint32_t)units, order, ret);
}
