/*
 * Slabs with something in use in them, when objects of another size need room: what still can go does,
 * what cannot is refused at once, and it goes on when the use ends.
 */
#include <string.h>

#include "tests/engine-fixture.h"

#define A_SLAB	8u		/* objects of PLAIN */
#define POOL	9u		/* of BIG, whose objects are half a slab */

static void fill(uint32_t slabs)
{
	for (uint32_t i = 0; i < slabs; i++)
		ck_assert_uint_eq(do_store(w, 1 + i, A_SLAB)->answer.n, A_SLAB);
}

static void make(const struct world_options *options)
{
	make_world(options);
	ck_assert_int_eq(engine_pool_added(w->engine, 0, POOL, BIG, 0, WORLD_POOL, 0), 0);
}

/* A lease of one object in each of the first @slabs, from slot 5. */
static void pin_one_in_each(uint32_t slabs, uint64_t ret[2])
{
	struct engine_request request = ask_lookup(w, 0, 5, PLAIN, 0, slabs, STOKER_F_ANY);

	for (uint32_t i = 0; i < slabs; i++)
		w->slots[0][5]->keys[i] = key_of(1 + i, i % A_SLAB);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.n, slabs);
	lease_of(&w->seen[0][5], ret);
}

static const struct seen *store_big(uint64_t chain)
{
	struct engine_request request = ask(w, 0, 6, STOKER_OP_STORE, BIG);
	const struct seen *seen;

	w->slots[0][6]->keys[0] = key_of(chain, 0);
	request.head.n_keys = 1;
	add_segment(w, &request, 0, POOL, 0, 0, 0, 1, 0);
	seen = submit(w, 0, &request);
	world_run(w);
	return seen;
}

static bool is_there(uint64_t chain, uint32_t n)
{
	return do_lookup(w, chain, n, STOKER_F_PROBE)->answer.found == n;
}

START_TEST(where_each_slab_has_one_object_in_use_another_size_is_refused_until_that_ends)
{
	const uint64_t objects = WORLD_EXTENTS * A_SLAB;
	uint64_t lease[2];

	make(NULL);
	fill(WORLD_EXTENTS);
	pin_one_in_each(WORLD_EXTENTS, lease);
	/* At once, at nobody's cost, and however often it is asked for. */
	for (uint32_t i = 0; i < 3; i++) {
		const struct seen *seen = store_big(100);

		ck_assert(seen->done);
		ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_NO_MEMORY);
	}
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), objects);
	/* The same slabs serve their own size: what is not in use there goes for it, one by one. */
	for (uint64_t chain = 200; chain < 200 + WORLD_EXTENTS; chain++)
		ck_assert_uint_eq(do_store(w, chain, A_SLAB - 1)->answer.n, A_SLAB - 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_SLABS_RECLAIMED), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), objects);
	ck_assert(is_there(200 + WORLD_EXTENTS - 1, A_SLAB - 1));
	do_release(w, lease);
	ck_assert_uint_eq(store_big(100)->answer.n, 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_SLABS_RECLAIMED), 1);
	end();
}
END_TEST

START_TEST(a_slab_that_can_go_is_found_behind_any_number_of_colder_ones_in_use)
{
	const uint32_t slabs = 60, in_use = slabs - 2;
	uint64_t lease[2];

	make(&(struct world_options){ .extents = slabs });
	fill(slabs);
	pin_one_in_each(in_use, lease);
	for (uint64_t chain = 100; chain < 104; chain++)
		ck_assert_uint_eq(store_big(chain)->answer.n, 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_SLABS_RECLAIMED), 2);
	ck_assert_uint_eq(store_big(104)->answer.n, 1);		/* one of its own size goes */
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_SLABS_RECLAIMED), 2);
	end();
}
END_TEST

START_TEST(who_waits_for_write_back_goes_on_when_a_slab_is_not_in_use_any_more)
{
	const struct seen *seen;
	uint64_t lease[2];

	make(&(struct world_options){ .tiers = 1 });
	fill(WORLD_EXTENTS - 1);
	w->hold[PENDING_WRITE] = true;
	do_store(w, 50, A_SLAB);	/* fills the last slab, and is not written yet */
	pin_one_in_each(WORLD_EXTENTS - 1, lease);
	seen = store_big(100);
	ck_assert(!seen->done);
	do_release(w, lease);
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 1);
	w->hold[PENDING_WRITE] = false;
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine-slabs");
	TCase *tests = tcase_create("slabs");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, where_each_slab_has_one_object_in_use_another_size_is_refused_until_that_ends);
	tcase_add_test(tests, a_slab_that_can_go_is_found_behind_any_number_of_colder_ones_in_use);
	tcase_add_test(tests, who_waits_for_write_back_goes_on_when_a_slab_is_not_in_use_any_more);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
