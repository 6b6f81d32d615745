/*
 * The core thread by itself: its orders, and when it sleeps. There are no clients, tiers or helpers here
 * but what a test makes up; the test is the control thread.
 */
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/core-state.h"
#include "tests/suite.h"
#include "tests/tier-bench.h"

#define FOR_EVER	(UINT64_MAX / 2)	/* a core that spins that long never sleeps */

static struct config config;
static struct control_page *page;
static struct core *core;
static struct model *model;
static struct model_layout layout;
static bool runs;
static uint32_t tiers;		/* that it is configured with */

static void *zeroed(size_t bytes)
{
	void *memory;

	ck_assert_int_eq(posix_memalign(&memory, 64, bytes), 0);
	return memset(memory, 0, bytes);
}

static void setup(void)
{
	struct core_config core_config = {
		.config = &config,
		.engine = {
			.clients = 2, .slots = 4, .models = 2, .pools = 2, .tenants = 1, .entries = 256, .records = 256,
			.leases = 16, .holds = 16, .leased_chunks = 256, .ios = 16, .extent_bytes = 65536, .extents = 4,
			.deadline_default_ns = 1000000000, .deadline_max_ns = 1000000000,
			.lease_default_ns = 1000000000, .lease_max_ns = 1000000000,
			.n_tiers = tiers, .tiers = { { .extents = 4, .depth_bytes = 65536 } },
		},
	};
	char why[CONFIG_WHY];

	config_init(&config);
	config.n_tenants = 1;
	config.n_tiers = tiers;
	core_config.page = page = zeroed(sizeof(*page));
	ck_assert_msg(core_new(&core_config, why, &core) == 0, "%s", why);
	model = zeroed(sizeof(*model));
	layout = (struct model_layout){ .n_parts = 1 };
	layout.wire.chunk_tokens = 16;
	model->layout = &layout;
	runs = false;
}

static void start(void)
{
	ck_assert_int_eq(core_start(core), 0);
	runs = true;
}

static struct link *control(void)
{
	return core_control(core);
}

/* The next order that comes back, or that the core sends of its own accord. */
static struct order *answer(void)
{
	struct bell *bell = &control()->bell;
	struct order *order;

	while (!(order = link_answer(control()))) {
		struct pollfd fd = { .fd = bell->fd, .events = POLLIN };

		bell_arm(bell);
		order = link_answer(control());
		if (!order)
			poll(&fd, 1, 10000);
		bell_disarm(bell);
		if (order)
			break;
	}
	return order;
}

static void teardown(void)
{
	struct order quit = { .type = ORDER_QUIT };

	if (runs) {
		link_order(control(), &quit);
		core_end(core);
	}
	core_free(core);
	free(page);
	free(model);
}

static void model_open(void)
{
	static const struct engine_model_config opened = {
		.chunk_tokens = 16, .n_groups = 1, .n_parts = 1,
		.groups = { { .kind = MODEL_GROUP_FULL, .block_tokens = 16, .blocks = 1 } },
		.parts = { { .layers = 1, .blocks = 1, .image_bytes = 8192, .payload_bytes = 4096 } },
	};
	struct order order = { .type = ORDER_MODEL_OPEN, .model = { .model = model, .config = &opened } };

	link_order(control(), &order);
	ck_assert_ptr_eq(answer(), &order);
	ck_assert_int_eq(order.result, 0);
}

static struct order reset_order(void)
{
	return (struct order){ .type = ORDER_RESET, .model = { .model = model, .epoch = 1, .tag = 7 } };
}

/* ---- resets before recovery is over --------------------------------------------------------------- */

START_TEST(a_reset_that_waits_for_recovery_begins_when_that_is_over)
{
	struct order reset = reset_order(), serve = { .type = ORDER_SERVE };

	start();
	model_open();
	link_order(control(), &reset);
	link_order(core_starter(core), &serve);
	struct order *save = answer();
	ck_assert_int_eq(save->type, ORDER_SAVE_EPOCH);
	save->type = ORDER_EPOCH_SAVED;
	save->result = 0;
	link_order(control(), save);
	ck_assert_ptr_eq(answer(), &reset);
	ck_assert_int_eq(reset.status, STOKER_STATUS_OK);
}
END_TEST

START_TEST(a_reset_that_waits_for_recovery_is_refused_when_the_broker_drains)
{
	struct order reset = reset_order(), drain = { .type = ORDER_DRAIN };

	start();
	model_open();
	link_order(control(), &reset);
	link_order(control(), &drain);
	ck_assert_ptr_eq(answer(), &reset);
	ck_assert_int_eq(reset.status, STOKER_STATUS_STARTING);
	ck_assert_ptr_eq(answer(), &drain);
	ck_assert_int_eq(drain.status, STOKER_STATUS_OK);
}
END_TEST

START_TEST(a_reset_that_comes_before_recovery_is_over_and_after_a_drain_is_refused_at_once)
{
	struct order reset = reset_order(), drain = { .type = ORDER_DRAIN };

	start();
	model_open();
	link_order(control(), &drain);
	ck_assert_ptr_eq(answer(), &drain);
	link_order(control(), &reset);
	ck_assert_ptr_eq(answer(), &reset);
	ck_assert_int_eq(reset.status, STOKER_STATUS_STARTING);
}
END_TEST

/* ---- drains before recovery is over --------------------------------------------------------------- */

/* Nothing has been written to it that could be flushed, and it may never come to work: its disk may hang. */
START_TEST(a_drain_does_not_wait_for_a_tier_that_is_still_being_read)
{
	static struct bench bench;
	struct order open = { .type = ORDER_TIER_OPEN }, drain = { .type = ORDER_DRAIN };

	teardown();
	tiers = 1;
	setup();
	bench_init(&bench, 8 * BENCH_EXTENT);
	bench_open(&bench);
	open.tier.tier = bench.tier;
	start();
	link_order(control(), &open);
	ck_assert_ptr_eq(answer(), &open);
	link_order(control(), &drain);
	ck_assert_ptr_eq(answer(), &drain);
	ck_assert_int_eq(drain.status, STOKER_STATUS_OK);
	teardown();
	bench_fini(&bench);
	tiers = 0;
	setup();
}
END_TEST

/* ---- sleep ------------------------------------------------------------------------------------------ */

/* A device of which only the core's side is there: it says that a pool of nobody's is dead when it is told to. */
static _Atomic bool finished;
static _Atomic uint32_t n_armed, n_reaped;

static uint32_t fake_reap(struct device *device, struct device_event *events, uint32_t max)
{
	(void)device;
	if (max == 0 || !atomic_exchange(&finished, false))
		return 0;
	atomic_fetch_add(&n_reaped, 1);
	core->copies_out = 0;		/* here it is the core's thread */
	events[0] = (struct device_event){ .type = DEVICE_POOL_DEAD, .client = 1 };
	return 1;
}

static void fake_arm(struct device *device)
{
	(void)device;
	atomic_fetch_add(&n_armed, 1);
}

/* A core that would spin for ever, with so many copies under way. */
static void start_with(bool crowded, uint32_t copies)
{
	static const struct device_backend backend = { .name = "fake", .reap = fake_reap, .arm = fake_arm };

	core->spin_ns = FOR_EVER;
	core->crowded = crowded;
	core->copies_out = copies;
	core->devices[0] = (struct core_device){ &backend, (struct device *)(void *)core };
	core->n_devices = 1;
	start();
}

static uint64_t sleeps(void)
{
	return atomic_load(&page->blocks[0].counters[STOKER_COUNTER_CORE_SLEEPS]);
}

/* It turns: @n orders, one after the other, are answered. */
static void pings(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct order ping = { .type = ORDER_PING };

		link_order(control(), &ping);
		ck_assert_ptr_eq(answer(), &ping);
	}
}

static void copies_end(void)
{
	atomic_store(&finished, true);
	bell_ring(core_bell(core));
	while (atomic_load(&n_reaped) == 0)
		sched_yield();
}

START_TEST(a_core_with_copies_under_way_sleeps_where_helpers_want_its_processor)
{
	start_with(true, 1);
	while (sleeps() == 0)
		sched_yield();
	/* A helper that has finished something wakes it, and so does an order. */
	ck_assert_uint_gt(atomic_load(&n_armed), 0);
	pings(3);
	copies_end();
}
END_TEST

START_TEST(a_core_with_copies_under_way_spins_where_there_are_processors_for_all)
{
	start_with(false, 1);
	pings(20);
	ck_assert_uint_eq(sleeps(), 0);
	copies_end();
	ck_assert_uint_eq(sleeps(), 0);
}
END_TEST

START_TEST(a_core_without_copies_spins_where_processors_are_few)
{
	start_with(true, 0);
	pings(20);
	ck_assert_uint_eq(sleeps(), 0);
}
END_TEST

START_TEST(one_processor_is_too_few_for_helpers_core_and_client)
{
	cpu_set_t all, one;
	int first = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(first, &all))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	teardown();
	setup();
	ck_assert(core->crowded);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-core");
	TCase *tests = tcase_create("broker-core");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_reset_that_waits_for_recovery_begins_when_that_is_over);
	tcase_add_test(tests, a_reset_that_waits_for_recovery_is_refused_when_the_broker_drains);
	tcase_add_test(tests, a_reset_that_comes_before_recovery_is_over_and_after_a_drain_is_refused_at_once);
	tcase_add_test(tests, a_drain_does_not_wait_for_a_tier_that_is_still_being_read);
	tcase_add_test(tests, a_core_with_copies_under_way_sleeps_where_helpers_want_its_processor);
	tcase_add_test(tests, a_core_with_copies_under_way_spins_where_there_are_processors_for_all);
	tcase_add_test(tests, a_core_without_copies_spins_where_processors_are_few);
	tcase_add_test(tests, one_processor_is_too_few_for_helpers_core_and_client);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
