#include "config.h"

#include "src/bench/trace.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/bench.h"

#define LINE_MAX_BYTES (16u << 20)	/* hundreds of thousands of ids, where a lookup takes thousands */

#define IDS_ALLOWED "0 to 18446744073709551615"
#define DIGITS_SIGNED  19u		/* of the JSON library's greatest whole number, 2^63 - 1 */
#define DIGITS_MAX     20u		/* of the greatest id, 2^64 - 1 */

struct reader {
	const char *path;
	uint64_t line;
	uint64_t requests_max, ids_max;		/* room in the arrays */
	struct trace *trace;
};

static int wrong(const struct reader *reader, const char *what)
{
	bench_say("trace \"%s\", line %llu: %s", reader->path, (unsigned long long)reader->line, what);
	return -EBADMSG;
}

static int no_memory(const struct reader *reader)
{
	bench_say("trace \"%s\": no memory for it", reader->path);
	return -ENOMEM;
}

/* Room for one request of @n ids. */
static int make_room(struct reader *reader, uint64_t n)
{
	struct trace *trace = reader->trace;
	uint64_t max, *grown;

	if (trace->requests + 2 > reader->requests_max) {
		max = reader->requests_max ? 2 * reader->requests_max : 4096;
		grown = reallocarray(trace->first, max, sizeof(*grown));
		if (!grown)
			return no_memory(reader);
		trace->first = grown;
		reader->requests_max = max;
	}
	if (trace->blocks + n > reader->ids_max) {
		max = 2 * reader->ids_max + n + 4096;
		grown = reallocarray(trace->ids, max, sizeof(*grown));
		if (!grown)
			return no_memory(reader);
		trace->ids = grown;
		reader->ids_max = max;
	}
	return 0;
}

/* Numbers above 2^63 - 1 come as strings: see quote_large(). */
static bool take_id(const json_t *id, uint64_t *ret)
{
	const char *digits = json_string_value(id);

	if (json_is_integer(id) && json_integer_value(id) >= 0) {
		*ret = (uint64_t)json_integer_value(id);
		return true;
	}
	if (!digits || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) < DIGITS_SIGNED)
		return false;
	errno = 0;
	*ret = strtoull(digits, NULL, 10);
	return errno == 0;
}

static int take_request(struct reader *reader, const json_t *object)
{
	const json_t *timestamp = json_object_get(object, "timestamp");
	const json_t *ids = json_object_get(object, "hash_ids"), *id;
	struct trace *trace = reader->trace;
	size_t i;
	int r;

	if (!json_is_object(object))
		return wrong(reader, "it is no JSON object");
	if (!json_is_number(timestamp))
		return wrong(reader, timestamp ? "\"timestamp\" is no number" : "it has no \"timestamp\"");
	if (json_number_value(timestamp) < 0)
		return wrong(reader, "\"timestamp\" is negative: it counts ms from the trace's begin");
	if (!json_is_array(ids))
		return wrong(reader, ids ? "\"hash_ids\" is no list" : "it has no \"hash_ids\"");
	r = make_room(reader, json_array_size(ids));
	if (r < 0)
		return r;
	trace->first[trace->requests] = trace->blocks;
	json_array_foreach(ids, i, id) {
		if (!take_id(id, &trace->ids[trace->blocks]))
			return wrong(reader, "\"hash_ids\" holds something else than whole numbers from " IDS_ALLOWED);
		trace->blocks++;
	}
	trace->requests++;
	trace->first[trace->requests] = trace->blocks;
	if (trace->longest < json_array_size(ids)) {
		trace->longest = json_array_size(ids);
		trace->longest_line = reader->line;
	}
	return 0;
}

/* Length of the number, or of the string, or of the one other byte that @text begins with. */
static size_t token_length(const char *text, size_t length)
{
	size_t n = 1;

	if (text[0] == '"') {
		while (n < length && text[n] != '"')
			n += text[n] == '\\' && n + 1 < length ? 2 : 1;
		return n < length ? n + 1 : n;
	}
	if (!strchr("-0123456789", text[0]) || text[0] == '\0')
		return 1;
	while (n < length && text[n] != '\0' && strchr("+-.0123456789Ee", text[n]))
		n++;
	return n;
}

/*
 * The JSON library's whole numbers are signed, ids are 64 bits without a sign. So a line with one that
 * the library refuses is read once more with its large numbers as strings. NULL: no memory.
 */
static char *quote_large(const char *line, size_t length, size_t *ret_length)
{
	char *to = malloc(length + 2 * (length / DIGITS_SIGNED) + 1);
	size_t n = 0, token;

	for (size_t at = 0; to && at < length; at += token) {
		bool large;

		token = token_length(line + at, length - at);
		large = token >= DIGITS_SIGNED && token <= DIGITS_MAX && line[at] != '"' && line[at] != '0' &&
			strspn(line + at, "0123456789") == token;
		if (large)
			to[n++] = '"';
		memcpy(to + n, line + at, token);
		n += token;
		if (large)
			to[n++] = '"';
	}
	*ret_length = n;
	return to;
}

/* NULL and *@ret_error: it is no JSON. */
static json_t *load(const char *line, size_t length, json_error_t *ret_error)
{
	json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, ret_error);
	char *quoted;
	size_t n;

	if (object || json_error_code(ret_error) != json_error_numeric_overflow)
		return object;
	quoted = quote_large(line, length, &n);
	if (quoted)
		object = json_loadb(quoted, n, JSON_REJECT_DUPLICATES, ret_error);
	free(quoted);
	return object;
}

static int take_line(struct reader *reader, const char *line, size_t length)
{
	json_error_t error;
	json_t *object;
	char what[256];
	int r;

	object = load(line, length, &error);
	if (!object && json_error_code(&error) == json_error_numeric_overflow)
		return wrong(reader, "it has a number that is too large: \"hash_ids\" are whole numbers from " IDS_ALLOWED);
	if (!object) {
		snprintf(what, sizeof(what), "%s at byte %d%s", error.text, error.position,
			 length == 0 || line[length - 1] != '\n' ? "; the line is cut off" : "");
		return wrong(reader, what);
	}
	r = take_request(reader, object);
	json_decref(object);
	return r;
}

static bool is_blank(const char *line)
{
	return line[strspn(line, " \t\r\n")] == '\0';
}

/* The next line, its end included, into *@line, which grows. Its length; 0: there is none; -E2BIG, -ENOMEM. */
static ssize_t read_line(FILE *file, char **line, size_t *room)
{
	size_t n = 0;
	int c = 0;

	while (c != '\n' && (c = getc_unlocked(file)) != EOF) {
		if (n + 2 > *room) {
			char *longer = n < LINE_MAX_BYTES ? realloc(*line, 2 * *room + 4096) : NULL;

			if (!longer)
				return n < LINE_MAX_BYTES ? -ENOMEM : -E2BIG;
			*line = longer;
			*room = 2 * *room + 4096;
		}
		(*line)[n++] = (char)c;
		(*line)[n] = '\0';
	}
	return ferror(file) ? 0 : (ssize_t)n;
}

static int read_lines(struct reader *reader, FILE *file, uint64_t requests)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	int r = 0;

	while (r == 0 && (requests == 0 || reader->trace->requests < requests)) {
		length = read_line(file, &line, &room);
		if (length == 0)
			break;
		reader->line++;
		if (length == -E2BIG)
			r = wrong(reader, "it is longer than 16 MiB: a trace has one JSON object in each line");
		else if (length < 0)
			r = no_memory(reader);
		else if (!is_blank(line) || strlen(line) != (size_t)length)
			r = take_line(reader, line, (size_t)length);
	}
	if (r == 0 && ferror(file)) {
		bench_say("could not read trace \"%s\": %s", reader->path, strerror(errno));
		r = -EIO;
	}
	free(line);
	return r;
}

/* A table id -> number, open addressing; `number` + 1 so that 0 is free. */
struct numbers {
	uint64_t mask;
	struct { uint64_t id, number; } *places;
};

static uint64_t number_of(struct numbers *numbers, uint64_t id, uint64_t next)
{
	uint64_t at = ((id ^ id >> 32) * 0x9e3779b97f4a7c15ull) >> 20 & numbers->mask;

	while (numbers->places[at].number && numbers->places[at].id != id)
		at = (at + 1) & numbers->mask;
	if (!numbers->places[at].number) {
		numbers->places[at].id = id;
		numbers->places[at].number = next + 1;
	}
	return numbers->places[at].number - 1;
}

/* Renumber the ids, and count what an infinite cache would hit: the leading blocks that have been seen. */
static int count(struct reader *reader)
{
	struct trace *trace = reader->trace;
	struct numbers numbers = { .mask = 1023 };

	while (numbers.mask < 2 * trace->blocks)
		numbers.mask = 2 * numbers.mask + 1;
	numbers.places = calloc(numbers.mask + 1, sizeof(*numbers.places));
	trace->number = malloc((trace->blocks + 1) * sizeof(*trace->number));
	if (!numbers.places || !trace->number) {
		free(numbers.places);
		return no_memory(reader);
	}
	for (uint64_t r = 0; r < trace->requests; r++) {
		const uint64_t before = trace->unique;
		bool prefix = true;

		for (uint64_t i = trace->first[r]; i < trace->first[r + 1]; i++) {
			const uint64_t number = number_of(&numbers, trace->ids[i], trace->unique);

			trace->number[i] = number;
			if (number == trace->unique)
				trace->unique++;
			prefix = prefix && number < before;
			trace->prefix_hits += prefix;
		}
	}
	free(numbers.places);
	return 0;
}

int trace_read(const char *path, uint64_t requests, struct trace **ret)
{
	struct reader reader = { .path = path };
	FILE *file = fopen(path, "re");
	int r;

	if (!file) {
		r = -errno;
		bench_say("could not open trace \"%s\": %s", path, strerror(errno));
		return r;
	}
	reader.trace = calloc(1, sizeof(*reader.trace));
	r = reader.trace ? read_lines(&reader, file, requests) : no_memory(&reader);
	fclose(file);
	if (r == 0 && reader.trace->requests == 0) {
		bench_say("trace \"%s\": the file has no requests; it must have a JSON object in each line", path);
		r = -EBADMSG;
	}
	if (r == 0)
		r = count(&reader);
	if (r < 0) {
		trace_free(reader.trace);
		return r;
	}
	*ret = reader.trace;
	return 0;
}

void trace_free(struct trace *trace)
{
	if (!trace)
		return;
	free(trace->first);
	free(trace->ids);
	free(trace->number);
	free(trace);
}
