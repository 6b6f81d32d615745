/*
 * The tables of shm/tables.h and <stoker/status.h> as text: each is spelled out once more, from the
 * same X-macro, as an array with the row's number for its place. A place without a row has no name.
 */
#include "shm/tables.h"

#include <stddef.h>

#define NUMBERED_ROW(symbol, number, name, meaning) [(number)] = { (number), name, NULL, meaning },

static const struct stoker_row op_rows[] = { STOKER_OPS(NUMBERED_ROW) };
static const struct stoker_row stage_rows[] = { STOKER_STAGES(NUMBERED_ROW) };
static const struct stoker_row status_rows[] = { STOKER_STATUSES(NUMBERED_ROW) };
static const struct stoker_row chunk_rows[] = { STOKER_CHUNKS(NUMBERED_ROW) };
static const struct stoker_row state_rows[] = { STOKER_STATES(NUMBERED_ROW) };
static const struct stoker_row tier_state_rows[] = { STOKER_TIER_STATES(NUMBERED_ROW) };
static const struct stoker_row gpu_state_rows[] = { STOKER_GPU_STATES(NUMBERED_ROW) };

#define COUNTER_ROW(symbol, name, unit, meaning) \
	[STOKER_COUNTER_##symbol] = { STOKER_COUNTER_##symbol, name, unit, meaning },
#define GAUGE_ROW(symbol, name, unit, meaning) \
	[STOKER_GAUGE_##symbol] = { STOKER_GAUGE_##symbol, name, unit, meaning },
#define HISTOGRAM_ROW(symbol, name, unit, meaning) \
	[STOKER_HISTOGRAM_##symbol] = { STOKER_HISTOGRAM_##symbol, name, unit, meaning },

static const struct stoker_row counter_rows[] = { STOKER_COUNTERS(COUNTER_ROW) };
static const struct stoker_row gauge_rows[] = { STOKER_GAUGES(GAUGE_ROW) };
static const struct stoker_row histogram_rows[] = { STOKER_HISTOGRAMS(HISTOGRAM_ROW) };

static const struct stoker_row *row_of(const struct stoker_row *rows, size_t n, int number)
{
	if (number < 0 || (size_t)number >= n || !rows[number].name)
		return NULL;
	return &rows[number];
}
#define ROW_OF(rows, number) row_of(rows, sizeof(rows) / sizeof((rows)[0]), number)

const struct stoker_row *stoker_op_row(int op)
{
	return ROW_OF(op_rows, op);
}

const struct stoker_row *stoker_stage_row(int stage)
{
	return ROW_OF(stage_rows, stage);
}

const struct stoker_row *stoker_status_row(int status)
{
	return ROW_OF(status_rows, status);
}

const struct stoker_row *stoker_chunk_row(int chunk)
{
	return ROW_OF(chunk_rows, chunk);
}

const struct stoker_row *stoker_state_row(int state)
{
	return ROW_OF(state_rows, state);
}

const struct stoker_row *stoker_tier_state_row(int state)
{
	return ROW_OF(tier_state_rows, state);
}

const struct stoker_row *stoker_gpu_state_row(int state)
{
	return ROW_OF(gpu_state_rows, state);
}

const struct stoker_row *stoker_counter_row(int counter)
{
	return ROW_OF(counter_rows, counter);
}

const struct stoker_row *stoker_gauge_row(int gauge)
{
	return ROW_OF(gauge_rows, gauge);
}

const struct stoker_row *stoker_histogram_row(int histogram)
{
	return ROW_OF(histogram_rows, histogram);
}
