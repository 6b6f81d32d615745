/*
 * Options of the commands, as tables: parser, --help and the report's `parameters` read the same rows.
 */
#ifndef STOKER_BENCH_OPTIONS_H
#define STOKER_BENCH_OPTIONS_H

#include <stdint.h>
#include <jansson.h>

#define OPTION_LIST_MAX 32u

struct option_list {
	uint32_t n;
	const char *text[OPTION_LIST_MAX];
};

enum option_type {
	OPTION_TEXT,	/* const char * */
	OPTION_SIZE,	/* uint64_t; 64K, 2G, and 10% of RAM */
	OPTION_COUNT,	/* uint64_t */
	OPTION_SHARE,	/* double, 0 to 1 */
	OPTION_SWITCH,	/* bool; takes no argument */
	OPTION_LIST,	/* struct option_list; may be given again and again */
};

struct option_row {
	const char *name;	/* without its dashes; NULL: end of the table */
	enum option_type type;
	void *to;		/* holds the default until it is parsed */
	uint64_t min, max;	/* of SIZE and COUNT; 0, 0: none */
	const char *argument;	/* how --help calls it */
	const char *meaning;
};

/*
 * Parse all of @argv by the rows of @tables (n of them). Returns 0, or -EINVAL after saying on stderr
 * what is wrong.
 */
int options_parse(const struct option_row *const *tables, uint32_t n, int argc, char **argv);
void options_help(const struct option_row *table);
/* Values of a table, into @object. */
void options_json(const struct option_row *table, json_t *object);

#endif
