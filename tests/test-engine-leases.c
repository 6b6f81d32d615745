/*
 * The engine's leases, and what is done with them: RELEASE, renewal, RETRIEVE, MAP and UNMAP, END_SESSION.
 */
#include "tests/engine-fixture.h"

/* ---- leases ------------------------------------------------------------------------------------------------ */

START_TEST(a_lease_ends_when_its_last_reader_has_returned_and_repeats_do_nothing)
{
	struct engine_request request;
	uint64_t lease[2];

	do_store(w, 1, 2);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 2, 0);
	request.line.lookup.readers = 0x5;
	submit(w, 0, &request);
	lease_of(&w->seen[0][1], lease);
	for (int i = 0; i < 3; i++)
		do_release(w, lease);		/* reader 0, again and again */
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 1);
	request = ask_retrieve(w, 1, 0, PLAIN, lease, 0, 2);	/* another client, reader 2 */
	request.line.retrieve.reader = 2;
	request.head.flags = STOKER_F_END_SHARE;
	submit(w, 1, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[1][0].answer.n, 2);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	do_release(w, lease);
}
END_TEST

START_TEST(a_lease_that_has_expired_answers_expired)
{
	uint64_t lease[2];
	const struct seen *seen;

	lease_make(2, lease);
	world_pass(w, 31000);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	seen = do_retrieve(w, lease, 2);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_EXPIRED);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_LEASES_EXPIRED), 1);
}
END_TEST

START_TEST(what_comes_after_a_long_sleep_ends_no_earlier_for_it)
{
	struct engine_request request;
	const struct seen *waiting;

	do_store(w, 1, 2);
	w->now += 3600 * 1000000000ull;		/* the engine has heard nothing for an hour */
	request = ask_lookup(w, 0, 1, PLAIN, 1, 2, 0);
	submit(w, 0, &request);
	request = ask_store(w, 0, 0, PLAIN, 3, 0, 2);
	request.head.flags = STOKER_F_READY;
	request.head.deadline_us = 5000;
	waiting = submit(w, 0, &request);
	ck_assert_uint_le(engine_deadline(w->engine), w->now);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 1);
	world_pass(w, 4);
	ck_assert(!waiting->done);
	world_pass(w, 29000);
	ck_assert(waiting->done);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 1);
	world_pass(w, 2000);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
}
END_TEST

START_TEST(a_retrieve_under_way_keeps_its_chunks_whatever_the_clock_says)
{
	struct engine_request request;
	uint64_t lease[2];

	lease_make(2, lease);
	w->hold[PENDING_COPY] = true;
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 2);
	request.head.deadline_us = 60000000;
	submit(w, 0, &request);
	world_pass(w, 31000);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 2 * 8192);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][2].answer.n, 2);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
}
END_TEST

START_TEST(a_wrong_token_opens_nothing)
{
	uint64_t lease[2], wrong[2];

	lease_make(2, lease);
	for (int bit = 0; bit < 128; bit += 7) {
		wrong[0] = lease[0] ^ (bit < 64 ? 1ull << bit : 0);
		wrong[1] = lease[1] ^ (bit >= 64 ? 1ull << (bit - 64) : 0);
		ck_assert_uint_eq(do_retrieve(w, wrong, 2)->answer.status, STOKER_STATUS_EXPIRED);
		do_release(w, wrong);
	}
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 1);
}
END_TEST

START_TEST(a_lease_is_extended_by_a_longer_lookup_and_keeps_its_token)
{
	struct engine_request request;
	const struct seen *seen;
	uint64_t lease[2];

	lease_make(2, lease);
	do_store(w, 1, 5);
	world_pass(w, 20000);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 5, STOKER_F_RENEW);
	memcpy(request.head.lease, lease, 16);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 5);
	ck_assert_uint_eq(seen->answer.lease[0], lease[0]);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 1);
	world_pass(w, 20000);		/* 40 s after it was granted, 20 after it was renewed */
	ck_assert_uint_eq(do_retrieve(w, lease, 5)->answer.n, 5);
}
END_TEST

START_TEST(a_lease_that_is_extended_by_what_follows_keeps_what_it_had)
{
	struct engine_request request;
	uint64_t lease[2];

	lease_make(2, lease);
	do_store(w, 1, 5);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 5, STOKER_F_RENEW);
	request.line.lookup.have = 2;		/* the asker has loaded those by now; other readers have not */
	memcpy(request.head.lease, lease, 16);
	submit(w, 0, &request);
	ck_assert_uint_eq(w->seen[0][1].answer.n, 5);
	ck_assert_uint_eq(do_retrieve(w, lease, 5)->answer.n, 5);
	do_release(w, lease);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
}
END_TEST

START_TEST(a_lease_is_renewed_without_keys)
{
	struct engine_request request;
	uint64_t lease[2];

	lease_make(2, lease);
	world_pass(w, 20000);
	request = ask_lookup(w, 0, 1, PLAIN, 1, 0, STOKER_F_RENEW);
	memcpy(request.head.lease, lease, 16);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.n, 2);
	world_pass(w, 20000);
	ck_assert_uint_eq(do_retrieve(w, lease, 2)->answer.n, 2);
}
END_TEST

START_TEST(a_lease_of_another_chain_cannot_be_extended)
{
	struct engine_request request;
	uint64_t lease[2];

	lease_make(2, lease);
	do_store(w, 2, 4);
	request = ask_lookup(w, 0, 1, PLAIN, 2, 4, STOKER_F_RENEW);
	memcpy(request.head.lease, lease, 16);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
	ck_assert_uint_eq(do_retrieve(w, lease, 2)->answer.n, 2);
	lease[0]++;
	memcpy(request.head.lease, lease, 16);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_EXPIRED);
}
END_TEST

START_TEST(a_lease_is_not_renewed_over_another_chain_whose_first_chunks_are_not_looked_at)
{
	struct engine_request request;
	uint64_t lease[2];

	do_store(w, 1, 4);
	request = ask_store(w, 0, 0, PLAIN, 2, 4, 2);
	submit(w, 0, &request);
	world_run(w);
	lease_of(do_lookup(w, 1, 4, 0), lease);
	/* Chunks 0 to 3 of chain 2 are nowhere; its asker says to have them. */
	request = ask_lookup(w, 0, 2, PLAIN, 2, 6, STOKER_F_RENEW);
	request.line.lookup.have = 4;
	memcpy(request.head.lease, lease, sizeof(lease));
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
	/* The lease is what it was. */
	ck_assert_uint_eq(do_retrieve(w, lease, 4)->answer.n, 4);
}
END_TEST

/* A renewal over ten chunks in two pieces: four of chain 1, then six of @chain. */
static const struct seen *renew_in_pieces(const uint64_t lease[2], uint64_t chain, uint32_t have, uint32_t tiers)
{
	struct engine_request request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 4, STOKER_F_RENEW);
	const struct seen *head;

	request.line.lookup.pieces = 1;
	request.line.lookup.have = have;
	request.line.lookup.tiers = tiers;
	memcpy(request.head.lease, lease, 16);
	head = submit(w, 0, &request);
	request = ask(w, 0, 4, STOKER_OP_LOOKUP_MORE, PLAIN);
	for (uint32_t i = 0; i < 6; i++)
		w->slots[0][4]->keys[i] = key_of(chain, 4 + i);
	request.head.n_keys = 6;
	request.line.more.head_slot = WORLD_SMALL;
	request.line.more.head_generation = head->generation;
	request.line.more.piece = 1;
	submit(w, 0, &request);
	world_run(w);
	ck_assert(head->done);
	return head;
}

START_TEST(a_lease_is_not_renewed_over_a_chain_that_is_another_beyond_the_first_piece)
{
	struct engine_request request;
	uint64_t lease[2];

	do_store(w, 1, 6);
	request = ask_store(w, 0, 0, PLAIN, 2, 6, 4);
	submit(w, 0, &request);
	world_run(w);
	lease_of(do_lookup(w, 1, 6, 0), lease);
	/* Chunks 4 and 5 of chain 2 are nowhere; its asker says to have them, or finds a gap there. */
	ck_assert_uint_eq(renew_in_pieces(lease, 2, _i, 0)->answer.status, STOKER_STATUS_BAD_REQUEST);
	/* The lease is what it was. */
	ck_assert_uint_eq(do_retrieve(w, lease, 6)->answer.n, 6);
	ck_assert_uint_ne(do_retrieve(w, lease, 7)->answer.status, STOKER_STATUS_OK);
}
END_TEST

START_TEST(a_lease_is_renewed_over_its_own_chain_in_pieces_whatever_of_it_is_looked_at)
{
	const struct seen *seen;
	uint64_t lease[2];

	lease_make(6, lease);
	/* The arena is not to be looked at, where alone they are; then only from the seventh chunk on; then all of it. */
	seen = renew_in_pieces(lease, 1, 0, 2);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->answer.n, 6);
	do_store(w, 1, 10);
	seen = renew_in_pieces(lease, 1, 6, 0);
	ck_assert_uint_eq(seen->answer.n, 10);
	seen = renew_in_pieces(lease, 1, 0, 0);
	ck_assert_uint_eq(seen->answer.n, 10);
	ck_assert_uint_eq(do_retrieve(w, lease, 10)->answer.n, 10);
}
END_TEST

START_TEST(when_there_are_no_leases_left_a_lookup_gets_no_memory)
{
	struct world *tight = world_new(&(struct world_options){ .leases = 64 });

	do_store(tight, 1, 1);
	for (uint32_t i = 0; i < 32; i++)	/* half of them: what a client alone may have */
		ck_assert_uint_eq(do_lookup(tight, 1, 1, 0)->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(do_lookup(tight, 1, 1, 0)->answer.status, STOKER_STATUS_NO_MEMORY);
	ck_assert_uint_eq(tight->seen[0][1].answer.n, 0);
	world_free(tight);
}
END_TEST

START_TEST(when_leased_chunks_run_out_a_lookup_gets_a_shorter_prefix)
{
	struct world *tight = world_new(&(struct world_options){ .leased_chunks = 40 });	/* a client: 20 */

	do_store(tight, 1, 16);
	ck_assert_uint_eq(do_lookup(tight, 1, 16, 0)->answer.n, 16);
	ck_assert_uint_eq(do_lookup(tight, 1, 16, 0)->answer.n, 4);
	ck_assert_uint_eq(do_lookup(tight, 1, 16, 0)->answer.status, STOKER_STATUS_NO_MEMORY);
	world_free(tight);
}
END_TEST

/* ---- RETRIEVE ------------------------------------------------------------------------------------------------ */

START_TEST(blocks_that_are_not_named_are_left_alone)
{
	struct engine_request request;
	uint64_t lease[2];

	lease_make(2, lease);
	memset(w->blocks[0][0], 0xee, sizeof(w->blocks[0][0]));
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 2);
	w->slots[0][2]->ids[1] = STOKER_NO_BLOCK;
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][2].answer.n, 2);
	ck_assert_uint_eq(w->blocks[0][0][0], block_value(1, 0, 0));
	ck_assert_uint_eq(w->blocks[0][0][1], 0xeeeeeeeeeeeeeeeeull);
}
END_TEST

START_TEST(a_retrieve_hands_its_layers_on_and_shows_its_progress)
{
	struct engine_request request;
	const struct seen *seen;
	uint64_t lease[2];

	lease_make(2, lease);
	w->hold[PENDING_COPY] = true;
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 2);
	request.line.retrieve.layer_first = 1;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->pending[0].copy.layer_first, 1);
	ck_assert_uint_eq(w->pending[0].copy.layer_end, 2);
	engine_copy_progress(w->engine, w->pending[0].copy.copy, 1);
	ck_assert_uint_eq(seen->answer.stage, STOKER_STAGE_LOADING);
	ck_assert_uint_eq(seen->answer.layers, 1);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(seen->done);
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 2);
	request.line.retrieve.layer_first = 2;		/* there are two */
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
}
END_TEST

START_TEST(a_chunk_whose_item_failed_is_told_and_the_others_are_retrieved)
{
	struct engine_request request;
	const struct seen *seen;
	uint64_t lease[2];

	lease_make(3, lease);
	w->fail[PENDING_COPY] = 1;
	w->fail_item = 2;
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 3);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_FAULT);
	ck_assert_uint_eq(seen->answer.n, 2);
	ck_assert_uint_eq(seen->chunks[1], STOKER_CHUNK_FAILED);
	ck_assert_uint_eq(seen->chunks[2], STOKER_CHUNK_RETRIEVED);
}
END_TEST

START_TEST(a_retrieve_that_waits_for_its_ready_word_ends_at_its_deadline)
{
	struct engine_request request;
	const struct seen *seen;
	uint64_t lease[2];

	lease_make(2, lease);
	request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, 2);
	request.head.flags = STOKER_F_READY | STOKER_F_END_SHARE;
	request.head.deadline_us = 1000;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert(!seen->done);
	world_pass(w, 3);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_DEADLINE);
	ck_assert(!w->watched[0][2]);
	ck_assert_uint_eq(seen->chunks[0], STOKER_CHUNK_CANCELLED);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);	/* its share ended with it */
}
END_TEST

/* ---- MAP, END_SESSION ------------------------------------------------------------------------------------------- */

static const struct seen *map(const uint64_t lease[2], uint32_t chunk)
{
	struct engine_request request = ask(w, 0, 4, STOKER_OP_MAP, ENGINE_NONE);

	memcpy(request.head.lease, lease, 16);
	request.line.map.chunk = chunk;
	return submit(w, 0, &request);
}

static const struct seen *unmap(uint32_t client, const uint64_t hold[2])
{
	struct engine_request request = ask(w, client, 5, STOKER_OP_UNMAP, ENGINE_NONE);

	memcpy(request.head.lease, hold, 16);
	return submit(w, client, &request);
}

START_TEST(a_hold_outlives_its_lease_and_says_whether_it_held)
{
	uint64_t lease[2], hold[2];
	const struct seen *seen;

	lease_make(2, lease);
	seen = map(lease, 1);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(seen->mapped.bytes, 4096);
	ck_assert_uint_eq(seen->mapped.version % 2, 0);
	ck_assert_uint_eq(w->arena[(seen->mapped.offset - 4096) / 4096].block[0], block_value(1, 1, 0));
	lease_of(seen, hold);
	do_release(w, lease);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 8192);
	ck_assert_uint_eq(unmap(1, hold)->answer.status, STOKER_STATUS_EXPIRED);	/* not that client's */
	ck_assert_uint_eq(unmap(0, hold)->mapped.held, 1);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	ck_assert_uint_eq(unmap(0, hold)->answer.status, STOKER_STATUS_EXPIRED);
}
END_TEST

static uint32_t held(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < sizeof(w->held) / sizeof(w->held[0]); i++)
		n += w->held[i];
	return n;
}

START_TEST(the_table_knows_what_is_mapped)
{
	uint64_t lease[2], first[2], second[2];

	lease_make(2, lease);
	world_run(w);
	ck_assert_uint_eq(held(), 0);
	lease_of(map(lease, 1), first);
	lease_of(map(lease, 1), second);
	ck_assert_uint_eq(held(), 1);	/* twice the same object */
	unmap(0, first);
	ck_assert_uint_eq(held(), 1);
	unmap(0, second);
	ck_assert_uint_eq(held(), 0);
}
END_TEST

START_TEST(what_a_client_holds_is_bounded)
{
	uint64_t lease[2];
	uint32_t i = 0;

	lease_make(2, lease);
	while (map(lease, 0)->answer.status == STOKER_STATUS_OK)
		ck_assert_uint_lt(++i, 100);
	ck_assert_uint_eq(i, 8);	/* half of the table; the share of the arena would have allowed 25 */
	ck_assert_uint_eq(w->seen[0][4].answer.status, STOKER_STATUS_REFUSED);
	ck_assert_uint_eq(map(lease, 7)->answer.status, STOKER_STATUS_BAD_REQUEST);
}
END_TEST

START_TEST(the_end_of_a_session_ends_its_lookups_and_leases_and_no_copies)
{
	struct engine_request request;
	const struct seen *waiting;

	do_store(w, 1, 2);
	for (int i = 0; i < 40; i++) {		/* more than a step ends */
		request = ask_lookup(w, 0, 1, PLAIN, 1, 2, 0);
		request.head.session = 7;
		submit(w, 0, &request);
	}
	request = ask_lookup(w, 0, 1, PLAIN, 1, 2, 0);
	request.head.session = 8;
	submit(w, 0, &request);
	request = ask_lookup(w, 1, 1, PLAIN, 1, 2, 0);
	request.head.session = 7;		/* another client's session of that number */
	submit(w, 1, &request);
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 2, 0);
	request.head.session = 7;
	request.line.lookup.pieces = 1;
	waiting = submit(w, 0, &request);
	w->hold[PENDING_COPY] = true;
	request = ask_store(w, 0, 0, PLAIN, 3, 0, 2);
	request.head.session = 7;
	submit(w, 0, &request);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 42);
	request = ask(w, 0, 3, STOKER_OP_END_SESSION, ENGINE_NONE);
	request.head.session = 7;
	submit(w, 0, &request);
	world_run(w);
	ck_assert(w->seen[0][3].done);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 2);
	ck_assert(waiting->done);
	ck_assert_uint_eq(waiting->answer.status, STOKER_STATUS_CANCELLED);
	ck_assert(!w->seen[0][0].done);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 2);
}
END_TEST

/* ---- long ones ----------------------------------------------------------------------------------- */

/* Of chain 1: chunks 0 to 119 in the arena, 120 to 299 on two tiers alone. */
static struct world *world_of_300(void)
{
	struct world *l = world_new(&(struct world_options){ .tiers = 2 });
	struct engine_request request = ask_store(l, 0, WORLD_SMALL, PLAIN, 1, 120, 180);

	submit(l, 0, &request);
	world_run(l);
	engine_evict(l->engine, 1 << 30, 1);
	world_run(l);
	ck_assert_uint_eq(do_store(l, 1, 120)->answer.n, 120);
	ck_assert_uint_eq(world_gauge(l, STOKER_GAUGE_ARENA_PINNED), 0);
	ck_assert_uint_eq(world_gauge(l, STOKER_GAUGE_ARENA_OBJECTS), 120);
	return l;
}

START_TEST(the_pins_of_a_long_lookup_that_is_cancelled_go_little_by_little)
{
	struct world *l = world_of_300();
	struct engine_request request;
	uint64_t pinned;

	l->hold[PENDING_READ] = true;
	request = ask_lookup(l, 0, WORLD_SMALL, PLAIN, 1, 300, STOKER_F_PREFETCH);
	submit(l, 0, &request);
	world_run(l);
	ck_assert(!l->seen[0][WORLD_SMALL].done);
	ck_assert_uint_ge(world_gauge(l, STOKER_GAUGE_ARENA_PINNED), 120 * 8192);
	engine_cancel(l->engine, 0, WORLD_SMALL, request.head.generation);
	world_audit(l);
	ck_assert(l->seen[0][WORLD_SMALL].done);
	/* The first chunks of it are still pinned: those are the last to go. */
	pinned = world_gauge(l, STOKER_GAUGE_ARENA_PINNED);
	ck_assert_uint_ge(pinned, 30 * 8192);	/* ... and 8 are being read */
	ck_assert_uint_lt(pinned, 120 * 8192);
	l->hold[PENDING_READ] = false;
	world_run(l);
	ck_assert_uint_eq(world_gauge(l, STOKER_GAUGE_ARENA_PINNED), 0);
	world_free(l);
}
END_TEST

START_TEST(what_a_long_lookup_does_not_answer_goes_little_by_little_too)
{
	struct world *l = world_of_300();
	struct engine_request request;
	uint64_t lease[2];

	/* The answer is what is in the arena; the lease has that and nothing else. */
	request = ask_lookup(l, 0, WORLD_SMALL, PLAIN, 1, 300, 0);
	submit(l, 0, &request);
	world_run(l);
	ck_assert_uint_eq(l->seen[0][WORLD_SMALL].answer.n, 120);
	ck_assert_uint_eq(world_gauge(l, STOKER_GAUGE_ARENA_PINNED), 120 * 8192);
	lease_of(&l->seen[0][WORLD_SMALL], lease);
	/* Renewed over no more than it has: all that this found anew is let go. */
	request = ask_lookup(l, 0, WORLD_SMALL, PLAIN, 1, 300, STOKER_F_RENEW);
	memcpy(request.head.lease, lease, sizeof(lease));
	submit(l, 0, &request);
	world_run(l);
	ck_assert_uint_eq(l->seen[0][WORLD_SMALL].answer.n, 120);
	do_release(l, lease);
	world_run(l);
	ck_assert_uint_eq(world_gauge(l, STOKER_GAUGE_ARENA_PINNED), 0);
	world_free(l);
}
END_TEST

/* ---- the suite ---------------------------------------------------------------------------------- */

static TCase *leases(void)
{
	TCase *tests = with_world("lease", no_tier);

	tcase_add_test(tests, a_lease_ends_when_its_last_reader_has_returned_and_repeats_do_nothing);
	tcase_add_test(tests, a_lease_that_has_expired_answers_expired);
	tcase_add_test(tests, what_comes_after_a_long_sleep_ends_no_earlier_for_it);
	tcase_add_test(tests, a_retrieve_under_way_keeps_its_chunks_whatever_the_clock_says);
	tcase_add_test(tests, a_wrong_token_opens_nothing);
	tcase_add_test(tests, a_lease_is_extended_by_a_longer_lookup_and_keeps_its_token);
	tcase_add_test(tests, a_lease_that_is_extended_by_what_follows_keeps_what_it_had);
	tcase_add_test(tests, a_lease_is_renewed_without_keys);
	tcase_add_test(tests, a_lease_of_another_chain_cannot_be_extended);
	tcase_add_test(tests, when_there_are_no_leases_left_a_lookup_gets_no_memory);
	tcase_add_test(tests, when_leased_chunks_run_out_a_lookup_gets_a_shorter_prefix);
	tcase_add_test(tests, blocks_that_are_not_named_are_left_alone);
	tcase_add_test(tests, a_retrieve_hands_its_layers_on_and_shows_its_progress);
	tcase_add_test(tests, a_chunk_whose_item_failed_is_told_and_the_others_are_retrieved);
	tcase_add_test(tests, a_retrieve_that_waits_for_its_ready_word_ends_at_its_deadline);
	tcase_add_test(tests, a_hold_outlives_its_lease_and_says_whether_it_held);
	tcase_add_test(tests, what_a_client_holds_is_bounded);
	tcase_add_test(tests, the_table_knows_what_is_mapped);
	tcase_add_test(tests, the_end_of_a_session_ends_its_lookups_and_leases_and_no_copies);
	tcase_add_test(tests, a_lease_is_not_renewed_over_another_chain_whose_first_chunks_are_not_looked_at);
	tcase_add_loop_test(tests, a_lease_is_not_renewed_over_a_chain_that_is_another_beyond_the_first_piece, 4, 7);
	tcase_add_test(tests, a_lease_is_renewed_over_its_own_chain_in_pieces_whatever_of_it_is_looked_at);
	tcase_add_test(tests, the_pins_of_a_long_lookup_that_is_cancelled_go_little_by_little);
	tcase_add_test(tests, what_a_long_lookup_does_not_answer_goes_little_by_little_too);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-leases");

	suite_add_tcase(suite, leases());
	return suite_run(suite);
}
