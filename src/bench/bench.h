/*
 * stoker-bench: what the programs do, measured and checked. One file a command, one table of
 * commands (main.c); what several commands need is in a file of its own: options, report, sample,
 * machine, trace, payload, own-broker, workers, floor.
 *
 * A command fills the report and returns. It never reports a number that it did not measure: what
 * could not be is report_skip(), which prints null and the reason.
 */
#ifndef STOKER_BENCH_BENCH_H
#define STOKER_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "src/bench/options.h"
#include "src/bench/report.h"

/* Exit statuses of the program. */
enum { BENCH_OK = 0, BENCH_FAILED = 1, BENCH_USAGE = 2 };

#define BENCH_ATTACH_MS 10000	/* what is measured is not how busy the machine is while a broker begins */

/** struct bench_common - options that every command with a broker takes. */
struct bench_common {
	const char *format;		/* "json" or "text" */
	const char *attach;		/* NULL: a broker of one's own */
	uint64_t broker_uid;		/* whose broker is believed, besides root's and one's own; 0: nobody's */
	const char *stokerd;		/* NULL: beside stoker-bench, else in PATH */
	const char *directory;		/* of the tier; NULL: the temporary directory */
	struct option_list set;		/* SECTION.KEY=VALUE for the broker */
};
extern struct bench_common bench_common;
/* The rows of `set`, `attach`, `stokerd`, `directory`, for the tables of commands that use a broker. */
extern const struct option_row bench_broker_options[];

struct bench_command {
	const char *name;
	const char *meaning;
	const struct option_row *options;	/* of its own; ends with a row without a name */
	bool broker;				/* takes bench_broker_options too */
	int (*run)(struct report *report);	/* an exit status; errors have been said on stderr */
};
/* Each in the file of its name. */
extern const struct bench_command bench_replay, bench_rtt, bench_lookup, bench_index, bench_disk, bench_copy,
	bench_policy, bench_start, bench_restart, bench_idle, bench_kill, bench_gpu;

/* One line on stderr, "stoker-bench: text". */
__attribute__((format(printf, 1, 2))) void bench_say(const char *format, ...);

#endif
