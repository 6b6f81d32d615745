/* The state directory: what it is told it tells again, and what it cannot read it leaves alone. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/broker/state.h"
#include "tests/suite.h"

#define MODELS_MAX 16

static char path[64], inner[128], why[256];
static struct state_model models[MODELS_MAX];
static uint32_t n_models;
static int answer;

static void up(void)
{
	strcpy(path, "test-state-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
	snprintf(inner, sizeof(inner), "%s/state", path);
	ck_assert_int_eq(state_open(inner, why), 0);
}

static void forget(void)
{
	while (n_models > 0)
		model_layout_free(models[--n_models].layout);
}

static void down(void)
{
	char command[128];

	forget();
	snprintf(command, sizeof(command), "rm -rf ./%s", path);
	ck_assert_int_eq(system(command), 0);
}

static int found(void *arg, struct state_model *model)
{
	(void)arg;
	ck_assert_uint_lt(n_models, MODELS_MAX);
	models[n_models++] = *model;
	return answer;
}

static uint32_t load(void)
{
	forget();
	ck_assert_int_eq(state_load_models(inner, found, NULL), 0);
	return n_models;
}

/* A model of two groups and several rows whose name is @name, for @tenant. */
static struct state_model model_of(const char *name, const char *tenant)
{
	struct {
		struct model_wire wire;
		struct model_wire_group groups[2];
		struct model_wire_row rows[6];
	} description = {
		.wire = { .revision = "main", .tag = { 1, 2, 3 }, .chunk_tokens = 256, .n_groups = 2, .n_rows = 6 },
		.groups = { { MODEL_GROUP_FULL, 0, 16, 16 }, { MODEL_GROUP_WINDOW, 4, 16, 16 } },
		.rows = { { 0, 0, 0, 0, 4096 }, { 0, 0, 0, 1, 4096 }, { 0, 0, 1, 0, 4096 }, { 0, 0, 1, 1, 4096 },
			  { 1, 0, 2, 0, 512 }, { 1, 0, 3, 0, 512 } },
	};
	struct state_model model = { .epoch = 3, .tag = 0x1234567890abcdefu };

	strcpy(description.wire.name, name);
	strcpy(model.tenant, tenant);
	ck_assert_msg(model_layout_make(&description, sizeof(description), why, &model.layout) == 0, "%s", why);
	model_digest_with_tenant(model.layout->digest, tenant, model.digest);
	return model;
}

static void save(struct state_model model)
{
	ck_assert_int_eq(state_save_model(inner, &model), 0);
	model_layout_free(model.layout);
}

START_TEST(what_is_saved_is_loaded)
{
	struct state_model model = model_of("llama", "team-a");
	struct stat st;
	char file[256];

	ck_assert_int_eq(state_save_model(inner, &model), 0);
	save(model_of("llama", "team-b"));
	save(model_of("qwen", "team-a"));
	ck_assert_uint_eq(load(), 3);
	for (uint32_t i = 0; i < 3; i++) {
		if (memcmp(models[i].digest, model.digest, sizeof(model.digest)) != 0)
			continue;
		ck_assert_str_eq(models[i].tenant, "team-a");
		ck_assert_uint_eq(models[i].epoch, 3);
		ck_assert_uint_eq(models[i].tag, model.tag);
		ck_assert_mem_eq(models[i].layout->digest, model.layout->digest, MODEL_DIGEST_BYTES);
		ck_assert_uint_eq(models[i].layout->n_parts, 2);
		ck_assert_mem_eq(models[i].layout->rows, model.layout->rows, 6 * sizeof(model.layout->rows[0]));
		snprintf(file, sizeof(file), "%s/models", inner);
		ck_assert_int_eq(stat(file, &st), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0700);
		model_layout_free(model.layout);
		return;
	}
	ck_abort_msg("the model is not among those loaded");
}
END_TEST

START_TEST(a_model_saved_again_has_its_newest_epoch)
{
	struct state_model model = model_of("llama", "team-a");

	for (model.epoch = 4; model.epoch < 9; model.epoch++)
		ck_assert_int_eq(state_save_model(inner, &model), 0);
	model_layout_free(model.layout);
	ck_assert_uint_eq(load(), 1);
	ck_assert_uint_eq(models[0].epoch, 8);
}
END_TEST

/* The one file there is, opened for the test to damage. */
static int the_file(char ret[512])
{
	char command[256];
	FILE *pipe;
	size_t n;

	snprintf(command, sizeof(command), "ls -d ./%s/models/*", inner);
	pipe = popen(command, "r");
	n = fread(ret, 1, 511, pipe);
	pclose(pipe);
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return open(ret, O_RDWR);
}

START_TEST(a_damaged_file_is_left_as_it_is_and_the_others_are_loaded)
{
	char file[512], before[4096], after[4096], renamed[600];
	ssize_t n;
	int fd;

	save(model_of("llama", "team-a"));
	fd = the_file(file);
	ck_assert_int_ge(fd, 0);
	n = pread(fd, before, sizeof(before), 0);
	if (_i < n) {
		before[_i] ^= 0x40;	/* any byte of it */
		ck_assert_int_eq(pwrite(fd, before, (size_t)n, 0), n);
	} else if (_i == 1000) {
		n /= 2;
		ck_assert_int_eq(ftruncate(fd, n), 0);
	} else if (_i == 1001) {
		n = 0;
		ck_assert_int_eq(ftruncate(fd, 0), 0);
	} else {			/* whole, but under another's name */
		snprintf(renamed, sizeof(renamed), "%.*s%064d", (int)strlen(file) - 64, file, 7);
		ck_assert_int_eq(rename(file, renamed), 0);
	}
	save(model_of("qwen", "team-a"));
	ck_assert_uint_eq(load(), 1);
	ck_assert_str_eq(models[0].layout->wire.name, "qwen");
	ck_assert_int_eq(pread(fd, after, sizeof(after), 0), n);
	ck_assert_mem_eq(before, after, (size_t)n);
	close(fd);
}
END_TEST

START_TEST(what_a_crash_left_half_written_is_not_seen_and_not_in_the_way)
{
	char file[512], half[600];
	struct state_model model = model_of("llama", "team-a");

	ck_assert_int_eq(state_save_model(inner, &model), 0);
	close(the_file(file));
	snprintf(half, sizeof(half), "%.*s.%s.new", (int)strlen(file) - 64, file, file + strlen(file) - 64);
	close(open(half, O_CREAT | O_WRONLY, 0600));
	ck_assert_uint_eq(load(), 1);
	model.epoch = 9;
	ck_assert_int_eq(state_save_model(inner, &model), 0);
	model_layout_free(model.layout);
	ck_assert_int_ne(access(half, F_OK), 0);
	ck_assert_uint_eq(load(), 1);
	ck_assert_uint_eq(models[0].epoch, 9);
}
END_TEST

START_TEST(who_is_told_may_stop_it_with_an_error)
{
	save(model_of("a", "t"));
	save(model_of("b", "t"));
	answer = -EIO;
	ck_assert_int_eq(state_load_models(inner, found, NULL), -EIO);
	ck_assert_uint_eq(n_models, 1);
	answer = 0;
}
END_TEST

START_TEST(a_directory_that_is_not_ours_alone_is_refused)
{
	ck_assert_int_eq(chmod(inner, 0770), 0);
	ck_assert_int_lt(state_open(inner, why), 0);
	expect(strstr(why, "can be written by others"));
	ck_assert_int_lt(state_open("/proc/nowhere/at/all", why), 0);
	expect(strstr(why, "cannot make the directory"));
	ck_assert_int_eq(state_load_models("/proc/nowhere/at/all", found, NULL), -ENOENT);
}
END_TEST

START_TEST(directories_above_it_that_are_not_there_are_made_for_us_alone)
{
	char deep[160], above[160];
	struct stat is;

	snprintf(above, sizeof(above), "%s/a", inner);
	snprintf(deep, sizeof(deep), "%s/a/b/c", inner);
	ck_assert_int_eq(state_open(deep, why), 0);
	ck_assert_int_eq(stat(above, &is), 0);
	ck_assert_uint_eq(is.st_mode & 07777, 0700);
	ck_assert_int_eq(state_load_models(deep, found, NULL), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("broker-state");
	TCase *t = tcase_create("models");

	tcase_add_checked_fixture(t, up, down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_is_saved_is_loaded);
	tcase_add_test(t, a_model_saved_again_has_its_newest_epoch);
	for (int byte = 0; byte < 480; byte += 16)
		tcase_add_loop_test(t, a_damaged_file_is_left_as_it_is_and_the_others_are_loaded, byte, byte + 1);
	tcase_add_loop_test(t, a_damaged_file_is_left_as_it_is_and_the_others_are_loaded, 1000, 1003);
	tcase_add_test(t, what_a_crash_left_half_written_is_not_seen_and_not_in_the_way);
	tcase_add_test(t, who_is_told_may_stop_it_with_an_error);
	tcase_add_test(t, a_directory_that_is_not_ours_alone_is_refused);
	tcase_add_test(t, directories_above_it_that_are_not_there_are_made_for_us_alone);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
