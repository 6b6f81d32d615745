/*
 * The core thread by itself: its orders, and when it sleeps. There are no clients, tiers or helpers here
 * but what a test makes up; the test is the control thread.
 */
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/core-state.h"
#include "tests/suite.h"

#define FOR_EVER	(UINT64_MAX / 2)	/* a core that spins that long never sleeps */

static struct config config;
static struct control_page *page;
static struct core *core;
static struct model *model;
static struct model_layout layout;
static bool runs;

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
		},
	};
	char why[CONFIG_WHY];

	config_init(&config);
	config.n_tenants = 1;
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

int main(void)
{
	Suite *suite = suite_create("broker-core");
	TCase *tests = tcase_create("broker-core");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_reset_that_waits_for_recovery_begins_when_that_is_over);
	tcase_add_test(tests, a_reset_that_waits_for_recovery_is_refused_when_the_broker_drains);
	tcase_add_test(tests, a_reset_that_comes_before_recovery_is_over_and_after_a_drain_is_refused_at_once);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
