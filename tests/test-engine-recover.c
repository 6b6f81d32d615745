/*
 * The engine after a restart: what the tables of a broker before name, and what it makes of that.
 */
#include "tests/engine-fixture.h"

START_TEST(before_recovery_is_over_lookups_find_nothing_and_stores_wait)
{
	struct world *fresh = world_new(&(struct world_options){ .not_serving = true });
	struct engine_request request = ask_store(fresh, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *store = submit(fresh, 0, &request);

	world_turn(fresh);
	request = ask_lookup(fresh, 0, 1, PLAIN, 1, 2, STOKER_F_PREFETCH);
	ck_assert_uint_eq(submit(fresh, 0, &request)->answer.status, STOKER_STATUS_STARTING);
	ck_assert(!store->done);
	engine_serve(fresh->engine, fresh->now);
	world_run(fresh);
	ck_assert_uint_eq(store->answer.n, 2);
	world_free(fresh);
}
END_TEST

/* A new broker over the arena and the tier of `w`, told of what its tables name. */
static struct world *restart(bool held, uint64_t rotten_chunk, bool with_disk)
{
	struct world *next = world_new(&(struct world_options){ .tiers = 1, .not_serving = true });

	memcpy(next->arena, w->arena, sizeof(w->arena));
	memcpy(next->disk, w->disk, sizeof(w->disk));
	for (uint32_t r = 0; r < 4096; r++) {
		if (!w->committed[r])
			continue;
		if (w->committed_object[r].key.word[1] == rotten_chunk)
			next->arena[w->committed_place[r].unit].rotten = true;
		ck_assert_uint_eq(engine_recover(next->engine, r, &w->committed_place[r],
						 &w->committed_object[r], held), r);
		next->committed[r] = true;
	}
	for (uint32_t unit = 0; unit < WORLD_UNITS && with_disk; unit++) {
		const struct engine_place place = { 0, unit, 8192 };
		struct engine_object object = { .epoch = 1, .tokens = 64, .checksum = 1 };

		if (w->disk[0][unit].key.word[0] == 0)
			continue;
		object.key = w->disk[0][unit].key;
		object.sequence = w->disk[0][unit].sequence;
		object.first_token = object.key.word[1] * 64;
		if (object.key.word[1])
			object.parent = key_of(object.key.word[0], (uint32_t)object.key.word[1] - 1);
		engine_recover(next->engine, ENGINE_NONE, &place, &object, false);
	}
	world_audit(next);
	engine_serve(next->engine, next->now);
	return next;
}

START_TEST(what_survived_in_the_arena_is_verified_before_its_first_service)
{
	struct world *next;
	const struct seen *seen;
	uint64_t lease[2];

	do_store(w, 1, 5);
	next = restart(false, 99, true);
	ck_assert_uint_eq(next->asked[PENDING_VERIFY], 0);
	seen = do_lookup(next, 1, 6, 0);
	ck_assert_uint_eq(seen->answer.n, 5);
	ck_assert_uint_eq(next->asked[PENDING_VERIFY], 5);
	ck_assert_uint_eq(next->asked[PENDING_READ], 0);
	lease_of(seen, lease);
	ck_assert_uint_eq(do_retrieve(next, lease, 5)->answer.n, 5);
	for (uint32_t i = 0; i < 20; i++)
		ck_assert_uint_eq(next->blocks[0][0][i], block_value(1, i / 4, i % 4));
	do_lookup(next, 1, 5, 0);
	ck_assert_uint_eq(next->asked[PENDING_VERIFY], 5);	/* once is enough */
	world_free(next);
}
END_TEST

START_TEST(what_survived_rotten_is_dropped_and_read_from_disk_if_it_is_there)
{
	struct world *next;

	do_store(w, 1, 5);
	next = restart(false, 2, _i);
	if (_i) {
		ck_assert_uint_eq(do_lookup(next, 1, 5, STOKER_F_PREFETCH)->answer.n, 5);
		ck_assert_uint_eq(next->asked[PENDING_READ], 1);
	} else {
		ck_assert_uint_eq(do_lookup(next, 1, 5, STOKER_F_PREFETCH | STOKER_F_PARTIAL)->answer.n, 2);
	}
	ck_assert_uint_eq(world_counter(next, STOKER_COUNTER_CHECKSUM_ERRORS), 1);
	world_free(next);
}
END_TEST

START_TEST(what_is_read_though_nobody_expected_it_does_not_spoil_what_others_expect)
{
	struct world *next;
	const struct seen *rotten, *other;
	struct engine_request request;

	do_store(w, 2, 40);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	do_store(w, 1, 5);
	next = restart(false, 2, true);
	next->hold[PENDING_READ] = true;
	request = ask_lookup(next, 0, 1, PLAIN, 2, 40, STOKER_F_PREFETCH);
	other = submit(next, 0, &request);
	world_run(next);			/* most of it has still to be asked for */
	request = ask_lookup(next, 1, 1, PLAIN, 1, 5, STOKER_F_PREFETCH);
	rotten = submit(next, 1, &request);
	world_run(next);
	ck_assert(!rotten->done && !other->done);
	next->hold[PENDING_READ] = false;
	world_run(next);
	ck_assert_uint_eq(rotten->answer.n, 5);
	ck_assert_uint_eq(other->answer.n, 40);
	engine_evict(next->engine, 1 << 30, 2);
	do_release(next, rotten->answer.lease);
	do_release(next, other->answer.lease);
	engine_evict(next->engine, 1 << 30, 3);
	world_run(next);
	request = ask_lookup(next, 0, 1, PLAIN, 2, 40, STOKER_F_PREFETCH);
	other = submit(next, 0, &request);
	ck_assert(!other->done);
	ck_assert_uint_lt(other->answer.expected_us, 1000000);	/* of 320 KiB at a GB/s or so */
	world_run(next);
	world_free(next);
}
END_TEST

START_TEST(what_survived_in_the_arena_alone_is_written_to_the_tier)
{
	struct world *next;

	do_store(w, 1, 5);
	next = restart(false, 99, false);
	world_run(next);
	ck_assert_uint_eq(next->asked[PENDING_VERIFY], 5);
	ck_assert_uint_eq(next->slab_adds, 5);
	world_free(next);
}
END_TEST

START_TEST(while_what_survived_is_being_verified_there_is_no_turn_without_work)
{
	struct world *next;
	uint32_t turns = 0;

	do_store(w, 1, 60);
	do_store(w, 2, 60);
	next = restart(false, 99, false);
	next->hold[PENDING_VERIFY] = true;	/* more of them than may be queued */
	while (engine_turn(next->engine, next->now))
		ck_assert_uint_lt(++turns, 100);
	ck_assert_uint_lt(next->asked[PENDING_VERIFY], 60);
	next->hold[PENDING_VERIFY] = false;
	world_run(next);
	ck_assert_uint_eq(next->slab_adds, 120);
	world_free(next);
}
END_TEST

START_TEST(what_was_held_at_the_crash_is_kept_for_a_while)
{
	struct world *next;

	do_store(w, 1, 5);
	next = restart(true, 99, true);
	engine_evict(next->engine, 1 << 30, 1);
	world_run(next);
	ck_assert_uint_eq(world_gauge(next, STOKER_GAUGE_ARENA_OBJECTS), 5);
	world_pass(next, 31000);
	engine_evict(next->engine, 1 << 30, 2);
	world_run(next);
	ck_assert_uint_eq(world_gauge(next, STOKER_GAUGE_ARENA_OBJECTS), 0);
	world_free(next);
}
END_TEST

START_TEST(a_table_entry_that_cannot_be_is_dropped)
{
	struct world *fresh = world_new(&(struct world_options){ .tiers = 1, .not_serving = true });
	struct engine_object object = { .key = key_of(1, 0), .epoch = 1, .tokens = 64, .sequence = 5, .checksum = 1 };
	struct engine_place place = { ENGINE_NONE, 0, 8192 };
	uint32_t record = 3;

	ck_assert_uint_eq(engine_recover(fresh->engine, record, &place, &object, false), record);
	fresh->committed[3] = true;
	place.unit = 2;
	object.key = key_of(1, 1);
	record = 4;
	switch (_i) {
	case 0: object.model = 5; break;		/* not open */
	case 1: object.epoch = 2; break;		/* not the current one */
	case 2: place.bytes = 4096; break;		/* not that part's size */
	case 3: place.unit = 0; break;			/* taken */
	case 4: place.unit = 0xfffffffe; break;		/* out of range */
	case 5: object.shard = 1; break;		/* no such part */
	case 6: object.tokens = 65; break;
	case 7: record = 3; break;			/* a number twice */
	case 8: object.key = key_of(1, 0); break;	/* an object twice */
	default: place.tier = 1; break;			/* no such tier */
	}
	ck_assert_uint_eq(engine_recover(fresh->engine, record, &place, &object, false), ENGINE_NONE);
	world_audit(fresh);
	engine_serve(fresh->engine, fresh->now);
	world_free(fresh);
}
END_TEST

/* Its image names what it was stored with, so it would be found corrupt: what came back is of an earlier life of its chunk. */
START_TEST(a_part_that_is_named_otherwise_than_the_rest_of_its_chunk_is_dropped)
{
	struct world *fresh = world_new(&(struct world_options){ .tiers = 1, .not_serving = true });
	struct engine_object object = { .key = key_of(1, 1), .parent = key_of(1, 0), .account = 5, .model = SHARDED, .epoch = 1,
					.first_token = 64, .tokens = 64, .sequence = 5, .checksum = 1 };
	struct engine_place place = { ENGINE_NONE, 0, 8192 };

	ck_assert_uint_eq(engine_recover(fresh->engine, 3, &place, &object, false), 3);
	fresh->committed[3] = true;
	object.shard = object.part = 1;
	object.sequence = 4;
	place.tier = 0;
	switch (_i) {
	case 0: object.parent = key_of(2, 0); break;
	case 1: object.account = 6; break;
	case 2: object.first_token = 128; break;
	case 3: object.tokens = 63; break;
	}
	ck_assert((engine_recover(fresh->engine, ENGINE_NONE, &place, &object, false) == ENGINE_NONE) == (_i < 4));
	world_audit(fresh);
	world_free(fresh);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine-recover");
	TCase *tests = with_world("recover", one_tier);

	tcase_add_test(tests, before_recovery_is_over_lookups_find_nothing_and_stores_wait);
	tcase_add_test(tests, what_survived_in_the_arena_is_verified_before_its_first_service);
	tcase_add_loop_test(tests, what_survived_rotten_is_dropped_and_read_from_disk_if_it_is_there, 0, 2);
	tcase_add_test(tests, what_is_read_though_nobody_expected_it_does_not_spoil_what_others_expect);
	tcase_add_test(tests, what_survived_in_the_arena_alone_is_written_to_the_tier);
	tcase_add_test(tests, while_what_survived_is_being_verified_there_is_no_turn_without_work);
	tcase_add_test(tests, what_was_held_at_the_crash_is_kept_for_a_while);
	tcase_add_loop_test(tests, a_table_entry_that_cannot_be_is_dropped, 0, 10);
	tcase_add_loop_test(tests, a_part_that_is_named_otherwise_than_the_rest_of_its_chunk_is_dropped, 0, 5);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
