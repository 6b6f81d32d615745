/* What a disk tier notes of itself: the slab table of its objects, and the epochs of its models. */
#include "tests/tier-ways.h"

#include "src/broker/slabs.h"

static struct bench_found found;

/* --- the slab table --- */

START_TEST(the_last_entry_of_a_place_counts_also_when_removes_are_missing)
{
	const struct engine_object big = bench_object(1), small = bench_object(2), older = bench_object(0);

	bench_start(&bench);
	bench_slab(&bench, true, 0, 64 * 4096, &big);		/* units 0 to 63 */
	bench_slab(&bench, true, 60, 2 * 4096, &small);		/* within it: big is gone */
	bench_slab(&bench, true, 100, 4096, &small);
	bench_slab(&bench, true, 100, 4096, &older);		/* an old object written anew */
	bench_slab(&bench, true, 200, 8 * 4096, &big);
	bench_slab(&bench, false, 203, 4096, &small);		/* somebody was within it since */
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 2);
	ck_assert_uint_eq(found.found[0].place.unit, 100);	/* newest first */
	ck_assert_uint_eq(found.found[0].object.sequence, older.sequence);
	ck_assert_uint_eq(found.found[1].place.unit, 60);
}
END_TEST

START_TEST(entries_beyond_a_tier_that_became_smaller_are_dropped)
{
	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	bench_store(&bench, 2, 0, 20 * UNITS, 8192);
	bench_store(&bench, 3, 0, 8 * UNITS - 1, 8192);
	bench_stop(&bench);
	bench.config.bytes = 8 * MIB + 4096;	/* rounded down to extents */
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	ck_assert_uint_eq(bench_size(&bench, "stoker-tier"), SUPERBLOCK_DATA + 8 * MIB);
}
END_TEST

START_TEST(a_log_much_longer_than_what_lives_is_written_anew)
{
	struct engine_object object;

	bench.config.no_uring = _i;
	bench_start(&bench);
	for (uint32_t i = 0; i < 60000; i++) {	/* many more than there are messages: a burst waits, in order */
		object = bench_object(i);
		bench_slab(&bench, i % 2 == 0, i / 2 % 100, 4096, &object);
		if (i == 30000)
			bench_store(&bench, 777, 0, 5000, 4 * 4096);
	}
	/* Let it be compacted, and go on appending meanwhile. */
	for (uint32_t i = 0; bench_size(&bench, "stoker-slabs") > 20000 * 128; i++) {
		object = bench_object(i);
		bench_slab(&bench, i % 2 == 0, 200 + i / 2 % 100, 4096, &object);
		usleep(200);
	}
	for (uint32_t i = 0; i < 10; i++) {
		object = bench_object(i);
		bench_slab(&bench, true, 400 + i, 4096, &object);
	}
	bench_stop(&bench);
	bench_open(&bench);
	bench_recover(&bench, &found);
	bench_run(&bench);
	/* Those at 400, object 777, and at most one that the loop left. */
	ck_assert_uint_ge(found.n, 11);
	ck_assert_uint_le(found.n, 12);
	object = bench_image(&bench, 777, 0, 4 * 4096);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 5000, 4 * 4096), ENGINE_OK);
}
END_TEST

START_TEST(a_lost_slab_table_is_lost_objects)
{
	char path[128];
	uint8_t bytes[128];

	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	bench_stop(&bench);
	switch (_i) {
	case 0:
		ck_assert_int_eq(unlink(bench_file(&bench, "stoker-slabs", path)), 0);
		break;
	case 1:
		ck_assert_int_eq(truncate(bench_file(&bench, "stoker-slabs", path), 0), 0);
		break;
	case 2:
		ck_assert_int_eq(truncate(bench_file(&bench, "stoker-slabs", path), 20), 0);
		break;
	case 3:
		memset(bytes, 0x77, sizeof(bytes));
		bench_poke(&bench, "stoker-slabs", 32, bytes, 8);
		break;
	}
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
	bench_run(&bench);
	bench_store(&bench, 2, 0, 0, 8192);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
}
END_TEST

/* --- models and epochs --- */

static void persist(uint8_t model, uint32_t epoch, uint64_t token)
{
	const struct image_identity identity = bench_identity(model, 8192);

	ck_assert_int_eq(tier_persist_epoch(bench.tier, identity.model_digest, epoch, 99, token), 0);
	while (bench.epoch_token != token)
		bench_reap(&bench);
	ck_assert_int_eq(bench.epoch_result, ENGINE_OK);
}

static uint32_t epoch_of(uint8_t model)
{
	const struct image_identity identity = bench_identity(model, 8192);

	return tier_epoch(bench.tier, identity.model_digest);
}

START_TEST(an_epoch_is_durable_when_it_is_answered_and_older_objects_are_dead)
{
	bench.config.no_uring = _i;
	bench_start(&bench);
	ck_assert_uint_eq(epoch_of(1), 0);
	bench_store(&bench, 1, 0, 0, 8192);
	persist(1, 2, 10);
	ck_assert_uint_eq(epoch_of(1), 2);
	persist(2, 7, 11);
	persist(2, 6, 12);			/* epochs only rise */
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(epoch_of(1), 2);
	ck_assert_uint_eq(epoch_of(2), 7);
	ck_assert_uint_eq(epoch_of(3), 0);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
}
END_TEST

START_TEST(a_torn_superblock_costs_the_last_epoch_only)
{
	uint8_t torn[1000];
	int found_older = 0;

	memset(torn, 0x5a, sizeof(torn));
	bench_start(&bench);
	persist(1, 2, 10);
	persist(1, 3, 11);
	bench_stop(&bench);
	/* One of the copies is the newest: with the other torn nothing is lost. */
	for (int copy = 0; copy < 2; copy++) {
		uint8_t good[1000];
		char path[128];
		const int fd = open(bench_file(&bench, "stoker-tier", path), O_RDONLY);

		ck_assert_int_eq(pread(fd, good, sizeof(good), copy * SUPERBLOCK_BYTES + 5000), sizeof(good));
		close(fd);
		bench_poke(&bench, "stoker-tier", copy * SUPERBLOCK_BYTES + 5000, torn, sizeof(torn));
		bench_open(&bench);
		ck_assert(epoch_of(1) == 3 || epoch_of(1) == 2);
		found_older += epoch_of(1) == 2;
		bench_stop(&bench);
		bench_poke(&bench, "stoker-tier", copy * SUPERBLOCK_BYTES + 5000, good, sizeof(good));
	}
	ck_assert_int_eq(found_older, 1);
}
END_TEST

START_TEST(rows_of_models_without_objects_are_used_again)
{
	struct image_identity identity = bench_identity(1, 8192);

	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	for (uint32_t i = 0; i < SUPERBLOCK_MODELS + 100; i++) {
		memcpy(identity.model_digest, &(uint32_t){ 0x10000 + i }, 4);
		ck_assert_int_eq(tier_persist_epoch(bench.tier, identity.model_digest, 1, 0, i + 1), 0);
	}
	while (bench.epoch_token != SUPERBLOCK_MODELS + 100) {
		bench_reap(&bench);
		ck_assert_int_eq(bench.epoch_result, ENGINE_OK);
	}
	ck_assert_uint_eq(tier_epoch(bench.tier, identity.model_digest), 1);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	ck_assert_uint_eq(found.found[0].model_digest[20], 1);
}
END_TEST

int main(void)
{
	TCase *log = tcase_create("slab table"), *models = tcase_create("models");
	TCase *all[] = { log, models };
	Suite *suite = suite_of("broker-tier-log", all, sizeof(all) / sizeof(all[0]));

	tcase_add_test(log, the_last_entry_of_a_place_counts_also_when_removes_are_missing);
	tcase_add_test(log, entries_beyond_a_tier_that_became_smaller_are_dropped);
	tcase_add_loop_test(log, a_log_much_longer_than_what_lives_is_written_anew, 0, 2);
	tcase_add_loop_test(log, a_lost_slab_table_is_lost_objects, 0, 4);
	tcase_add_loop_test(models, an_epoch_is_durable_when_it_is_answered_and_older_objects_are_dead, 0, 2);
	tcase_add_test(models, a_torn_superblock_costs_the_last_epoch_only);
	tcase_add_test(models, rows_of_models_without_objects_are_used_again);
	return suite_run(suite);
}
