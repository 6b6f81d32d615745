/*
 * Ready words: each is seen soon, whatever others wait for, and a round is bounded. The engine is not
 * here: what would reach it is counted.
 */
#include <stdlib.h>
#include <string.h>

#include "src/broker/core-state.h"
#include "tests/random.h"
#include "tests/suite.h"

enum { CLIENTS = 8, SLOTS = 64, BOUND = 16 };

static struct core *core;
static struct channel *channels[CLIENTS];
static uint32_t told[CLIENTS][SLOTS], n_told;

void engine_ready(struct engine *e, uint32_t client, uint32_t slot)
{
	(void)e;
	told[client][slot]++;
	n_told++;
}

static void setup(void)
{
	const struct channel_geometry geometry = { .slots_small = SLOTS, .slots_large = 1, .ready_words = 1024 };
	struct channel_ends ends;

	ck_assert_int_eq(posix_memalign((void **)&core, 64, sizeof(*core)), 0);
	memset(core, 0, sizeof(*core));
	for (uint32_t i = 0; i < CLIENTS; i++) {
		ck_assert_int_eq(channel_new(&geometry, i, &ends, &channels[i]), 0);
		channel_ends_close(&ends);
	}
	memset(told, 0, sizeof(told));
	n_told = 0;
}

static void teardown(void)
{
	for (uint32_t i = 0; i < CLIENTS; i++)
		channel_free(channels[i]);
	free(core);
}

static void raise_word(uint32_t client, uint32_t index, uint32_t value)
{
	_Atomic uint32_t *words = (void *)(channels[client]->base + channels[client]->plan.ready_offset);

	atomic_store(&words[index], value);
}

static uint32_t rounds_until(uint32_t client, uint32_t slot)
{
	for (uint32_t i = 1; i <= 1000; i++) {
		watch_poll(core);
		if (told[client][slot])
			return i;
	}
	return UINT32_MAX;
}

START_TEST(a_word_is_told_once_when_it_reaches_its_value)
{
	watch_add(core, channels[2], 5, 7, 100);
	ck_assert(!watch_poll(core));
	raise_word(2, 7, 99);
	ck_assert(!watch_poll(core));
	raise_word(2, 7, 101);
	ck_assert(watch_poll(core));
	ck_assert_uint_eq(told[2][5], 1);
	ck_assert(!watch_poll(core));
	ck_assert_uint_eq(n_told, 1);
	ck_assert_uint_eq(core->n_watched, 0);
}
END_TEST

START_TEST(a_value_is_reached_beyond_the_wrap_too)
{
	raise_word(0, 0, UINT32_MAX - 1);
	watch_add(core, channels[0], 0, 0, 2);
	ck_assert(!watch_poll(core));
	raise_word(0, 0, 2);
	ck_assert(watch_poll(core));
}
END_TEST

START_TEST(one_word_is_seen_within_a_few_rounds_whatever_seven_others_wait_for)
{
	for (uint32_t c = 1; c < CLIENTS; c++)
		for (uint32_t s = 0; s < SLOTS; s++)
			watch_add(core, channels[c], s, s, 1);
	for (uint32_t i = 0; i < 20; i++) {
		memset(told, 0, sizeof(told));
		watch_add(core, channels[0], 3, 9, i + 1);
		for (uint32_t k = 0; k < i; k++)
			watch_poll(core);
		raise_word(0, 9, i + 1);
		/* Eight clients of four words a turn, sixteen words a round. */
		ck_assert_uint_le(rounds_until(0, 3), 2);
	}
}
END_TEST

START_TEST(a_round_tells_a_bounded_number_and_the_next_ones_the_rest)
{
	uint32_t rounds = 0;

	for (uint32_t c = 0; c < CLIENTS; c++)
		for (uint32_t s = 0; s < SLOTS; s++)
			watch_add(core, channels[c], s, 0, 0);	/* reached as it is */
	while (core->n_watched) {
		const uint32_t before = n_told;

		watch_poll(core);
		ck_assert_uint_le(n_told - before, BOUND);
		rounds++;
	}
	ck_assert_uint_eq(n_told, CLIENTS * SLOTS);
	ck_assert_uint_eq(rounds, CLIENTS * SLOTS / BOUND);
	for (uint32_t c = 0; c < CLIENTS; c++)
		for (uint32_t s = 0; s < SLOTS; s++)
			ck_assert_uint_eq(told[c][s], 1);
}
END_TEST

START_TEST(the_core_knows_which_words_it_has_not_looked_at_since_it_slept)
{
	uint32_t rounds = 0;

	watch_add(core, channels[1], 0, 0, 1);
	for (uint32_t s = 0; s < SLOTS; s++)
		watch_add(core, channels[0], s, s, 1);
	ck_assert_uint_eq(core->watch_left, SLOTS + 1);
	while (core->watch_left && rounds++ < 1000)
		watch_poll(core);
	ck_assert_uint_lt(rounds, 1000);
	watch_add(core, channels[2], 4, 4, 1);
	ck_assert_uint_eq(core->watch_left, 1);
	watch_remove(core, channels[2], 4);
	ck_assert_uint_eq(core->watch_left, 0);

	/* It slept: whatever was raised meanwhile is seen before it may sleep again. */
	watch_woken(core);
	raise_word(1, 0, 1);
	raise_word(0, SLOTS - 1, 1);
	ck_assert_uint_eq(core->watch_left, SLOTS + 1);
	while (core->watch_left)
		watch_poll(core);
	ck_assert_uint_eq(told[1][0], 1);
	ck_assert_uint_eq(told[0][SLOTS - 1], 1);
	ck_assert_uint_eq(n_told, 2);
}
END_TEST

START_TEST(words_come_and_go_in_any_order_and_none_is_lost)
{
	struct rng rng = { (uint64_t)_i + 1 };
	bool watched[CLIENTS][SLOTS] = { 0 };
	uint32_t n = 0;

	for (uint32_t i = 0; i < 20000; i++) {
		const uint32_t c = rng_below(&rng, CLIENTS), s = rng_below(&rng, SLOTS);

		if (watched[c][s] && rng_below(&rng, 3) == 0) {
			watch_remove(core, channels[c], s);
			watched[c][s] = false;
			n--;
		} else if (watched[c][s] && rng_below(&rng, 3) == 0) {
			memset(told, 0, sizeof(told));
			raise_word(c, s, 1);
			ck_assert_uint_ne(rounds_until(c, s), UINT32_MAX);
			ck_assert_uint_eq(told[c][s], 1);
			raise_word(c, s, 0);
			watched[c][s] = false;
			n--;
		} else if (!watched[c][s]) {
			watch_add(core, channels[c], s, s, 1);
			watched[c][s] = true;
			n++;
		}
		if (i % 1000 == 999) {
			watch_remove_client(core, channels[c]);
			for (uint32_t k = 0; k < SLOTS; k++) {
				n -= watched[c][k];
				watched[c][k] = false;
			}
		}
		watch_poll(core);
		expect(core->n_watched == n);
		expect(core->watch_left <= n);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ready words");
	TCase *all = tcase_create("watch");

	tcase_add_checked_fixture(all, setup, teardown);
	tcase_set_timeout(all, 60);
	tcase_add_test(all, a_word_is_told_once_when_it_reaches_its_value);
	tcase_add_test(all, a_value_is_reached_beyond_the_wrap_too);
	tcase_add_test(all, one_word_is_seen_within_a_few_rounds_whatever_seven_others_wait_for);
	tcase_add_test(all, a_round_tells_a_bounded_number_and_the_next_ones_the_rest);
	tcase_add_test(all, the_core_knows_which_words_it_has_not_looked_at_since_it_slept);
	tcase_add_loop_test(all, words_come_and_go_in_any_order_and_none_is_lost, 0, 4);
	suite_add_tcase(suite, all);
	return suite_run(suite);
}
