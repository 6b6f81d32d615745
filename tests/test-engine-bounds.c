/*
 * Bounds of tenants and their users: of leases, leased chunks, holds and pinned bytes. Clients 0 and 1
 * are of one tenant, 2 and 3 and the model OTHER of another; each is a user of its own.
 */
#include <string.h>

#include "tests/engine-world.h"
#include "tests/suite.h"

static struct world *w;

static struct world *two_tenants(struct world_options options)
{
	options.tenants = 2;
	return world_new(&options);
}

static uint32_t model_of(uint32_t client)
{
	return client < WORLD_CLIENTS / 2 || w->config.tenants == 1 ? PLAIN : OTHER;
}

static void store(uint32_t client, uint64_t chain, uint32_t n)
{
	struct engine_request request = ask_store(w, client, 0, model_of(client), chain, 0, n);

	submit(w, client, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[client][0].answer.n, n);
}

static const struct seen *lookup(uint32_t client, uint64_t chain, uint32_t n)
{
	struct engine_request request = ask_lookup(w, client, 1, model_of(client), chain, n, 0);

	submit(w, client, &request);
	world_run(w);
	return &w->seen[client][1];
}

/* How many leases of one chunk the client gets until it is refused. */
static uint32_t leases_got(uint32_t client, uint64_t chain)
{
	uint32_t n = 0;

	while (lookup(client, chain, 1)->answer.status == STOKER_STATUS_OK)
		ck_assert_uint_lt(++n, 1000);
	ck_assert_uint_eq(w->seen[client][1].answer.status, STOKER_STATUS_NO_MEMORY);
	return n;
}

static enum stoker_status map(uint32_t client, const uint64_t lease[2])
{
	struct engine_request request = ask(w, client, 4, STOKER_OP_MAP, model_of(client));

	memcpy(request.head.lease, lease, 16);
	return (enum stoker_status)submit(w, client, &request)->answer.status;
}

START_TEST(a_tenant_that_takes_all_leases_it_can_leaves_the_other_its_own)
{
	w = two_tenants((struct world_options){ .leases = 64 });
	store(0, 1, 1);
	store(2, 1, 1);
	ck_assert_uint_eq(leases_got(0, 1), 16);	/* half of its tenant's 32 */
	ck_assert_uint_eq(leases_got(1, 1), 8);		/* half of what was left */
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_JOBS_BOUNDED), 2);
	ck_assert_uint_eq(leases_got(2, 1), 16);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_alone_has_everything_and_its_users_leave_each_other_some)
{
	w = world_new(&(struct world_options){ .leases = 64 });
	store(0, 1, 1);
	ck_assert_uint_eq(leases_got(0, 1), 32);
	ck_assert_uint_eq(leases_got(1, 1), 16);
	world_free(w);
}
END_TEST

START_TEST(clients_of_one_user_count_as_one)
{
	const struct engine_client_config again = { .tenant = 0, .user = 1000, .slots_small = WORLD_SMALL,
						    .slots = WORLD_SLOTS };

	w = world_new(&(struct world_options){ .leases = 64 });
	world_out(w, 1);
	world_run(w);
	engine_client_in(w->engine, 1, &again);		/* of client 0's user from now on */
	w->out[1] = w->gone[1] = false;
	store(0, 1, 1);
	ck_assert_uint_eq(leases_got(0, 1), 32);
	ck_assert_uint_eq(leases_got(1, 1), 0);
	ck_assert_uint_eq(leases_got(2, 1), 16);
	world_out(w, 0);
	world_run(w);
	ck_assert_uint_eq(leases_got(1, 1), 24);	/* 48 were left of 64: half of them */
	world_free(w);
}
END_TEST

START_TEST(a_share_that_is_configured_counts_instead)
{
	w = two_tenants((struct world_options){ .leases = 64 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .leases = 6 });
	store(0, 1, 1);
	ck_assert_uint_eq(leases_got(0, 1), 3);
	engine_tenant(w->engine, 0, &(struct engine_quota){ .leases = 2 });	/* what it has it keeps */
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 3);
	ck_assert_uint_eq(lookup(1, 1, 1)->answer.status, STOKER_STATUS_NO_MEMORY);
	engine_tenant(w->engine, 0, &(struct engine_quota){ .leases = 1000 });	/* more than there are */
	ck_assert_uint_eq(leases_got(0, 1), 29);
	world_free(w);
}
END_TEST

START_TEST(leases_that_end_can_be_had_again)
{
	w = two_tenants((struct world_options){ .leases = 16 });
	store(0, 1, 1);
	for (uint32_t i = 0; i < 5; i++) {
		ck_assert_uint_eq(leases_got(0, 1), 4);
		world_pass(w, 31000);		/* they expire */
		ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	}
	ck_assert_uint_eq(leases_got(0, 1), 4);
	world_out(w, 0);
	world_run(w);
	ck_assert(w->gone[0]);
	ck_assert_uint_eq(leases_got(1, 1), 4);
	world_free(w);
}
END_TEST

START_TEST(leased_chunks_are_shared_as_leases_are)
{
	w = two_tenants((struct world_options){ .leased_chunks = 64 });
	store(0, 1, 32);
	store(2, 1, 32);
	ck_assert_uint_eq(lookup(0, 1, 32)->answer.n, 16);	/* half of its tenant's 32 */
	ck_assert_uint_eq(lookup(0, 1, 32)->answer.status, STOKER_STATUS_NO_MEMORY);
	ck_assert_uint_eq(lookup(1, 1, 32)->answer.n, 8);
	ck_assert_uint_eq(lookup(2, 1, 32)->answer.n, 16);
	ck_assert_uint_ge(world_counter(w, STOKER_COUNTER_JOBS_BOUNDED), 3);
	world_free(w);
}
END_TEST

/* Of one client, whose share is 1,200: a lookup of 1,000 independent keys; each place has a pin of its own. */
static struct engine_request ask_1000(void)
{
	struct engine_request request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 250, STOKER_F_ANY);

	for (uint32_t i = 0; i < 1000; i++)
		w->slots[0][WORLD_SMALL]->keys[i] = key_of(1, i % 250);
	request.head.n_keys = 1000;
	return request;
}

static void world_of_250(void)
{
	struct engine_request request;

	w = world_new(&(struct world_options){ .leased_chunks = 2400, .extents = 32 });
	request = ask_store(w, 0, WORLD_SMALL, PLAIN, 1, 0, 250);
	submit(w, 0, &request);
	world_run(w);
}

START_TEST(a_client_is_not_gone_before_the_last_of_its_pins_is_given_back)
{
	struct engine_request request;

	world_of_250();
	request = ask_1000();
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][WORLD_SMALL].answer.n, 1000);
	world_out(w, 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert(!w->gone[0]);
	world_turn(w);
	ck_assert(!w->gone[0]);
	world_run(w);
	ck_assert(w->gone[0]);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	world_free(w);
}
END_TEST

START_TEST(who_returns_one_lease_and_asks_for_the_next_is_not_cut_short_however_fast)
{
	world_of_250();
	for (int i = 0; i < 50; i++) {
		struct engine_request request = ask_1000();
		const struct seen *seen = submit(w, 0, &request);

		/* No more turns than it takes: what the lease before it had pinned is given back meanwhile. */
		while (!seen->done)
			world_turn(w);
		ck_assert_uint_eq(seen->answer.n, 1000);
		request = ask(w, 0, 3, STOKER_OP_RELEASE, PLAIN);
		memcpy(request.head.lease, seen->answer.lease, 16);
		submit(w, 0, &request);
	}
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	world_free(w);
}
END_TEST

START_TEST(who_has_a_lease_still_and_no_room_is_cut_short_after_what_was_given_back)
{
	struct engine_request request;

	world_of_250();
	request = ask_1000();
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][WORLD_SMALL].answer.n, 1000);
	request = ask_1000();
	submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[0][WORLD_SMALL].answer.n, 200);
	world_free(w);
}
END_TEST

START_TEST(holds_are_shared_as_leases_are)
{
	uint64_t first[2], other[2];
	uint32_t n = 0;

	w = two_tenants((struct world_options){ .holds = 16 });
	store(0, 1, 1);
	store(2, 1, 1);
	memcpy(first, lookup(0, 1, 1)->answer.lease, 16);
	memcpy(other, lookup(2, 1, 1)->answer.lease, 16);
	while (map(0, first) == STOKER_STATUS_OK)
		ck_assert_uint_lt(++n, 100);
	ck_assert_uint_eq(n, 4);
	ck_assert_uint_eq(w->seen[0][4].answer.status, STOKER_STATUS_REFUSED);
	ck_assert_uint_eq(map(1, first), STOKER_STATUS_OK);
	ck_assert_uint_eq(map(2, other), STOKER_STATUS_OK);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_may_pin_its_share_of_the_arena_and_the_rest_serves_the_other)
{
	w = two_tenants((struct world_options){ .extents = 4 });	/* 32 places */
	for (uint64_t chain = 1; chain <= 4; chain++)
		store(0, chain, 8);
	for (uint64_t chain = 1; chain <= 2; chain++)
		ck_assert_uint_eq(lookup(0, chain, 8)->answer.n, 8);
	ck_assert_uint_eq(lookup(1, 3, 8)->answer.n, 0);
	ck_assert_uint_eq(w->seen[1][1].answer.status, STOKER_STATUS_NO_MEMORY);
	struct engine_request request = ask_store(w, 1, 0, PLAIN, 9, 0, 1);

	submit(w, 1, &request);
	world_run(w);
	ck_assert_uint_eq(w->seen[1][0].answer.status, STOKER_STATUS_REFUSED);
	store(2, 1, 8);			/* in the place of what nobody uses */
	store(2, 2, 8);
	ck_assert_uint_eq(lookup(2, 2, 8)->answer.n, 8);
	world_pass(w, 31000);
	store(1, 9, 1);
	world_free(w);
}
END_TEST

START_TEST(what_was_held_at_a_crash_counts_as_its_tenants_until_it_is_let_go)
{
	struct engine_object object = { .tokens = 64, .model = OTHER, .epoch = 1, .checksum = 5 };
	struct engine_place place = { .tier = ENGINE_NONE, .bytes = 8192 };

	w = two_tenants((struct world_options){ .leased_chunks = 16, .not_serving = true });
	for (uint32_t i = 0; i < 12; i++) {
		object.key = key_of(1, i);
		object.sequence = i + 1;
		if (i > 0)
			object.parent = key_of(1, i - 1);
		place.unit = 2 * i;
		w->committed[i] = true;
		w->arena[place.unit].key = object.key;
		w->arena[place.unit].sequence = object.sequence;
		w->arena[place.unit].epoch = object.epoch;
		ck_assert_uint_eq(engine_recover(w->engine, i, &place, &object, true), i);
		world_audit(w);
	}
	engine_serve(w->engine, w->now);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 8 * 8192);	/* its share; the others are not kept */
	ck_assert_uint_eq(lookup(2, 1, 1)->answer.status, STOKER_STATUS_NO_MEMORY);
	store(0, 1, 4);
	ck_assert_uint_eq(lookup(0, 1, 4)->answer.n, 4);
	world_pass(w, 30001);
	ck_assert_uint_eq(lookup(2, 1, 4)->answer.n, 4);
	world_free(w);
}
END_TEST

/* ---- waits for room that end without any ------------------------------------------------------------ */

START_TEST(who_waits_for_pins_that_are_given_back_is_told_when_others_keep_what_they_pinned)
{
	const struct seen *seen;
	struct engine_request request;

	w = world_new(&(struct world_options){ .extents = 16, .leased_chunks = 4800 });
	store(0, 1, 64);
	request = ask_store(w, 0, 0, PLAIN, 1, 64, 64);
	submit(w, 0, &request);
	world_run(w);
	request = ask_lookup(w, 1, WORLD_SMALL, PLAIN, 1, 128, 0);
	ck_assert_uint_eq(submit(w, 1, &request)->answer.n, 128);	/* the whole arena */
	request = ask_lookup(w, 0, WORLD_SMALL, PLAIN, 1, 128, STOKER_F_ANY);
	for (uint32_t i = 0; i < 1000; i++)
		w->slots[0][WORLD_SMALL]->keys[i] = key_of(1, i % 128);
	request.head.n_keys = 1000;
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert_uint_eq(seen->answer.n, 1000);
	request = ask(w, 0, 3, STOKER_OP_RELEASE, PLAIN);
	memcpy(request.head.lease, seen->answer.lease, 16);
	submit(w, 0, &request);
	request = ask_store(w, 0, 0, PLAIN, 2, 0, 4);
	seen = submit(w, 0, &request);
	ck_assert(!seen->done);
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_NO_MEMORY);
	world_free(w);
}
END_TEST

START_TEST(who_waits_for_a_store_is_told_when_that_has_ended_and_its_chunk_is_in_use)
{
	const struct seen *seen;
	struct engine_request request;

	w = two_tenants((struct world_options){ .extents = 4 });	/* 16 places each */
	for (uint32_t part = 0; part < 2; part++)
		ck_assert_int_eq(engine_pool_added(w->engine, 0, 10 + part, MIXED, part, WORLD_POOL, 0), 0);
	store(0, 1, 14);
	ck_assert_uint_eq(lookup(0, 1, 14)->answer.n, 14);
	for (uint32_t part = 0; part < 2; part++) {
		request = ask(w, 0, 5, STOKER_OP_STORE, MIXED);
		request.keys = w->slots[0][5]->keys;
		w->slots[0][5]->keys[0] = key_of(2, 0);
		request.head.n_keys = 1;
		add_segment(w, &request, 0, 10 + part, part, 0, 0, 1, 0);
		w->hold[PENDING_COPY] = part == 1;
		submit(w, 0, &request);
		world_run(w);
		ck_assert(w->seen[0][5].done == (part == 0));
		if (part == 1)
			break;
		request = ask_lookup(w, 0, 6, MIXED, 2, 1, 0);
		request.line.lookup.groups = 1;
		ck_assert_uint_eq(submit(w, 0, &request)->answer.n, 1);
	}
	request = ask_store(w, 1, 0, PLAIN, 3, 0, 1);
	seen = submit(w, 1, &request);
	world_run(w);
	ck_assert(!seen->done);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert_uint_eq(w->seen[0][5].answer.n, 1);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_REFUSED);
	world_free(w);
}
END_TEST

/* ---- bytes that are to be written yet -------------------------------------------------------------- */

static const struct seen *begin_store(uint32_t client, uint32_t slot, uint64_t chain, uint32_t n)
{
	struct engine_request request = ask_store(w, client, slot, model_of(client), chain, 0, n);
	const struct seen *seen = submit(w, client, &request);

	world_run(w);
	return seen;
}

START_TEST(a_tenant_that_stores_faster_than_disks_write_leaves_the_other_its_share_of_the_arena)
{
	const struct seen *fast, *other;

	w = two_tenants((struct world_options){ .tiers = 1 });
	w->hold[PENDING_WRITE] = true;
	fast = begin_store(0, 0, 1, 64);	/* half of the arena */
	ck_assert_uint_eq(fast->answer.n, 64);
	fast = begin_store(1, 0, 2, 64);
	ck_assert(!fast->done);
	other = begin_store(2, 0, 3, 60);
	ck_assert(other->done);
	ck_assert_uint_eq(other->answer.n, 60);
	/* It waits, and is not refused. */
	w->hold[PENDING_WRITE] = false;
	world_run(w);
	ck_assert_uint_eq(fast->answer.n, 64);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_alone_may_fill_the_arena_with_what_is_to_be_written)
{
	w = world_new(&(struct world_options){ .tiers = 1 });
	w->hold[PENDING_WRITE] = true;
	ck_assert_uint_eq(begin_store(0, 0, 1, 64)->answer.n, 64);
	ck_assert_uint_eq(begin_store(0, 0, 2, 64)->answer.n, 64);
	w->hold[PENDING_WRITE] = false;
	world_free(w);
}
END_TEST

static void answer_one_write(void)
{
	uint32_t i = 0;

	while (w->pending[i].kind != PENDING_WRITE)
		ck_assert_uint_lt(++i, w->n_pending);
	world_answer(w, i);
	world_run(w);
}

START_TEST(who_finds_the_arena_full_of_them_takes_turns_with_who_filled_it)
{
	const struct seen *mine, *fast = NULL;
	uint32_t writes = 0;

	w = world_new(&(struct world_options){ .tiers = 1 });
	w->hold[PENDING_WRITE] = true;
	begin_store(0, 0, 1, 64);
	begin_store(0, 0, 2, 64);
	for (uint32_t slot = 0; slot < 6; slot++)
		fast = begin_store(0, slot, 10 + slot, 8);
	mine = begin_store(1, 0, 3, 8);
	ck_assert(!mine->done);
	for (; !mine->done; writes++)
		answer_one_write();
	/* Every second one that is written makes room for it, however many stores of the other wait. */
	ck_assert_uint_eq(mine->answer.n, 8);
	ck_assert_uint_le(writes, 2 * 8 + 1);
	ck_assert(!fast->done);
	w->hold[PENDING_WRITE] = false;
	world_free(w);
}
END_TEST

static TCase *bounds(void)
{
	TCase *tests = tcase_create("bounds");

	tcase_add_test(tests, a_tenant_that_takes_all_leases_it_can_leaves_the_other_its_own);
	tcase_add_test(tests, a_tenant_alone_has_everything_and_its_users_leave_each_other_some);
	tcase_add_test(tests, clients_of_one_user_count_as_one);
	tcase_add_test(tests, a_share_that_is_configured_counts_instead);
	tcase_add_test(tests, leases_that_end_can_be_had_again);
	tcase_add_test(tests, leased_chunks_are_shared_as_leases_are);
	tcase_add_test(tests, who_returns_one_lease_and_asks_for_the_next_is_not_cut_short_however_fast);
	tcase_add_test(tests, who_has_a_lease_still_and_no_room_is_cut_short_after_what_was_given_back);
	tcase_add_test(tests, a_client_is_not_gone_before_the_last_of_its_pins_is_given_back);
	tcase_add_test(tests, holds_are_shared_as_leases_are);
	tcase_add_test(tests, a_tenant_may_pin_its_share_of_the_arena_and_the_rest_serves_the_other);
	tcase_add_test(tests, what_was_held_at_a_crash_counts_as_its_tenants_until_it_is_let_go);
	tcase_add_test(tests, a_tenant_that_stores_faster_than_disks_write_leaves_the_other_its_share_of_the_arena);
	tcase_add_test(tests, a_tenant_alone_may_fill_the_arena_with_what_is_to_be_written);
	tcase_add_test(tests, who_finds_the_arena_full_of_them_takes_turns_with_who_filled_it);
	tcase_add_test(tests, who_waits_for_pins_that_are_given_back_is_told_when_others_keep_what_they_pinned);
	tcase_add_test(tests, who_waits_for_a_store_is_told_when_that_has_ended_and_its_chunk_is_in_use);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-bounds");

	suite_add_tcase(suite, bounds());
	return suite_run(suite);
}
