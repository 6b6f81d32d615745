/*
 * The configuration: defaults, a file, the command line, what each message names, what a reload takes
 * over, and who belongs to which tenant.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/broker/config.h"
#include "src/engine/engine.h"
#include "tests/suite.h"

static struct config config;
static char why[CONFIG_WHY];

static int read_text(const char *text)
{
	FILE *file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int r;

	config_init(&config);
	why[0] = '\0';
	r = config_read(&config, file, "stoker.conf", why);
	fclose(file);
	return r;
}

/* The text is refused, and the message has all of these words. */
static void refused(const char *text, const char *const words[])
{
	ck_assert_msg(read_text(text) < 0, "taken: %s", text);
	for (; *words; words++)
		ck_assert_msg(strstr(why, *words), "\"%s\" is not in \"%s\"", *words, why);
}
#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

START_TEST(without_a_word_there_is_one_tenant_the_brokers_own_uid)
{
	config_init(&config);
	ck_assert_int_eq(config_finish(&config, why), 0);
	ck_assert_str_eq(config.broker.name, "/stoker");
	ck_assert_uint_eq(config.arena.size, config_memory() / 100 * 25 + config_memory() % 100 * 25 / 100);
	ck_assert_uint_eq(config.n_tenants, 1);
	ck_assert_int_eq(config_tenant_of(&config, geteuid(), 1), 0);
	ck_assert_int_eq(config_tenant_of(&config, geteuid() + 1, 1), -1);
	ck_assert_uint_eq(config.n_tiers, 0);
	ck_assert(config.broker.runtime_directory[0] == '/');
	ck_assert(config.broker.state_directory[0] == '/');
}
END_TEST

START_TEST(a_file_sets_values_of_every_type)
{
	ck_assert_msg(read_text("# comment\n[broker]\nname = /other\nlog_level = debug\n"
				"[arena]\nsize=2G ; why not\npolicy = lru\n"
				"[disk]\nwrite_back = no\n"
				"[limits]\nclients = 7\n"
				"[tenant red]\nuids = 1000, 1001 root\ntrusted = yes\narena_quota = 64M\n"
				"[tier fast]\npath = /tmp\nsize = 10%\n") == 0, "%s", why);
	ck_assert_str_eq(config.broker.name, "/other");
	ck_assert_uint_eq(config.arena.size, 2ull << 30);
	ck_assert_int_eq(config.arena.policy, ENGINE_POLICY_LRU);
	ck_assert(!config.disk.write_back);
	ck_assert_uint_eq(config.limits.clients, 7);
	ck_assert_uint_eq(config.tenants[0].uids.n, 3);
	ck_assert_uint_eq(config.tenants[0].uids.id[2], 0);
	ck_assert(config.tenants[0].trusted);
	ck_assert_uint_eq(config.tenants[0].arena_quota, 64u << 20);
	ck_assert_int_eq(config_finish(&config, why), 0);
	ck_assert_uint_gt(config.tiers[0].bytes, config.arena.extent);
}
END_TEST

START_TEST(a_bad_value_is_told_with_file_line_key_and_what_is_allowed)
{
	refused("[arena]\n\nsize = lots\n", WORDS("stoker.conf:3", "arena.size", "\"lots\"", "as 64K, 2G or 10%"));
	refused("[arena]\nsize = 0\n", WORDS("stoker.conf:2", "arena.size", "above 0"));
	refused("[arena]\npolicy = fifo\n", WORDS("stoker.conf:2", "arena.policy", "lru or arc"));
	refused("[broker]\nthreads = 65\n", WORDS("stoker.conf:2", "broker.threads", "from 1 to 64"));
	refused("[broker]\nthreads = -1\n", WORDS("broker.threads"));
	refused("[disk]\nwrite_back = perhaps\n", WORDS("disk.write_back", "yes or no"));
	refused("[tenant a]\nuids = nobody-has-this-name\n", WORDS("tenant a.uids", "known names or numbers"));
	refused("[broker]\nlog_level = loud\n", WORDS("error, warning, info or debug"));
}
END_TEST

START_TEST(what_is_not_known_is_told_with_what_is)
{
	refused("[arena]\nsice = 2G\n", WORDS("stoker.conf:2", "\"sice\"", "size, extent, policy"));
	refused("[memory]\nsize = 2G\n", WORDS("stoker.conf:1", "\"memory\"", "broker, arena, disk"));
	refused("[tier]\npath = /tmp\n", WORDS("stoker.conf:1", "[tier NAME]"));
	refused("[arena x]\nsize = 2G\n", WORDS("stoker.conf:1", "[arena]"));
	refused("size = 2G\n", WORDS("stoker.conf:1"));
	refused("[arena]\nthis is no line\n", WORDS("stoker.conf:2"));
}
END_TEST

START_TEST(a_section_without_keys_is_seen)
{
	refused("[broker]\n[nosuch]\n", WORDS("stoker.conf:2", "\"nosuch\"", "broker, arena, disk"));
	refused("\xef\xbb\xbf[nosuch]", WORDS("stoker.conf:1", "\"nosuch\""));
	refused("[arena]\nsize = 2G\n [tier a/b] ; here\n", WORDS("stoker.conf:3", "[tier NAME]"));
	ck_assert_msg(read_text("[arena]\n[tenant a]\n[tier t] ; later\n[tenant a]\n") == 0, "%s", why);
	ck_assert_uint_eq(config.n_tenants, 1);
	ck_assert_str_eq(config.tenants[0].name, "a");
	ck_assert_uint_eq(config.n_tiers, 1);
	ck_assert_int_lt(config_finish(&config, why), 0);
	ck_assert_ptr_nonnull(strstr(why, "tenant a names neither uids nor gids"));
}
END_TEST

START_TEST(what_is_wrong_with_a_line_is_what_is_told)
{
	char text[400];
	FILE *file;

	refused("\n[arena\nsize = 2G\n", WORDS("stoker.conf:2", "not closed", "[SECTION]"));
	refused("[arena]\nsize = 2G # why\n", WORDS("stoker.conf:2", "arena.size", "\"2G # why\""));
	/* 198 bytes and the line's end are taken, with and without one. */
	memset(text, 'x', sizeof(text));
	text[0] = ';';
	text[198] = '\0';
	ck_assert_msg(read_text(text) == 0, "%s", why);
	text[198] = '\n';
	text[199] = '\0';
	ck_assert_msg(read_text(text) == 0, "%s", why);

	memcpy(text, "[arena]\nsize = 2\0G\n", 19);
	file = fmemopen(text, 19, "r");
	config_init(&config);
	ck_assert_int_lt(config_read(&config, file, "stoker.conf", why), 0);
	fclose(file);
	ck_assert_str_eq(why, "stoker.conf:2: there is a NUL byte: a configuration is text");
}
END_TEST

START_TEST(a_value_given_twice_is_refused)
{
	refused("[arena]\nsize = 2G\nsize = 3G\n", WORDS("stoker.conf:3", "twice"));
	refused("[arena]\nsize = 2G\n  3G\n", WORDS("stoker.conf:3"));
}
END_TEST

START_TEST(a_line_that_is_too_long_is_refused_and_not_cut)
{
	char text[600];

	memset(text, 'x', sizeof(text));
	memcpy(text, "[broker]\nname = ", 16);
	text[sizeof(text) - 1] = '\0';
	refused(text, WORDS("stoker.conf:2", "too long"));
}
END_TEST

START_TEST(the_command_line_goes_before_the_file)
{
	ck_assert_int_eq(read_text("[arena]\nsize = 2G\n[tier disk0]\npath=/var\nsize=1G\n"), 0);
	ck_assert_int_eq(config_set_argument(&config, "arena.size=1G", why), 0);
	ck_assert_int_eq(config_set_argument(&config, "tier.disk0.path=/tmp", why), 0);
	ck_assert_uint_eq(config.arena.size, 1u << 30);
	ck_assert_str_eq(config.tiers[0].path, "/tmp");
	ck_assert_int_eq(config_add_tier(&config, "/tmp/a:b:2G", why), 0);
	ck_assert_uint_eq(config.n_tiers, 2);
	ck_assert_str_eq(config.tiers[1].path, "/tmp/a:b");
	ck_assert_msg(config_finish(&config, why) == 0, "%s", why);
	ck_assert_uint_eq(config.tiers[1].bytes, 2ull << 30);
}
END_TEST

START_TEST(an_option_that_says_too_little_is_refused)
{
	static const char *const tiers[] = { "/tmp", ":2G", "/tmp:", "/tmp:0", "/tmp:much" };
	static const char *const sets[] = { "arena.size", "=3", "size=3", ".size=3", "arena.=3", "nothing.size=3" };

	for (size_t i = 0; i < sizeof(tiers) / sizeof(tiers[0]); i++) {
		config_init(&config);
		ck_assert_msg(config_add_tier(&config, tiers[i], why) < 0, "taken: %s", tiers[i]);
		ck_assert_ptr_nonnull(strstr(why, "--tier"));
	}
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		config_init(&config);
		ck_assert_msg(config_set_argument(&config, sets[i], why) < 0, "taken: %s", sets[i]);
		ck_assert_ptr_nonnull(strstr(why, "--set"));
	}
}
END_TEST

START_TEST(what_contradicts_itself_is_refused)
{
	static const char *const texts[] = {
		"[broker]\nname = stoker\n", "[broker]\nname = /a/b\n", "[broker]\nname = /\n",
		"[broker]\nname = /..\n", "[tenant a]\nuids = 5, 6\n[tenant b]\nuids = 7, 6\n",
		"[tier a]\npath = /etc/passwd\nsize = 1G\n", "[tier a]\npath = /dev/null\nsize = 1G\n",
		"[arena]\nsize = 1M\n", "[arena]\nextent = 65537\n",
		"[limits]\ndeadline_ms = 5000\ndeadline_max_ms = 1000\n", "[tenant a]\ntrusted = yes\n",
		"[tier a]\npath = /tmp\n", "[tier a]\nsize = 1G\n", "[tier a]\npath = /tmp\nsize = 1M\n",
		"[tier a]\npath = /tmp\nsize = 1G\n[tier b]\npath = /tmp\nsize = 1G\n",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		ck_assert_msg(read_text(texts[i]) == 0, "%s", why);
		why[0] = '\0';
		ck_assert_msg(config_finish(&config, why) < 0, "taken: %s", texts[i]);
		ck_assert(why[0] != '\0');
	}
}
END_TEST

START_TEST(an_arena_larger_than_the_machine_is_refused_with_what_it_has)
{
	ck_assert_int_eq(read_text("[arena]\nsize = 900T\n"), 0);
	ck_assert_int_eq(config_finish(&config, why), 0);
	ck_assert_int_lt(config_fits_machine(&config, why), 0);
	ck_assert_ptr_nonnull(strstr(why, "900 TiB"));
	ck_assert_ptr_nonnull(strstr(why, "of RAM"));
	ck_assert_int_eq(read_text("[arena]\nsize = 10%\n"), 0);
	ck_assert_int_eq(config_fits_machine(&config, why), 0);
}
END_TEST

START_TEST(a_uid_that_nobody_maps_must_be_named_outright)
{
	ck_assert_int_eq(read_text("[tenant all]\nuids = *\n"), 0);
	ck_assert_int_eq(config_tenant_of(&config, 1234, 1), 0);
	ck_assert_int_eq(config_tenant_of(&config, 65534, 65534), -1);
	ck_assert_int_eq(read_text("[tenant all]\nuids = 65534\n"), 0);
	ck_assert_int_eq(config_tenant_of(&config, 65534, 65534), 0);
}
END_TEST

START_TEST(groups_and_admins_are_told_apart)
{
	ck_assert_int_eq(read_text("[tenant a]\ngids = 50\nadmins = 77\n[tenant b]\nuids = 60\n"), 0);
	ck_assert_int_eq(config_tenant_of(&config, 1234, 50), 0);
	ck_assert_int_eq(config_tenant_of(&config, 60, 1), 1);
	ck_assert_int_eq(config_tenant_of(&config, 77, 1), -1);
	ck_assert(config_is_admin(&config, 77));
	ck_assert(config_is_admin(&config, 0));
	ck_assert(config_is_admin(&config, geteuid()));
	ck_assert(!config_is_admin(&config, 60));
}
END_TEST

START_TEST(who_is_named_goes_before_anybody)
{
	ck_assert_int_eq(read_text("[tenant all]\nuids = *\n[tenant g]\ngids = 50\n[tenant u]\nuids = 60\n"), 0);
	ck_assert_msg(config_finish(&config, why) == 0, "%s", why);
	ck_assert_int_eq(config_tenant_of(&config, 60, 50), 2);
	ck_assert_int_eq(config_tenant_of(&config, 61, 50), 1);
	ck_assert_int_eq(config_tenant_of(&config, 61, 51), 0);
}
END_TEST

static char changed[256];

static void note(void *arg, const char *section, const char *key)
{
	(void)arg;
	strcat(changed, section);
	strcat(changed, ".");
	strcat(changed, key);
	strcat(changed, " ");
}

START_TEST(a_reload_takes_over_what_it_can_and_names_the_rest)
{
	static struct config running;

	ck_assert_int_eq(read_text("[tenant a]\nuids = 1\n"), 0);
	running = config;
	ck_assert_int_eq(read_text("[broker]\nlog_level=debug\nthreads = 3\n[arena]\nsize=3G\n"
				   "[tenant a]\nuids = 2\narena_quota = 1G\naccount_arena_quota = 1M\nleases = 9\n"), 0);
	changed[0] = '\0';
	config_reload(&running, &config, note, NULL);
	ck_assert_str_eq(changed, "broker.threads arena.size ");
	ck_assert_int_eq(running.broker.log_level, config.broker.log_level);
	ck_assert_uint_eq(running.broker.threads, 2);
	ck_assert_int_eq(config_tenant_of(&running, 2, 0), 0);
	ck_assert_int_eq(config_tenant_of(&running, 1, 0), -1);
	ck_assert_uint_eq(running.tenants[0].arena_quota, 1u << 30);
	ck_assert_uint_eq(running.tenants[0].account_arena_quota, 1u << 20);
	ck_assert_uint_eq(running.tenants[0].leases, 9);
}
END_TEST

START_TEST(what_is_printed_says_the_same_when_it_is_read)
{
	static struct config before;
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	ck_assert_int_eq(read_text("[arena]\nsize = 2G\npolicy=lru\n[tenant a]\nuids = 5 6\n[tier t]\npath=/tmp\nsize=1G\n"),
			 0);
	ck_assert_int_eq(config_finish(&config, why), 0);
	before = config;
	config_print(&config, out);
	fclose(out);
	ck_assert_msg(read_text(text) == 0, "%s", why);
	ck_assert_int_eq(config_finish(&config, why), 0);
	ck_assert_mem_eq(&before, &config, sizeof(config));
	free(text);
}
END_TEST

START_TEST(there_are_records_for_an_arena_full_of_small_objects)
{
	uint32_t entries, records;

	ck_assert_int_eq(read_text("[tier t]\npath=/tmp\nsize=1G\n"), 0);
	ck_assert_int_eq(config_finish(&config, why), 0);
	config_index(&config, 4ull << 30, &entries, &records);
	ck_assert_uint_eq(entries, (5ull << 30) / 65536);
	ck_assert_uint_eq(records, (4ull << 30) / 16384 + (1ull << 30) / 65536);
	/* What is said goes before that; few chunks have few objects. */
	ck_assert_int_eq(read_text("[arena]\nentries=10000\n[tier t]\npath=/tmp\nsize=1G\n"), 0);
	ck_assert_int_eq(config_finish(&config, why), 0);
	config_index(&config, 4ull << 30, &entries, &records);
	ck_assert_uint_eq(entries, 10000);
	ck_assert_uint_eq(records, 40000);
	ck_assert_int_eq(read_text("[arena]\nentries=10000\nrecords=12345\n"), 0);
	ck_assert_int_eq(config_finish(&config, why), 0);
	config_index(&config, 4ull << 30, &entries, &records);
	ck_assert_uint_eq(records, 12345);
	/* As many as numbers reach, and never too few to begin with. */
	ck_assert_int_eq(read_text("[broker]\nname=/stoker\n"), 0);
	config_index(&config, 1ull << 62, &entries, &records);
	ck_assert_uint_eq(entries, UINT32_MAX / 2);
	ck_assert_uint_eq(records, UINT32_MAX / 2);
	config_index(&config, 1 << 20, &entries, &records);
	ck_assert_uint_ge(entries, 4096);
	ck_assert_uint_ge(records, entries);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-config");
	TCase *tests = tcase_create("config");

	tcase_add_test(tests, without_a_word_there_is_one_tenant_the_brokers_own_uid);
	tcase_add_test(tests, there_are_records_for_an_arena_full_of_small_objects);
	tcase_add_test(tests, a_file_sets_values_of_every_type);
	tcase_add_test(tests, a_bad_value_is_told_with_file_line_key_and_what_is_allowed);
	tcase_add_test(tests, what_is_not_known_is_told_with_what_is);
	tcase_add_test(tests, a_section_without_keys_is_seen);
	tcase_add_test(tests, what_is_wrong_with_a_line_is_what_is_told);
	tcase_add_test(tests, a_value_given_twice_is_refused);
	tcase_add_test(tests, a_line_that_is_too_long_is_refused_and_not_cut);
	tcase_add_test(tests, the_command_line_goes_before_the_file);
	tcase_add_test(tests, an_option_that_says_too_little_is_refused);
	tcase_add_test(tests, what_contradicts_itself_is_refused);
	tcase_add_test(tests, an_arena_larger_than_the_machine_is_refused_with_what_it_has);
	tcase_add_test(tests, a_uid_that_nobody_maps_must_be_named_outright);
	tcase_add_test(tests, groups_and_admins_are_told_apart);
	tcase_add_test(tests, who_is_named_goes_before_anybody);
	tcase_add_test(tests, a_reload_takes_over_what_it_can_and_names_the_rest);
	tcase_add_test(tests, what_is_printed_says_the_same_when_it_is_read);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
