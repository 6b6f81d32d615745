/*
 * Bytes that nobody has checked, given to what reads a peer's bytes in shm/: at random, and as valid
 * ones with a few bytes changed. Whatever they are, nothing beyond them is read (each lies in memory
 * of exactly its size, under AddressSanitizer), and what is accepted keeps every promise of its
 * header. Seeds are fixed: a failure comes again.
 */
#include "shm/control.h"
#include "shm/model.h"
#include "shm/ring.h"
#include "tests/model-build.h"
#include "tests/suite.h"

#include <errno.h>
#include <stdio.h>

#define WHY 192

#ifdef __SANITIZE_THREAD__	/* it has nothing to find here: there is one thread */
#define ROUNDS 6000
#else
#define ROUNDS 60000
#endif

static uint64_t seed;

static uint64_t chance(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(chance() >> 32) % n;
}

/* Values at which checks like to be wrong. */
static uint64_t edge(void)
{
	static const uint64_t edges[] = { 0, 1, 2, 7, 8, 9, 63, 64, 65, 255, 256, 1024, 1025, 4096, 8192, 8193, 65535,
					  INT32_MAX, 1u << 31, UINT32_MAX - 1, UINT32_MAX, INT64_MAX, UINT64_MAX };

	return below(2) ? edges[below(sizeof(edges) / sizeof(edges[0]))] : chance();
}

static void scramble(uint8_t *bytes, size_t n)
{
	for (uint32_t changes = 1 + below(4); n > 0 && changes > 0; changes--) {
		const uint64_t value = edge();
		const size_t width = 1u << below(4), at = chance() % n / width * width;

		memcpy(bytes + at, &value, at + width <= n ? width : n - at);
	}
}

/* ---- models ------------------------------------------------------------------------------ */

static void assert_layout(const struct model_layout *layout)
{
	uint64_t parts = 0;
	uint32_t rows = 0;

	expect(layout->wire.n_groups >= 1 && layout->wire.n_groups <= STOKER_GROUPS_MAX);
	expect(layout->n_parts >= 1 && layout->n_parts <= STOKER_PARTS_MAX);
	for (uint32_t g = 0; g < layout->wire.n_groups; g++) {
		expect(layout->group_parts[g] != 0 && (layout->group_parts[g] & parts) == 0);
		parts |= layout->group_parts[g];
	}
	expect(parts == UINT64_MAX >> (64 - layout->n_parts));
	for (uint32_t i = 0; i < layout->n_parts; i++) {
		const struct model_part *part = &layout->parts[i];
		unsigned __int128 payload = 0;

		expect(part->group < layout->wire.n_groups && layout->group_parts[part->group] >> i & 1);
		expect(part->first_row == rows && part->n_rows >= 1);
		expect(part->layers >= 1 && part->layers <= MODEL_LAYERS_MAX);
		for (; rows < part->first_row + part->n_rows; rows++) {
			expect(layout->row_offset[rows] == payload);
			payload += (unsigned __int128)part->blocks * layout->rows[rows].bytes;
		}
		expect(payload == part->payload_bytes && payload <= MODEL_OBJECT_MAX);
		expect(part->image_bytes >= payload + MODEL_IMAGE_HEADER && part->image_bytes % 4096 == 0);
	}
	expect(rows == layout->wire.n_rows);
}

/* Returns whether it was accepted. */
static bool try_model(const uint8_t *description, size_t bytes)
{
	struct model_layout *layout = NULL;
	char why[WHY];
	int r;

	memset(why, 'x', sizeof(why));
	r = model_layout_make(description, bytes, why, &layout);
	expect(r == 0 || r == -EBADMSG || r == -E2BIG);
	if (r == 0)
		assert_layout(layout);
	else
		expect(!layout && memchr(why, '\0', sizeof(why)) && why[0]);
	model_layout_free(layout);
	return r == 0;
}

START_TEST(random_bytes_are_no_model_and_harm_nobody)
{
	seed = 88172645463325252ull;
	for (int i = 0; i < ROUNDS; i++) {
		const size_t bytes = below(4) ? below(600) : below(20000);
		uint8_t *description = malloc(bytes + !bytes);

		for (size_t j = 0; j < bytes; j++)
			description[j] = (uint8_t)chance();
		/* Half of them get so far that their counts are looked at. */
		if (bytes >= sizeof(struct model_wire) && below(2)) {
			memset(description, 0, 192);
			memset(description + offsetof(struct model_wire, n_groups) + 1, 0, 3);
			memset(description + offsetof(struct model_wire, n_rows) + 1, 0, 7);
		}
		try_model(description, bytes);
		free(description);
	}
}
END_TEST

/* A valid description of one to eight groups, whose shape is random. */
static struct model_build *random_model(void)
{
	struct model_build *build = model_build_new("fuzz", 16u << below(6));
	const uint32_t groups = 1 + below(STOKER_GROUPS_MAX);

	for (uint32_t g = 0; g < groups; g++) {
		const uint32_t kind = below(3), shards = 1 + below(STOKER_PARTS_MAX / groups), layers = 1 + below(6);
		uint32_t window = kind == MODEL_GROUP_STATE, blocks = build->wire.chunk_tokens / 16;

		if (kind == MODEL_GROUP_WINDOW)
			window = 1 + below(100);
		if (window == 1)	/* the last ones do */
			blocks = 1 + below(blocks);
		model_build_group(build, kind, window, 16, blocks);
		for (uint32_t shard = 0; shard < shards; shard++) {
			for (uint32_t layer = 0; layer < layers; layer++)
				model_build_row(build, g, shard, layer * 3, 0, 1 + below(1u << 16));
		}
	}
	return build;
}

START_TEST(a_valid_model_is_taken_and_a_scrambled_one_harms_nobody)
{
	uint32_t accepted = 0, refused = 0;

	seed = 2463534242ull;
	for (int i = 0; i < ROUNDS / 20; i++) {
		struct model_build *build = random_model();
		size_t bytes;
		uint8_t *description = model_build_bytes(build, &bytes);

		expect(try_model(description, bytes));
		for (int j = 0; j < 20; j++) {
			uint8_t *changed = malloc(bytes);

			memcpy(changed, description, bytes);
			scramble(changed, bytes);
			if (try_model(changed, bytes))
				accepted++;
			else
				refused++;
			free(changed);
		}
		free(description);
		free(build);
	}
	ck_assert_uint_gt(accepted, ROUNDS / 60);	/* else only one side was tested */
	ck_assert_uint_gt(refused, ROUNDS / 60);
}
END_TEST

/* ---- control pages ----------------------------------------------------------------------- */

/* Memory of exactly @bytes, aligned as a mapping is. */
static struct control_page *page_of(size_t bytes)
{
	void *page;

	expect(posix_memalign(&page, 64, bytes + !bytes) == 0);
	return page;
}

START_TEST(random_bytes_are_no_control_page_and_nothing_beyond_them_is_read)
{
	seed = 362436069ull;
	for (int i = 0; i < ROUNDS; i++) {
		const size_t bytes = below(2) ? below(64) : below(2000);
		struct control_page *page = page_of(bytes);
		uint8_t *p = (uint8_t *)page;
		int r;

		for (size_t j = 0; j < bytes; j++)
			p[j] = (uint8_t)chance();
		if (bytes >= 8 && below(2))
			page->magic = CONTROL_MAGIC;
		if (bytes >= 12 && below(2))
			page->abi = STOKER_ABI;
		if (bytes >= 16 && below(2))
			page->bytes = sizeof(*page);
		r = control_check(page, bytes);
		expect(r == -EPROTO || r == -EPROTONOSUPPORT);
		free(page);
	}
}
END_TEST

/* Whoever has checked a page can read all of it, whatever stands in its tables. */
static void read_all(const struct control_page *page)
{
	struct control_tier tier;
	struct control_client client;
	struct control_model model;
	struct control_gpu gpu;
	const uint32_t i = below(CONTROL_CLIENTS + 2);

	if (control_read_tier(page, i, &tier))
		expect(strlen(tier.name) < sizeof(tier.name) && strlen(tier.path) < sizeof(tier.path));
	if (control_read_client(page, i, &client))
		expect(strlen(client.name) < sizeof(client.name));
	control_read_model(page, i, &model);
	if (control_read_gpu(page, i, &gpu))
		expect(strlen(gpu.name) < sizeof(gpu.name) && strlen(gpu.why) < sizeof(gpu.why));
	control_quantile(page, STOKER_HISTOGRAM_LOOKUP_NS, (double)below(101) / 100);
	expect(strlen(page->name) < sizeof(page->name) && strlen(page->socket) < sizeof(page->socket));
}

START_TEST(a_scrambled_control_page_is_refused_or_can_be_read)
{
	struct control_page *page = page_of(sizeof(*page));
	uint8_t *bytes = (uint8_t *)page;
	uint32_t accepted = 0, refused = 0;

	seed = 521288629ull;
	for (size_t i = 0; i < sizeof(*page); i++)
		bytes[i] = (uint8_t)chance();
	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++)
		atomic_store(&page->clients[i].version, i % 8 != 0 ? 2 : 3);	/* odd: its writer died */
	for (int i = 0; i < 2000; i++) {
		memset(page, 0, offsetof(struct control_page, gauges));
		page->magic = CONTROL_MAGIC;
		page->abi = STOKER_ABI;
		page->bytes = sizeof(*page);
		scramble(bytes, offsetof(struct control_page, gauges));
		if (control_check(page, sizeof(*page)) == 0) {
			accepted++;
			if (i % 20 == 0)
				read_all(page);
		} else {
			refused++;
		}
	}
	ck_assert_uint_gt(accepted, 100);
	ck_assert_uint_gt(refused, 100);
	free(page);
}
END_TEST

/* ---- rings ------------------------------------------------------------------------------- */

START_TEST(a_request_ring_of_garbage_gives_entries_nothing_or_a_refusal)
{
	struct stoker_entry *entries;
	uint32_t taken = 0, none = 0, refused = 0;

	expect(posix_memalign((void **)&entries, 64, 16 * sizeof(*entries)) == 0);
	seed = 123456789ull;
	for (int i = 0; i < ROUNDS; i++) {
		struct request_consumer ring = { entries, edge(), 15 };
		struct stoker_request_head head;
		const uint64_t due = ring.next + 1;

		for (int j = 0; j < 16; j++)
			atomic_store(&entries[j].sequence, below(2) ? edge() : due + below(64) - 32);
		for (int j = 0; j < 40; j++) {
			const uint64_t before = ring.next;
			const int r = request_take(&ring, &head);

			expect(r == 0 || r == 1 || r == -EBADMSG);
			expect(ring.next == before + (r == 1));
			taken += r == 1, none += r == 0, refused += r < 0;
			if (r != 1)
				break;
		}
	}
	ck_assert_uint_gt(taken, ROUNDS / 1000);
	ck_assert_uint_gt(none, ROUNDS / 1000);
	ck_assert_uint_gt(refused, ROUNDS / 1000);
	free(entries);
}
END_TEST

START_TEST(a_response_ring_of_garbage_leaves_its_reader_within_its_bounds)
{
	_Atomic uint64_t words[16];

	seed = 987654321ull;
	for (int i = 0; i < ROUNDS; i++) {
		struct response_consumer ring = { words, edge(), 15 };

		for (int j = 0; j < 16; j++)
			atomic_store(&words[j], edge());
		for (int j = 0; j < 40; j++) {
			uint32_t slot = 0;
			const int r = response_take(&ring, &slot);

			expect(r == 0 || r == 1 || r == -ESTALE);
			expect(slot <= UINT16_MAX);
			if (r == 0)
				break;
		}
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-fuzz");
	TCase *bytes = tcase_create("bytes");

	tcase_set_timeout(bytes, 60);
	tcase_add_test(bytes, random_bytes_are_no_model_and_harm_nobody);
	tcase_add_test(bytes, a_valid_model_is_taken_and_a_scrambled_one_harms_nobody);
	tcase_add_test(bytes, random_bytes_are_no_control_page_and_nothing_beyond_them_is_read);
	tcase_add_test(bytes, a_scrambled_control_page_is_refused_or_can_be_read);
	tcase_add_test(bytes, a_request_ring_of_garbage_gives_entries_nothing_or_a_refusal);
	tcase_add_test(bytes, a_response_ring_of_garbage_leaves_its_reader_within_its_bounds);
	suite_add_tcase(s, bytes);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
