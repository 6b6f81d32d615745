/*
 * The engine over disk tiers: write-back, loads, shared fills, failures.
 */
#include "tests/engine-fixture.h"

/* Store, wait for write-back, and empty the arena: the chunks are on disk alone. */
static void store_on_disk(uint64_t chain, uint32_t n)
{
	ck_assert_uint_eq(do_store(w, chain, n)->answer.n, n);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
}

static const struct seen *look(uint32_t client, uint32_t slot, uint64_t chain, uint32_t n, uint32_t flags,
			       uint32_t priority)
{
	struct engine_request request = ask_lookup(w, client, slot, PLAIN, chain, n, flags);

	request.head.priority = (uint8_t)priority;
	return submit(w, client, &request);
}

/* ---- write-back --------------------------------------------------------------------------------- */

START_TEST(what_is_stored_is_sealed_committed_and_written)
{
	w->hold[PENDING_SEAL] = true;
	ck_assert_uint_eq(do_store(w, 1, 5)->answer.n, 5);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_CHECKS), 5);
	w->hold[PENDING_SEAL] = false;
	world_run(w);
	ck_assert_uint_eq(w->asked[PENDING_SEAL], 5);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_CHECKS), 0);
	ck_assert_uint_eq(w->asked[PENDING_WRITE], 5);
	ck_assert_uint_eq(w->slab_adds, 5);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_DIRTY), 0);
	ck_assert(w->committed[0] || w->committed[1]);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_DISK_WRITES), 5);
}
END_TEST

START_TEST(no_write_begins_while_a_read_is_queued)
{
	store_on_disk(1, 40);
	w->hold[PENDING_READ] = true;
	look(0, 1, 1, 40, STOKER_F_PREFETCH, 0);	/* more than the tier's depth of 8 */
	world_run(w);
	const uint32_t written = w->asked[PENDING_WRITE];

	do_store(w, 2, 4);
	ck_assert_uint_eq(w->asked[PENDING_WRITE], written);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(w->asked[PENDING_WRITE], written + 4);
}
END_TEST

START_TEST(the_bytes_under_way_stay_within_the_depth)
{
	store_on_disk(1, 40);
	w->hold[PENDING_READ] = true;
	look(0, 1, 1, 40, STOKER_F_PREFETCH, 0);
	world_run(w);
	ck_assert_uint_eq(w->n_pending, 8);		/* 64 KiB of 8 KiB each */
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][1].answer.n, 40);
}
END_TEST

START_TEST(a_write_that_fails_is_tried_once_more_and_then_given_up)
{
	uint32_t lost;

	w->fail[PENDING_WRITE] = 3;
	do_store(w, 1, 1);
	ck_assert_uint_eq(w->asked[PENDING_WRITE], 2);
	lost = w->slab_adds;
	ck_assert_uint_eq(lost, 0);
	do_store(w, 2, 1);
	ck_assert_uint_eq(w->asked[PENDING_WRITE], 4);
	ck_assert_uint_eq(w->slab_adds, 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_DISK_WRITE_ERRORS), 3);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_UNWRITTEN), 1);
	ck_assert_uint_eq(do_lookup(w, 1, 1, STOKER_F_PREFETCH)->answer.n, 0);
	ck_assert_uint_eq(do_lookup(w, 2, 1, STOKER_F_PREFETCH)->answer.n, 1);
}
END_TEST

START_TEST(what_is_not_yet_written_is_not_evicted)
{
	w->hold[PENDING_WRITE] = true;
	do_store(w, 1, 20);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 20);
	w->hold[PENDING_WRITE] = false;
	world_run(w);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_UNWRITTEN), 0);
}
END_TEST

START_TEST(a_tier_that_goes_down_saves_nothing_any_more)
{
	w->hold[PENDING_WRITE] = true;
	do_store(w, 1, 20);
	engine_tier_down(w->engine, 0);
	world_audit(w);
	w->hold[PENDING_WRITE] = false;
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_DIRTY), 0);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_UNWRITTEN), 20);
	ck_assert_uint_eq(do_lookup(w, 1, 20, STOKER_F_PREFETCH)->answer.n, 0);
}
END_TEST

START_TEST(a_store_larger_than_the_arena_goes_on_as_write_back_makes_room)
{
	const struct seen *seen = do_store(w, 1, 250);		/* the arena holds 128, the tier 256 */

	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 250);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_STORES_WAITED), 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_UNWRITTEN), 0);
	ck_assert_uint_eq(do_lookup(w, 1, 250, STOKER_F_PROBE)->answer.found, 250);
}
END_TEST

START_TEST(a_full_tier_forgets_its_coldest_chunks)
{
	for (uint64_t chain = 1; chain <= 5; chain++)
		do_store(w, chain, 60);
	ck_assert_uint_gt(world_counter(w, STOKER_COUNTER_EVICTED_DISK), 0);
	ck_assert_uint_eq(w->slab_removes, world_counter(w, STOKER_COUNTER_EVICTED_DISK));
	ck_assert_uint_eq(do_lookup(w, 5, 60, STOKER_F_PROBE)->answer.found, 60);
	ck_assert_uint_lt(do_lookup(w, 1, 60, STOKER_F_PROBE)->answer.found, 60);
	ck_assert_uint_gt(do_lookup(w, 1, 60, STOKER_F_PROBE)->answer.found, 0);	/* leaf first */
}
END_TEST

/* ---- loads ------------------------------------------------------------------------------------------ */

START_TEST(what_is_on_disk_is_loaded_verified_and_leased)
{
	const struct seen *seen;
	uint64_t lease[2];

	store_on_disk(1, 6);
	seen = do_lookup(w, 1, 8, STOKER_F_PREFETCH);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 6);
	ck_assert_uint_eq(seen->answer.found, 6);
	ck_assert_uint_eq(seen->answer.found_l1, 0);
	ck_assert_uint_eq(seen->answer.counts[1], 6);
	ck_assert_uint_eq(seen->bitmap[0], 0x3f);
	ck_assert_uint_eq(seen->stages[0], STOKER_STAGE_PROBED);
	ck_assert_uint_eq(w->asked[PENDING_VERIFY], 6);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_HITS_DISK), 6);
	lease_of(seen, lease);
	seen = do_retrieve(w, lease, 6);
	ck_assert_uint_eq(seen->answer.n, 6);
	for (uint32_t i = 0; i < 24; i++)
		ck_assert_uint_eq(w->blocks[0][0][i], block_value(1, i / 4, i % 4));
}
END_TEST

START_TEST(progress_rises_as_chunks_arrive_in_any_order)
{
	const struct seen *seen;

	store_on_disk(1, 4);
	w->hold[PENDING_READ] = true;
	seen = look(0, 1, 1, 4, STOKER_F_PREFETCH, 0);
	world_run(w);
	ck_assert_uint_eq(w->n_pending, 4);
	w->hold[PENDING_READ] = true;
	world_answer(w, 2);		/* the third chunk: nothing is ready yet */
	world_run(w);
	ck_assert_uint_eq(seen->answer.ready, 0);
	world_answer(w, 0);
	world_run(w);
	ck_assert_uint_eq(seen->answer.ready, 1);
	world_answer(w, 0);		/* the second: with the third, three are ready */
	world_run(w);
	ck_assert_uint_eq(seen->answer.ready, 3);
	ck_assert_uint_eq(seen->answer.stage, STOKER_STAGE_LOADING);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 4);
}
END_TEST

START_TEST(lookups_of_the_same_chunks_share_one_fill)
{
	const struct seen *one, *two;

	store_on_disk(1, 5);
	w->hold[PENDING_READ] = true;
	one = look(0, 1, 1, 5, STOKER_F_PREFETCH, 0);
	two = look(1, 1, 1, 5, STOKER_F_PREFETCH, 0);
	world_run(w);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(one->answer.n, 5);
	ck_assert_uint_eq(two->answer.n, 5);
	ck_assert_uint_eq(w->asked[PENDING_READ], 5);
}
END_TEST

START_TEST(a_fill_that_nobody_waits_for_is_kept_if_begun_and_forgotten_if_queued)
{
	const struct seen *seen;

	store_on_disk(1, 16);
	w->hold[PENDING_READ] = true;
	seen = look(0, 1, 1, 16, STOKER_F_PREFETCH, 0);
	world_run(w);
	ck_assert_uint_gt(world_gauge(w, STOKER_GAUGE_READS), 8);
	engine_cancel(w->engine, 0, 1, seen->generation);
	world_audit(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_CANCELLED);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_READS), 8);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 8);
	ck_assert_uint_eq(do_lookup(w, 1, 16, 0)->answer.n, 8);
}
END_TEST

START_TEST(a_cancelled_lookup_leaves_the_fill_to_the_other_one)
{
	const struct seen *one, *two;

	store_on_disk(1, 16);
	w->hold[PENDING_READ] = true;
	one = look(0, 1, 1, 16, STOKER_F_PREFETCH, 0);
	two = look(1, 1, 1, 16, STOKER_F_PREFETCH, 0);
	world_run(w);
	engine_cancel(w->engine, 0, 1, one->generation);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(two->answer.n, 16);
}
END_TEST

START_TEST(clients_take_turns_at_a_tier)
{
	const struct seen *greedy, *modest;

	store_on_disk(1, 60);
	store_on_disk(2, 4);
	w->hold[PENDING_READ] = true;
	greedy = look(0, 1, 1, 60, STOKER_F_PREFETCH, 0);
	modest = look(1, 1, 2, 4, STOKER_F_PREFETCH, 0);
	world_run(w);
	for (uint32_t i = 0; i < 26 && !modest->done; i++) {	/* 16 were queued before it asked, then turn by turn */
		world_answer(w, 0);
		world_run(w);
	}
	ck_assert(modest->done);
	ck_assert(!greedy->done);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(greedy->answer.n, 60);
}
END_TEST

START_TEST(an_urgent_lookup_is_read_for_first)
{
	const struct seen *urgent;

	store_on_disk(1, 60);
	store_on_disk(2, 2);
	w->hold[PENDING_READ] = true;
	look(0, 1, 1, 60, STOKER_F_PREFETCH, 5);
	world_run(w);
	urgent = look(1, 1, 2, 2, STOKER_F_PREFETCH, 1);
	world_run(w);
	for (uint32_t i = 0; i < 11 && !urgent->done; i++) {	/* 8 are under way already */
		world_answer(w, 0);
		world_run(w);
	}
	ck_assert(urgent->done);
	w->hold[PENDING_READ] = false;
	world_run(w);
}
END_TEST

START_TEST(a_failed_read_ends_the_prefix_there)
{
	struct engine_request request;
	const struct seen *seen;
	const bool corrupt = _i & 1, partial = _i & 2;

	store_on_disk(1, 3);
	w->fail[PENDING_READ] = 1;
	w->corrupt = corrupt;
	w->hold[PENDING_READ] = true;
	request = ask_lookup(w, 0, 1, PLAIN, 1, 3, STOKER_F_PREFETCH | (partial ? STOKER_F_PARTIAL : 0));
	seen = submit(w, 0, &request);
	world_run(w);
	world_answer(w, 1);		/* the second chunk's read fails */
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, partial ? STOKER_STATUS_OK : STOKER_STATUS_IO);
	ck_assert_uint_eq(seen->answer.n, partial ? 1 : 0);
	ck_assert_uint_eq(seen->bitmap[0], partial ? 1 : 0);
	ck_assert_uint_eq(seen->answer.lease_ms > 0, partial);
	ck_assert_uint_eq(w->slab_removes, 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_DISK_READ_ERRORS), !corrupt);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_CHECKSUM_ERRORS), corrupt);
	ck_assert_uint_eq(do_lookup(w, 1, 3, STOKER_F_PROBE)->answer.found, 1);
}
END_TEST

START_TEST(bytes_that_do_not_match_their_checksum_are_never_served)
{
	const struct seen *seen;

	store_on_disk(1, 3);
	for (uint32_t i = 0; i < WORLD_UNITS; i++)
		if (w->disk[0][i].key.word[0] == 1 && w->disk[0][i].key.word[1] == 1)
			w->disk[0][i].rotten = true;
	seen = do_lookup(w, 1, 3, STOKER_F_PREFETCH | STOKER_F_PARTIAL);
	ck_assert_uint_eq(seen->answer.n, 1);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_CHECKSUM_ERRORS), 1);
	do_store(w, 1, 3);		/* it can be stored again */
	ck_assert_uint_eq(do_lookup(w, 1, 3, STOKER_F_PREFETCH)->answer.n, 3);
}
END_TEST

START_TEST(without_prefetch_the_answer_is_what_is_in_the_arena)
{
	const struct seen *seen;

	store_on_disk(1, 6);
	do_lookup(w, 1, 2, STOKER_F_PREFETCH);
	seen = do_lookup(w, 1, 6, 0);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->answer.found, 6);
	ck_assert_uint_eq(seen->answer.found_l1, 2);
	ck_assert_uint_eq(w->asked[PENDING_READ], 2);
}
END_TEST

START_TEST(tiers_that_the_asker_excludes_do_not_count)
{
	struct engine_request request;

	store_on_disk(1, 6);
	do_lookup(w, 1, 2, STOKER_F_PREFETCH);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 6, STOKER_F_PREFETCH);
	request.line.lookup.tiers = 1;
	ck_assert_uint_eq(submit(w, 0, &request)->answer.found, 2);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 6, STOKER_F_PROBE);
	request.line.lookup.tiers = 2;
	ck_assert_uint_eq(submit(w, 0, &request)->answer.found, 6);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 6, STOKER_F_PROBE);
	request.line.lookup.tiers = 4;
	ck_assert_uint_eq(submit(w, 0, &request)->answer.found, 0);
}
END_TEST

START_TEST(independent_keys_are_loaded_each_for_itself)
{
	struct engine_request request;
	const struct seen *seen;

	store_on_disk(1, 4);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 5, STOKER_F_ANY | STOKER_F_PREFETCH | STOKER_F_PARTIAL);
	w->slots[0][1]->keys[1] = key_of(8, 8);
	w->fail[PENDING_READ] = 1;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->bitmap[0], 0xc);	/* 0 failed, 1 and 4 were never there */
}
END_TEST

START_TEST(at_its_deadline_a_load_answers_what_has_come_if_that_is_fine)
{
	struct engine_request request;
	const bool partial = _i;

	store_on_disk(1, 4);
	w->hold[PENDING_READ] = true;
	request = ask_lookup(w, 0, 1, PLAIN, 1, 4, STOKER_F_PREFETCH | (partial ? STOKER_F_PARTIAL : 0));
	request.head.deadline_us = 2000;
	submit(w, 0, &request);
	world_run(w);
	world_answer(w, 0);
	world_run(w);
	world_pass(w, 4);
	ck_assert(w->seen[0][1].done);
	ck_assert_uint_eq(w->seen[0][1].answer.status, partial ? STOKER_STATUS_OK : STOKER_STATUS_DEADLINE);
	ck_assert_uint_eq(w->seen[0][1].answer.n, partial ? 1 : 0);
	ck_assert_uint_eq(w->seen[0][1].answer.lease_ms > 0, partial);
}
END_TEST

START_TEST(a_load_that_finds_too_little_room_is_shortened)
{
	const struct seen *seen;

	store_on_disk(1, 60);
	store_on_disk(2, 60);
	store_on_disk(3, 60);
	ck_assert_uint_eq(do_lookup(w, 1, 60, STOKER_F_PREFETCH)->answer.n, 60);
	ck_assert_uint_eq(do_lookup(w, 2, 60, STOKER_F_PREFETCH)->answer.n, 60);
	seen = do_lookup(w, 3, 60, STOKER_F_PREFETCH);		/* 8 places are left; all else is leased */
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 8);
	seen = do_lookup(w, 3, 60, STOKER_F_PREFETCH);
	ck_assert_uint_eq(seen->answer.n, 8);
	world_pass(w, 31000);		/* the leases have expired */
	ck_assert_uint_eq(do_lookup(w, 3, 60, STOKER_F_PREFETCH)->answer.n, 60);
}
END_TEST

START_TEST(two_tiers_share_what_is_written_and_both_are_read)
{
	struct world *two = world_new(&(struct world_options){ .tiers = 2 });
	uint64_t on[2] = { 0 };

	do_store(two, 1, 40);
	for (uint32_t t = 0; t < 2; t++) {
		struct engine_tier_figures figures;

		engine_tier_figures(two->engine, t, &figures);
		on[t] = figures.objects;
	}
	ck_assert_uint_eq(on[0] + on[1], 40);
	ck_assert(on[0] > 0 && on[1] > 0);
	engine_evict(two->engine, 1 << 30, 1);
	world_run(two);
	ck_assert_uint_eq(do_lookup(two, 1, 40, STOKER_F_PREFETCH)->answer.n, 40);
	engine_tier_down(two->engine, 1);
	engine_evict(two->engine, 1 << 30, 1);
	world_pass(two, 31000);
	engine_evict(two->engine, 1 << 30, 1);
	world_run(two);
	ck_assert_uint_lt(do_lookup(two, 1, 40, STOKER_F_PREFETCH)->answer.n, 40);
	ck_assert_uint_eq(do_store(two, 1, 40)->answer.status, STOKER_STATUS_OK);	/* what is gone is stored again */
	ck_assert_uint_eq(do_lookup(two, 1, 40, STOKER_F_PREFETCH)->answer.n, 40);
	world_free(two);
}
END_TEST

START_TEST(reads_under_way_when_their_tier_goes_down_end_as_misses)
{
	const struct seen *seen;

	store_on_disk(1, 16);
	w->hold[PENDING_READ] = true;
	seen = look(0, 1, 1, 16, STOKER_F_PREFETCH | STOKER_F_PARTIAL, 0);
	world_run(w);
	engine_tier_down(w->engine, 0);
	world_audit(w);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.n, 8);		/* those that were under way came */
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
}
END_TEST

START_TEST(without_write_back_tiers_are_only_read)
{
	struct world *reader = world_new(&(struct world_options){ .tiers = 1, .no_write_back = true });

	do_store(reader, 1, 4);
	ck_assert_uint_eq(reader->asked[PENDING_WRITE], 0);
	ck_assert_uint_eq(world_gauge(reader, STOKER_GAUGE_ARENA_DIRTY), 0);
	world_free(reader);
}
END_TEST

START_TEST(a_fill_goes_by_the_most_urgent_of_those_who_still_wait_for_it)
{
	const struct stoker_wire_key urgent = key_of(3, 0), left = key_of(2, 0);
	const struct seen *leaves;

	for (uint64_t chain = 1; chain <= 3; chain++)
		do_store(w, chain, 8);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	w->hold[PENDING_READ] = true;
	look(0, 1, 1, 8, STOKER_F_PREFETCH, 0);		/* the device has enough to do */
	world_run(w);
	leaves = look(0, 2, 2, 4, STOKER_F_PREFETCH, 1);
	world_run(w);
	look(0, 3, 2, 4, STOKER_F_PREFETCH, 6);		/* shares those fills */
	look(0, 4, 3, 4, STOKER_F_PREFETCH, _i ? 4 : 7);
	world_run(w);
	ck_assert_uint_eq(w->n_pending, 8);
	engine_cancel(w->engine, 0, 2, leaves->generation);
	world_audit(w);
	world_answer(w, 0);
	world_turn(w);
	ck_assert_uint_eq(w->n_pending, 9);	/* a verification, and the next read */
	ck_assert_int_eq(w->pending[8].kind, PENDING_READ);
	ck_assert_mem_eq(&w->pending[8].io.object.key, _i ? &urgent : &left, sizeof(urgent));
	ck_assert_uint_eq(w->pending[8].io.priority, _i ? 4 : 6);
	w->hold[PENDING_READ] = false;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][3].answer.n, 4);
	ck_assert_uint_eq(w->seen[0][4].answer.n, 4);
}
END_TEST

/* ---- the suite ------------------------------------------------------------------------------------------------ */

static TCase *tiers(void)
{
	TCase *tests = with_world("tiers", one_tier);

	tcase_add_test(tests, what_is_stored_is_sealed_committed_and_written);
	tcase_add_test(tests, no_write_begins_while_a_read_is_queued);
	tcase_add_test(tests, the_bytes_under_way_stay_within_the_depth);
	tcase_add_test(tests, a_write_that_fails_is_tried_once_more_and_then_given_up);
	tcase_add_test(tests, what_is_not_yet_written_is_not_evicted);
	tcase_add_test(tests, a_tier_that_goes_down_saves_nothing_any_more);
	tcase_add_test(tests, a_store_larger_than_the_arena_goes_on_as_write_back_makes_room);
	tcase_add_test(tests, a_full_tier_forgets_its_coldest_chunks);
	tcase_add_test(tests, what_is_on_disk_is_loaded_verified_and_leased);
	tcase_add_test(tests, progress_rises_as_chunks_arrive_in_any_order);
	tcase_add_test(tests, lookups_of_the_same_chunks_share_one_fill);
	tcase_add_test(tests, a_fill_that_nobody_waits_for_is_kept_if_begun_and_forgotten_if_queued);
	tcase_add_test(tests, a_cancelled_lookup_leaves_the_fill_to_the_other_one);
	tcase_add_test(tests, clients_take_turns_at_a_tier);
	tcase_add_test(tests, an_urgent_lookup_is_read_for_first);
	tcase_add_loop_test(tests, a_fill_goes_by_the_most_urgent_of_those_who_still_wait_for_it, 0, 2);
	tcase_add_loop_test(tests, a_failed_read_ends_the_prefix_there, 0, 4);
	tcase_add_test(tests, bytes_that_do_not_match_their_checksum_are_never_served);
	tcase_add_test(tests, without_prefetch_the_answer_is_what_is_in_the_arena);
	tcase_add_test(tests, tiers_that_the_asker_excludes_do_not_count);
	tcase_add_test(tests, independent_keys_are_loaded_each_for_itself);
	tcase_add_loop_test(tests, at_its_deadline_a_load_answers_what_has_come_if_that_is_fine, 0, 2);
	tcase_add_test(tests, a_load_that_finds_too_little_room_is_shortened);
	tcase_add_test(tests, reads_under_way_when_their_tier_goes_down_end_as_misses);
	return tests;
}

static TCase *bare(void)
{
	TCase *tests = tcase_create("tiers of their own worlds");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, two_tiers_share_what_is_written_and_both_are_read);
	tcase_add_test(tests, without_write_back_tiers_are_only_read);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-tiers");

	suite_add_tcase(suite, tiers());
	suite_add_tcase(suite, bare());
	return suite_run(suite);
}
