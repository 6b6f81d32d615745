/*
 * Regions and pools on the socket, and what is left of them when their clients are killed. What a pool's
 * memory has to be is in test-device-region.c; what hostile clients get is in test-hostile-copies.c.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/control-rig.h"

static int memory_of(size_t bytes)
{
	const int fd = memfd_create("region", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)bytes), 0);
	return fd;
}

static uint32_t region_add(struct raw *raw, size_t bytes)
{
	struct message_region_add message = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST, .n_fds = 1 };
	const int fd = memory_of(bytes);
	struct message_answer answer;

	message.ranges[0].bytes = bytes;
	ck_assert_int_eq(raw_ask(raw, &message.header, sizeof(message), &fd, 1, &answer), 0);
	ck_assert_msg(answer.status == STOKER_STATUS_OK, "%s", answer.reason);
	ck_assert_uint_eq(answer.value, bytes);
	close(fd);
	return answer.number;
}

static enum stoker_status pool_add(struct raw *raw, uint32_t model, uint32_t region, struct message_answer *ret)
{
	struct {
		struct message_pool_add add;
		struct message_plane plane;
	} message = { .add = { .model = model, .n_blocks = 8, .n_planes = 1 },
		      .plane = { .region = region, .block_stride = 4096, .bytes = 4096, .rows = 1 } };

	return ask(raw, &message, MESSAGE_POOL_ADD, sizeof(message), ret);
}

static enum stoker_status drop(struct raw *raw, uint32_t type, uint32_t number)
{
	struct message_drop message = { .number = number };

	return ask(raw, &message, type, sizeof(message), NULL);
}

START_TEST(pools_and_regions_are_dropped_in_order_and_once)
{
	struct message_answer answer;

	whole_launch();
	struct raw raw = attach();
	const uint32_t model = (uint32_t)raw_model(&raw, "model", 4096);
	const uint32_t region = region_add(&raw, 65536);
	ck_assert_int_eq(pool_add(&raw, model, region, &answer), STOKER_STATUS_OK);
	const uint32_t pool = answer.number;
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_REFUSED);
	ck_assert_int_eq(drop(&raw, MESSAGE_POOL_DROP, pool), STOKER_STATUS_OK);
	ck_assert_int_eq(drop(&raw, MESSAGE_POOL_DROP, pool), STOKER_STATUS_NOT_FOUND);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_OK);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, region), STOKER_STATUS_NOT_FOUND);
	ck_assert_int_eq(drop(&raw, MESSAGE_REGION_DROP, 4000000000u), STOKER_STATUS_NOT_FOUND);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_pool_that_does_not_fit_is_refused_with_a_reason)
{
	struct message_answer answer;

	whole_launch();
	struct raw raw = attach();
	const uint32_t model = (uint32_t)raw_model(&raw, "model", 4096);
	const uint32_t small = region_add(&raw, 4096);
	ck_assert_int_ne(pool_add(&raw, model, small, &answer), STOKER_STATUS_OK);
	ck_assert(answer.reason[0] != '\0');
	ck_assert_int_ne(pool_add(&raw, model, 17, &answer), STOKER_STATUS_OK);
	ck_assert_int_ne(pool_add(&raw, 3, small, &answer), STOKER_STATUS_OK);
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(clients_that_are_killed_leave_no_descriptor_and_no_seat)
{
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const uint32_t before = whole_descriptors();
	for (uint64_t i = 1; i <= 20; i++) {
		const pid_t child = whole_fork();

		if (child == 0) {
			struct raw raw;

			if (raw_attach(whole.name, &raw) < 0)
				_exit(1);
			const uint32_t region = region_add(&raw, 65536);
			pool_add(&raw, (uint32_t)raw_model(&raw, "model", 4096), region, NULL);
			raise(SIGKILL);
		}
		waitpid(child, NULL, 0);
		await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == i);
	}
	await(whole_descriptors() == before);
	await(whole_gauge(STOKER_GAUGE_CLIENTS) == 0);
	await(whole_gauge(STOKER_GAUGE_POOLS) == 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-pools");
	TCase *tests = tcase_create("broker-pools");

	tcase_add_checked_fixture(tests, setup, whole_clean);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, pools_and_regions_are_dropped_in_order_and_once);
	tcase_add_test(tests, a_pool_that_does_not_fit_is_refused_with_a_reason);
	tcase_add_test(tests, clients_that_are_killed_leave_no_descriptor_and_no_seat);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
