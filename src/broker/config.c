/*
 * The configuration's values: the table of settings, defaults, parsing of one value, the file (read
 * by inih, which knows the grammar; lines are counted here, because it does not tell them), and
 * printing. What follows from the values (directories, tenants, sizes) is in config-finish.c.
 */
#include "src/broker/config.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <inttypes.h>
#include <pwd.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/config-table.h"
#include "src/common/log.h"
#include "src/common/size.h"
#include "src/engine/engine.h"

/* ---- the table ------------------------------------------------------------------------------ */

#define ROW(owner, key, type, text, min, max, when, meaning) \
	{ #key, CONFIG_TYPE_##type, offsetof(struct owner, key), text, min, max, CONFIG_##when, meaning },
#define ROW_BROKER(key, type, text, min, max, when, meaning) ROW(config_broker, key, type, text, min, max, when, meaning)
#define ROW_ARENA(key, type, text, min, max, when, meaning)  ROW(config_arena, key, type, text, min, max, when, meaning)
#define ROW_DISK(key, type, text, min, max, when, meaning)   ROW(config_disk, key, type, text, min, max, when, meaning)
#define ROW_GPU(key, type, text, min, max, when, meaning)    ROW(config_gpu, key, type, text, min, max, when, meaning)
#define ROW_LIMITS(key, type, text, min, max, when, meaning) ROW(config_limits, key, type, text, min, max, when, meaning)
#define ROW_TENANT(key, type, text, min, max, when, meaning) ROW(config_tenant, key, type, text, min, max, when, meaning)
#define ROW_TIER(key, type, text, min, max, when, meaning)   ROW(config_tier, key, type, text, min, max, when, meaning)

static const struct config_row rows_of_broker[] = { SETTINGS_BROKER(ROW_BROKER) };
static const struct config_row rows_of_arena[] = { SETTINGS_ARENA(ROW_ARENA) };
static const struct config_row rows_of_disk[] = { SETTINGS_DISK(ROW_DISK) };
static const struct config_row rows_of_gpu[] = { SETTINGS_GPU(ROW_GPU) };
static const struct config_row rows_of_limits[] = { SETTINGS_LIMITS(ROW_LIMITS) };
static const struct config_row rows_of_tenant[] = { SETTINGS_TENANT(ROW_TENANT) };
static const struct config_row rows_of_tier[] = { SETTINGS_TIER(ROW_TIER) };

#define AS_SECTION(symbol, name, many, meaning) \
	{ #name, many, meaning, rows_of_##name, sizeof(rows_of_##name) / sizeof(rows_of_##name[0]) },
const struct config_section config_sections[CONFIG_SECTIONS] = { SETTINGS_SECTIONS(AS_SECTION) };

void *config_section_at(struct config *config, uint32_t section, uint32_t i)
{
	switch (section) {
	case CONFIG_SECTION_BROKER: return &config->broker;
	case CONFIG_SECTION_ARENA:  return &config->arena;
	case CONFIG_SECTION_DISK:   return &config->disk;
	case CONFIG_SECTION_GPU:    return &config->gpu;
	case CONFIG_SECTION_LIMITS: return &config->limits;
	case CONFIG_SECTION_TENANT: return i < config->n_tenants ? &config->tenants[i] : NULL;
	default:                    return i < config->n_tiers ? &config->tiers[i] : NULL;
	}
}

/* ---- one value ------------------------------------------------------------------------------ */

static int id_parse(const char *word, bool groups, uint32_t *ret)
{
	char *end;

	errno = 0;
	const unsigned long id = strtoul(word, &end, 10);
	if (isdigit((unsigned char)word[0]) && *end == '\0' && errno == 0 && id < UINT32_MAX) {
		*ret = (uint32_t)id;
		return 0;
	}
	if (groups) {
		const struct group *group = getgrnam(word);

		return group ? (*ret = group->gr_gid, 0) : -ENOENT;
	}
	const struct passwd *user = getpwnam(word);
	return user ? (*ret = user->pw_uid, 0) : -ENOENT;
}

static int ids_parse(const char *value, bool groups, struct config_ids *ret)
{
	struct config_ids ids = { 0 };
	char text[CONFIG_TEXT_MAX], *save = NULL;

	if (strlen(value) >= sizeof(text))
		return -E2BIG;
	strcpy(text, value);
	for (char *word = strtok_r(text, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
		if (strcmp(word, "*") == 0) {
			ids.any = true;
			continue;
		}
		if (ids.n == CONFIG_IDS_MAX)
			return -E2BIG;
		if (id_parse(word, groups, &ids.id[ids.n]) < 0)
			return -ENOENT;
		ids.n++;
	}
	*ret = ids;
	return 0;
}

static int count_parse(const char *value, uint64_t *ret)
{
	char *end;

	if (!isdigit((unsigned char)value[0]))
		return -EINVAL;
	errno = 0;
	*ret = strtoull(value, &end, 10);
	return *end == '\0' && errno == 0 ? 0 : -EINVAL;
}

static int switch_parse(const char *value, bool *ret)
{
	static const char *const yes[] = { "yes", "true", "on", "1" }, *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
			*ret = strcmp(value, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}

/* What is allowed for a row, as the end of an error message. */
static void allowed_text(const struct config_row *row, char *ret, size_t bytes)
{
	char low[16], high[16];

	switch (row->type) {
	case CONFIG_TYPE_TEXT:
		snprintf(ret, bytes, "a text of up to %u bytes", CONFIG_TEXT_MAX - 1);
		break;
	case CONFIG_TYPE_SIZE:
		if (row->max)
			snprintf(ret, bytes, "a size from %s to %s, as 64K, 2G or 10%%",
				 size_text(row->min, low), size_text(row->max, high));
		else
			snprintf(ret, bytes, "a size%s, as 64K, 2G or 10%%", row->min ? " above 0" : "");
		break;
	case CONFIG_TYPE_SPACE:
		snprintf(ret, bytes, "a size above 0, as 64K, 2G, or 10%% of the file system");
		break;
	case CONFIG_TYPE_COUNT:
		snprintf(ret, bytes, "a number from %" PRIu64 " to %" PRIu64, row->min, row->max);
		break;
	case CONFIG_TYPE_SWITCH:
		snprintf(ret, bytes, "yes or no");
		break;
	case CONFIG_TYPE_IDS:
		snprintf(ret, bytes, "up to %u known names or numbers, or *", CONFIG_IDS_MAX);
		break;
	case CONFIG_TYPE_POLICY:
		snprintf(ret, bytes, "lru or arc");
		break;
	case CONFIG_TYPE_LEVEL:
		snprintf(ret, bytes, "error, warning, info or debug");
		break;
	}
}

static bool number_fits(const struct config_row *row, uint64_t n)
{
	return n >= row->min && (row->max == 0 || n <= row->max);
}

static int level_parse(const char *value, int *ret)
{
	enum log_level level;
	const int r = log_level_parse(value, &level);

	if (r == 0)
		*ret = (int)level;
	return r;
}

static int value_parse(const struct config_row *row, const char *value, void *field)
{
	uint64_t n = 0;
	int r;

	switch (row->type) {
	case CONFIG_TYPE_TEXT:
		if (strlen(value) >= CONFIG_TEXT_MAX)
			return -EINVAL;
		strcpy(field, value);
		return 0;
	case CONFIG_TYPE_SPACE:
		/* Of what a share is taken is known later: here only whether it is a size at all. */
		if (strlen(value) >= sizeof(config_space) || size_parse(value, 1ull << 40, &n) < 0 || n == 0)
			return -EINVAL;
		strcpy(field, value);
		return 0;
	case CONFIG_TYPE_SIZE:
	case CONFIG_TYPE_COUNT:
		r = row->type == CONFIG_TYPE_SIZE ? size_parse(value, config_memory(), &n) : count_parse(value, &n);
		if (r < 0 || !number_fits(row, n))
			return -EINVAL;
		*(uint64_t *)field = n;
		return 0;
	case CONFIG_TYPE_SWITCH:
		return switch_parse(value, field);
	case CONFIG_TYPE_IDS:
		return ids_parse(value, strcmp(row->key, "gids") == 0, field);
	case CONFIG_TYPE_POLICY:
		if (strcmp(value, "lru") != 0 && strcmp(value, "arc") != 0)
			return -EINVAL;
		*(int *)field = strcmp(value, "lru") == 0 ? ENGINE_POLICY_LRU : ENGINE_POLICY_ARC;
		return 0;
	case CONFIG_TYPE_LEVEL:
		return level_parse(value, field);
	}
	return -EINVAL;
}

static void section_init(struct config *config, uint32_t section, uint32_t i)
{
	const struct config_section *rows = &config_sections[section];
	uint8_t *at = config_section_at(config, section, i);

	for (uint32_t r = 0; r < rows->n; r++) {
		/* "" means "worked out at start", and is what zeroed memory says already. */
		if (rows->rows[r].text[0] != '\0')
			value_parse(&rows->rows[r], rows->rows[r].text, at + rows->rows[r].offset);
	}
}

void config_init(struct config *config)
{
	memset(config, 0, sizeof(*config));
	for (uint32_t section = 0; section < CONFIG_SECTION_TENANT; section++)
		section_init(config, section, 0);
}

/* ---- sections by name ----------------------------------------------------------------------- */

static bool instance_name_is_valid(const char *name, size_t max)
{
	const size_t n = strlen(name);

	if (n == 0 || n > max)
		return false;
	return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* The instance of that name, made if it is new. */
static int instance_find(struct config *config, uint32_t section, const char *name, uint32_t *ret)
{
	const bool tenant = section == CONFIG_SECTION_TENANT;
	uint32_t *n = tenant ? &config->n_tenants : &config->n_tiers;

	for (uint32_t i = 0; i < *n; i++) {
		if (strcmp(tenant ? config->tenants[i].name : config->tiers[i].name, name) == 0) {
			*ret = i;
			return 0;
		}
	}
	if (!instance_name_is_valid(name, 31))
		return -EINVAL;
	if (*n == (tenant ? CONFIG_TENANTS_MAX : CONFIG_TIERS_MAX))
		return -E2BIG;
	*ret = (*n)++;
	strcpy(tenant ? config->tenants[*ret].name : config->tiers[*ret].name, name);
	section_init(config, section, *ret);
	return 0;
}

/* All sections there are, as "broker, arena and tier NAME". */
static void sections_text(char *ret, size_t bytes)
{
	size_t at = 0;

	for (uint32_t s = 0; s < CONFIG_SECTIONS && at < bytes; s++)
		at += (size_t)snprintf(ret + at, bytes - at, "%s%s%s", s == 0 ? "" : s + 1 < CONFIG_SECTIONS ? ", " : " and ",
				       config_sections[s].name, config_sections[s].many ? " NAME" : "");
}

static int section_find(struct config *config, const char *where, const char *text, uint32_t *ret_section,
			uint32_t *ret_i, char *why)
{
	char known[128];

	for (uint32_t s = 0; s < CONFIG_SECTIONS; s++) {
		const struct config_section *section = &config_sections[s];
		const size_t n = strlen(section->name);

		if (strncmp(text, section->name, n) != 0 || (text[n] != '\0' && text[n] != ' '))
			continue;
		*ret_section = s;
		*ret_i = 0;
		if (!section->many && text[n] == '\0')
			return 0;
		const int r = section->many && text[n] == ' ' ? instance_find(config, s, text + n + 1, ret_i) : -EINVAL;
		if (r == 0)
			return 0;
		if (r == -E2BIG)
			snprintf(why, CONFIG_WHY, "%s: there are more than 16 sections [%s NAME]", where, section->name);
		else
			snprintf(why, CONFIG_WHY, "%s: \"%s\" is no section: write [%s%s", where, text, section->name,
				 section->many ? " NAME], with up to 31 of [A-Za-z0-9._-]" : "]");
		return -EINVAL;
	}
	sections_text(known, sizeof(known));
	snprintf(why, CONFIG_WHY, "%s: there is no section \"%s\": %s are known", where, text, known);
	return -EINVAL;
}

static void keys_text(const struct config_section *section, char *ret, size_t bytes)
{
	size_t at = 0;

	for (uint32_t i = 0; i < section->n && at < bytes; i++)
		at += (size_t)snprintf(ret + at, bytes - at, "%s%s", i ? ", " : "", section->rows[i].key);
}

static const struct config_row *row_find(const struct config_section *section, const char *key)
{
	for (uint32_t i = 0; i < section->n; i++) {
		if (strcmp(section->rows[i].key, key) == 0)
			return &section->rows[i];
	}
	return NULL;
}

/* Also says which instance and row were set, so that the reader can notice repetitions. */
static int set_one(struct config *config, const char *where, const char *section, const char *key,
		   const char *value, uint32_t ret_place[3], char *why)
{
	char text[320];
	uint32_t s, i;

	if (section_find(config, where, section, &s, &i, why) < 0)
		return -EINVAL;
	const struct config_row *row = row_find(&config_sections[s], key);
	if (!row) {
		keys_text(&config_sections[s], text, sizeof(text));
		snprintf(why, CONFIG_WHY, "%s: section %s has no key \"%.64s\": it has %s", where,
			 config_sections[s].name, key, text);
		return -EINVAL;
	}
	if (value_parse(row, value, (uint8_t *)config_section_at(config, s, i) + row->offset) < 0) {
		allowed_text(row, text, sizeof(text));
		snprintf(why, CONFIG_WHY, "%s: %s.%s cannot be \"%.64s\": allowed is %s", where, section, key,
			 value, text);
		return -EINVAL;
	}
	ret_place[0] = s;
	ret_place[1] = i;
	ret_place[2] = (uint32_t)(row - config_sections[s].rows);
	return 0;
}

int config_set(struct config *config, const char *where, const char *section, const char *key,
	       const char *value, char *why)
{
	uint32_t place[3];

	return set_one(config, where, section, key, value, place, why);
}

/* ---- the file ------------------------------------------------------------------------------- */

struct reader {
	struct config *config;
	FILE *file;
	const char *path;
	uint32_t line;
	bool failed;
	uint64_t seen[CONFIG_SECTIONS][CONFIG_TENANTS_MAX];	/* bit: row */
	char *why;
};

static char *reader_refuse(struct reader *reader, const char *what)
{
	snprintf(reader->why, CONFIG_WHY, "%s:%u: %s", reader->path, reader->line, what);
	reader->failed = true;
	return NULL;
}

/*
 * inih goes on after a section line that is not closed, and tells of a section only with its first key:
 * one without keys would be neither refused nor made. So section lines are looked at here, before inih.
 */
static bool reader_section(struct reader *reader, const char *line)
{
	char where[CONFIG_TEXT_MAX + 16], name[256];
	uint32_t section, i;

	if (reader->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
		line += 3;
	line += strspn(line, " \t\r\v\f");
	if (*line != '[')
		return true;
	const size_t n = strcspn(line + 1, "]");
	if (line[1 + n] != ']') {
		reader_refuse(reader, "the section's name is not closed: write [SECTION]");
		return false;
	}
	snprintf(name, sizeof(name), "%.*s", (int)n, line + 1);
	snprintf(where, sizeof(where), "%s:%u", reader->path, reader->line);
	reader->failed = section_find(reader->config, where, name, &section, &i, reader->why) < 0;
	return !reader->failed;
}

static char *reader_line(char *line, int bytes, void *stream)
{
	struct reader *reader = stream;
	int n = 0, c = 0;

	if (reader->failed)
		return NULL;
	reader->line++;
	while (n < bytes - 1 && c != '\n' && (c = getc(reader->file)) != EOF) {
		if (c == '\0')
			return reader_refuse(reader, "there is a NUL byte: a configuration is text");
		line[n++] = (char)c;
	}
	line[n] = '\0';
	if (n == 0 || ferror(reader->file)) {
		reader->line--;
		return NULL;
	}
	if (n == bytes - 1 && c != '\n' && (c = getc(reader->file)) != EOF)
		return reader_refuse(reader, "the line is too long: 198 bytes are allowed");
	return reader_section(reader, line) ? line : NULL;
}

static int reader_value(void *arg, const char *section, const char *key, const char *value)
{
	struct reader *reader = arg;
	uint32_t place[3];
	char where[CONFIG_TEXT_MAX + 16], known[128], what[320];

	/* inih can be built to tell of sections too. */
	if (!key)
		return 1;
	if (section[0] == '\0') {
		sections_text(known, sizeof(known));
		snprintf(what, sizeof(what), "the key \"%.64s\" stands before any section: write a line [SECTION] above it; "
			 "%s are known", key, known);
		reader_refuse(reader, what);
		return 0;
	}
	snprintf(where, sizeof(where), "%s:%u", reader->path, reader->line);
	if (set_one(reader->config, where, section, key, value, place, reader->why) < 0) {
		reader->failed = true;
		return 0;
	}
	uint64_t *seen = &reader->seen[place[0]][place[1]];
	if (*seen & 1ull << place[2]) {
		snprintf(reader->why, CONFIG_WHY, "%s: %s.%s is given twice, or a line that goes on with it begins "
			 "with a blank: give it once, in one line", where, section, key);
		reader->failed = true;
		return 0;
	}
	*seen |= 1ull << place[2];
	return 1;
}

int config_read(struct config *config, FILE *file, const char *path, char *why)
{
	struct reader reader = { .config = config, .file = file, .path = path, .why = why };
	const int bad_line = ini_parse_stream(reader_line, &reader, reader_value, &reader);

	if (reader.failed)
		return -EINVAL;
	if (ferror(file)) {
		snprintf(why, CONFIG_WHY, "%s:%u: could not be read: %m", path, reader.line);
		return -EINVAL;
	}
	if (bad_line != 0) {
		snprintf(why, CONFIG_WHY, "%s:%d: neither [SECTION] nor KEY = VALUE nor a comment (#)", path, bad_line);
		return -EINVAL;
	}
	return 0;
}

int config_read_file(struct config *config, const char *path, char *why)
{
	FILE *file = fopen(path, "re");

	if (!file) {
		snprintf(why, CONFIG_WHY, "configuration file %s could not be opened: %m", path);
		return -EINVAL;
	}
	const int r = config_read(config, file, path, why);
	fclose(file);
	return r;
}

/* ---- the command line ----------------------------------------------------------------------- */

int config_set_argument(struct config *config, const char *argument, char *why)
{
	char text[CONFIG_TEXT_MAX * 2], where[CONFIG_TEXT_MAX];
	char *value, *key, *name;

	snprintf(text, sizeof(text), "%s", argument);
	value = strchr(text, '=');
	if (value)
		*value++ = '\0';
	key = strrchr(text, '.');
	if (!value || !key || key == text) {
		snprintf(why, CONFIG_WHY, "--set %.128s: must be SECTION.KEY=VALUE, as arena.policy=lru or "
			 "tier.disk0.size=20G", argument);
		return -EINVAL;
	}
	*key++ = '\0';
	name = strchr(text, '.');
	if (name)
		*name = ' ';
	snprintf(where, sizeof(where), "--set %.128s", argument);
	return config_set(config, where, text, key, value, why);
}

int config_add_tier(struct config *config, const char *argument, char *why)
{
	char path[CONFIG_TEXT_MAX], where[CONFIG_TEXT_MAX], section[32];
	const char *size = strrchr(argument, ':');

	if (!size || size == argument || (size_t)(size - argument) >= sizeof(path)) {
		snprintf(why, CONFIG_WHY, "--tier %.128s: must be PATH:SIZE, as /var/cache/stoker:100G", argument);
		return -EINVAL;
	}
	memcpy(path, argument, (size_t)(size - argument));
	path[size - argument] = '\0';
	snprintf(section, sizeof(section), "tier disk%u", config->n_tiers);
	snprintf(where, sizeof(where), "--tier %.128s", argument);
	if (config_set(config, where, section, "path", path, why) < 0)
		return -EINVAL;
	return config_set(config, where, section, "size", size + 1, why);
}

/* ---- printing ------------------------------------------------------------------------------- */

void config_help(FILE *out)
{
	for (uint32_t s = 0; s < CONFIG_SECTIONS; s++) {
		const struct config_section *section = &config_sections[s];

		fprintf(out, "\n[%s%s]  %s\n", section->name, section->many ? " NAME" : "", section->meaning);
		for (uint32_t i = 0; i < section->n; i++) {
			const struct config_row *row = &section->rows[i];

			fprintf(out, "  %-18s %s%s%s%s%s\n", row->key, row->meaning, row->text[0] ? " (default " : "",
				row->text, row->text[0] ? ")" : "", row->when == CONFIG_RELOAD ? " [HUP]" : "");
		}
	}
}

static void ids_print(const struct config_ids *ids, FILE *out)
{
	if (ids->any)
		fputs("*", out);
	for (uint32_t i = 0; i < ids->n; i++)
		fprintf(out, "%s%u", i || ids->any ? ", " : "", ids->id[i]);
}

static void value_print(const struct config_row *row, const void *field, FILE *out)
{
	static const char *const levels[] = { "error", "warning", "info", "debug" };

	switch (row->type) {
	case CONFIG_TYPE_TEXT:
	case CONFIG_TYPE_SPACE:
		fputs(field, out);
		break;
	case CONFIG_TYPE_SIZE:
	case CONFIG_TYPE_COUNT:
		fprintf(out, "%" PRIu64, *(const uint64_t *)field);
		break;
	case CONFIG_TYPE_SWITCH:
		fputs(*(const bool *)field ? "yes" : "no", out);
		break;
	case CONFIG_TYPE_IDS:
		ids_print(field, out);
		break;
	case CONFIG_TYPE_POLICY:
		fputs(*(const int *)field == ENGINE_POLICY_LRU ? "lru" : "arc", out);
		break;
	case CONFIG_TYPE_LEVEL:
		fputs(levels[*(const int *)field], out);
		break;
	}
}

static void section_print(const struct config_section *section, const char *name, const uint8_t *at, FILE *out)
{
	fprintf(out, name ? "[%s %s]\n" : "[%s]\n", section->name, name);
	for (uint32_t i = 0; i < section->n; i++) {
		fprintf(out, "%s = ", section->rows[i].key);
		value_print(&section->rows[i], at + section->rows[i].offset, out);
		fputc('\n', out);
	}
}

void config_print(const struct config *config, FILE *out)
{
	struct config copy = *config;

	for (uint32_t s = 0; s < CONFIG_SECTION_TENANT; s++)
		section_print(&config_sections[s], NULL, config_section_at(&copy, s, 0), out);
	for (uint32_t i = 0; i < config->n_tenants; i++)
		section_print(&config_sections[CONFIG_SECTION_TENANT], config->tenants[i].name,
			      (const uint8_t *)&config->tenants[i], out);
	for (uint32_t i = 0; i < config->n_tiers; i++)
		section_print(&config_sections[CONFIG_SECTION_TIER], config->tiers[i].name,
			      (const uint8_t *)&config->tiers[i], out);
}
