/*
 * Configuration: the embedded default, then a file (INI), then the command line, each over the one
 * before. The rows are in settings.h; here are their types, the struct that holds the values, and
 * the functions that read, check and print them. Nothing here changes the machine.
 *
 * Errors are one line: where (file and line, or option), which key, what it was, what is allowed.
 */
#ifndef STOKER_BROKER_CONFIG_H
#define STOKER_BROKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "src/broker/settings.h"

#define CONFIG_TEXT_MAX		256u
#define CONFIG_IDS_MAX		32u
#define CONFIG_TENANTS_MAX	16u
#define CONFIG_TIERS_MAX	16u
#define CONFIG_WHY		512u

struct config_ids {
	uint32_t n;
	bool any;
	uint32_t id[CONFIG_IDS_MAX];
};

typedef char config_text[CONFIG_TEXT_MAX];
typedef char config_space[32];		/* as written; the tier's `bytes` is worked out of it */

#define CONFIG_TEXT	config_text
#define CONFIG_SPACE	config_space
#define CONFIG_SIZE	uint64_t
#define CONFIG_COUNT	uint64_t
#define CONFIG_SWITCH	bool
#define CONFIG_IDS	struct config_ids
#define CONFIG_POLICY	int	/* enum engine_policy */
#define CONFIG_LEVEL	int	/* enum log_level */

#define CONFIG_AS_FIELD(key, type, text, min, max, when, meaning) CONFIG_##type key;
struct config_broker { SETTINGS_BROKER(CONFIG_AS_FIELD) };
struct config_arena { SETTINGS_ARENA(CONFIG_AS_FIELD) };
struct config_disk { SETTINGS_DISK(CONFIG_AS_FIELD) };
struct config_gpu { SETTINGS_GPU(CONFIG_AS_FIELD) };
struct config_limits { SETTINGS_LIMITS(CONFIG_AS_FIELD) };
struct config_tenant { SETTINGS_TENANT(CONFIG_AS_FIELD) char name[64]; };
struct config_tier { SETTINGS_TIER(CONFIG_AS_FIELD) char name[32]; uint64_t bytes; };
#undef CONFIG_AS_FIELD

struct config {
	struct config_broker broker;
	struct config_arena arena;
	struct config_disk disk;
	struct config_gpu gpu;
	struct config_limits limits;
	uint32_t n_tenants, n_tiers;
	struct config_tenant tenants[CONFIG_TENANTS_MAX];
	struct config_tier tiers[CONFIG_TIERS_MAX];
};

/* All defaults, as if nothing had been said. */
void config_init(struct config *config);

/*
 * Set one value: @section is "arena" or "tenant alice", @where names the source in messages. Returns
 * 0 or -EINVAL with the message in @why (CONFIG_WHY bytes), as all functions below do.
 */
int config_set(struct config *config, const char *where, const char *section, const char *key,
	       const char *value, char *why);
int config_read(struct config *config, FILE *file, const char *path, char *why);
int config_read_file(struct config *config, const char *path, char *why);
int config_set_argument(struct config *config, const char *argument, char *why);	/* SECTION.KEY=VALUE */
int config_add_tier(struct config *config, const char *argument, char *why);		/* PATH:SIZE */

/* Work out what was left open (directories, default tenant, sizes of tiers) and check the whole. */
int config_finish(struct config *config, char *why);
/* Is there that much memory at all? Not asked for an arena that is never populated. */
/*
 * How many chunks (entries) and objects (records) the index of such an arena is for. Unless it is said: a
 * chunk for each 64K of arena and tiers, and for what the arena can hold an object for each 16K, so that chunks
 * of several small parts fill the arena before they run out of records. A record costs some 200 bytes of memory:
 * that is 1.2 % of the arena and 0.3 % of the tiers.
 */
void config_index(const struct config *config, uint64_t arena_bytes, uint32_t *entries, uint32_t *records);
int config_fits_machine(const struct config *config, char *why);

/* The values that differ and need a restart are handed to @each; the others are copied to @config. */
void config_reload(struct config *config, const struct config *fresh,
		   void (*each)(void *arg, const char *section, const char *key), void *arg);

void config_help(FILE *out);				/* all settings, for --help */
void config_print(const struct config *config, FILE *out);	/* as a file that says the same */

/* The first tenant that names this peer, or -1. An id that nobody maps must be named outright. */
int config_tenant_of(const struct config *config, uid_t uid, gid_t gid);
bool config_is_admin(const struct config *config, uid_t uid);

/* RAM of this machine in bytes, as percentages of it are taken. */
uint64_t config_memory(void);

#endif
