/* The settings as rows that a program can walk: for config.c, config-finish.c and the manual's maker. */
#ifndef STOKER_BROKER_CONFIG_TABLE_H
#define STOKER_BROKER_CONFIG_TABLE_H

#include <assert.h>
#include <stddef.h>

#include "src/broker/config.h"

enum config_type {
	CONFIG_TYPE_TEXT, CONFIG_TYPE_SIZE, CONFIG_TYPE_SPACE, CONFIG_TYPE_COUNT,
	CONFIG_TYPE_SWITCH, CONFIG_TYPE_IDS, CONFIG_TYPE_POLICY, CONFIG_TYPE_LEVEL,
};
enum config_when { CONFIG_START, CONFIG_RELOAD };

struct config_row {
	const char *key;
	enum config_type type;
	size_t offset;		/* in the section's struct */
	const char *text;	/* default */
	uint64_t min, max;
	enum config_when when;
	const char *meaning;
};

struct config_section {
	const char *name;
	int many;
	const char *meaning;
	const struct config_row *rows;
	uint32_t n;
};

#define CONFIG_AS_SECTION(symbol, name, many, meaning) CONFIG_SECTION_##symbol,
enum config_section_number { SETTINGS_SECTIONS(CONFIG_AS_SECTION) CONFIG_SECTIONS };
#undef CONFIG_AS_SECTION
static_assert(CONFIG_SECTION_TENANT == 5 && CONFIG_SECTION_TIER == 6, "single sections come first");

extern const struct config_section config_sections[CONFIG_SECTIONS];

/* The struct of a section; @i: which tenant or tier. NULL: there is none. */
void *config_section_at(struct config *config, uint32_t section, uint32_t i);

#endif
