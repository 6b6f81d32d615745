/* The plan of a channel: everything in its place, nothing over anything else, nothing outside. */
#include "shm/layout.h"
#include "tests/suite.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const uint32_t smalls[] = { 1, 2, 3, 63, 64, 65, 255, CHANNEL_SMALL_MAX };
static const uint32_t larges[] = { 1, 2, 4, 15, CHANNEL_LARGE_MAX };
static const uint32_t readies[] = { 1024, 2048, 3072, CHANNEL_READY_MAX };
#define N(array) (sizeof(array) / sizeof((array)[0]))
#define PLANS	 ((int)(N(smalls) * N(larges) * N(readies)))

static struct channel_plan plan_number(int i)
{
	const size_t n = (size_t)i;
	const struct channel_geometry geometry = {
		.slots_small = smalls[n % N(smalls)],
		.slots_large = larges[n / N(smalls) % N(larges)],
		.ready_words = readies[n / N(smalls) / N(larges)],
	};
	struct channel_plan plan;

	ck_assert_int_eq(channel_plan_make(&geometry, &plan), 0);
	ck_assert_mem_eq(&plan.geometry, &geometry, sizeof(geometry));
	return plan;
}

START_TEST(areas_follow_each_other_without_overlap_up_to_the_end)
{
	for (int i = 0; i < PLANS; i++) {
		const struct channel_plan plan = plan_number(i);
		uint64_t end;

		expect(plan.request_offset >= sizeof(struct channel_header));
		expect(plan.response_offset >= plan.request_offset + plan.requests * sizeof(struct stoker_entry));
		expect(plan.ready_offset >= plan.response_offset + plan.responses * sizeof(uint64_t));
		expect(plan.slot_offset >= plan.ready_offset + plan.geometry.ready_words * sizeof(uint32_t));
		end = plan.slot_offset + plan.slots * sizeof(struct stoker_slot);
		for (uint32_t slot = 0; slot < plan.slots; slot++) {
			expect(plan_input_offset(&plan, slot) >= end);
			end = plan_input_offset(&plan, slot) + plan_slot_input(&plan, slot);
			expect(plan_output_offset(&plan, slot) >= end);
			end = plan_output_offset(&plan, slot) + plan_status_offset(&plan, slot) + plan_slot_keys(&plan, slot);
		}
		expect(plan.bytes >= end);
		expect(plan.bytes < end + 2 * STOKER_PAGE);	/* and no more than that */
	}
}
END_TEST

START_TEST(areas_begin_on_lines_and_the_ready_words_have_pages_of_their_own)
{
	for (int i = 0; i < PLANS; i++) {
		const struct channel_plan plan = plan_number(i);

		expect(plan.request_offset % STOKER_PAGE == 0);
		expect(plan.response_offset % STOKER_LINE == 0);
		expect(plan.ready_offset % STOKER_PAGE == 0);
		expect(plan.slot_offset % STOKER_PAGE == 0);
		expect(plan.bytes % STOKER_PAGE == 0);
		for (uint32_t slot = 0; slot < plan.slots; slot++) {
			expect(plan_input_offset(&plan, slot) % STOKER_LINE == 0);
			expect(plan_output_offset(&plan, slot) % STOKER_LINE == 0);
		}
	}
}
END_TEST

START_TEST(small_slots_have_the_low_numbers_and_each_class_its_sizes)
{
	for (int i = 0; i < PLANS; i++) {
		const struct channel_plan plan = plan_number(i);

		expect(plan.slots == plan.geometry.slots_small + plan.geometry.slots_large);
		for (uint32_t slot = 0; slot < plan.slots; slot++) {
			const bool small = slot < plan.geometry.slots_small;

			expect(plan_slot_keys(&plan, slot) ==
			       (small ? STOKER_SMALL_KEYS : STOKER_LARGE_KEYS));
			expect(plan_slot_input(&plan, slot) ==
			       (small ? STOKER_SMALL_INPUT : STOKER_LARGE_INPUT));
		}
	}
}
END_TEST

START_TEST(rings_are_powers_of_two_with_four_requests_and_two_responses_a_slot)
{
	for (int i = 0; i < PLANS; i++) {
		const struct channel_plan plan = plan_number(i);

		expect((plan.requests & (plan.requests - 1)) == 0);
		expect(plan.requests >= 4 * plan.slots);
		expect(plan.requests < 8 * plan.slots);
		expect((plan.responses & (plan.responses - 1)) == 0);
		expect(plan.responses >= 2 * plan.slots);
	}
}
END_TEST

START_TEST(payloads_of_a_class_are_no_power_of_two_apart)
{
	for (int i = 0; i < PLANS; i++) {
		const struct channel_plan plan = plan_number(i);

		for (uint32_t slot = 1; slot < plan.slots; slot++) {
			const uint64_t stride = plan_input_offset(&plan, slot) - plan_input_offset(&plan, slot - 1);

			expect((stride & (stride - 1)) != 0);
		}
	}
}
END_TEST

START_TEST(a_geometry_out_of_bounds_is_refused_and_nothing_is_written)
{
	static const struct channel_geometry bad[] = {
		{ 0, 1, 1024, 0 },
		{ 1, 0, 1024, 0 },
		{ CHANNEL_SMALL_MAX + 1, 1, 1024, 0 },
		{ 1, CHANNEL_LARGE_MAX + 1, 1024, 0 },
		{ UINT32_MAX, 1, 1024, 0 },
		{ 1, UINT32_MAX, 1024, 0 },
		{ UINT32_MAX, UINT32_MAX, 1024, 0 },	/* their sum wraps */
		{ 64, 4, 0, 0 },
		{ 64, 4, 1, 0 },
		{ 64, 4, 1023, 0 },
		{ 64, 4, 1025, 0 },
		{ 64, 4, CHANNEL_READY_MAX + 1024, 0 },
		{ 64, 4, UINT32_MAX - 1023, 0 },
		{ 64, 4, UINT32_MAX, 0 },
		{ 64, 4, 1024, 1 },
	};
	struct channel_plan plan = { .bytes = 4711 };

	for (size_t i = 0; i < N(bad); i++)
		ck_assert_int_eq(channel_plan_make(&bad[i], &plan), -EINVAL);
	ck_assert_uint_eq(plan.bytes, 4711);
}
END_TEST

START_TEST(a_slot_word_gives_back_what_went_into_it)
{
	static const uint32_t generations[] = { 1, 2, 0x7fffffff, 0x80000000, UINT32_MAX };

	for (size_t i = 0; i < N(generations); i++) {
		const uint64_t word = slot_word(generations[i], STOKER_STATUS_BROKER_GONE, STOKER_STAGE_DONE);

		ck_assert_uint_eq(slot_word_generation(word), generations[i]);
		ck_assert_uint_eq(slot_word_status(word), STOKER_STATUS_BROKER_GONE);
		ck_assert_uint_eq(slot_word_stage(word), STOKER_STAGE_DONE);
	}
}
END_TEST

/* ---- the tables as text ------------------------------------------------------------------ */

typedef const struct stoker_row *row_function(int number);

/* Every row has its own name and a meaning; where a table has units, every row has one. */
static int assert_table(row_function *row, int end, bool units)
{
	int rows = 0;

	ck_assert_ptr_null(row(-1));
	ck_assert_ptr_null(row(end));
	ck_assert_ptr_null(row(1 << 30));
	for (int i = 0; i < end; i++) {
		if (!row(i))
			continue;
		rows++;
		ck_assert_int_eq(row(i)->number, i);
		ck_assert_uint_gt(strlen(row(i)->name), 0);
		ck_assert_uint_gt(strlen(row(i)->meaning), 0);
		ck_assert_int_eq(row(i)->unit != NULL, units);
		for (int j = 0; j < i; j++)
			ck_assert(!row(j) || strcmp(row(j)->name, row(i)->name) != 0);
	}
	return rows;
}

#define ONE_MORE(...) +1
START_TEST(every_row_of_every_table_is_found_by_its_number_and_no_other)
{
	ck_assert_int_eq(assert_table(stoker_op_row, STOKER_OP_END, false), STOKER_OPS(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_stage_row, STOKER_STAGE_END, false), STOKER_STAGES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_status_row, STOKER_STATUS_END, false), STOKER_STATUSES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_chunk_row, STOKER_CHUNK_END, false), STOKER_CHUNKS(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_state_row, STOKER_STATE_END, false), STOKER_STATES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_gpu_state_row, STOKER_GPU_END, false), STOKER_GPU_STATES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_tier_state_row, STOKER_TIER_END, false), STOKER_TIER_STATES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_counter_row, STOKER_COUNTER_END, true), STOKER_COUNTERS(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_gauge_row, STOKER_GAUGE_END, true), STOKER_GAUGES(ONE_MORE));
	ck_assert_int_eq(assert_table(stoker_histogram_row, STOKER_HISTOGRAM_END, true), STOKER_HISTOGRAMS(ONE_MORE));
	ck_assert_str_eq(stoker_op_row(STOKER_OP_END_SESSION)->name, "end-session");
	ck_assert_str_eq(stoker_status_row(64)->name, "broker-gone");
	ck_assert_ptr_null(stoker_op_row(0));
	ck_assert_ptr_null(stoker_status_row(63));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("shm-layout");
	TCase *plans = tcase_create("plans");
	TCase *tables = tcase_create("tables");

	tcase_add_test(plans, areas_follow_each_other_without_overlap_up_to_the_end);
	tcase_add_test(plans, areas_begin_on_lines_and_the_ready_words_have_pages_of_their_own);
	tcase_add_test(plans, small_slots_have_the_low_numbers_and_each_class_its_sizes);
	tcase_add_test(plans, rings_are_powers_of_two_with_four_requests_and_two_responses_a_slot);
	tcase_add_test(plans, payloads_of_a_class_are_no_power_of_two_apart);
	tcase_add_test(plans, a_geometry_out_of_bounds_is_refused_and_nothing_is_written);
	tcase_add_test(plans, a_slot_word_gives_back_what_went_into_it);
	tcase_add_test(tables, every_row_of_every_table_is_found_by_its_number_and_no_other);
	suite_add_tcase(s, plans);
	suite_add_tcase(s, tables);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
