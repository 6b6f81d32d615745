/*
 * The engine out of room: whom it evicts from arena, tiers and index, and for whom.
 */
#include "tests/engine-fixture.h"

START_TEST(a_full_arena_evicts_leaf_first)
{
	struct world *small = world_new(NULL);

	do_store(small, 1, 60);
	do_store(small, 2, 60);
	do_store(small, 3, 20);		/* 128 places: 12 have to go */
	ck_assert_uint_eq(do_lookup(small, 1, 60, STOKER_F_PROBE)->answer.found, 48);
	ck_assert_uint_eq(do_lookup(small, 2, 60, STOKER_F_PROBE)->answer.found, 60);
	ck_assert_uint_eq(world_counter(small, STOKER_COUNTER_EVICTED_L1), 12);
	world_free(small);
}
END_TEST

START_TEST(what_was_used_last_goes_last)
{
	struct world *small = world_new(&(struct world_options){ .policy = _i ? ENGINE_POLICY_ARC : ENGINE_POLICY_LRU });
	uint64_t lease[2];

	do_store(small, 1, 60);
	do_store(small, 2, 60);
	lease_of(do_lookup(small, 1, 60, 0), lease);
	do_release(small, lease);
	do_store(small, 3, 20);
	ck_assert_uint_eq(do_lookup(small, 1, 60, STOKER_F_PROBE)->answer.found, 60);
	ck_assert_uint_eq(do_lookup(small, 2, 60, STOKER_F_PROBE)->answer.found, 48);
	world_free(small);
}
END_TEST

START_TEST(a_store_is_refused_when_everything_is_pinned)
{
	struct world *small = world_new(NULL);
	const struct seen *seen;

	do_store(small, 1, 64);
	do_store(small, 2, 64);
	do_lookup(small, 1, 64, 0);
	do_lookup(small, 2, 60, 0);
	seen = do_store(small, 3, 6);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 4);
	ck_assert_uint_eq(seen->chunks[4], STOKER_CHUNK_REFUSED);
	do_lookup(small, 3, 4, 0);
	seen = do_store(small, 4, 6);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_NO_MEMORY);
	ck_assert_uint_eq(seen->answer.counts[2], 6);
	world_free(small);
}
END_TEST

START_TEST(a_tenant_stays_within_its_quota)
{
	const struct engine_quota quota = { .arena_bytes = 10 * 8192, .disk_bytes = 20 * 8192 };

	engine_tenant(w->engine, 0, &quota);
	for (uint64_t chain = 1; chain <= 5; chain++)
		ck_assert_uint_eq(do_store(w, chain, 8)->answer.n, 8);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 10);
	struct engine_tier_figures figures;

	engine_tier_figures(w->engine, 0, &figures);
	ck_assert_uint_eq(figures.objects, 20);
	do_lookup(w, 5, 8, 0);
	w->hold[PENDING_WRITE] = true;
	const struct seen *seen = do_lookup(w, 4, 8, STOKER_F_PREFETCH);
	ck_assert_uint_eq(seen->answer.n, 2);		/* its own leases are in its way */
}
END_TEST

START_TEST(an_object_larger_than_its_tenants_quota_evicts_nothing_for_that)
{
	const struct engine_quota quota = { .arena_bytes = 3 * 8192 };
	struct world *small = world_new(NULL);
	struct engine_request request;

	ck_assert_int_eq(engine_pool_added(small->engine, 0, 10, BIG, 0, WORLD_POOL, 0), 0);
	engine_tenant(small->engine, 0, &quota);
	ck_assert_uint_eq(do_store(small, 1, 3)->answer.n, 3);
	request = ask(small, 0, 5, STOKER_OP_STORE, BIG);
	small->slots[0][5]->keys[0] = key_of(2, 0);
	request.head.n_keys = 1;
	add_segment(small, &request, 0, 10, 0, 0, 0, 1, 0);
	submit(small, 0, &request);
	world_run(small);
	ck_assert_uint_eq(small->seen[0][5].answer.status, STOKER_STATUS_REFUSED);
	ck_assert_uint_eq(world_gauge(small, STOKER_GAUGE_ARENA_OBJECTS), 3);
	world_free(small);
}
END_TEST

/* Its quota was larger once, or there was none: what is too much goes little by little, whoever needs room. */
START_TEST(a_quota_that_is_lowered_takes_no_long_step)
{
	struct world *many = world_new(&(struct world_options){ .tiers = 1, .extents = 40 });
	const struct engine_quota quota = { .arena_bytes = 10 * 8192, .disk_bytes = 20 * 8192 };
	struct engine_request request = ask_store(many, 0, WORLD_SMALL, PLAIN, 1, 0, 250);
	uint64_t evicted[2] = { 0, 0 };
	const struct seen *seen;

	seen = submit(many, 0, &request);
	world_run(many);
	ck_assert_uint_eq(seen->answer.n, 250);
	engine_tenant(many->engine, 0, &quota);
	request = ask_store(many, 0, 0, PLAIN, 2, 0, 1);
	seen = submit(many, 0, &request);
	for (uint32_t turns = 0; many->n_pending > 0 || turns < 100; turns++) {
		const uint64_t arena = world_counter(many, STOKER_COUNTER_EVICTED_L1);
		const uint64_t disk = world_counter(many, STOKER_COUNTER_EVICTED_DISK);

		ck_assert_uint_le(arena - evicted[0], 100);
		ck_assert_uint_le(disk - evicted[1], 100);
		evicted[0] = arena;
		evicted[1] = disk;
		world_turn(many);
		if (many->n_pending > 0)
			world_answer(many, 0);
	}
	ck_assert_uint_eq(seen->answer.n, 1);
	ck_assert_uint_eq(evicted[0], 241);
	ck_assert_uint_eq(evicted[1], 231);
	ck_assert_uint_eq(many->slab_adds, 251);
	world_free(many);
}
END_TEST

START_TEST(objects_of_another_size_get_a_cold_slab)
{
	struct world *small = world_new(NULL);
	struct engine_request request;
	const struct seen *seen;

	ck_assert_int_eq(engine_pool_added(small->engine, 0, 9, BIG, 0, WORLD_POOL, 0), 0);
	do_store(small, 1, 64);
	do_store(small, 2, 64);		/* the arena is full of 8 KiB objects */
	for (uint32_t i = 0; i < 8; i++)
		small->slots[0][0]->keys[i] = key_of(3, i);
	request = ask(small, 0, 0, STOKER_OP_STORE, BIG);
	request.head.n_keys = 8;
	add_segment(small, &request, 0, 9, 0, 0, 0, 8, 0);
	seen = submit(small, 0, &request);
	world_run(small);
	ck_assert_uint_eq(seen->answer.n, 8);
	ck_assert_uint_gt(world_counter(small, STOKER_COUNTER_SLABS_RECLAIMED), 0);
	request = ask_lookup(small, 0, 1, BIG, 3, 8, 0);
	ck_assert_uint_eq(submit(small, 0, &request)->answer.n, 8);
	world_free(small);
}
END_TEST

START_TEST(an_index_that_is_full_forgets_its_coldest_chunks)
{
	struct world *small = world_new(&(struct world_options){ .entries = 32, .records = _i ? 16 : 64 });

	for (uint64_t chain = 1; chain <= 4; chain++)
		ck_assert_uint_eq(do_store(small, chain, 12)->answer.n, 12);
	ck_assert_uint_gt(world_counter(small, STOKER_COUNTER_ENTRIES_EVICTED), 0);
	ck_assert_uint_eq(do_lookup(small, 4, 12, STOKER_F_PROBE)->answer.found, 12);
	world_free(small);
}
END_TEST

START_TEST(the_background_keeps_a_share_of_the_arena_free)
{
	struct world *small = world_new(&(struct world_options){ .refill_permille = 250 });

	do_store(small, 1, 64);
	do_store(small, 2, 60);
	ck_assert_uint_le(world_gauge(small, STOKER_GAUGE_ARENA_USED), 96 * 8192);
	ck_assert_uint_eq(do_lookup(small, 2, 60, STOKER_F_PROBE)->answer.found, 60);
	world_free(small);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine-room");
	TCase *tests = tcase_create("room"), *tier = with_world("room beside a tier", one_tier);

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_full_arena_evicts_leaf_first);
	tcase_add_loop_test(tests, what_was_used_last_goes_last, 0, 2);
	tcase_add_test(tests, a_store_is_refused_when_everything_is_pinned);
	tcase_add_test(tests, an_object_larger_than_its_tenants_quota_evicts_nothing_for_that);
	tcase_add_test(tests, a_quota_that_is_lowered_takes_no_long_step);
	tcase_add_test(tests, objects_of_another_size_get_a_cold_slab);
	tcase_add_loop_test(tests, an_index_that_is_full_forgets_its_coldest_chunks, 0, 2);
	tcase_add_test(tests, the_background_keeps_a_share_of_the_arena_free);
	tcase_add_test(tier, a_tenant_stays_within_its_quota);
	suite_add_tcase(suite, tests);
	suite_add_tcase(suite, tier);
	return suite_run(suite);
}
