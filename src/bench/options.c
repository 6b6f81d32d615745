#include "config.h"

#include "src/bench/options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/report.h"
#include "src/common/size.h"

static uint64_t memory_bytes(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static const struct option_row *find(const struct option_row *const *tables, uint32_t n, const char *name,
				     size_t length)
{
	for (uint32_t t = 0; t < n; t++) {
		for (const struct option_row *row = tables[t]; row->name; row++) {
			if (strlen(row->name) == length && strncmp(row->name, name, length) == 0)
				return row;
		}
	}
	return NULL;
}

static int bad(const struct option_row *row, const char *text, const char *allowed)
{
	bench_say("--%s takes %s, not \"%s\"", row->name, allowed, text);
	return -EINVAL;
}

static int take_number(const struct option_row *row, const char *text)
{
	uint64_t value;
	char *end;

	if (row->type == OPTION_SIZE) {
		if (size_parse(text, memory_bytes(), &value) < 0)
			return bad(row, text, "a size such as 64K, 2G or 10%");
	} else {
		errno = 0;
		value = strtoull(text, &end, 10);
		if (errno || end == text || *end || *text == '-' || *text == '+')
			return bad(row, text, "a whole number");
	}
	if ((row->min || row->max) && (value < row->min || (row->max && value > row->max))) {
		char allowed[96];

		if (row->max)
			snprintf(allowed, sizeof(allowed), "%llu to %llu", (unsigned long long)row->min,
				 (unsigned long long)row->max);
		else
			snprintf(allowed, sizeof(allowed), "at least %llu", (unsigned long long)row->min);
		return bad(row, text, allowed);
	}
	*(uint64_t *)row->to = value;
	return 0;
}

static int take(const struct option_row *row, const char *text)
{
	struct option_list *list = row->to;
	double share;
	char *end;

	switch (row->type) {
	case OPTION_TEXT:
		*(const char **)row->to = text;
		return 0;
	case OPTION_SIZE:
	case OPTION_COUNT:
		return take_number(row, text);
	case OPTION_SHARE:
		share = strtod(text, &end);
		if (end == text || *end || !(share >= 0 && share <= 1))
			return bad(row, text, "a number from 0 to 1");
		*(double *)row->to = share;
		return 0;
	case OPTION_LIST:
		if (list->n == OPTION_LIST_MAX)
			return bad(row, text, "no more than 32 values");
		list->text[list->n++] = text;
		return 0;
	case OPTION_SWITCH:
		break;
	}
	return bad(row, text, "no value");
}

int options_parse(const struct option_row *const *tables, uint32_t n, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		const char *name = argv[i] + 2;
		const struct option_row *row;
		size_t length;
		int r;

		if (strncmp(argv[i], "--", 2) != 0 || argv[i][2] == '\0') {
			bench_say("\"%s\" is no option; --help lists them", argv[i]);
			return -EINVAL;
		}
		length = strcspn(name, "=");
		row = find(tables, n, name, length);
		if (!row) {
			bench_say("there is no option --%.*s here; --help lists them", (int)length, name);
			return -EINVAL;
		}
		if (name[length] == '=') {
			r = take(row, name + length + 1);
		} else if (row->type == OPTION_SWITCH) {
			*(bool *)row->to = true;
			r = 0;
		} else if (i + 1 == argc) {
			bench_say("--%s needs a value: %s", row->name, row->argument);
			return -EINVAL;
		} else {
			r = take(row, argv[++i]);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static void default_text(const struct option_row *row, char *ret, size_t bytes)
{
	char size[16];

	*ret = '\0';
	if (row->type == OPTION_TEXT && *(const char **)row->to)
		snprintf(ret, bytes, " [%s]", *(const char **)row->to);
	else if (row->type == OPTION_SIZE)
		snprintf(ret, bytes, " [%s]", size_text(*(uint64_t *)row->to, size));
	else if (row->type == OPTION_COUNT)
		snprintf(ret, bytes, " [%llu]", (unsigned long long)*(uint64_t *)row->to);
	else if (row->type == OPTION_SHARE)
		snprintf(ret, bytes, " [%g]", *(double *)row->to);
}

void options_help(const struct option_row *table)
{
	for (const struct option_row *row = table; row->name; row++) {
		char left[64], value[64];

		snprintf(left, sizeof(left), "--%s %s", row->name, row->argument ? row->argument : "");
		default_text(row, value, sizeof(value));
		printf("  %-24s %s%s\n", left, row->meaning, value);
	}
}

static json_t *value_json(const struct option_row *row)
{
	const struct option_list *list = row->to;
	json_t *array;

	switch (row->type) {
	case OPTION_TEXT:
		return *(const char **)row->to ? report_string(*(const char **)row->to) : json_null();
	case OPTION_SIZE:
	case OPTION_COUNT:
		return json_integer((json_int_t)*(uint64_t *)row->to);
	case OPTION_SHARE:
		return json_real(*(double *)row->to);
	case OPTION_SWITCH:
		return json_boolean(*(bool *)row->to);
	case OPTION_LIST:
		array = json_array();
		for (uint32_t i = 0; i < list->n; i++)
			json_array_append_new(array, report_string(list->text[i]));
		return array;
	}
	return json_null();
}

void options_json(const struct option_row *table, json_t *object)
{
	for (const struct option_row *row = table; row->name; row++) {
		char name[64];

		/* Field names have no dashes, so that every tool can name them. */
		snprintf(name, sizeof(name), "%s", row->name);
		for (char *c = name; *c; c++)
			*c = *c == '-' ? '_' : *c;
		json_object_set_new(object, name, value_json(row));
	}
}
