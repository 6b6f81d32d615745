/*
 * The broker's half of a GPU: what is answered later, rings that are full and wrap, cancels.
 */
#include <fcntl.h>

#include "tests/backend-rig.h"

/* ---- what is answered later -------------------------------------------------------------------- */

START_TEST(regions_and_pools_are_answered_later_and_copied_to_and_from)
{
	struct piece named = ipc(), pieces = vmm(300);
	struct device_pool *a = pool_on(&named, 1), *b = pool_on(&pieces, 2);

	there_and_back(&named, a, 5);
	there_and_back(&pieces, b, 6);
	GPU.pool_close(a);
	GPU.pool_close(b);
	drop(&named);
	drop(&pieces);
	ck_assert_uint_eq(atomic_load(&w.knobs->regions), 0);
	ck_assert_uint_eq(atomic_load(&w.knobs->pools), 0);
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 1);
}
END_TEST

START_TEST(a_pool_that_does_not_fit_its_region_is_refused_at_once)
{
	struct piece piece = ipc();
	struct message_plane plane = { .block_stride = ROW, .bytes = ROW, .rows = 1 };
	struct device_pool *pool;
	char why[MESSAGE_REASON] = "";

	ck_assert_int_eq(GPU.pool_add(w.device, token(), 3, 1, w.layout, 0, POOL_BLOCKS, &plane, 1, &piece.region, 1, why,
				      &pool), -EINVAL);
	ck_assert_int_ne(why[0], '\0');
	drop(&piece);
}
END_TEST

START_TEST(a_device_that_is_absent_is_said_to_be)
{
	struct piece piece;

	atomic_store(&w.knobs->absent, 1);
	ask_ipc(&piece, 0, 4096, -1);
	until(w.answered[piece.token]);
	ck_assert_int_eq(w.result[piece.token], -ENODEV);
	ck_assert_str_eq(w.why, "there is no such device");
	ck_assert_int_eq(GPU.region_close(piece.region, 0), 0);
	until(GPU.is_idle(w.device));
}
END_TEST

START_TEST(a_copier_that_dies_at_its_start_is_said_to)
{
	struct piece piece;

	atomic_store(&w.knobs->dies_early, 1);
	ask_ipc(&piece, 0, 4096, -1);
	until(w.answered[piece.token]);
	ck_assert_int_eq(w.result[piece.token], -EIO);
	ck_assert_ptr_nonnull(strstr(w.why, "status 3"));
	ck_assert_int_eq(GPU.region_close(piece.region, 0), 0);
	until(GPU.is_idle(w.device));
}
END_TEST

/* A session that leaves while it waits: each token is answered once, the fence ends with the region. */
START_TEST(what_is_closed_before_it_is_open_is_answered_once_and_drained)
{
	int fence[2];
	struct piece pieces[10];
	struct device_pool *pools[2];
	uint64_t of[2], last;
	char byte;

	ck_assert_int_eq(pipe2(fence, O_CLOEXEC | O_NONBLOCK), 0);
	atomic_store(&w.knobs->slow_us, (uint32_t)_i * 3000);
	for (uint32_t i = 0; i < 2; i++) {
		ask_ipc(&pieces[i], 4096, POOL_BYTES, fence[1]);
		until(w.answered[pieces[i].token]);
		pools[i] = ask_pool(&pieces[i], i, &of[i]);
	}
	for (uint32_t i = 2; i < 10; i++) {
		ask_ipc(&pieces[i], 4096, POOL_BYTES, fence[1]);
		if (i % 3 == 0)
			tend();		/* some have been sent, some not */
	}
	last = now_ns() + (uint64_t)_i * 1000000;
	until(now_ns() > last);
	GPU.pool_close(pools[0]);
	GPU.pool_close(pools[1]);
	for (uint32_t i = 0; i < 10; i++)
		GPU.region_close(pieces[i].region, 0);
	close(fence[1]);
	until(atomic_load(&w.knobs->regions) == 0 && w.answered[pieces[9].token] && w.answered[of[1]]);
	until(read(fence[0], &byte, 1) == 0);
	for (uint32_t i = 0; i < 10; i++)
		ck_assert_uint_eq(w.answered[pieces[i].token], 1);
	ck_assert_uint_eq(w.answered[of[0]] + w.answered[of[1]], 2);
	ck_assert_uint_eq(atomic_load(&w.knobs->pools), 0);
	close(fence[0]);
}
END_TEST

START_TEST(a_fence_is_kept_until_its_region_is_closed)
{
	int fence[2];
	struct piece piece;
	char byte;

	ck_assert_int_eq(pipe2(fence, O_CLOEXEC | O_NONBLOCK), 0);
	ask_ipc(&piece, 4096, POOL_BYTES, fence[1]);
	close(fence[1]);
	until(w.answered[piece.token]);
	ck_assert_uint_eq(atomic_load(&w.knobs->fences), 1);
	ck_assert_int_eq(read(fence[0], &byte, 1), -1);
	drop(&piece);
	ck_assert_int_eq(read(fence[0], &byte, 1), 0);
	close(fence[0]);
}
END_TEST

/* ---- rings and cancels ------------------------------------------------------------------------- */

/* Copies of very many ids: the byte space is full after a few, wraps, and all of them come through. */
START_TEST(items_wait_for_room_and_the_byte_space_wraps)
{
	enum { OBJECT_BLOCKS = 1 << 20, BIG = 30 };
	const struct model_wire_row row = { .bytes = 1 };
	struct piece piece = ipc();
	struct model_layout *layout = rig_layout(1, OBJECT_BLOCKS, &row, 1);
	struct message_plane plane = { .block_stride = 1, .bytes = 1, .rows = 1 };
	uint32_t *ids = malloc(OBJECT_BLOCKS * sizeof(*ids));
	struct device_pool *pool, *pools[1];
	struct engine_copy_item item = { .payload = 4096, .ids = ids };
	uint8_t failed[BIG] = { 0 };
	char why[MESSAGE_REASON] = "";
	const uint64_t of = token();

	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		ids[i] = i % 1000;
	for (uint32_t i = 0; i < 1000; i++)
		piece.bytes[i] = (uint8_t)(i * 7);
	ck_assert_msg(GPU.pool_add(w.device, of, 3, 0, layout, 0, 1000, &plane, 1, &piece.region, 1, why, &pool) ==
		      DEVICE_LATER, "%s", why);
	until(w.answered[of]);
	pools[0] = pool;
	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < BIG; i++) {
		struct device_copy asked = { .layout = layout, .pools = pools };

		asked.request = (struct engine_copy){ .copy = i, .client = 3, .store = true, .layer_end = 1, .n_items = 1,
						      .items = &item, .failed = &failed[i] };
		w.running++;
		ck_assert_int_eq(GPU.copy(w.device, &asked), 0);
	}
	until(atomic_load(&w.knobs->taken) > 2);
	memset(w.arena.bytes, 0, OBJECT_BLOCKS + 4096);
	atomic_store(&w.knobs->hold, 0);
	until(w.running == 0);
	for (uint32_t i = 0; i < BIG; i++)
		ck_assert_int_eq(w.ended[i], ENGINE_OK);
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		expect(w.arena.bytes[4096 + i] == (uint8_t)(i % 1000 * 7));
	GPU.pool_close(pool);
	drop(&piece);
	free(ids);
	model_layout_free(layout);
}
END_TEST

START_TEST(a_cancelled_copy_ends_once_and_a_cancel_that_comes_late_hits_nobody)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < 4; i++)
		copy(i, i % 2, pool, i, 0);
	GPU.cancel(w.device, 2);
	GPU.cancel(w.device, 2);
	GPU.cancel(w.device, 0);
	until(w.done[0]);
	atomic_store(&w.knobs->hold, 0);
	until(w.running == 0);
	ck_assert_int_eq(w.ended[0], ENGINE_FAILED);
	ck_assert_int_eq(w.ended[1], ENGINE_OK);
	ck_assert_int_eq(w.ended[2], ENGINE_FAILED);
	ck_assert_int_eq(w.ended[3], ENGINE_OK);
	GPU.cancel(w.device, 1);	/* over already */
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(copies_while_there_is_no_copier_fail_at_once)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->dies_early, 1);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) >= 2);
	copy(1, true, pool, 1, 0);
	until(w.done[1]);
	ck_assert_int_eq(w.ended[1], ENGINE_FAILED);
	atomic_store(&w.knobs->dies_early, 0);
	until(atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite;
	TCase *tests;

	if (argc == 3 && strcmp(argv[1], "--copier") == 0)
		return fake_copier_main(atoi(argv[2]));
	suite = suite_create("cuda-backend");
	tests = tcase_create("cuda-backend");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, regions_and_pools_are_answered_later_and_copied_to_and_from);
	tcase_add_test(tests, a_pool_that_does_not_fit_its_region_is_refused_at_once);
	tcase_add_test(tests, a_device_that_is_absent_is_said_to_be);
	tcase_add_test(tests, a_copier_that_dies_at_its_start_is_said_to);
	tcase_add_loop_test(tests, what_is_closed_before_it_is_open_is_answered_once_and_drained, 0, 5);
	tcase_add_test(tests, a_fence_is_kept_until_its_region_is_closed);
	tcase_add_test(tests, items_wait_for_room_and_the_byte_space_wraps);
	tcase_add_test(tests, a_cancelled_copy_ends_once_and_a_cancel_that_comes_late_hits_nobody);
	tcase_add_test(tests, copies_while_there_is_no_copier_fail_at_once);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
