/*
 * The engine over disk tiers, and out of room: write-back, loads, shared fills, failures, eviction.
 */
#include "shm/model.h"
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

/* ---- room ------------------------------------------------------------------------------------------------- */

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
	tcase_add_test(tests, a_tenant_stays_within_its_quota);
	return tests;
}

static TCase *room(void)
{
	TCase *tests = tcase_create("room");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, two_tiers_share_what_is_written_and_both_are_read);
	tcase_add_test(tests, a_full_arena_evicts_leaf_first);
	tcase_add_loop_test(tests, what_was_used_last_goes_last, 0, 2);
	tcase_add_test(tests, a_store_is_refused_when_everything_is_pinned);
	tcase_add_test(tests, an_object_larger_than_its_tenants_quota_evicts_nothing_for_that);
	tcase_add_test(tests, a_quota_that_is_lowered_takes_no_long_step);
	tcase_add_test(tests, objects_of_another_size_get_a_cold_slab);
	tcase_add_loop_test(tests, an_index_that_is_full_forgets_its_coldest_chunks, 0, 2);
	tcase_add_test(tests, the_background_keeps_a_share_of_the_arena_free);
	tcase_add_test(tests, without_write_back_tiers_are_only_read);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-tiers");

	suite_add_tcase(suite, tiers());
	suite_add_tcase(suite, room());
	return suite_run(suite);
}
