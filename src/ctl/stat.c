/* stokerctl stat: every counter, gauge and histogram, by the tables that the broker counts by. */
#include <inttypes.h>
#include <stdio.h>

#include "src/ctl/ctl.h"

static uint64_t histogram_count(const struct control_page *page, int histogram)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < CONTROL_BLOCKS; i++) {
		for (uint32_t j = 0; j < CONTROL_BUCKETS; j++)
			n += atomic_load_explicit(&page->blocks[i].histograms[histogram][j], memory_order_relaxed);
	}
	return n;
}

static const struct { const char *name; double q; } quantiles[] = {
	{ "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 },
};
enum { N_QUANTILES = sizeof(quantiles) / sizeof(quantiles[0]) };

static enum ctl_exit print_json(const struct ctl *ctl, const struct control_page *page)
{
	json_t *object = ctl_object(ctl), *counters = json_object(), *gauges = json_object(),
	       *histograms = json_object();

	for (int i = 0; i < STOKER_COUNTER_END; i++)
		ctl_set(counters, stoker_counter_row(i)->name, control_counter(page, (enum stoker_counter)i));
	for (int i = 0; i < STOKER_GAUGE_END; i++)
		ctl_set(gauges, stoker_gauge_row(i)->name, ctl_gauge(page, (enum stoker_gauge)i));
	for (int i = 0; i < STOKER_HISTOGRAM_END; i++) {
		json_t *row = json_object();

		ctl_set(row, "n", histogram_count(page, i));
		for (int j = 0; j < N_QUANTILES; j++)
			ctl_set(row, quantiles[j].name, control_quantile(page, (enum stoker_histogram)i, quantiles[j].q));
		json_object_set_new(histograms, stoker_histogram_row(i)->name, row);
	}
	json_object_set_new(object, "counters", counters);
	json_object_set_new(object, "gauges", gauges);
	json_object_set_new(object, "histograms", histograms);
	return ctl_print(object);
}

static void print_row(const struct stoker_row *row, uint64_t value)
{
	printf("%-20s %20" PRIu64 " %-8s %s\n", row->name, value, row->unit, row->meaning);
}

static void print_text(const struct control_page *page)
{
	for (int i = 0; i < STOKER_COUNTER_END; i++)
		print_row(stoker_counter_row(i), control_counter(page, (enum stoker_counter)i));
	for (int i = 0; i < STOKER_GAUGE_END; i++)
		print_row(stoker_gauge_row(i), ctl_gauge(page, (enum stoker_gauge)i));
	for (int i = 0; i < STOKER_HISTOGRAM_END; i++) {
		const struct stoker_row *row = stoker_histogram_row(i);

		printf("%-20s", row->name);
		for (int j = 0; j < N_QUANTILES; j++)
			printf(" %s %" PRIu64, quantiles[j].name,
			       control_quantile(page, (enum stoker_histogram)i, quantiles[j].q));
		printf(" %s, %" PRIu64 " taken: %s\n", row->unit, histogram_count(page, i), row->meaning);
	}
}

enum ctl_exit ctl_stat(const struct ctl *ctl, char **arguments)
{
	const struct control_page *page;
	enum ctl_exit e = ctl_page(ctl, &page);

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	if (ctl->json)
		e = print_json(ctl, page);
	else
		print_text(page);
	control_unmap(page);
	return e;
}
