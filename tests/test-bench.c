/* What stoker-bench judges by: traces, payloads, samples. */
#include "tests/suite.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"
#include "src/bench/payload.h"
#include "src/bench/sample.h"
#include "src/bench/trace.h"

static char path[64];

/* A file of that text; gone with the next. */
static const char *file_of(const char *text)
{
	int fd;

	if (path[0])
		unlink(path);
	strcpy(path, "/tmp/stoker-test-bench-XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return path;
}

static void remove_file(void)
{
	unlink(path);
	path[0] = '\0';
}

/* ---- traces ------------------------------------------------------------------------------------ */

START_TEST(a_trace_is_read_with_its_strict_prefix_hits)
{
	struct trace *trace;

	/* The third request shares two leading blocks with the first; its last has been seen, but no prefix of it. */
	ck_assert_int_eq(trace_read(file_of("{\"timestamp\": 0, \"hash_ids\": [7, 8, 9]}\n"
					    "{\"timestamp\": 1.5, \"hash_ids\": [100, 101], \"other\": {\"x\": [1]}}\n"
					    "\n"
					    "{\"hash_ids\": [7, 8, 50, 101], \"timestamp\": 2}\n"),
				    0, &trace), 0);
	ck_assert_uint_eq(trace->requests, 3);
	ck_assert_uint_eq(trace->blocks, 9);
	ck_assert_uint_eq(trace->unique, 6);
	ck_assert_uint_eq(trace->prefix_hits, 2);
	ck_assert_uint_eq(trace->longest, 4);
	ck_assert_uint_eq(trace_length(trace, 1), 2);
	ck_assert_uint_eq(trace->ids[trace->first[2] + 3], 101);
	ck_assert_uint_eq(trace->number[trace->first[2] + 3], 4);
	trace_free(trace);
}
END_TEST

START_TEST(a_block_that_comes_twice_in_one_request_hits_nothing)
{
	struct trace *trace;

	ck_assert_int_eq(trace_read(file_of("{\"timestamp\": 0, \"hash_ids\": [1, 1]}\n"), 0, &trace), 0);
	ck_assert_uint_eq(trace->unique, 1);
	ck_assert_uint_eq(trace->prefix_hits, 0);
	trace_free(trace);
}
END_TEST

START_TEST(only_the_first_requests_are_read_if_so_asked)
{
	struct trace *trace;

	ck_assert_int_eq(trace_read(file_of("{\"timestamp\": 0, \"hash_ids\": [1]}\n"
					    "{\"timestamp\": 0, \"hash_ids\": [1, 2]}\n"
					    "no line that anybody looks at"), 2, &trace), 0);
	ck_assert_uint_eq(trace->requests, 2);
	ck_assert_uint_eq(trace->prefix_hits, 1);
	trace_free(trace);
}
END_TEST

START_TEST(ids_of_64_bits_are_taken_as_they_are)
{
	struct trace *trace;

	ck_assert_int_eq(trace_read(file_of("{\"timestamp\": 0, \"x\": \"\\\" 9999999999999999999\", \"hash_ids\": "
					    "[18446744073709551615, 9007199254740993, 9223372036854775808,"
					    "9223372036854775807,5]}\r\n"
					    "{\"timestamp\": 1, \"nonce\": 99999999999999999999, \"hash_ids\": [18446744073709551615, "
					    "9007199254740992]}"), 0, &trace), 0);
	ck_assert_uint_eq(trace->requests, 2);
	ck_assert_uint_eq(trace->ids[0], UINT64_MAX);
	ck_assert_uint_eq(trace->ids[1], 9007199254740993u);
	ck_assert_uint_eq(trace->ids[2], (uint64_t)INT64_MAX + 1);
	ck_assert_uint_eq(trace->ids[3], INT64_MAX);
	ck_assert_uint_eq(trace->ids[4], 5);
	ck_assert_uint_eq(trace->ids[5], UINT64_MAX);
	ck_assert_uint_eq(trace->unique, 6);
	ck_assert_uint_eq(trace->prefix_hits, 1);
	trace_free(trace);
}
END_TEST

static const char *const bad_traces[] = {
	"",							/* no request at all */
	"\n\n",
	"{\"timestamp\": 0, \"hash_ids\": [1, 2",		/* cut off */
	"{\"timestamp\": 0, \"hash_ids\": [1]}\n{\"time",
	"{\"timestamp\": 0}\n",
	"{\"hash_ids\": [1]}\n",
	"{\"timestamp\": \"0\", \"hash_ids\": [1]}\n",
	"{\"timestamp\": 0, \"hash_ids\": [1, \"2\"]}\n",
	"{\"timestamp\": 0, \"hash_ids\": [1.5]}\n",
	"{\"timestamp\": 0, \"hash_ids\": 1}\n",
	"[1, 2]\n",
	"{\"timestamp\": 0, \"hash_ids\": [18446744073709551616]}\n",
	"{\"timestamp\": 0, \"hash_ids\": [\"1844674407370955161x\", 9223372036854775808]}\n",
	"{\"timestamp\": 0, \"hash_ids\": [-9223372036854775809]}\n",
	"{\"timestamp\": 0, \"hash_ids\": [1]} {\"timestamp\": 0, \"hash_ids\": [1]}\n",
};

START_TEST(a_bad_trace_is_refused)
{
	struct trace *trace = NULL;

	ck_assert_int_eq(trace_read(file_of(bad_traces[_i]), 0, &trace), -EBADMSG);
	ck_assert_ptr_null(trace);
}
END_TEST

START_TEST(a_line_with_a_nul_byte_is_no_blank_line)
{
	struct trace *trace = NULL;
	FILE *file = fopen(file_of(""), "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite("\n\0\n", 1, 3, file), 3);
	fclose(file);
	ck_assert_int_eq(trace_read(path, 0, &trace), -EBADMSG);
}
END_TEST

START_TEST(a_trace_that_is_not_there_is_refused)
{
	struct trace *trace = NULL;

	ck_assert_int_eq(trace_read("/nowhere/trace.jsonl", 0, &trace), -ENOENT);
}
END_TEST

START_TEST(the_conversation_trace_has_the_hits_that_are_told_of_it)
{
	const char *top = getenv("top_srcdir");
	struct trace *trace;
	char name[512];

	snprintf(name, sizeof(name), "%s/data/mooncake_conversation_2000.jsonl", top ? top : ".");
	ck_assert_int_eq(trace_read(name, 0, &trace), 0);
	ck_assert_uint_eq(trace->requests, 2000);
	ck_assert_uint_eq(trace->blocks, 54559);
	ck_assert_uint_eq(trace->unique, 38788);
	ck_assert_uint_eq(trace->prefix_hits, 15771);
	ck_assert_uint_eq(trace->longest, 241);
	trace_free(trace);
}
END_TEST

/* ---- payloads ---------------------------------------------------------------------------------- */

START_TEST(a_payload_is_the_same_in_whatever_pieces_it_is_made)
{
	const struct stoker_key key = payload_key(3);
	const uint64_t seed = payload_seed("m", &key, 1, 2);
	uint64_t whole[512], pieces[512];

	payload_fill(whole, seed, 0, sizeof(whole));
	for (size_t at = 0; at < sizeof(pieces); at += 64)
		payload_fill((uint8_t *)pieces + at, seed, at, 64);
	ck_assert_mem_eq(whole, pieces, sizeof(whole));
	ck_assert_uint_eq(payload_wrong(whole, seed, 0, sizeof(whole)), 0);
}
END_TEST

START_TEST(different_ids_have_different_keys)
{
	/* Ids that are equal in their lower bits, and ids whose difference is small. */
	static const uint64_t ids[] = { 0, 1, 2, 3, 4, 1ull << 53, (1ull << 53) + 1, 1ull << 62, (1ull << 62) + 1, 1ull << 63,
					(1ull << 63) + 1, 3ull << 62, UINT64_MAX };
	const uint32_t n = sizeof(ids) / sizeof(ids[0]);

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < n; j++) {
			const struct stoker_key a = payload_key(ids[i]), b = payload_key(ids[j]);

			/* Each 8 bytes of them, as tables may look at some only. */
			for (uint32_t at = 0; at < sizeof(a.bytes); at += 8)
				ck_assert_int_eq(memcmp(a.bytes + at, b.bytes + at, 8) == 0, i == j);
		}
	}
}
END_TEST

START_TEST(one_wrong_byte_is_one_wrong_byte)
{
	const struct stoker_key key = payload_key(3);
	const uint64_t seed = payload_seed("m", &key, 0, 0);
	uint8_t bytes[4096];

	payload_fill(bytes, seed, 0, sizeof(bytes));
	bytes[1001] ^= 1;
	bytes[4095] ^= 0x80;
	ck_assert_uint_eq(payload_wrong(bytes, seed, 0, sizeof(bytes)), 2);
	pattern_fill(bytes, sizeof(bytes));
	ck_assert_uint_eq(pattern_wrong(bytes, sizeof(bytes)), 0);
	bytes[0] ^= 1;
	ck_assert_uint_eq(pattern_wrong(bytes, sizeof(bytes)), 1);
}
END_TEST

START_TEST(whatever_names_an_object_changes_its_bytes)
{
	const struct stoker_key key = payload_key(3), other = payload_key(4);
	const uint64_t seed = payload_seed("m", &key, 0, 0);
	const uint64_t others[] = {
		payload_seed("n", &key, 0, 0), payload_seed("m", &other, 0, 0),
		payload_seed("m", &key, 1, 0), payload_seed("m", &key, 0, 1),
	};
	uint64_t bytes[64];

	payload_fill(bytes, seed, 0, sizeof(bytes));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ck_assert_uint_gt(payload_wrong(bytes, others[i], 0, sizeof(bytes)), sizeof(bytes) / 2);
	/* And so does the offset: a payload that is shifted is no payload. */
	ck_assert_uint_gt(payload_wrong(bytes, seed, 8, sizeof(bytes)), sizeof(bytes) / 2);
	ck_assert_mem_ne(&key, &other, sizeof(key));
}
END_TEST

/* ---- samples ----------------------------------------------------------------------------------- */

START_TEST(quantiles_are_of_all_sets_together)
{
	struct samples *a = samples_new(100), *b = samples_new(100);
	struct samples *sets[] = { a, NULL, b };

	for (uint64_t i = 1; i <= 50; i++) {
		samples_add(a, i);
		samples_add(b, 50 + i);
	}
	ck_assert_uint_eq(samples_count(sets, 3), 100);
	ck_assert_uint_eq(samples_quantile(sets, 3, 0), 1);
	ck_assert_uint_eq(samples_quantile(sets, 3, 0.5), 51);
	ck_assert_uint_eq(samples_quantile(sets, 3, 0.99), 100);
	ck_assert_uint_eq(samples_quantile(sets, 3, 1), 100);
	ck_assert_uint_eq(samples_quantile(&sets[1], 1, 0.5), 0);
}
END_TEST

START_TEST(a_full_set_keeps_a_fair_choice)
{
	struct samples *samples = samples_new(1000);
	uint64_t median;

	for (uint64_t i = 0; i < 100000; i++)
		samples_add(samples, i);
	median = samples_quantile(&samples, 1, 0.5);
	ck_assert_uint_eq(samples_count(&samples, 1), 100000);
	ck_assert_uint_gt(median, 40000);
	ck_assert_uint_lt(median, 60000);
}
END_TEST

/* ---- options ----------------------------------------------------------------------------------- */

static struct { uint64_t size, count; double share; bool on; const char *text; struct option_list list; } given;
static const struct option_row rows[] = {
	{ "size", OPTION_SIZE, &given.size, 1, 1u << 20, "S", "a size" },
	{ "count", OPTION_COUNT, &given.count, 1, 10, "N", "a count" },
	{ "share", OPTION_SHARE, &given.share, 0, 0, "X", "a share" },
	{ "on", OPTION_SWITCH, &given.on, 0, 0, NULL, "a switch" },
	{ "text", OPTION_TEXT, &given.text, 0, 0, "T", "a text" },
	{ "set", OPTION_LIST, &given.list, 0, 0, "T", "a list" },
	{ 0 },
};

START_TEST(options_are_taken_with_and_without_an_equals_sign)
{
	static const char *arguments[] = { "--size=64K", "--count", "3", "--share", "0.5", "--on", "--text=x=y",
				     "--set", "a", "--set=b" };
	const struct option_row *table = rows;
	json_t *object = json_object();

	ck_assert_int_eq(options_parse(&table, 1, 10, (char **)arguments), 0);
	ck_assert_uint_eq(given.size, 65536);
	ck_assert_uint_eq(given.count, 3);
	ck_assert(given.on);
	ck_assert_str_eq(given.text, "x=y");
	ck_assert_uint_eq(given.list.n, 2);
	options_json(rows, object);
	ck_assert_int_eq(json_integer_value(json_object_get(object, "size")), 65536);
	ck_assert_uint_eq(json_array_size(json_object_get(object, "set")), 2);
	json_decref(object);
}
END_TEST

static const char *bad_options[][2] = {
	{ "--size", "0" }, { "--size", "2M" }, { "--size", "many" }, { "--count", "11" }, { "--count", "-1" },
	{ "--count", "1x" }, { "--share", "1.5" }, { "--share", "nan" }, { "--on=1", "--on" }, { "--none", "1" },
	{ "size", "1" }, { "--", "1" },
};

START_TEST(a_bad_option_is_refused)
{
	const struct option_row *table = rows;

	ck_assert_int_eq(options_parse(&table, 1, 2, (char **)bad_options[_i]), -EINVAL);
}
END_TEST

START_TEST(an_option_without_its_value_is_refused)
{
	static const char *arguments[] = { "--size" };
	const struct option_row *table = rows;

	ck_assert_int_eq(options_parse(&table, 1, 1, (char **)arguments), -EINVAL);
}
END_TEST

static void *work_for_a_while(void *arg)
{
	const uint64_t start = now_ns();

	(void)arg;
	while (now_ns() - start < 50000000)
		;
	return NULL;
}

START_TEST(cpu_time_of_threads_that_have_ended_is_not_forgotten)
{
	const uint64_t before = machine_cpu_ns(getpid());
	uint64_t during = before;
	pthread_t thread;

	ck_assert_uint_gt(before, 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, work_for_a_while, NULL), 0);
	while (during < before + 1000000) {	/* some of it is the thread's, for we sleep */
		usleep(1000);
		during = machine_cpu_ns(getpid());
	}
	pthread_join(thread, NULL);
	ck_assert_uint_ge(machine_cpu_ns(getpid()), during);
	ck_assert_uint_eq(machine_cpu_ns(0x7fffff), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bench");
	TCase *tests = tcase_create("bench");

	tcase_add_checked_fixture(tests, NULL, remove_file);
	tcase_add_test(tests, a_trace_is_read_with_its_strict_prefix_hits);
	tcase_add_test(tests, a_block_that_comes_twice_in_one_request_hits_nothing);
	tcase_add_test(tests, only_the_first_requests_are_read_if_so_asked);
	tcase_add_test(tests, ids_of_64_bits_are_taken_as_they_are);
	tcase_add_loop_test(tests, a_bad_trace_is_refused, 0, sizeof(bad_traces) / sizeof(bad_traces[0]));
	tcase_add_test(tests, a_line_with_a_nul_byte_is_no_blank_line);
	tcase_add_test(tests, a_trace_that_is_not_there_is_refused);
	tcase_add_test(tests, the_conversation_trace_has_the_hits_that_are_told_of_it);
	tcase_add_test(tests, a_payload_is_the_same_in_whatever_pieces_it_is_made);
	tcase_add_test(tests, different_ids_have_different_keys);
	tcase_add_test(tests, one_wrong_byte_is_one_wrong_byte);
	tcase_add_test(tests, whatever_names_an_object_changes_its_bytes);
	tcase_add_test(tests, quantiles_are_of_all_sets_together);
	tcase_add_test(tests, a_full_set_keeps_a_fair_choice);
	tcase_add_test(tests, cpu_time_of_threads_that_have_ended_is_not_forgotten);
	tcase_add_test(tests, options_are_taken_with_and_without_an_equals_sign);
	tcase_add_loop_test(tests, a_bad_option_is_refused, 0, sizeof(bad_options) / sizeof(bad_options[0]));
	tcase_add_test(tests, an_option_without_its_value_is_refused);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
