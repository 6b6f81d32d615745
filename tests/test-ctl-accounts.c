/*
 * stokerctl accounts, from a store under an account to the line that shows it: with more accounts than are told at a
 * time, and more than are told apart.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

#define APART	500u			/* accounts told apart: two answers are not enough for them */
#define FIRST	(UINT64_MAX - 2000)	/* labels that no double holds */

static struct worker worker;

static void setup(void)
{
	whole_make();
	whole.memory = "192M";
	whole.options[0] = "--set=limits.accounts=500";
	whole.options[1] = "--set=tenant default.account_arena_quota=16M";
	whole.options[2] = "--set=tenant default.uids=*";
	whole_start();
	worker_start(&worker);
}

static void teardown(void)
{
	worker_end(&worker);
	whole_end(SIGTERM);
	whole_clean();
}

static void stores_as(uint64_t account, uint32_t chunk)
{
	static const uint32_t ids[WORKER_BLOCKS] = { 0, 1 };
	const struct stoker_blocks blocks = { .pool = worker.pool, .chunks = 1, .ids = ids };
	const struct stoker_store_options options = { .size = sizeof(options), .account = account };
	struct stoker_key key;
	struct stoker_job job;

	worker_keys(&key, chunk * 1000, 1);
	ck_assert_int_eq(stoker_store(worker.c, worker.model, &key, 1, &blocks, 1, &options, &job), 0);
	ck_assert_uint_eq(worker_finish(&worker, job).n, 1);
}

/* "accounts" of the JSON that the command prints. */
static json_t *told(json_t **ret_whole)
{
	char path[128];
	json_error_t error;

	snprintf(path, sizeof(path), "%s/ctl.out", whole.directory);
	remove(path);
	ck_assert_int_eq(whole_ctl("--json accounts"), 0);
	*ret_whole = json_load_file(path, 0, &error);
	ck_assert_msg(*ret_whole != NULL, "%s", error.text);
	ck_assert_str_eq(json_string_value(json_object_get(*ret_whole, "name")), whole.name);
	return json_object_get(*ret_whole, "accounts");
}

static uint64_t number(const json_t *row, const char *field)
{
	ck_assert_msg(json_is_integer(json_object_get(row, field)), "%s", field);
	return (uint64_t)json_integer_value(json_object_get(row, field));
}

START_TEST(a_broker_without_objects_tells_of_no_account)
{
	json_t *all;

	ck_assert_uint_eq(json_array_size(told(&all)), 0);
	json_decref(all);
}
END_TEST

START_TEST(every_account_is_told_once_with_what_it_has)
{
	json_t *all, *rows, *row;
	uint64_t arena = 0;
	size_t i;
	bool seen[APART] = { false };

	for (uint32_t n = 0; n < APART; n++)
		stores_as(FIRST + n, n);
	stores_as(FIRST + 7, APART);		/* a second chunk */
	rows = told(&all);
	ck_assert_uint_eq(json_array_size(rows), APART);
	json_array_foreach(rows, i, row) {
		const uint64_t account = strtoull(json_string_value(json_object_get(row, "account")), NULL, 10) - FIRST;

		ck_assert_uint_lt(account, APART);
		ck_assert(!seen[account]);
		seen[account] = true;
		ck_assert_str_eq(json_string_value(json_object_get(row, "tenant")), "default");
		ck_assert_uint_eq(number(row, "chunks"), account == 7 ? 2 : 1);
		ck_assert_uint_gt(number(row, "arena_bytes"), 0);
		ck_assert_uint_eq(number(row, "disk_bytes"), 0);
		ck_assert_uint_eq(number(row, "arena_quota"), 16u << 20);
		ck_assert_uint_eq(number(row, "disk_quota"), 0);
		arena += number(row, "arena_bytes");
	}
	whole_await_gauge(STOKER_GAUGE_ARENA_USED, arena);
	json_decref(all);
	ck_assert_int_eq(whole_ctl("accounts"), 0);
}
END_TEST

START_TEST(accounts_beyond_those_told_apart_are_the_others_of_their_tenant)
{
	json_t *all, *rows, *row;
	uint32_t others = 0;
	size_t i;

	for (uint32_t n = 0; n < APART + 20; n++)
		stores_as(FIRST + n, n);
	rows = told(&all);
	ck_assert_uint_eq(json_array_size(rows), APART + 1);
	json_array_foreach(rows, i, row) {
		if (!json_is_null(json_object_get(row, "account")))
			continue;
		ck_assert_uint_eq(number(row, "chunks"), 20);
		others++;
	}
	ck_assert_uint_eq(others, 1);
	json_decref(all);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctl-accounts");
	TCase *tests = tcase_create("accounts");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_broker_without_objects_tells_of_no_account);
	tcase_add_test(tests, every_account_is_told_once_with_what_it_has);
	tcase_add_test(tests, accounts_beyond_those_told_apart_are_the_others_of_their_tenant);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
