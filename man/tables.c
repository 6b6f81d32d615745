/*
 * tables NAME - prints a table of the programs as mdoc, for the manual pages. Pages are made at build time
 * from the .in files beside this one, in which a line "@table NAME@" stands for the output of this program; so what a page
 * says of options, counters and statuses is what the programs use.
 */
#include <stdio.h>
#include <string.h>

#include "shm/message.h"
#include "shm/tables.h"
#include "src/broker/settings.h"

/* Text in mdoc: no line may begin with a control character, and a backslash is written \e. */
static void text(const char *s)
{
	if (*s == '.' || *s == '\'')
		fputs("\\&", stdout);
	for (; *s; s++) {
		if (*s == '\\')
			fputs("\\e", stdout);
		else
			putchar(*s);
	}
	putchar('\n');
}

static void number_row(const char *name, int number, const char *meaning)
{
	printf(".It Cm %s Pq %d\n", name, number);
	text(meaning);
}

static void unit_row(const char *name, const char *unit, const char *meaning)
{
	printf(".It Cm %s Pq %s\n", name, unit);
	text(meaning);
}

#define NUMBER_ROW(symbol, number, name, meaning) number_row(name, number, meaning);
#define CONSTANT_ROW(prefix, symbol, number, meaning) \
	do { \
		printf(".It Dv %s Pq %d\n", prefix #symbol, number); \
		text(meaning); \
	} while (0)
#define STATUS_ROW(symbol, number, name, meaning) CONSTANT_ROW("STOKER_STATUS_", symbol, number, meaning);
#define STAGE_ROW(symbol, number, name, meaning) CONSTANT_ROW("STOKER_STAGE_", symbol, number, meaning);
#define CHUNK_ROW(symbol, number, name, meaning) CONSTANT_ROW("STOKER_CHUNK_", symbol, number, meaning);
#define UNIT_ROW(symbol, name, unit, meaning) unit_row(name, unit, meaning);

static void statuses(void) { STOKER_STATUSES(STATUS_ROW) }
static void stages(void) { STOKER_STAGES(STAGE_ROW) }
static void chunks(void) { STOKER_CHUNKS(CHUNK_ROW) }
static void operations(void) { STOKER_OPS(NUMBER_ROW) }
static void states(void) { STOKER_STATES(NUMBER_ROW) }
static void tier_states(void) { STOKER_TIER_STATES(NUMBER_ROW) }
static void gpu_states(void) { STOKER_GPU_STATES(NUMBER_ROW) }
static void verbs(void) { STOKER_ADMIN_VERBS(NUMBER_ROW) }
static void counters(void) { STOKER_COUNTERS(UNIT_ROW) }
static void gauges(void) { STOKER_GAUGES(UNIT_ROW) }
static void histograms(void) { STOKER_HISTOGRAMS(UNIT_ROW) }

/* A bound as one writes it in the file: a size with the largest unit that divides it. */
static void bound(const char *type, unsigned long long value)
{
	const char *unit = "KMGT";

	if (strcmp(type, "SIZE") != 0 || value % 1024 != 0) {
		printf("%llu", value);
		return;
	}
	for (value /= 1024; value % 1024 == 0 && unit[1]; value /= 1024)
		unit++;
	printf("%llu%c", value, *unit);
}

/* What is allowed, where the table bounds it; the rest follows from the type. */
static void allowed(const char *type, unsigned long long min, unsigned long long max)
{
	if (max == 0)
		return;
	printf("Allowed: ");
	bound(type, min);
	printf(" to ");
	bound(type, max);
	puts(".");
}

static void setting(const char *key, const char *type, const char *fallback, unsigned long long min,
		    unsigned long long max, const char *when, const char *meaning)
{
	const int reload = strcmp(when, "RELOAD") == 0;

	printf(".It Cm %s No = Ar %s\n", key, type);
	text(meaning);
	if (*fallback || max > 0 || reload)
		puts(".br");
	allowed(type, min, max);
	if (*fallback)
		printf("Default: %s.\n", fallback);
	if (reload)
		puts("Can be reloaded.");
}

#define SETTING_ROW(key, type, fallback, min, max, when, meaning) \
	setting(#key, #type, fallback, min, max, #when, meaning);
#define SECTION_ROWS(symbol, name, many, meaning) \
	printf(".Ss [%s%s]\n", #name, many ? " NAME" : ""); \
	text(meaning "."); \
	puts(".Bl -tag -width Ds"); \
	SETTINGS_##symbol(SETTING_ROW) \
	puts(".El");

static void settings(void) { SETTINGS_SECTIONS(SECTION_ROWS) }

static const struct { const char *name; void (*print)(void); } tables[] = {
	{ "statuses", statuses }, { "stages", stages }, { "chunks", chunks }, { "operations", operations },
	{ "states", states }, { "tier-states", tier_states }, { "gpu-states", gpu_states }, { "verbs", verbs }, { "counters", counters },
	{ "gauges", gauges }, { "histograms", histograms }, { "settings", settings },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < sizeof(tables) / sizeof(tables[0]); i++)
		if (strcmp(argv[1], tables[i].name) == 0) {
			tables[i].print();
			return ferror(stdout) || fflush(stdout) ? 1 : 0;
		}
	fprintf(stderr, "usage: tables NAME; see man/tables.c\n");
	return 2;
}
