#include "config.h"

#include "src/bench/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "build-info.h"
#include "src/common/output.h"
#include "src/common/size.h"

struct report {
	json_t *object;
	size_t head;		/* fields that every report has */
	char *skipped;		/* "field: reason; field: reason"; NULL: nothing was */
};

static json_t *cpu_name(void)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	json_t *name = NULL;
	char line[512];

	while (file && !name && fgets(line, sizeof(line), file)) {
		char *value = strstr(line, ": ");

		if (strncmp(line, "model name", 10) == 0 && value) {
			value[strcspn(value, "\n")] = '\0';
			name = json_string(value + 2);
		}
	}
	if (file)
		fclose(file);
	return name ? name : json_null();
}

struct report *report_new(const char *command, json_t *parameters)
{
	struct report *report = calloc(1, sizeof(*report));
	struct utsname machine;
	char date[32];
	const time_t now = time(NULL);
	struct tm utc;

	if (!report) {
		json_decref(parameters);
		return NULL;
	}
	uname(&machine);
	gmtime_r(&now, &utc);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
	report->object = json_object();
	report_count(report, "schema", REPORT_SCHEMA);
	report_text(report, "command", command);
	report_json(report, "parameters", parameters);
	report_text(report, "version", PACKAGE_VERSION);
	report_text(report, "commit", STOKER_COMMIT);
	report_json(report, "cpu", cpu_name());
	report_count(report, "cores", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
	report_text(report, "kernel", machine.release);
	report_text(report, "date_utc", date);
	report->head = json_object_size(report->object);
	return report;
}

void report_free(struct report *report)
{
	if (!report)
		return;
	json_decref(report->object);
	free(report->skipped);
	free(report);
}

void report_json(struct report *report, const char *field, json_t *value)
{
	json_object_set_new(report->object, field, value);
}

void report_count(struct report *report, const char *field, uint64_t value)
{
	report_json(report, field, json_integer((json_int_t)value));
}

void report_real(struct report *report, const char *field, double value)
{
	report_json(report, field, json_real(value));
}

void report_text(struct report *report, const char *field, const char *value)
{
	report_json(report, field, report_string(value));
}

json_t *report_string(const char *text)
{
	json_t *string = json_string(text);
	char *plain = string ? NULL : strdup(text);

	for (char *at = plain; at && *at; at++) {
		if ((unsigned char)*at >= 0x80)
			*at = '?';
	}
	if (plain)
		string = json_string(plain);
	free(plain);
	return string ? string : json_null();
}

void report_rate(struct report *report, const char *field, double value, bool measured, const char *reason)
{
	if (measured)
		report_real(report, field, value);
	else
		report_skip(report, field, reason);
}

void report_skip(struct report *report, const char *field, const char *reason)
{
	char *longer;

	report_json(report, field, json_null());
	if (asprintf(&longer, "%s%s%s: %s", report->skipped ? report->skipped : "", report->skipped ? "; " : "", field,
		     reason) < 0)
		return;
	free(report->skipped);
	report->skipped = longer;
	report_text(report, "skipped", report->skipped);
}

/* ---- as a table to read -------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	const size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static void print_ns(double ns)
{
	if (ns < 10e3)
		printf("%.4g ns", ns);
	else if (ns < 10e6)
		printf("%.4g us", ns / 1e3);
	else
		printf("%.4g ms", ns / 1e6);
}

/* The unit is in the field's name; beside the exact value in JSON a person wants three digits. */
static void print_value(const char *field, const json_t *value)
{
	const double number = json_number_value(value);
	char size[16];

	if (json_is_string(value))
		printf("%s", json_string_value(value));
	else if (json_is_null(value))
		printf("-");
	else if (json_is_boolean(value))
		printf("%s", json_is_true(value) ? "yes" : "no");
	else if (!json_is_number(value))
		printf("...");
	else if (ends_with(field, "bytes_per_s"))
		printf("%s/s", size_text((uint64_t)number, size));
	else if (ends_with(field, "bytes"))
		printf("%s", size_text((uint64_t)number, size));
	else if (strstr(field, "_ns"))
		print_ns(number);
	else if (ends_with(field, "_per_s"))
		printf("%.0f", number);
	else if (json_is_integer(value))
		printf("%lld", (long long)json_integer_value(value));
	else
		printf("%.4f", number);
}

static void print_rows(const char *field, const json_t *list)
{
	const json_t *row, *value;
	const char *name;
	size_t i;

	json_array_foreach(list, i, row) {
		printf("  %-28s", i == 0 ? field : "");
		json_object_foreach((json_t *)row, name, value) {
			printf(" %s ", name);
			print_value(name, value);
		}
		printf("\n");
	}
}

static void print_table(const struct report *report)
{
	const char *field;
	json_t *value;
	bool head = true;	/* machine and parameters are told in one line */

	printf("stoker-bench %s, version %s, %lld cores, kernel %s\n",
	       json_string_value(json_object_get(report->object, "command")), PACKAGE_VERSION,
	       (long long)json_integer_value(json_object_get(report->object, "cores")),
	       json_string_value(json_object_get(report->object, "kernel")));
	json_object_foreach(report->object, field, value) {
		if (head) {
			head = strcmp(field, "date_utc") != 0;
			continue;
		}
		if (strcmp(field, "skipped") == 0)
			continue;
		if (json_is_array(value)) {
			print_rows(field, value);
			continue;
		}
		printf("  %-28s ", field);
		print_value(field, value);
		printf("\n");
	}
	if (report->skipped)
		printf("  not measured: %s\n", report->skipped);
}

int report_print(const struct report *report, bool json)
{
	if (json_object_size(report->object) == report->head)
		return 0;
	if (json) {
		json_dumpf(report->object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
		putchar('\n');
	} else {
		print_table(report);
	}
	return output_end();
}
