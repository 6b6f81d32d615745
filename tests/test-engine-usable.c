/*
 * Usable lengths: what each kind of group asks of a prefix, and random models against an oracle that
 * takes the definition by its word.
 */
#include "src/engine/usable.h"
#include "tests/random.h"
#include "tests/suite.h"

#define FULL		0u
#define STATE		1u
#define CHUNKS_MAX	40u

static uint32_t longest(uint32_t n_groups, const struct usable_group *groups, uint32_t have, uint32_t n,
			const uint64_t *there)
{
	struct usable u;

	usable_init(&u, n_groups, groups, have);
	for (uint32_t i = 0; i < n; i++)
		usable_feed(&u, there[i]);
	return u.longest;
}

START_TEST(a_full_group_ends_at_its_first_gap)
{
	const struct usable_group full = { FULL, 0x3 };
	const uint64_t there[] = { 3, 3, 7, 1, 3, 3 };
	struct usable u;

	ck_assert_uint_eq(longest(1, &full, 0, 6, there), 3);
	usable_init(&u, 1, &full, 0);
	for (uint32_t i = 0; i < 3; i++)
		expect(usable_feed(&u, there[i]) && !u.full_gap);
	expect(!usable_feed(&u, there[3]) && u.full_gap);
	expect(!usable_feed(&u, there[4]));
}
END_TEST

START_TEST(a_window_needs_its_last_chunks_only_and_recovers_from_a_gap)
{
	const struct usable_group window = { 2, 0x1 };
	const uint64_t there[] = { 0, 1, 1, 0, 1, 1 };

	ck_assert_uint_eq(longest(1, &window, 0, 1, there), 0);
	ck_assert_uint_eq(longest(1, &window, 0, 2, there), 0);
	ck_assert_uint_eq(longest(1, &window, 0, 3, there), 3);
	ck_assert_uint_eq(longest(1, &window, 0, 5, there), 3);
	ck_assert_uint_eq(longest(1, &window, 0, 6, there), 6);
}
END_TEST

START_TEST(a_state_needs_the_last_chunk_alone)
{
	const struct usable_group groups[] = { { FULL, 0x1 }, { STATE, 0x2 } };
	const uint64_t there[] = { 1, 3, 1, 1, 3, 1 };

	ck_assert_uint_eq(longest(2, groups, 0, 6, there), 5);
	ck_assert_uint_eq(longest(2, groups, 0, 4, there), 2);
}
END_TEST

START_TEST(what_the_asker_has_counts_for_full_groups_only)
{
	const struct usable_group full = { FULL, 0x1 }, state = { STATE, 0x1 };
	const uint64_t there[] = { 0, 0, 1, 0 };

	ck_assert_uint_eq(longest(1, &full, 2, 4, there), 3);
	ck_assert_uint_eq(longest(1, &full, 1, 4, there), 1);
	ck_assert_uint_eq(longest(1, &state, 2, 2, there), 0);
}
END_TEST

START_TEST(a_group_that_is_not_asked_for_needs_nothing)
{
	const struct usable_group groups[] = { { FULL, 0 }, { FULL, 0x4 } };
	const uint64_t there[] = { 4, 4 };
	struct usable u;

	ck_assert_uint_eq(longest(2, groups, 0, 2, there), 2);
	usable_init(&u, 2, groups, 0);
	expect(!usable_needs(&u, 0, 0, 2));
	ck_assert_uint_eq(usable_parts(&u, 0, 2), 0x4);
}
END_TEST

/* ---- against the definition -------------------------------------------------------------------- */

struct model {
	uint32_t n_groups, have, n;
	struct usable_group groups[5];
	uint64_t there[CHUNKS_MAX];
};

static struct model model_drawn(struct rng *rng)
{
	struct model m = { .n_groups = 1 + rng_below(rng, 5), .n = 1 + rng_below(rng, CHUNKS_MAX) };
	const uint32_t density = 40 + rng_below(rng, 60);	/* percent of parts that are there */
	uint32_t part = 0;

	m.have = rng_below(rng, 2) == 0 ? 0 : rng_below(rng, m.n + 3);
	for (uint32_t g = 0; g < m.n_groups; g++) {
		const uint32_t kind = rng_below(rng, 3), parts = rng_below(rng, 5);

		m.groups[g].window = kind == 0 ? FULL : kind == 1 ? STATE : 1 + rng_below(rng, 9);
		for (uint32_t p = 0; p < parts; p++)
			m.groups[g].parts |= 1ull << part++;
	}
	for (uint32_t i = 0; i < m.n; i++)
		for (uint32_t p = 0; p < 64; p++)
			m.there[i] |= (uint64_t)(rng_below(rng, 100) < density) << p;
	if (rng_below(rng, 3) == 0)		/* long prefixes too, with few gaps */
		for (uint32_t i = 0; i < m.n; i++)
			m.there[i] |= rng_below(rng, 12) != 0 ? ~0ull : 0;
	return m;
}

/* By the word: full: all chunks; window w: the last min(w, n); state: the last. */
static bool oracle_needs(const struct model *m, uint32_t g, uint32_t i, uint32_t n)
{
	const struct usable_group *group = &m->groups[g];

	if (group->parts == 0 || i >= n)
		return false;
	return group->window == FULL || n - i <= group->window;
}

static bool oracle_usable(const struct model *m, uint32_t n)
{
	for (uint32_t g = 0; g < m->n_groups; g++)
		for (uint32_t i = 0; i < n; i++) {
			const bool held = m->groups[g].window == FULL && i < m->have;

			if (oracle_needs(m, g, i, n) && !held && (m->there[i] & m->groups[g].parts) != m->groups[g].parts)
				return false;
		}
	return true;
}

START_TEST(random_models_agree_with_the_definition)
{
	struct rng rng = { .state = (uint64_t)_i };
	uint32_t lengths = 0;

	for (uint32_t round = 0; round < 3000; round++) {
		const struct model m = model_drawn(&rng);
		uint32_t best = 0;
		bool gap = false;
		struct usable u;

		usable_init(&u, m.n_groups, m.groups, m.have);
		for (uint32_t n = 1; n <= m.n; n++) {
			const bool usable = oracle_usable(&m, n);

			expect(usable_feed(&u, m.there[n - 1]) == usable);
			best = usable ? n : best;
			expect(u.longest == best && u.chunks == n);
			gap = gap || u.full_gap;
			expect(!(gap && usable));	/* full_gap promises that nothing longer is usable */
			lengths += usable;
		}
	}
	ck_assert_uint_gt(lengths, 1000);	/* else little was tested */
}
END_TEST

START_TEST(the_parts_that_a_length_needs_make_it_usable_and_no_smaller_set_does)
{
	struct rng rng = { .state = (uint64_t)_i + 100 };

	for (uint32_t round = 0; round < 1000; round++) {
		struct model m = model_drawn(&rng);
		struct usable u;

		usable_init(&u, m.n_groups, m.groups, m.have);
		for (uint32_t i = 0; i < m.n; i++) {
			uint64_t parts = 0;

			for (uint32_t g = 0; g < m.n_groups; g++) {
				expect(usable_needs(&u, g, i, m.n) == oracle_needs(&m, g, i, m.n));
				if (oracle_needs(&m, g, i, m.n) && !(m.groups[g].window == FULL && i < m.have))
					parts |= m.groups[g].parts;
			}
			expect(usable_parts(&u, i, m.n) == parts);
			m.there[i] = usable_parts(&u, i, m.n);
		}
		expect(oracle_usable(&m, m.n));
		for (uint32_t i = 0; i < m.n; i++) {
			const uint64_t kept = m.there[i];

			m.there[i] = kept & (kept - 1);		/* one part less */
			expect(kept == 0 || !oracle_usable(&m, m.n));
			m.there[i] = kept;
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-usable");
	TCase *rules = tcase_create("rules"), *random = tcase_create("random");

	tcase_add_test(rules, a_full_group_ends_at_its_first_gap);
	tcase_add_test(rules, a_window_needs_its_last_chunks_only_and_recovers_from_a_gap);
	tcase_add_test(rules, a_state_needs_the_last_chunk_alone);
	tcase_add_test(rules, what_the_asker_has_counts_for_full_groups_only);
	tcase_add_test(rules, a_group_that_is_not_asked_for_needs_nothing);
	tcase_set_timeout(random, 120);
	tcase_add_loop_test(random, random_models_agree_with_the_definition, 0, 4);
	tcase_add_loop_test(random, the_parts_that_a_length_needs_make_it_usable_and_no_smaller_set_does, 0, 4);
	suite_add_tcase(s, rules);
	suite_add_tcase(s, random);
	return suite_run(s);
}
