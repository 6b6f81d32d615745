/*
 * The control page: names, pages that are none, rows that are written while they are read, counters,
 * histograms.
 */
#include "shm/control.h"
#include "tests/suite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

START_TEST(a_name_is_a_slash_and_1_to_64_of_a_few_characters)
{
	static const char *const good[] = {
		"/stoker", "/a", "/A-b_c.9", "/...", "/.hidden",
		"/0123456789012345678901234567890123456789012345678901234567890123",	/* 64 */
	};
	static const char *const bad[] = {
		"", "/", "stoker", "//stoker", "/stoker/", "/sto/ker", "/sto ker", "/stoker\n", "/.", "/..",
		"/stok\xc3\xa9r", "/a*", "/../stoker",
		"/01234567890123456789012345678901234567890123456789012345678901234",	/* 65 */
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(control_name_check(good[i]) == 0, "\"%s\" was refused", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(control_name_check(bad[i]) == -EINVAL, "\"%s\" was taken", bad[i]);
	ck_assert_int_eq(control_name_check(NULL), -EINVAL);
}
END_TEST

static struct control_page *page_new(void)
{
	struct control_page *page = aligned_alloc(64, sizeof(*page));

	ck_assert_ptr_nonnull(page);
	memset(page, 0, sizeof(*page));
	page->magic = CONTROL_MAGIC;
	page->abi = STOKER_ABI;
	page->bytes = sizeof(*page);
	strcpy(page->name, "/stoker");
	return page;
}

START_TEST(a_page_of_this_abi_is_taken_and_a_dead_one_is_told)
{
	struct control_page *page = page_new();

	ck_assert_int_eq(control_check(page, sizeof(*page)), 0);
	ck_assert_int_eq(control_check(page, sizeof(*page) + 4096), 0);
	atomic_store(&page->dead, 1);
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPIPE);
	free(page);
}
END_TEST

START_TEST(a_page_of_another_abi_is_told_by_its_head_alone)
{
	/* 16 bytes are all there is: AddressSanitizer sees it if more is read. */
	struct control_page *head;

	ck_assert_int_eq(posix_memalign((void **)&head, 64, 16), 0);
	memset(head, 0, 16);
	head->magic = CONTROL_MAGIC;
	head->abi = STOKER_ABI + 1;
	head->bytes = 16;
	ck_assert_int_eq(control_check(head, 16), -EPROTONOSUPPORT);
	head->abi = STOKER_ABI;
	ck_assert_int_eq(control_check(head, 16), -EPROTO);
	for (size_t bytes = 0; bytes < 16; bytes++)
		ck_assert_int_eq(control_check(head, bytes), -EPROTO);
	free(head);
}
END_TEST

START_TEST(what_is_no_control_page_is_refused)
{
	struct control_page *page = page_new();

	ck_assert_int_eq(control_check(page, sizeof(*page) - 1), -EPROTO);
	page->bytes--;
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPROTO);
	page->bytes++;
	page->magic++;
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPROTO);
	page->magic--;
	ck_assert_int_eq(control_check(page, sizeof(*page)), 0);
	memset(page->name, 'x', sizeof(page->name));
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPROTO);
	page->name[sizeof(page->name) - 1] = '\0';
	memset(page->version, 'x', sizeof(page->version));
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPROTO);
	page->version[0] = '\0';
	memset(page->socket, 'x', sizeof(page->socket));
	ck_assert_int_eq(control_check(page, sizeof(*page)), -EPROTO);
	page->socket[0] = '\0';
	ck_assert_int_eq(control_check(page, sizeof(*page)), 0);
	free(page);
}
END_TEST

/* ---- mapping ----------------------------------------------------------------------------- */

static char name[64];

/* Make the object of that name with @bytes bytes of @page, or empty. */
static void object_make(const struct control_page *page, size_t bytes)
{
	const int fd = shm_open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert(write(fd, page, bytes) == (ssize_t)bytes);
	close(fd);
}

static int map_object(void)
{
	const struct control_page *page;
	const int r = control_map(name, &page);

	if (r == 0) {
		ck_assert_str_eq(page->name, "/stoker");
		control_unmap(page);
	}
	return r;
}

static void name_make(void)
{
	snprintf(name, sizeof(name), "/stoker-test-control-%d", (int)getpid());
}

static void name_unlink(void)
{
	shm_unlink(name);
}

START_TEST(a_page_is_mapped_by_name_and_every_other_object_is_refused)
{
	struct control_page *page = page_new();

	ck_assert_int_eq(map_object(), -ENOENT);
	object_make(page, 0);
	ck_assert_int_eq(map_object(), -EPROTO);
	object_make(page, 1);
	ck_assert_int_eq(map_object(), -EPROTO);
	object_make(page, 4096);		/* cut off behind its first page */
	ck_assert_int_eq(map_object(), -EPROTO);
	object_make(page, sizeof(*page) - 1);
	ck_assert_int_eq(map_object(), -EPROTO);
	object_make(page, sizeof(*page));
	ck_assert_int_eq(map_object(), 0);
	page->abi = 99;
	object_make(page, 100);			/* the page of a release to come may be shorter */
	ck_assert_int_eq(map_object(), -EPROTONOSUPPORT);
	page->abi = STOKER_ABI;
	atomic_store(&page->dead, 1);
	object_make(page, sizeof(*page));
	ck_assert_int_eq(map_object(), -EPIPE);
	free(page);
}
END_TEST

START_TEST(a_bad_name_and_a_descriptor_of_something_else_are_refused)
{
	const struct control_page *page;
	int fds[2];

	ck_assert_int_eq(control_map("stoker", &page), -EINVAL);
	ck_assert_int_eq(control_map("/../etc/passwd", &page), -EINVAL);
	ck_assert_int_eq(control_map_fd(-1, &page), -EBADF);
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(control_map_fd(fds[0], &page), -EPROTO);
	close(fds[0]);
	close(fds[1]);
	control_unmap(NULL);
}
END_TEST

/* ---- rows -------------------------------------------------------------------------------- */

/* All fields of such a row follow from @n, so a mixture of two shows. */
static struct control_client client_of(uint64_t n)
{
	struct control_client row = {
		.used = (uint32_t)n, .uid = (uint32_t)n, .pid = (uint32_t)n, .attached_ns = n, .jobs = n, .leases = n,
		.holds = n, .pools = n, .lookups = n, .retrieves = n, .stores = n, .reserved = { n, n, n },
	};

	snprintf(row.name, sizeof(row.name), "%063llu", (unsigned long long)n);
	return row;
}

static bool is_client_of(const struct control_client *row, uint64_t n)
{
	const struct control_client expected = client_of(n);

	return memcmp((const char *)row + sizeof(row->version), (const char *)&expected + sizeof(row->version),
		      sizeof(*row) - sizeof(row->version)) == 0;
}

struct writing {
	struct control_page *page;
	_Atomic bool stop;
};

static void *write_rows(void *arg)
{
	struct writing *writing = arg;

	for (uint64_t n = 1; !atomic_load(&writing->stop); n++) {
		const struct control_client client = client_of(n);
		const struct control_tier tier = { .state = STOKER_TIER_SERVING, .bytes = n, .objects = n,
						   .checksum_errors = n };
		const struct control_model model = { .used = 1, .epoch = (uint32_t)n, .chunk_tokens = (uint32_t)n };

		const struct control_gpu gpu = { .state = STOKER_GPU_UP, .restarts = n, .store_bytes = n };

		control_write_gpu(writing->page, CONTROL_GPUS - 1, &gpu);
		control_write_client(writing->page, 7, &client);
		control_write_tier(writing->page, 3, &tier);
		control_write_model(writing->page, 5, &model);
	}
	return NULL;
}

START_TEST(a_row_that_is_read_while_it_is_written_is_never_a_mixture)
{
	struct writing writing = { .page = page_new() };
	struct control_client client;
	struct control_tier tier;
	struct control_model model;
	struct control_gpu gpu;
	uint64_t last = 0, changes = 0;
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, write_rows, &writing), 0);
	for (int reads = 0; reads < 50000 || changes < 200; reads++) {
		if (control_read_client(writing.page, 7, &client) && client.used) {
			expect(is_client_of(&client, client.stores));
			expect(client.stores >= last);
			expect((client.version & 1) == 0);
			changes += client.stores > last;
			last = client.stores;
		}
		if (control_read_tier(writing.page, 3, &tier))
			expect(tier.objects == tier.bytes && tier.checksum_errors == tier.bytes);
		if (control_read_model(writing.page, 5, &model))
			expect(model.epoch == model.chunk_tokens);
		if (control_read_gpu(writing.page, CONTROL_GPUS - 1, &gpu))
			expect(gpu.restarts == gpu.store_bytes);
	}
	atomic_store(&writing.stop, true);
	pthread_join(thread, NULL);
	free(writing.page);
}
END_TEST

START_TEST(a_row_that_its_writer_died_in_cannot_be_read_and_the_others_can)
{
	struct control_page *page = page_new();
	struct control_tier row = { .state = STOKER_TIER_FAILED, .bytes = 42 };

	control_write_tier(page, 0, &row);
	control_write_tier(page, 1, &row);
	control_row_begin(&page->tiers[0].version);
	page->tiers[0].bytes = 43;
	ck_assert(!control_read_tier(page, 0, &row));
	ck_assert(control_read_tier(page, 1, &row));
	ck_assert_uint_eq(row.bytes, 42);
	control_row_end(&page->tiers[0].version);
	ck_assert(control_read_tier(page, 0, &row));
	ck_assert_uint_eq(row.bytes, 43);
	ck_assert_uint_eq(row.state, STOKER_TIER_FAILED);
	free(page);
}
END_TEST

START_TEST(texts_of_a_row_are_terminated_in_the_copy_and_rows_beyond_the_table_are_none)
{
	struct control_page *page = page_new();
	struct control_tier tier;
	struct control_client client;
	struct control_model model;
	struct control_gpu gpu;

	memset(page->gpus[CONTROL_GPUS - 1].name, 'x', sizeof(gpu.name) + sizeof(gpu.why));
	ck_assert(control_read_gpu(page, CONTROL_GPUS - 1, &gpu));
	ck_assert_uint_eq(strlen(gpu.name), sizeof(gpu.name) - 1);
	ck_assert_uint_eq(strlen(gpu.why), sizeof(gpu.why) - 1);
	ck_assert(!control_read_gpu(page, CONTROL_GPUS, &gpu));
	memset(page->tiers[CONTROL_TIERS - 1].name, 'x', sizeof(tier.name));
	memset(page->tiers[CONTROL_TIERS - 1].path, 'x', sizeof(tier.path));
	memset(page->clients[CONTROL_CLIENTS - 1].name, 'x', sizeof(client.name));
	ck_assert(control_read_tier(page, CONTROL_TIERS - 1, &tier));
	ck_assert(control_read_client(page, CONTROL_CLIENTS - 1, &client));
	ck_assert_uint_eq(strlen(tier.name), sizeof(tier.name) - 1);
	ck_assert_uint_eq(strlen(tier.path), sizeof(tier.path) - 1);
	ck_assert_uint_eq(strlen(client.name), sizeof(client.name) - 1);
	ck_assert(!control_read_tier(page, CONTROL_TIERS, &tier));
	ck_assert(!control_read_client(page, CONTROL_CLIENTS, &client));
	ck_assert(!control_read_model(page, UINT32_MAX, &model));
	free(page);
}
END_TEST

/* ---- counters and histograms ------------------------------------------------------------- */

START_TEST(a_counter_is_the_sum_over_all_threads)
{
	struct control_page *page = page_new();

	ck_assert_uint_eq(control_counter(page, STOKER_COUNTER_HITS_L1), 0);
	for (uint32_t i = 0; i < CONTROL_BLOCKS; i++)
		block_add(&page->blocks[i], STOKER_COUNTER_HITS_L1, i + 1);
	block_add(&page->blocks[0], STOKER_COUNTER_MISSES, 1000000);
	ck_assert_uint_eq(control_counter(page, STOKER_COUNTER_HITS_L1), CONTROL_BLOCKS * (CONTROL_BLOCKS + 1) / 2);
	ck_assert_uint_eq(control_counter(page, STOKER_COUNTER_MISSES), 1000000);
	free(page);
}
END_TEST

START_TEST(every_value_lies_in_its_bucket_and_no_bucket_is_wider_than_an_eighth_of_it)
{
	for (int shift = 0; shift < 64; shift++) {
		for (int around = -2; around <= 2; around++) {
			const uint64_t value = (1ull << shift) + (uint64_t)around;
			const uint32_t bucket = histogram_bucket(value);

			ck_assert_uint_lt(bucket, CONTROL_BUCKETS);
			ck_assert_uint_le(histogram_value(bucket), value);
			if (histogram_value(bucket + 1) != UINT64_MAX)
				ck_assert_uint_gt(histogram_value(bucket + 1), value);
			ck_assert_uint_le((histogram_value(bucket + 1) - histogram_value(bucket)) / 2, value / 16 + 1);
		}
	}
	for (uint64_t value = 0; value < 16; value++)
		ck_assert_uint_eq(histogram_value(histogram_bucket(value)), value);
	for (uint32_t bucket = 0; histogram_value(bucket) != UINT64_MAX; bucket++)
		ck_assert_uint_eq(histogram_bucket(histogram_value(bucket)), bucket);
	ck_assert_uint_lt(histogram_bucket(UINT64_MAX), CONTROL_BUCKETS);
}
END_TEST

static uint64_t quantile(const struct control_page *page, double q)
{
	return control_quantile(page, STOKER_HISTOGRAM_LOOKUP_NS, q);
}

START_TEST(quantiles_go_over_all_threads_and_err_by_a_sixteenth_at_most)
{
	struct control_page *page = page_new();
	const double qs[] = { 0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1 };

	ck_assert_uint_eq(quantile(page, 0.5), 0);	/* nothing has been recorded */
	for (uint64_t value = 1; value <= 100000; value++)
		block_record(&page->blocks[value % CONTROL_BLOCKS], STOKER_HISTOGRAM_LOOKUP_NS, value);
	for (size_t i = 0; i < sizeof(qs) / sizeof(qs[0]); i++) {
		const double value = qs[i] * 100000;

		ck_assert_double_le((double)quantile(page, qs[i]), value * 17 / 16 + 1);
		ck_assert_double_ge((double)quantile(page, qs[i]), value * 15 / 16 - 1);
	}
	ck_assert_uint_eq(control_quantile(page, STOKER_HISTOGRAM_STORE_NS, 0.5), 0);
	free(page);
}
END_TEST

START_TEST(quantiles_of_few_and_of_extreme_values_are_right)
{
	struct control_page *page = page_new();

	block_record(&page->blocks[0], STOKER_HISTOGRAM_LOOKUP_NS, 3);
	ck_assert_uint_eq(quantile(page, 0), 3);
	ck_assert_uint_eq(quantile(page, 0.5), 3);
	ck_assert_uint_eq(quantile(page, 1), 3);
	block_record(&page->blocks[1], STOKER_HISTOGRAM_LOOKUP_NS, 0);
	block_record(&page->blocks[2], STOKER_HISTOGRAM_LOOKUP_NS, UINT64_MAX);
	ck_assert_uint_eq(quantile(page, -1), 0);
	ck_assert_uint_eq(quantile(page, 0.3), 0);
	ck_assert_uint_eq(quantile(page, 0.5), 3);
	ck_assert_uint_ge(quantile(page, 0.7), UINT64_MAX / 16 * 15);
	ck_assert_uint_ge(quantile(page, 2), UINT64_MAX / 16 * 15);
	free(page);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-control");
	TCase *pages = tcase_create("pages");
	TCase *maps = tcase_create("maps");
	TCase *rows = tcase_create("rows");
	TCase *figures = tcase_create("figures");

	tcase_add_test(pages, a_name_is_a_slash_and_1_to_64_of_a_few_characters);
	tcase_add_test(pages, a_page_of_this_abi_is_taken_and_a_dead_one_is_told);
	tcase_add_test(pages, a_page_of_another_abi_is_told_by_its_head_alone);
	tcase_add_test(pages, what_is_no_control_page_is_refused);
	/* Not checked fixtures: the name goes away also when a test of them fails. */
	tcase_add_unchecked_fixture(maps, name_make, name_unlink);
	tcase_add_test(maps, a_page_is_mapped_by_name_and_every_other_object_is_refused);
	tcase_add_test(maps, a_bad_name_and_a_descriptor_of_something_else_are_refused);
	tcase_set_timeout(rows, 60);
	tcase_add_test(rows, a_row_that_is_read_while_it_is_written_is_never_a_mixture);
	tcase_add_test(rows, a_row_that_its_writer_died_in_cannot_be_read_and_the_others_can);
	tcase_add_test(rows, texts_of_a_row_are_terminated_in_the_copy_and_rows_beyond_the_table_are_none);
	tcase_add_test(figures, a_counter_is_the_sum_over_all_threads);
	tcase_add_test(figures, every_value_lies_in_its_bucket_and_no_bucket_is_wider_than_an_eighth_of_it);
	tcase_add_test(figures, quantiles_go_over_all_threads_and_err_by_a_sixteenth_at_most);
	tcase_add_test(figures, quantiles_of_few_and_of_extreme_values_are_right);
	suite_add_tcase(s, pages);
	suite_add_tcase(s, maps);
	suite_add_tcase(s, rows);
	suite_add_tcase(s, figures);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
