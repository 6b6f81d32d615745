/*
 * The engine's clients, models, pools, and admin verbs.
 */
#include <errno.h>

#include "tests/engine-fixture.h"

static uint64_t control_value(engine_token token, enum stoker_status status)
{
	for (uint32_t i = 0; i < w->n_controls; i++)
		if (w->controls[i].token == token) {
			ck_assert_int_eq(w->controls[i].status, status);
			return w->controls[i].value;
		}
	ck_abort_msg("control operation %llu has no answer", (unsigned long long)token);
	return 0;
}

static bool is_answered(engine_token token)
{
	for (uint32_t i = 0; i < w->n_controls; i++)
		if (w->controls[i].token == token)
			return true;
	return false;
}

/* ---- configuration --------------------------------------------------------------------------------- */

START_TEST(a_configuration_out_of_range_has_no_size)
{
	struct engine_config config = w->config;

	switch (_i) {
	case 0: config.clients = 0; break;
	case 1: config.slots = 0; break;
	case 2: config.records = 0; break;
	case 3: config.extent_bytes = 5000; break;
	case 4: config.n_tiers = ENGINE_TIERS_MAX + 1; break;
	case 5: config.tiers[0].extents = 0; break;
	case 6: config.ios = 1; break;
	case 7: config.extents = 0xffffffff; break;
	case 8: config.refill_permille = 1001; break;
	default: config.tenants = 257; break;
	}
	ck_assert_uint_eq(engine_bytes(&config), 0);
}
END_TEST

START_TEST(a_model_whose_objects_are_too_large_is_refused)
{
	struct engine_model_config model = { .epoch = 1, .chunk_tokens = 64, .n_groups = 1, .n_parts = 1 };

	model.parts[0] = (struct engine_part_config){
		.layers = 1, .blocks = 1, .payload_bytes = WORLD_EXTENT * WORLD_EXTENTS / 4,
		.image_bytes = WORLD_EXTENT * WORLD_EXTENTS / 4 + 4096,
	};
	ck_assert_int_eq(engine_model_open(w->engine, &model), -E2BIG);
	model.parts[0].payload_bytes = 4096;
	model.parts[0].image_bytes = 8192;
	for (int i = WORLD_MODELS; i < 8; i++)
		ck_assert_int_eq(engine_model_open(w->engine, &model), i);
	ck_assert_int_eq(engine_model_open(w->engine, &model), -ENOMEM);
}
END_TEST

START_TEST(a_model_of_more_sizes_than_there_are_extents_is_refused)
{
	struct engine_model_config model = { .epoch = 1, .chunk_tokens = 64, .n_groups = 1 };

	/* 17 shards of 14 sizes, each of less than an extent, in an arena of 16 extents. */
	for (uint32_t i = 0; i < WORLD_EXTENTS + 1; i++)
		model.parts[model.n_parts++] = (struct engine_part_config){
			.shard = (uint8_t)i, .layers = 1, .blocks = 1, .payload_bytes = 4096,
			.image_bytes = 8192 + 4096 * (i < WORLD_EXTENTS ? i % 14 : 0),
		};
	ck_assert_int_eq(engine_model_open(w->engine, &model), WORLD_MODELS);
	for (uint32_t i = 0; i < model.n_parts; i++)
		model.parts[i].image_bytes = WORLD_EXTENT * (1 + i % 4);	/* runs of 1, 2, 4 and 4 extents */
	ck_assert_int_eq(engine_model_open(w->engine, &model), WORLD_MODELS + 1);
	for (uint32_t i = 0; i < model.n_parts; i++)
		model.parts[i].image_bytes = 2 * WORLD_EXTENT + 4096 * (i % 6);	/* of 2, and five of 4 */
	ck_assert_int_eq(engine_model_open(w->engine, &model), -ENOSPC);
}
END_TEST

/* ---- clients ------------------------------------------------------------------------------------------ */

START_TEST(a_client_that_leaves_leaves_nothing)
{
	struct engine_request request;

	do_store(w, 1, 8);
	request = ask_lookup(w, 1, 1, PLAIN, 1, 8, 0);
	submit(w, 1, &request);
	request = ask(w, 1, 2, STOKER_OP_MAP, ENGINE_NONE);
	lease_of(&w->seen[1][1], request.head.lease);
	submit(w, 1, &request);
	ck_assert_uint_eq(w->seen[1][2].answer.status, STOKER_STATUS_OK);
	ck_assert_uint_gt(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	world_out(w, 1);
	world_run(w);
	ck_assert(w->gone[1]);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_HOLDS), 0);
	ck_assert_uint_eq(do_lookup(w, 1, 8, 0)->answer.n, 8);
}
END_TEST

START_TEST(the_many_leases_of_a_client_that_leaves_are_worthless_at_once_and_end_in_turns)
{
	struct world *many = world_new(&(struct world_options){ .leases = 600 });
	struct engine_request request;
	uint64_t lease[2];

	do_store(many, 1, 4);
	for (int i = 0; i < 300; i++) {
		request = ask_lookup(many, 1, 1, PLAIN, 1, 4, 0);
		submit(many, 1, &request);
	}
	lease_of(&many->seen[1][1], lease);
	world_out(many, 1);
	ck_assert(!many->gone[1]);
	ck_assert_uint_gt(world_gauge(many, STOKER_GAUGE_LEASES), 100);
	request = ask_retrieve(many, 0, 2, PLAIN, lease, 0, 4);
	ck_assert_uint_eq(submit(many, 0, &request)->answer.status, STOKER_STATUS_EXPIRED);
	world_run(many);
	ck_assert(many->gone[1]);
	ck_assert_uint_eq(world_gauge(many, STOKER_GAUGE_LEASES), 0);
	world_free(many);
}
END_TEST

/* Those that end in a turn, in two, and one less and more. */
START_TEST(a_client_with_any_number_of_leases_is_gone_in_the_end)
{
	static const int numbers[] = { 0, 1, 63, 64, 65, 127, 128, 129, 192 };
	struct world *many = world_new(&(struct world_options){ .leases = 300 });
	struct engine_request request;

	do_store(many, 1, 4);
	for (int i = 0; i < numbers[_i]; i++) {
		request = ask_lookup(many, 1, 1, PLAIN, 1, 4, 0);
		submit(many, 1, &request);
	}
	world_out(many, 1);
	world_run(many);
	ck_assert(many->gone[1]);
	ck_assert_uint_eq(world_gauge(many, STOKER_GAUGE_LEASES), 0);
	world_free(many);
}
END_TEST

START_TEST(a_client_that_leaves_amid_anything_is_drained_and_told_nothing)
{
	const enum pending_kind held = _i % 2 ? PENDING_COPY : PENDING_READ;
	struct engine_request request;
	uint32_t published;

	do_store(w, 1, 8);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	w->hold[held] = true;
	request = ask_lookup(w, 1, 1, PLAIN, 1, 8, STOKER_F_PREFETCH);
	submit(w, 1, &request);
	request = ask_store(w, 1, 2, PLAIN, 2, 0, 8);
	submit(w, 1, &request);
	request = ask_store(w, 1, 3, PLAIN, 2, 0, 8);
	request.head.flags = STOKER_F_WAIT;
	submit(w, 1, &request);
	request = ask_store(w, 1, 4, PLAIN, 3, 0, 8);
	request.head.flags = STOKER_F_READY;
	submit(w, 1, &request);
	request = ask_lookup(w, 1, WORLD_SMALL, PLAIN, 1, 8, STOKER_F_PREFETCH);
	request.line.lookup.pieces = 1;
	submit(w, 1, &request);
	if (_i >= 2)
		world_run(w);
	published = w->seen[1][2].n;
	world_out(w, 1);
	ck_assert(!w->watched[1][4]);
	ck_assert_uint_eq(w->seen[1][2].n, published);
	w->hold[held] = false;
	world_run(w);
	ck_assert(w->gone[1]);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_JOBS), 0);
}
END_TEST

START_TEST(requests_of_a_client_that_leaves_are_ignored)
{
	struct engine_request request = ask_store(w, 1, 0, PLAIN, 1, 0, 2);

	w->hold[PENDING_COPY] = true;
	submit(w, 1, &request);
	world_out(w, 1);
	request = ask(w, 1, 1, STOKER_OP_PING, ENGINE_NONE);
	ck_assert_uint_eq(submit(w, 1, &request)->n, 0);
	engine_cancel(w->engine, 1, 0, 1);
	ck_assert(!w->gone[1]);
}
END_TEST

/* ---- pools ----------------------------------------------------------------------------------------------- */

START_TEST(a_pool_is_dropped_when_no_copy_touches_it)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);

	w->hold[PENDING_COPY] = true;
	submit(w, 0, &request);
	request = ask_store(w, 0, 1, PLAIN, 2, 0, 2);
	request.head.flags = STOKER_F_READY;
	submit(w, 0, &request);
	engine_pool_drop(w->engine, 0, 0, 77);
	world_run(w);
	ck_assert(!is_answered(77));
	ck_assert_uint_eq(w->seen[0][1].answer.status, STOKER_STATUS_CANCELLED);	/* it had not begun */
	request = ask_store(w, 0, 1, PLAIN, 3, 0, 2);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_BAD_REQUEST);
	w->hold[PENDING_COPY] = false;
	world_run(w);
	control_value(77, STOKER_STATUS_OK);
	ck_assert_uint_eq(w->seen[0][0].answer.n, 2);	/* what was under way was let finish */
	engine_pool_drop(w->engine, 0, 0, 78);
	control_value(78, STOKER_STATUS_NOT_FOUND);
	ck_assert_int_eq(engine_pool_added(w->engine, 0, 0, PLAIN, 0, WORLD_POOL, 0), 0);
}
END_TEST

START_TEST(a_pool_whose_memory_faulted_takes_no_more_jobs)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);

	engine_pool_dead(w->engine, 0, 0);
	ck_assert_uint_eq(submit(w, 0, &request)->answer.status, STOKER_STATUS_FAULT);
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_POOL_FAULTS), 1);
}
END_TEST

START_TEST(a_store_whose_pool_faults_while_it_is_copied_ends_with_that_fault)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	seen = submit(w, 0, &request);
	world_run(w);
	engine_pool_dead(w->engine, 0, 0);
	if (_i)		/* what the pool's death does to the copy; or it had got through */
		w->fail[PENDING_COPY] = 1;
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(seen->done);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_FAULT);
	ck_assert_uint_eq(seen->answer.n, _i ? 0 : 2);
}
END_TEST

START_TEST(a_store_whose_pool_is_dropped_while_its_copy_fails_ends_with_the_fault)
{
	struct engine_request request = ask_store(w, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *seen;

	w->hold[PENDING_COPY] = true;
	seen = submit(w, 0, &request);
	world_run(w);
	engine_pool_drop(w->engine, 0, 0, 77);
	w->fail[PENDING_COPY] = 1;
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert_uint_eq(seen->answer.status, STOKER_STATUS_FAULT);
	control_value(77, STOKER_STATUS_OK);
}
END_TEST

/* ---- reset -------------------------------------------------------------------------------------------------- */

START_TEST(a_reset_takes_effect_at_once_and_is_answered_when_it_is_durable_and_quiet)
{
	struct engine_request request;
	const struct seen *copying, *loading;
	uint64_t lease[2];

	do_store(w, 1, 8);
	lease_of(do_lookup(w, 1, 4, 0), lease);
	do_store(w, 2, 8);
	w->hold[PENDING_COPY] = w->hold[PENDING_READ] = true;
	request = ask_store(w, 1, 0, PLAIN, 3, 0, 4);
	copying = submit(w, 1, &request);
	request = ask_lookup(w, 1, WORLD_SMALL, PLAIN, 1, 4, 0);
	request.line.lookup.pieces = 1;
	loading = submit(w, 1, &request);
	engine_reset(w->engine, PLAIN, 2, 0x1234, 5);
	world_audit(w);
	ck_assert_uint_eq(loading->answer.status, STOKER_STATUS_RESET);
	ck_assert_uint_eq(copying->answer.stage, STOKER_STAGE_ENDING);
	ck_assert_uint_eq(copying->answer.status, STOKER_STATUS_RESET);
	ck_assert_uint_eq(do_lookup(w, 1, 8, STOKER_F_PREFETCH)->answer.found, 0);
	ck_assert_uint_eq(do_retrieve(w, lease, 4)->answer.status, STOKER_STATUS_EXPIRED);
	ck_assert_uint_eq(w->n_persisting, 1);
	engine_epoch_persisted(w->engine, PLAIN, true);
	ck_assert(!is_answered(5));		/* a copy still runs */
	w->hold[PENDING_COPY] = false;
	world_run(w);
	ck_assert(copying->done);
	ck_assert_uint_eq(control_value(5, STOKER_STATUS_OK), 2);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);	/* freed in the background */
	ck_assert_uint_eq(w->slab_adds, w->slab_removes);
	ck_assert_uint_eq(do_store(w, 1, 3)->answer.n, 3);
	ck_assert_uint_eq(do_lookup(w, 1, 8, 0)->answer.n, 3);
}
END_TEST

START_TEST(resets_that_overtake_each_other_are_answered_in_order)
{
	do_store(w, 1, 8);
	engine_reset(w->engine, PLAIN, 2, 0, 1);
	engine_reset(w->engine, PLAIN, 3, 0, 2);
	world_run(w);
	ck_assert_uint_eq(w->n_controls, 0);
	engine_epoch_persisted(w->engine, PLAIN, false);
	engine_epoch_persisted(w->engine, PLAIN, true);
	ck_assert_uint_eq(control_value(1, STOKER_STATUS_IO), 2);
	ck_assert_uint_eq(control_value(2, STOKER_STATUS_OK), 3);
}
END_TEST

START_TEST(writes_and_reads_under_way_at_a_reset_come_to_nothing)
{
	struct engine_request request;
	uint32_t adds;

	do_store(w, 1, 8);
	engine_evict(w->engine, 1 << 30, 1);
	world_run(w);
	w->hold[PENDING_READ] = w->hold[PENDING_WRITE] = true;
	request = ask_lookup(w, 0, 1, PLAIN, 1, 2, STOKER_F_PREFETCH);
	submit(w, 0, &request);
	world_run(w);
	do_store(w, 2, 8);
	adds = w->slab_adds;
	engine_reset(w->engine, PLAIN, 2, 0, 1);
	world_run(w);
	w->hold[PENDING_READ] = w->hold[PENDING_WRITE] = false;
	world_run(w);
	ck_assert_uint_eq(w->slab_adds, adds);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
	/* Their headers name the epoch before, as they should. */
	ck_assert_uint_eq(world_counter(w, STOKER_COUNTER_CHECKSUM_ERRORS), 0);
	engine_epoch_persisted(w->engine, PLAIN, true);
}
END_TEST

/* ---- models that are forgotten ----------------------------------------------------------------------- */

static struct engine_model_config small_model(void)
{
	struct engine_model_config model = { .epoch = 1, .chunk_tokens = 64, .n_groups = 1, .n_parts = 1 };

	model.parts[0] = (struct engine_part_config){ .layers = 1, .blocks = 1, .payload_bytes = 4096,
						      .image_bytes = 8192 };
	return model;
}

static void all_leave(void)
{
	for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
		world_out(w, i);
}

START_TEST(a_model_without_objects_is_forgotten_and_its_number_is_the_next_ones)
{
	const struct engine_model_config model = small_model();

	while (engine_model_open(w->engine, &model) >= 0)
		;
	engine_model_close(w->engine, SHARDED, false, 3);
	control_value(3, STOKER_STATUS_OK);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_MODELS), 7);
	ck_assert_int_eq(engine_model_open(w->engine, &model), SHARDED);
	ck_assert_int_eq(engine_model_open(w->engine, &model), -ENOMEM);
	world_audit(w);
}
END_TEST

START_TEST(a_model_with_objects_is_forgotten_only_if_it_may_be_emptied)
{
	const struct engine_model_config model = small_model();

	do_store(w, 1, 8);
	engine_evict(w->engine, 4 * 8192, 1);	/* some are on disk alone */
	world_run(w);
	all_leave();
	world_run(w);
	engine_model_close(w->engine, PLAIN, false, 3);
	ck_assert_uint_eq(control_value(3, STOKER_STATUS_REFUSED), 8);
	engine_model_close(w->engine, PLAIN, true, 4);
	world_run(w);
	control_value(4, STOKER_STATUS_OK);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
	ck_assert_uint_eq(w->slab_adds, w->slab_removes);
	for (uint32_t i = 0; i < 4096; i++)
		ck_assert(!w->committed[i]);
	ck_assert_int_eq(engine_model_open(w->engine, &model), PLAIN);
}
END_TEST

START_TEST(a_model_is_forgotten_when_the_last_io_of_it_has_ended)
{
	w->hold[PENDING_WRITE] = true;
	do_store(w, 1, 8);
	all_leave();
	world_run(w);
	ck_assert_uint_gt(w->n_pending, 0);
	engine_model_close(w->engine, PLAIN, true, 4);
	world_run(w);
	ck_assert(!is_answered(4));
	w->hold[PENDING_WRITE] = false;
	world_run(w);
	control_value(4, STOKER_STATUS_OK);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 0);
	ck_assert_uint_eq(w->slab_adds, w->slab_removes);
}
END_TEST

START_TEST(a_model_that_is_being_reset_is_not_forgotten)
{
	engine_reset(w->engine, PLAIN, 2, 0, 1);
	engine_model_close(w->engine, PLAIN, true, 2);
	control_value(2, STOKER_STATUS_REFUSED);
	engine_epoch_persisted(w->engine, PLAIN, true);
	control_value(1, STOKER_STATUS_OK);
	engine_model_close(w->engine, PLAIN, true, 3);
	control_value(3, STOKER_STATUS_OK);
}
END_TEST

/* ---- admin ----------------------------------------------------------------------------------------------------- */

START_TEST(clear_forgets_all_that_nobody_uses_in_every_tier)
{
	do_store(w, 1, 8);
	do_store(w, 2, 8);
	do_lookup(w, 1, 4, 0);
	engine_clear(w->engine, 9);
	world_run(w);
	ck_assert_uint_ge(control_value(9, STOKER_STATUS_OK), 12 * 8192 * 2);
	ck_assert_uint_eq(do_lookup(w, 2, 8, STOKER_F_PROBE)->answer.found, 0);
	ck_assert_uint_eq(do_lookup(w, 1, 8, STOKER_F_PROBE)->answer.found, 4);
}
END_TEST

START_TEST(evict_frees_what_was_asked_for)
{
	do_store(w, 1, 64);
	do_store(w, 2, 40);
	engine_evict(w->engine, 20 * 8192, 9);
	world_run(w);
	ck_assert_uint_ge(control_value(9, STOKER_STATUS_OK), 20 * 8192);
	ck_assert_uint_ge(world_gauge(w, STOKER_GAUGE_ARENA_OBJECTS), 104 - 32);
}
END_TEST

START_TEST(a_drain_refuses_stores_and_is_answered_when_all_is_written)
{
	w->hold[PENDING_WRITE] = true;
	do_store(w, 1, 8);
	engine_drain(w->engine, 9);
	world_run(w);
	ck_assert(!is_answered(9));
	ck_assert_uint_eq(do_store(w, 2, 2)->answer.status, STOKER_STATUS_REFUSED);
	ck_assert_uint_eq(do_lookup(w, 1, 8, 0)->answer.n, 8);
	w->hold[PENDING_WRITE] = false;
	world_run(w);
	control_value(9, STOKER_STATUS_OK);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_DIRTY), 0);
}
END_TEST

START_TEST(a_drain_before_recovery_is_over_refuses_the_stores_that_wait_for_it)
{
	struct world *fresh = world_new(&(struct world_options){ .not_serving = true });
	struct engine_request request = ask_store(fresh, 0, 0, PLAIN, 1, 0, 2);
	const struct seen *store = submit(fresh, 0, &request);

	ck_assert(!store->done);
	engine_drain(fresh->engine, 9);
	world_turn(fresh);
	ck_assert(store->done);
	ck_assert_uint_eq(store->answer.status, STOKER_STATUS_REFUSED);
	ck_assert_uint_eq(fresh->n_controls, 1);
	ck_assert_uint_eq(fresh->controls[0].status, STOKER_STATUS_OK);
	world_free(fresh);
}
END_TEST

/* ---- the suite ---------------------------------------------------------------------------------------------------- */

int main(void)
{
	Suite *suite = suite_create("engine-life");
	TCase *tests = with_world("life", one_tier);

	tcase_add_loop_test(tests, a_configuration_out_of_range_has_no_size, 0, 10);
	tcase_add_test(tests, a_model_whose_objects_are_too_large_is_refused);
	tcase_add_test(tests, a_model_of_more_sizes_than_there_are_extents_is_refused);
	tcase_add_test(tests, a_client_that_leaves_leaves_nothing);
	tcase_add_test(tests, the_many_leases_of_a_client_that_leaves_are_worthless_at_once_and_end_in_turns);
	tcase_add_loop_test(tests, a_client_with_any_number_of_leases_is_gone_in_the_end, 0, 9);
	tcase_add_loop_test(tests, a_client_that_leaves_amid_anything_is_drained_and_told_nothing, 0, 4);
	tcase_add_test(tests, requests_of_a_client_that_leaves_are_ignored);
	tcase_add_test(tests, a_pool_is_dropped_when_no_copy_touches_it);
	tcase_add_test(tests, a_pool_whose_memory_faulted_takes_no_more_jobs);
	tcase_add_loop_test(tests, a_store_whose_pool_faults_while_it_is_copied_ends_with_that_fault, 0, 2);
	tcase_add_test(tests, a_store_whose_pool_is_dropped_while_its_copy_fails_ends_with_the_fault);
	tcase_add_test(tests, a_reset_takes_effect_at_once_and_is_answered_when_it_is_durable_and_quiet);
	tcase_add_test(tests, resets_that_overtake_each_other_are_answered_in_order);
	tcase_add_test(tests, writes_and_reads_under_way_at_a_reset_come_to_nothing);
	tcase_add_test(tests, a_model_without_objects_is_forgotten_and_its_number_is_the_next_ones);
	tcase_add_test(tests, a_model_with_objects_is_forgotten_only_if_it_may_be_emptied);
	tcase_add_test(tests, a_model_is_forgotten_when_the_last_io_of_it_has_ended);
	tcase_add_test(tests, a_model_that_is_being_reset_is_not_forgotten);
	tcase_add_test(tests, clear_forgets_all_that_nobody_uses_in_every_tier);
	tcase_add_test(tests, evict_frees_what_was_asked_for);
	tcase_add_test(tests, a_drain_refuses_stores_and_is_answered_when_all_is_written);
	tcase_add_test(tests, a_drain_before_recovery_is_over_refuses_the_stores_that_wait_for_it);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
