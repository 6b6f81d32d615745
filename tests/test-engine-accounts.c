/*
 * The accounting table: who has how much, and who loses first when room is needed. An arena of 4 extents
 * has places for 32 objects of PLAIN.
 */
#include "tests/engine-fixture.h"

#define OBJECT 8192u

static void small_world(struct world_options options)
{
	if (options.extents == 0)
		options.extents = 4;
	options.accounts = options.accounts ? options.accounts : 64;
	w = world_new(&options);
}

static const struct seen *store_as(uint32_t client, uint64_t account, uint64_t chain, uint32_t n)
{
	struct engine_request request = ask_store(w, client, 0, client < WORLD_CLIENTS / 2 || w->config.tenants == 1 ?
						  PLAIN : OTHER, chain, 0, n);

	request.line.store.account = account;
	submit(w, client, &request);
	world_run(w);
	return &w->seen[client][0];
}

/* One chunk each, of its own chain. */
static void store_singles(uint64_t account, uint64_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		ck_assert_uint_eq(store_as(0, account, first + i, 1)->answer.n, 1);
}

static struct engine_account_figures figures_of(uint32_t tenant, uint64_t account)
{
	struct engine_account_figures figures;

	for (uint32_t row = 0; row < engine_account_rows(w->engine); row++)
		if (engine_account_at(w->engine, row, &figures) && figures.tenant == tenant && !figures.others && figures.account == account)
			return figures;
	return (struct engine_account_figures){ 0 };
}

static struct engine_account_figures figures_of_others(uint32_t tenant)
{
	struct engine_account_figures figures;

	for (uint32_t row = 0; row < engine_account_rows(w->engine); row++)
		if (engine_account_at(w->engine, row, &figures) && figures.tenant == tenant && figures.others)
			return figures;
	return (struct engine_account_figures){ 0 };
}

static uint32_t in_arena(uint64_t chain)
{
	struct engine_request request = ask_lookup(w, 0, 1, PLAIN, chain, 1, STOKER_F_PROBE);

	request.line.lookup.tiers = 1;
	return submit(w, 0, &request)->answer.n;
}

static uint32_t chunks_in_arena(uint64_t first, uint32_t n)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < n; i++)
		found += in_arena(first + i);
	return found;
}

/* ---- books ------------------------------------------------------------------------------------------ */

START_TEST(bytes_are_booked_to_the_account_that_stored_them_until_they_are_gone)
{
	small_world((struct world_options){ .tiers = 1 });
	store_as(0, 7, 1, 3);
	store_as(1, 9, 2, 2);
	store_as(1, 9, 1, 4);		/* three of them are 7's, and stay so */
	ck_assert_uint_eq(figures_of(0, 7).arena_bytes, 3 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 7).disk_bytes, 3 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 9).arena_bytes, 3 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 9).chunks, 3);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS), 2);
	engine_evict(w->engine, 100 * OBJECT, 1);
	world_run(w);
	ck_assert_uint_eq(figures_of(0, 7).arena_bytes, 0);
	ck_assert_uint_eq(figures_of(0, 7).disk_bytes, 3 * OBJECT);
	engine_clear(w->engine, 2);
	world_run(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS), 0);
	world_free(w);
}
END_TEST

START_TEST(accounts_beyond_the_table_share_one_row)
{
	small_world((struct world_options){ .accounts = 4 });
	for (uint64_t account = 1; account <= 6; account++)
		store_as(0, account, account, 1);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS), 4);
	ck_assert_uint_eq(figures_of(0, 4).arena_bytes, OBJECT);
	ck_assert_uint_eq(figures_of_others(0).arena_bytes, 2 * OBJECT);
	engine_clear(w->engine, 1);
	world_run(w);
	store_as(0, 6, 6, 1);		/* there is a row for it now */
	ck_assert_uint_eq(figures_of(0, 6).arena_bytes, OBJECT);
	ck_assert_uint_eq(figures_of_others(0).chunks, 0);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_with_many_accounts_leaves_the_other_its_rows)
{
	small_world((struct world_options){ .accounts = 8, .tenants = 2 });
	for (uint64_t account = 1; account <= 10; account++)
		store_as(0, account, account, 1);
	store_as(2, 1, 1, 1);		/* of the same label, and another account */
	ck_assert_uint_eq(figures_of(0, 1).arena_bytes, OBJECT);
	ck_assert_uint_eq(figures_of_others(0).chunks, 6);
	ck_assert_uint_eq(figures_of(1, 1).arena_bytes, OBJECT);
	ck_assert_uint_eq(figures_of_others(1).chunks, 0);
	world_free(w);
}
END_TEST

START_TEST(after_a_restart_the_books_are_made_anew)
{
	struct engine_object object = { .tokens = 64, .model = PLAIN, .epoch = 1, .checksum = 5 };
	struct engine_place place = { .tier = ENGINE_NONE, .bytes = OBJECT }, disk = { .tier = 0, .bytes = OBJECT };

	small_world((struct world_options){ .tiers = 1, .not_serving = true });
	for (uint32_t i = 0; i < 6; i++) {
		object.key = key_of(i, 0);
		object.sequence = i + 1;
		object.account = i < 2 ? 3 : 4;
		place.unit = 2 * i;
		disk.unit = 2 * i;
		w->committed[i] = true;
		w->arena[place.unit].key = w->disk[0][disk.unit].key = object.key;
		w->arena[place.unit].sequence = w->disk[0][disk.unit].sequence = object.sequence;
		w->arena[place.unit].epoch = w->disk[0][disk.unit].epoch = object.epoch;
		ck_assert_uint_eq(engine_recover(w->engine, i, &place, &object, false), i);
		if (i < 3)
			ck_assert_uint_eq(engine_recover(w->engine, ENGINE_NONE, &disk, &object, false), i);
		world_audit(w);
	}
	engine_serve(w->engine, w->now);
	ck_assert_uint_eq(figures_of(0, 3).arena_bytes, 2 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 3).disk_bytes, 2 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 4).arena_bytes, 4 * OBJECT);
	world_run(w);			/* what is in the arena alone is written */
	ck_assert_uint_eq(figures_of(0, 4).disk_bytes, 4 * OBJECT);
	world_free(w);
}
END_TEST

/* ---- who loses first ----------------------------------------------------------------------------------- */

START_TEST(who_is_above_its_soft_quota_loses_first_however_hot)
{
	small_world((struct world_options){ .policy = _i ? ENGINE_POLICY_ARC : ENGINE_POLICY_LRU });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 8 * OBJECT });
	store_singles(1, 100, 8);
	store_singles(2, 200, 8);
	store_singles(3, 300, 16);	/* there was room: nothing has gone */
	ck_assert_uint_eq(chunks_in_arena(100, 8) + chunks_in_arena(200, 8) + chunks_in_arena(300, 16), 32);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS_OVER), 1);
	store_singles(4, 400, 8);	/* the newest of all are the first to go */
	ck_assert_uint_eq(chunks_in_arena(100, 8), 8);
	ck_assert_uint_eq(chunks_in_arena(200, 8), 8);
	ck_assert_uint_eq(chunks_in_arena(300, 16), 8);
	ck_assert_uint_eq(chunks_in_arena(400, 8), 8);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_ACCOUNT), 8);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS_OVER), 0);
	world_free(w);
}
END_TEST

START_TEST(within_an_account_its_coldest_go_first)
{
	small_world((struct world_options){ .extents = 2 });	/* 16 places */
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 6 * OBJECT });
	store_singles(1, 100, 12);
	store_singles(2, 200, 4);
	for (uint64_t chain = 100; chain < 106; chain++)	/* used since: the last six are colder */
		do_lookup(w, chain, 1, 0);
	world_pass(w, 31000);
	store_singles(2, 210, 2);
	ck_assert_uint_eq(chunks_in_arena(100, 6), 6);
	ck_assert_uint_eq(in_arena(106) + in_arena(107), 0);
	ck_assert_uint_eq(chunks_in_arena(108, 4), 4);
	world_free(w);
}
END_TEST

START_TEST(who_is_above_its_quota_makes_room_for_itself_and_is_refused_nothing)
{
	small_world((struct world_options){ 0 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 8 * OBJECT });
	store_singles(1, 100, 8);
	store_singles(2, 200, 24);
	store_singles(2, 300, 40);	/* more than it may and more than there is */
	ck_assert_uint_eq(chunks_in_arena(100, 8), 8);
	ck_assert_uint_eq(chunks_in_arena(316, 24), 24);
	store_singles(1, 110, 1);	/* 1 would be above its own now: it loses its own coldest, not 2's */
	ck_assert_uint_eq(in_arena(100), 0);
	ck_assert_uint_eq(figures_of(0, 2).chunks, 24);
	world_free(w);
}
END_TEST

START_TEST(a_prefix_goes_leaf_first_and_what_is_in_use_stays)
{
	uint64_t lease[2];

	small_world((struct world_options){ 0 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 4 * OBJECT });
	store_as(0, 1, 1, 16);
	store_as(0, 1, 2, 8);
	lease_of(do_lookup(w, 2, 8, 0), lease);
	store_singles(2, 200, 4);
	store_singles(3, 300, 4);
	store_singles(4, 400, 4);	/* four of 1's had to go */
	ck_assert_uint_eq(do_lookup(w, 1, 16, STOKER_F_PROBE)->answer.n, 12);
	ck_assert_uint_eq(do_retrieve(w, lease, 8)->answer.n, 8);
	ck_assert_uint_eq(chunks_in_arena(200, 4) + chunks_in_arena(300, 4) + chunks_in_arena(400, 4), 12);
	world_free(w);
}
END_TEST

START_TEST(when_those_above_have_nothing_that_may_go_the_coldest_of_all_goes)
{
	small_world((struct world_options){ 0 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 8 * OBJECT });
	store_singles(1, 100, 8);
	store_as(0, 2, 2, 24);
	do_lookup(w, 2, 24, 0);			/* all of it is leased */
	store_singles(3, 300, 4);
	ck_assert_uint_eq(chunks_in_arena(100, 4), 0);
	ck_assert_uint_eq(chunks_in_arena(300, 4), 4);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_EVICTED_ACCOUNT), 0);
	world_free(w);
}
END_TEST

START_TEST(on_disk_too)
{
	small_world((struct world_options){ .tiers = 1, .tier_extents = 4 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_disk_bytes = 8 * OBJECT });
	store_singles(1, 100, 8);
	store_singles(2, 200, 24);
	store_singles(3, 300, 8);
	ck_assert_uint_eq(figures_of(0, 1).disk_bytes, 8 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 2).disk_bytes, 16 * OBJECT);
	ck_assert_uint_eq(figures_of(0, 3).disk_bytes, 8 * OBJECT);
	world_free(w);
}
END_TEST

START_TEST(a_full_index_and_the_background_take_from_those_above_first)
{
	small_world((struct world_options){ .entries = _i ? 0 : 24, .refill_permille = _i ? 250 : 0 });
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 4 * OBJECT });
	store_singles(1, 100, 4);
	store_singles(2, 200, 20);
	store_singles(3, 300, 4);
	world_run(w);
	ck_assert_uint_eq(chunks_in_arena(100, 4), 4);
	ck_assert_uint_eq(chunks_in_arena(300, 4), 4);
	ck_assert_uint_eq(figures_of(0, 2).chunks, _i ? 12 : 16);	/* the background takes 8 at a time */
	world_free(w);
}
END_TEST

START_TEST(quotas_hold_from_the_moment_they_are_told)
{
	small_world((struct world_options){ 0 });
	store_singles(1, 100, 16);
	store_singles(2, 200, 16);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS_OVER), 0);
	engine_tenant(w->engine, 0, &(struct engine_quota){ .account_arena_bytes = 8 * OBJECT });
	world_audit(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS_OVER), 2);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 32);
	store_singles(3, 300, 8);		/* they take turns */
	ck_assert_uint_eq(figures_of(0, 1).chunks, 12);
	ck_assert_uint_eq(figures_of(0, 2).chunks, 12);
	engine_tenant(w->engine, 0, &(struct engine_quota){ 0 });
	world_audit(w);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ACCOUNTS_OVER), 0);
	world_free(w);
}
END_TEST

/* ---- hard ones, of tenants --------------------------------------------------------------------------- */

START_TEST(a_tenant_at_its_quota_makes_room_for_itself_though_all_others_are_colder)
{
	small_world((struct world_options){ .tenants = 2, .extents = 64 });
	engine_tenant(w->engine, 1, &(struct engine_quota){ .arena_bytes = 4 * OBJECT });
	for (uint64_t chain = 0; chain < 5; chain++)
		ck_assert_uint_eq(store_as(2, 1, 900 + chain, 1)->answer.n, 1);
	for (uint32_t i = 0; i < 400; i++)	/* of many chains: each may go */
		store_as(0, 1, 100 + i, 1);
	for (uint64_t chain = 0; chain < 4; chain++)
		ck_assert_uint_eq(store_as(2, 1, 800 + chain, 1)->answer.n, 1);
	for (uint64_t chain = 0; chain < 12; chain++)	/* its own are the hottest there are */
		ck_assert_uint_eq(store_as(2, 1, 700 + chain, 1)->answer.n, 1);
	ck_assert_uint_eq(figures_of(0, 1).chunks, 400);
	ck_assert_uint_eq(figures_of(1, 1).arena_bytes, 4 * OBJECT);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_at_its_share_of_the_index_forgets_its_own)
{
	small_world((struct world_options){ .tenants = 2, .entries = _i ? 0 : 20, .records = _i ? 20 : 0 });
	for (uint64_t chain = 0; chain < 3; chain++)
		store_as(2, 1, chain, 1);
	for (uint64_t chain = 0; chain < 30; chain++)
		ck_assert_uint_eq(store_as(0, 1, chain, 1)->answer.n, 1);
	ck_assert_uint_eq(figures_of(0, 1).chunks, 10);
	ck_assert_uint_eq(figures_of(1, 1).chunks, 3);
	world_free(w);
}
END_TEST

START_TEST(a_tenant_that_pins_its_share_of_the_index_is_refused_and_the_other_is_not)
{
	small_world((struct world_options){ .tenants = 2, .entries = _i ? 0 : 20, .records = _i ? 20 : 0 });
	store_as(0, 1, 1, 10);
	ck_assert_uint_eq(do_lookup(w, 1, 10, 0)->answer.n, 10);
	ck_assert_uint_eq(store_as(0, 1, 2, 1)->answer.status, STOKER_STATUS_NO_MEMORY);
	ck_assert_uint_ge(world_counter(w, STOKER_COUNTER_JOBS_BOUNDED), 1);
	ck_assert_uint_eq(store_as(2, 1, 2, 10)->answer.n, 10);
	world_free(w);
}
END_TEST

static TCase *accounts(void)
{
	TCase *tests = tcase_create("accounts");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, bytes_are_booked_to_the_account_that_stored_them_until_they_are_gone);
	tcase_add_test(tests, accounts_beyond_the_table_share_one_row);
	tcase_add_test(tests, a_tenant_with_many_accounts_leaves_the_other_its_rows);
	tcase_add_test(tests, after_a_restart_the_books_are_made_anew);
	tcase_add_loop_test(tests, who_is_above_its_soft_quota_loses_first_however_hot, 0, 2);
	tcase_add_test(tests, within_an_account_its_coldest_go_first);
	tcase_add_test(tests, who_is_above_its_quota_makes_room_for_itself_and_is_refused_nothing);
	tcase_add_test(tests, a_prefix_goes_leaf_first_and_what_is_in_use_stays);
	tcase_add_test(tests, when_those_above_have_nothing_that_may_go_the_coldest_of_all_goes);
	tcase_add_test(tests, on_disk_too);
	tcase_add_loop_test(tests, a_full_index_and_the_background_take_from_those_above_first, 0, 2);
	tcase_add_test(tests, quotas_hold_from_the_moment_they_are_told);
	tcase_add_test(tests, a_tenant_at_its_quota_makes_room_for_itself_though_all_others_are_colder);
	tcase_add_loop_test(tests, a_tenant_at_its_share_of_the_index_forgets_its_own, 0, 2);
	tcase_add_loop_test(tests, a_tenant_that_pins_its_share_of_the_index_is_refused_and_the_other_is_not, 0, 2);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("engine-accounts");

	suite_add_tcase(suite, accounts());
	return suite_run(suite);
}
