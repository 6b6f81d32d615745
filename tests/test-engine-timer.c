/*
 * The timer wheel: never early, in the millisecond that it should, over all levels and beyond them;
 * then random runs against a plain list of deadlines.
 */
#include "src/engine/timer.h"
#include "tests/random.h"
#include "tests/suite.h"

#include <stdlib.h>

#define MS	1000000ull
#define NONE	0xffffffffu
#define TIMERS	64u

static struct timers *timers_of(uint32_t n, uint64_t now)
{
	return timers_init(malloc(timers_bytes(n)), n, now);
}

/* Delays at both sides of every level's end, and beyond the last (2^30 ms). */
static const uint64_t delays[] = {
	1, 2, 63, 64, 65, 4095, 4096, 4097, 262143, 262144, 16777215, 16777216, 1073741823, 1073741824, 3000000000,
};
#define DELAYS ((int)(sizeof(delays) / sizeof(delays[0])))

START_TEST(a_timer_fires_in_its_millisecond_and_not_before)
{
	static const uint64_t starts[] = { 0, 1, 63, 4095, 1073741823, 123456789012 };

	for (uint32_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		const uint64_t at = (starts[i] + delays[_i]) * MS;
		struct timers *t = timers_of(2, starts[i] * MS);

		timers_set(t, 1, at);
		ck_assert_uint_le(timers_next(t), at);
		ck_assert_uint_eq(timers_advance(t, at - 1), NONE);
		ck_assert_uint_eq(timers_next(t), at);
		ck_assert_uint_eq(timers_advance(t, at), 1);
		ck_assert_uint_eq(timers_advance(t, at), NONE);
		ck_assert_uint_eq(timers_next(t), UINT64_MAX);
		free(t);
	}
}
END_TEST

START_TEST(a_part_of_a_millisecond_counts_as_a_whole_one)
{
	struct timers *t = timers_of(1, 0);

	timers_set(t, 0, 5 * MS + 1);
	ck_assert_uint_eq(timers_advance(t, 5 * MS + 2), NONE);
	ck_assert_uint_eq(timers_next(t), 6 * MS);
	ck_assert_uint_eq(timers_advance(t, 6 * MS), 0);
	free(t);
}
END_TEST

START_TEST(a_timer_of_the_past_fires_at_once)
{
	struct timers *t = timers_of(1, 50 * MS);

	timers_set(t, 0, 3 * MS);
	ck_assert_uint_le(timers_next(t), 50 * MS);
	ck_assert_uint_eq(timers_advance(t, 50 * MS), 0);
	free(t);
}
END_TEST

START_TEST(a_timer_that_is_cleared_or_moved_does_not_fire_at_its_old_time)
{
	struct timers *t = timers_of(3, 0);

	timers_clear(t, 0);
	timers_set(t, 0, 10 * MS);
	timers_set(t, 1, 10 * MS);
	timers_set(t, 2, UINT64_MAX);
	timers_clear(t, 0);
	timers_set(t, 1, 5000 * MS);
	ck_assert_uint_eq(timers_advance(t, 4999 * MS), NONE);
	ck_assert_uint_eq(timers_advance(t, 5000 * MS), 1);
	ck_assert_uint_eq(timers_advance(t, 5000 * MS), NONE);
	free(t);
}
END_TEST

START_TEST(timers_fire_in_the_order_of_their_milliseconds_however_long_the_sleep)
{
	struct timers *t = timers_of(TIMERS, 0);

	for (uint32_t i = 0; i < TIMERS; i++)
		timers_set(t, i, (1 + (TIMERS - i) * 7919ull * (i % 5 + 1)) * MS);
	for (uint64_t last = 0, i = 0; i < TIMERS; i++) {
		const uint32_t fired = timers_advance(t, 1000000000 * MS);
		const uint64_t at = 1 + (TIMERS - fired) * 7919ull * (fired % 5 + 1);

		ck_assert_uint_lt(fired, TIMERS);
		ck_assert_uint_le(last, at);
		last = at;
	}
	free(t);
}
END_TEST

/* ---- random ------------------------------------------------------------------------------------ */

static uint64_t delay_drawn(struct rng *rng)
{
	const uint32_t bits = rng_below(rng, 54);	/* from nanoseconds to 200 days */

	return rng_next(rng) >> (63 - bits) >> 1;
}

/* Earliest deadline, as whole milliseconds, of @at; UINT64_MAX: none is set. */
static uint64_t earliest(const uint64_t *at)
{
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < TIMERS; i++)
		if (at[i] != UINT64_MAX && (at[i] + MS - 1) / MS * MS < first)
			first = (at[i] + MS - 1) / MS * MS;
	return first;
}

START_TEST(random_runs_agree_with_a_list_of_deadlines)
{
	struct rng rng = { .state = (uint64_t)_i };
	uint64_t now = delay_drawn(&rng), at[TIMERS], fires = 0;
	struct timers *t = timers_of(TIMERS, now);

	for (uint32_t i = 0; i < TIMERS; i++)
		at[i] = UINT64_MAX;
	for (uint32_t step = 0; step < 60000; step++) {
		const uint32_t timer = rng_below(&rng, TIMERS), what = rng_below(&rng, 10);

		if (what < 5) {
			at[timer] = now + delay_drawn(&rng);
			timers_set(t, timer, at[timer]);
		} else if (what == 5) {
			at[timer] = UINT64_MAX;
			timers_clear(t, timer);
		} else {
			uint32_t fired;

			now += rng_below(&rng, 3) == 0 ? delay_drawn(&rng) >> 8 : rng_below(&rng, 3 * MS);
			while ((fired = timers_advance(t, now)) != NONE) {
				expect(at[fired] <= now);
				at[fired] = UINT64_MAX;
				fires++;
			}
			expect(earliest(at) > now);		/* all that had to fire has */
		}
		expect(timers_next(t) <= earliest(at));
		expect((timers_next(t) == UINT64_MAX) == (earliest(at) == UINT64_MAX));
	}
	ck_assert_uint_gt(fires, 10000);
	free(t);
}
END_TEST

START_TEST(sleeping_until_the_next_time_told_meets_every_timer_with_few_turns)
{
	struct rng rng = { .state = (uint64_t)_i + 50 };
	struct timers *t = timers_of(TIMERS, 0);
	uint64_t at[TIMERS], now = 0;
	uint32_t turns = 0, fired = 0;

	for (uint32_t i = 0; i < TIMERS; i++) {
		at[i] = delay_drawn(&rng);
		timers_set(t, i, at[i]);
	}
	while (timers_next(t) != UINT64_MAX) {
		uint32_t timer;

		now = timers_next(t) > now ? timers_next(t) : now;
		turns++;
		while ((timer = timers_advance(t, now)) != NONE) {
			expect((at[timer] + MS - 1) / MS == now / MS || at[timer] == 0);
			fired++;
		}
	}
	ck_assert_uint_eq(fired, TIMERS);
	ck_assert_uint_le(turns, 6 * TIMERS + 20);	/* a turn a level and timer, and laps of the whole wheel */
	free(t);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-timer");
	TCase *rules = tcase_create("rules"), *random = tcase_create("random");

	tcase_add_loop_test(rules, a_timer_fires_in_its_millisecond_and_not_before, 0, DELAYS);
	tcase_add_test(rules, a_part_of_a_millisecond_counts_as_a_whole_one);
	tcase_add_test(rules, a_timer_of_the_past_fires_at_once);
	tcase_add_test(rules, a_timer_that_is_cleared_or_moved_does_not_fire_at_its_old_time);
	tcase_add_test(rules, timers_fire_in_the_order_of_their_milliseconds_however_long_the_sleep);
	tcase_set_timeout(random, 120);
	tcase_add_loop_test(random, random_runs_agree_with_a_list_of_deadlines, 0, 4);
	tcase_add_loop_test(random, sleeping_until_the_next_time_told_meets_every_timer_with_few_turns, 0, 8);
	suite_add_tcase(s, rules);
	suite_add_tcase(s, random);
	return suite_run(s);
}
