/*
 * The report of a command: one JSON object, or the same as a table to read. Times in ns, sizes in
 * bytes, rates in bytes per second; fields in the order in which they were added. What could not be
 * measured is null, and `skipped` says why.
 */
#ifndef STOKER_BENCH_REPORT_H
#define STOKER_BENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#define REPORT_SCHEMA 1

struct report;

/* With what was run and where: command, parameters (taken over), version, commit, machine, date. */
struct report *report_new(const char *command, json_t *parameters);
void report_free(struct report *report);	/* NULL is fine */

void report_count(struct report *report, const char *field, uint64_t value);
void report_real(struct report *report, const char *field, double value);
void report_text(struct report *report, const char *field, const char *value);
void report_json(struct report *report, const char *field, json_t *value);	/* taken over */
/* JSON takes UTF-8: of other text ? for each byte beyond ASCII. */
json_t *report_string(const char *text);
/* @value if @measured, else null with the reason. */
void report_rate(struct report *report, const char *field, double value, bool measured, const char *reason);
void report_skip(struct report *report, const char *field, const char *reason);

/* Everything on stdout; nothing if the command never came to its first field. Returns 0 or -errno. */
int report_print(const struct report *report, bool json);

#endif
