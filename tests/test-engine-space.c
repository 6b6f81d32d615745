/*
 * The slab allocator: which runs it takes, neighbours, recovery, who gives way; then random runs
 * against a map of owners, unit by unit.
 */
#include "src/engine/space_inside.h"
#include "tests/random.h"
#include "tests/suite.h"

#include <stdlib.h>

#define KIB		1024ull
#define EXTENT_BYTES	(64 * KIB)	/* 16 units */
#define UNITS		16u
#define UNIT		4096ull
#define NONE		ENGINE_NONE

static struct space *space_of(uint32_t extents, uint32_t added)
{
	struct space *space = space_init(aligned_alloc(64, space_bytes(extents, EXTENT_BYTES)), extents, EXTENT_BYTES);

	for (uint32_t i = 0; i < added; i++)
		space_extent_add(space, i);
	return space;
}

static void audit(const struct space *space)
{
	const char *broken = space_audit(space);

	ck_assert_msg(broken == NULL, "%s", broken);
}

/* The @nth of the slabs that should give way. */
static uint32_t coldest(const struct space *space, uint64_t bytes, uint32_t nth)
{
	uint32_t slabs[SPACE_COLDEST];

	return nth < space_coldest(space, bytes, slabs) ? slabs[nth] : NONE;
}

static uint32_t places_of(const struct space *space, uint32_t slab)
{
	uint32_t i = 0, unit;
	bool used;

	while (space_slab_object(space, slab, i, &unit, &used))
		i++;
	return i;
}

START_TEST(a_slab_is_the_shortest_run_with_at_most_an_eighth_of_waste)
{
	/* units of an object, places of its first slab: 16 units an extent */
	static const struct { uint32_t units, places; } cases[] = {
		{ 1, 16 }, { 5, 3 }, { 8, 2 }, { 7, 2 }, { 9, 7 }, { 16, 1 }, { 17, 7 }, { 20, 3 }, { 33, 7 }, { 128, 1 },
		{ 256, 1 },
	};
	struct space *space = space_of(32, 32);

	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint32_t unit = space_alloc(space, cases[i].units * UNIT, NONE);

		ck_assert_uint_ne(unit, NONE);
		ck_assert_uint_eq(places_of(space, unit / UNITS), cases[i].places);
		audit(space);
		space_free(space, unit);
		ck_assert_uint_eq(space_used(space), 0);
		audit(space);
	}
	free(space);
}
END_TEST

START_TEST(without_a_good_run_the_least_wasteful_one_that_can_be_had_is_taken)
{
	struct space *space = space_of(3, 3);	/* 9 units: 4 extents would hold 7; here 2 hold 3, 1 holds 1 */

	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), 0);
	ck_assert_uint_eq(places_of(space, 0), 3);
	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), 9);
	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), 18);
	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), 32);
	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), NONE);
	audit(space);
	free(space);
}
END_TEST

START_TEST(no_wasteful_slab_is_made_while_a_better_run_lacks_only_extents_that_are_expected)
{
	struct space *space = space_of(4, 1);

	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), NONE);
	ck_assert_uint_eq(space_alloc(space, 8 * UNIT, NONE), 0);	/* a size that wastes nothing needs no waiting */
	space_free(space, 0);
	space_extent_add(space, 1);
	space_extent_lost(space, 2);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), i * 9);
	ck_assert_uint_eq(space_alloc(space, 9 * UNIT, NONE), NONE);
	audit(space);
	free(space);
}
END_TEST

START_TEST(objects_that_follow_each_other_are_neighbours)
{
	struct space *space = space_of(16, 16);
	uint32_t chain[8], other[8];

	for (uint32_t i = 0; i < 8; i++) {
		other[i] = space_alloc(space, 2 * UNIT, i == 0 ? NONE : other[i - 1]);
		if (i == 0)
			for (uint32_t k = 0; k < 7; k++)	/* a hole of seven behind it, closed by one object */
				chain[k] = space_alloc(space, 2 * UNIT, k == 0 ? other[0] : chain[k - 1]);
		if (i == 0)
			for (uint32_t k = 0; k < 7; k++)
				space_free(space, chain[k]);
	}
	for (uint32_t i = 1; i < 8; i++)
		ck_assert_uint_eq(other[i], other[i - 1] + 2);
	audit(space);
	free(space);
}
END_TEST

START_TEST(an_empty_slab_gives_its_extents_to_another_size)
{
	struct space *space = space_of(2, 2);
	const uint32_t a = space_alloc(space, 16 * UNIT, NONE), b = space_alloc(space, 16 * UNIT, NONE);

	ck_assert_uint_eq(space_alloc(space, 32 * UNIT, NONE), NONE);
	space_free(space, a);
	ck_assert_uint_eq(space_alloc(space, 32 * UNIT, NONE), NONE);
	space_free(space, b);
	ck_assert_uint_eq(space_alloc(space, 32 * UNIT, NONE), 0);
	audit(space);
	free(space);
}
END_TEST

START_TEST(a_short_run_does_not_break_a_long_one)
{
	struct space *space = space_of(32, 32);
	const uint32_t small = space_alloc(space, 16 * UNIT, NONE);

	ck_assert_uint_eq(space_alloc(space, 16 * UNIT, NONE) / 256, small / 256);
	ck_assert_uint_ne(space_alloc(space, 256 * UNIT, NONE), NONE);
	ck_assert_uint_ne(space_alloc(space, 128 * UNIT, NONE), NONE);
	audit(space);
	free(space);
}
END_TEST

START_TEST(what_no_run_can_hold_is_refused)
{
	struct space *space = space_of(32, 32);

	ck_assert_uint_eq(space_alloc(space, 0, NONE), NONE);
	ck_assert_uint_eq(space_alloc(space, 257 * UNIT, NONE), NONE);
	ck_assert_uint_eq(space_alloc(space, UINT64_MAX, NONE), NONE);
	ck_assert_uint_eq(coldest(space, UINT64_MAX, 0), NONE);
	ck_assert_uint_eq(coldest(space, 257 * UNIT, 0), NONE);
	ck_assert(!space_take(space, 0, 257 * UNIT));
	ck_assert(!space_take(space, 0xfffffff0, UNIT));
	free(space);
}
END_TEST

START_TEST(the_coldest_slab_of_another_size_gives_way)
{
	struct space *space = space_of(4, 4);
	uint32_t units[4];

	for (uint32_t i = 0; i < 4; i++)
		units[i] = space_alloc(space, (13 + i) * UNIT, NONE);	/* four sizes, one extent each */
	for (uint32_t i = 0; i < 4; i++)
		space_touch(space, units[i], (i * 3 + 2) % 4 + 10);	/* 12, 11, 10, 13 */
	ck_assert_uint_eq(coldest(space, 16 * UNIT, 0), units[2] / UNITS);
	ck_assert_uint_eq(coldest(space, 16 * UNIT, 1), units[1] / UNITS);
	ck_assert_uint_eq(coldest(space, 16 * UNIT, 2), units[0] / UNITS);
	ck_assert_uint_eq(coldest(space, 16 * UNIT, 3), NONE);	/* its own size */
	ck_assert_uint_eq(coldest(space, 15 * UNIT, 0), units[1] / UNITS);
	audit(space);
	free(space);
}
END_TEST

START_TEST(neighbours_give_way_one_after_the_other_where_one_slab_is_too_short)
{
	struct space *space = space_of(4, 4);
	uint32_t units[4], slab;

	for (uint32_t i = 0; i < 4; i++)
		units[i] = space_alloc(space, 16 * UNIT, NONE);
	for (uint32_t i = 0; i < 4; i++)
		space_touch(space, units[i], units[i] < 2 * UNITS ? 50 + i : 20 + i);
	for (uint32_t i = 0; i < 2; i++) {
		slab = coldest(space, 32 * UNIT, 0);
		ck_assert_uint_ge(slab, 2);		/* extents 2 and 3 are the colder pair */
		space_free(space, slab * UNITS);
	}
	ck_assert_uint_eq(space_alloc(space, 32 * UNIT, NONE), 2 * UNITS);
	audit(space);
	free(space);
}
END_TEST

/* ---- random ------------------------------------------------------------------------------------ */

#define EXTENTS		80u
#define OBJECTS_MAX	2000u

static const uint32_t sizes[] = { 1, 2, 3, 7, 9, 16, 17, 33, 50, 100, 256 };
#define SIZES	(sizeof(sizes) / sizeof(sizes[0]))

struct world {
	struct space *space;
	struct rng rng;
	uint32_t owner[EXTENTS * UNITS];	/* object + 1; 0: nobody's */
	struct { uint32_t unit, units; } objects[OBJECTS_MAX];
	uint32_t n;
	uint64_t used;
};

/* Every unit of the object belongs to nobody so far, and is of extents that were added. */
static void own(struct world *w, uint32_t unit, uint32_t units)
{
	for (uint32_t i = unit; i < unit + units; i++) {
		expect(i < EXTENTS * UNITS && w->owner[i] == 0);
		w->owner[i] = w->n + 1;
	}
	w->objects[w->n].unit = unit;
	w->objects[w->n++].units = units;
	w->used += units;
}

static void disown(struct world *w, uint32_t object)
{
	const uint32_t unit = w->objects[object].unit, units = w->objects[object].units;

	space_free(w->space, unit);
	w->used -= units;
	for (uint32_t i = unit; i < unit + units; i++)
		w->owner[i] = 0;
	w->objects[object] = w->objects[--w->n];
	for (uint32_t i = w->objects[object].unit; object < w->n && i < w->objects[object].unit + w->objects[object].units; i++)
		w->owner[i] = object + 1;
}

/* Fill it with objects of that size, and take most of them away again. */
static void fill(struct world *w, uint32_t units)
{
	const uint32_t before = w->n;
	uint32_t unit;

	while (w->n < OBJECTS_MAX && (unit = space_alloc(w->space, units * UNIT, NONE)) != NONE)
		own(w, unit, units);
	while (w->n > before && rng_below(&w->rng, 8) != 0)
		disown(w, w->n - 1);
}

/* Emptying what space_coldest() names makes room, however many steps it takes. */
static void giving_way_makes_room(struct world *w, uint32_t units)
{
	uint32_t place;

	for (uint32_t step = 0; (place = space_alloc(w->space, units * UNIT, NONE)) == NONE; step++) {
		const uint32_t slab = coldest(w->space, units * UNIT, 0);
		uint32_t unit;
		bool used;

		if (slab == NONE)
			return;		/* nothing but its own size, or extents that are missing */
		expect(step < 16);
		for (uint32_t i = 0; space_slab_object(w->space, slab, i, &unit, &used);) {	/* it ends with its last one */
			if (used)
				disown(w, w->owner[unit] - 1);
			else
				i++;
		}
	}
	space_free(w->space, place);
}

/* All slabs that could give way, one extent each, by another way: the coldest are offered, in order. */
static void the_coldest_are_named(struct world *w)
{
	uint32_t slabs[SPACE_COLDEST], unit;
	const uint32_t n = space_coldest(w->space, UNIT, slabs);
	uint64_t before = 0;
	bool used;

	for (uint32_t i = 0; i < n; i++) {
		const uint64_t use = w->space->slabs[slabs[i]].use;

		expect(use >= before && w->space->slabs[slabs[i]].size != 1);
		before = use;
	}
	for (uint32_t e = 0; e < EXTENTS; e++) {
		bool named = false;

		if (!space_slab_object(w->space, e, 0, &unit, &used) || w->space->slabs[e].size == 1)
			continue;
		for (uint32_t i = 0; i < n; i++)
			named |= slabs[i] == e;
		expect(named || (n == SPACE_COLDEST && w->space->slabs[e].use >= before));
	}
}

static void step(struct world *w)
{
	const uint32_t units = sizes[rng_below(&w->rng, SIZES)], what = rng_below(&w->rng, 100);
	uint32_t unit;

	if (what < 55 && w->n < OBJECTS_MAX) {
		const uint32_t near = w->n > 0 && rng_below(&w->rng, 2) ? w->objects[rng_below(&w->rng, w->n)].unit : NONE;

		unit = space_alloc(w->space, units * UNIT - rng_below(&w->rng, 4096), near);
		if (unit != NONE)
			own(w, unit, units);
	} else if (what < 90 && w->n > 0) {
		disown(w, rng_below(&w->rng, w->n));
	} else if (what < 96 && w->n > 0) {
		space_touch(w->space, w->objects[rng_below(&w->rng, w->n)].unit, rng_next(&w->rng) % 1000);
	} else if (what < 98) {
		fill(w, units);
		the_coldest_are_named(w);
	} else {
		giving_way_makes_room(w, units);
	}
}

static struct world *world_of(uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	w->rng.state = seed;
	w->space = space_of(EXTENTS, 0);
	return w;
}

START_TEST(random_runs_never_give_one_unit_twice_and_keep_the_books)
{
	struct world *w = world_of((uint64_t)_i);
	uint32_t added = 0;

	for (uint32_t i = 0; i < 20000; i++) {
		if (i % 64 == 0) {	/* extents come in any order; one in eight never */
			const uint32_t extent = rng_below(&w->rng, EXTENTS);

			if (extent % 8 != 5)
				space_extent_add(w->space, extent);
			else
				space_extent_lost(w->space, extent);
		}
		step(w);
		expect(space_used(w->space) == w->used * UNIT);
		if (i % 50 == 0)
			audit(w->space);
	}
	for (uint32_t i = 0; i < EXTENTS; i++) {
		if (i % 8 != 5) {
			space_extent_add(w->space, i);
			added++;
		}
		for (uint32_t u = i * UNITS; i % 8 == 5 && u < (i + 1) * UNITS; u++)
			expect(w->owner[u] == 0);	/* what was never added was never given out */
	}
	ck_assert_uint_eq(space_total(w->space), added * EXTENT_BYTES);
	while (w->n > 0)
		disown(w, 0);
	audit(w->space);
	ck_assert_uint_eq(space_used(w->space), 0);
	free(w->space);
	free(w);
}
END_TEST

/* Take all places of the world again in an order drawn; returns how many could be. */
static uint32_t recover(struct world *w, struct space *again)
{
	uint32_t taken = 0;

	for (uint32_t i = w->n; i-- > 0;) {
		const uint32_t k = rng_below(&w->rng, i + 1);
		const uint32_t unit = w->objects[k].unit, units = w->objects[k].units;

		w->objects[k].unit = w->objects[i].unit;
		w->objects[k].units = w->objects[i].units;
		if (!space_take(again, unit, units * UNIT))
			continue;
		taken++;
		expect(!space_take(again, unit, units * UNIT));
		expect(!space_take(again, unit, (units + 1) * UNIT));
		for (uint32_t u = unit + 1; u < unit + units; u++)
			expect(!space_take(again, u, units * UNIT));
	}
	audit(again);
	return taken;
}

START_TEST(recovery_takes_every_place_of_a_thrifty_slab_again_in_any_order)
{
	static const uint32_t thrifty[] = { 1, 2, 3, 7, 8, 15, 16 };	/* in one extent; 240 in sixteen */
	struct world *w = world_of((uint64_t)_i + 1000);
	struct space *again = space_of(EXTENTS, EXTENTS);

	for (uint32_t i = 0; i < EXTENTS; i++)
		space_extent_add(w->space, i);
	for (uint32_t i = 0; i < 3000; i++) {
		const uint32_t units = thrifty[rng_below(&w->rng, 7)];
		const uint32_t unit = w->n < OBJECTS_MAX ? space_alloc(w->space, units * UNIT, NONE) : NONE;

		if (unit != NONE)
			own(w, unit, units);
		if (w->n > 0 && (unit == NONE || rng_below(&w->rng, 3) == 0))
			disown(w, rng_below(&w->rng, w->n));
	}
	ck_assert_uint_gt(w->n, 100);
	ck_assert_uint_eq(recover(w, again), w->n);
	ck_assert_uint_eq(space_used(again), space_used(w->space));
	free(again);
	free(w->space);
	free(w);
}
END_TEST

/* A wasteful slab can be taken for a part of a better one; then what does not fit that is refused. */
START_TEST(recovery_of_a_space_in_pieces_takes_most_and_never_an_overlap)
{
	struct world *w = world_of((uint64_t)_i + 2000);
	struct space *again = space_of(EXTENTS, EXTENTS);

	for (uint32_t i = 0; i < EXTENTS; i++)
		space_extent_add(w->space, i);
	for (uint32_t i = 0; i < 4000; i++)
		step(w);
	ck_assert_uint_gt(recover(w, again) * 2, w->n);
	ck_assert_uint_le(space_used(again), space_used(w->space));
	free(again);
	free(w->space);
	free(w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-space");
	TCase *rules = tcase_create("rules"), *random = tcase_create("random");

	tcase_add_test(rules, a_slab_is_the_shortest_run_with_at_most_an_eighth_of_waste);
	tcase_add_test(rules, without_a_good_run_the_least_wasteful_one_that_can_be_had_is_taken);
	tcase_add_test(rules, no_wasteful_slab_is_made_while_a_better_run_lacks_only_extents_that_are_expected);
	tcase_add_test(rules, objects_that_follow_each_other_are_neighbours);
	tcase_add_test(rules, an_empty_slab_gives_its_extents_to_another_size);
	tcase_add_test(rules, a_short_run_does_not_break_a_long_one);
	tcase_add_test(rules, what_no_run_can_hold_is_refused);
	tcase_add_test(rules, the_coldest_slab_of_another_size_gives_way);
	tcase_add_test(rules, neighbours_give_way_one_after_the_other_where_one_slab_is_too_short);
	tcase_set_timeout(random, 120);
	tcase_add_loop_test(random, random_runs_never_give_one_unit_twice_and_keep_the_books, 0, 6);
	tcase_add_loop_test(random, recovery_takes_every_place_of_a_thrifty_slab_again_in_any_order, 0, 6);
	tcase_add_loop_test(random, recovery_of_a_space_in_pieces_takes_most_and_never_an_overlap, 0, 6);
	suite_add_tcase(s, rules);
	suite_add_tcase(s, random);
	return suite_run(s);
}
