/*
 * What follows from the values of a configuration: directories by user, the tenant that is there
 * without being asked for, sizes of tiers, what contradicts itself; who belongs to which tenant;
 * what a reload may take over.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "shm/control.h"
#include "src/broker/config-table.h"
#include "src/broker/tier.h"
#include "src/common/size.h"
#include "src/device/device.h"

uint64_t config_memory(void)
{
	struct sysinfo info;

	return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 0;
}

/* ---- directories ---------------------------------------------------------------------------- */

static int directory_text(config_text *ret, const char *first, const char *second, char *why)
{
	if ((size_t)snprintf(*ret, sizeof(*ret), "%s%s", first, second) < sizeof(*ret))
		return 0;
	snprintf(why, CONFIG_WHY, "directory %.64s...%s is longer than %u bytes", first, second, CONFIG_TEXT_MAX - 1);
	return -EINVAL;
}

static int directories_finish(struct config_broker *broker, char *why)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	const bool root = geteuid() == 0;
	char own[32];
	int r = 0;

	if (broker->runtime_directory[0] == '\0') {
		snprintf(own, sizeof(own), "/tmp/stoker-%u", (unsigned)geteuid());
		if (root)
			r = directory_text(&broker->runtime_directory, "/run", "/stoker", why);
		else if (runtime && runtime[0] == '/')
			r = directory_text(&broker->runtime_directory, runtime, "/stoker", why);
		else
			r = directory_text(&broker->runtime_directory, own, "", why);
	}
	if (r == 0 && broker->state_directory[0] == '\0') {
		if (root)
			r = directory_text(&broker->state_directory, "/var/lib", "/stoker", why);
		else if (state && state[0] == '/')
			r = directory_text(&broker->state_directory, state, "/stoker", why);
		else if (home && home[0] == '/')
			r = directory_text(&broker->state_directory, home, "/.local/state/stoker", why);
		else
			r = directory_text(&broker->state_directory, broker->runtime_directory, "/state", why);
	}
	return r;
}

/* ---- tenants -------------------------------------------------------------------------------- */

static uint32_t overflow_uid(void)
{
	FILE *file = fopen("/proc/sys/kernel/overflowuid", "re");
	unsigned uid;

	if (!file)
		return 65534;
	if (fscanf(file, "%u", &uid) != 1)
		uid = 65534;
	fclose(file);
	return uid;
}

static bool ids_name(const struct config_ids *ids, uint32_t id)
{
	for (uint32_t i = 0; i < ids->n; i++) {
		if (ids->id[i] == id)
			return true;
	}
	return false;
}

/* Who is named goes before who is meant by *, whatever the order of the sections. */
int config_tenant_of(const struct config *config, uid_t uid, gid_t gid)
{
	/* Everybody whom this user namespace does not map looks alike: such a peer is let in only by name. */
	const bool nobody = uid == overflow_uid();

	for (uint32_t i = 0; i < config->n_tenants; i++) {
		if (ids_name(&config->tenants[i].uids, uid))
			return (int)i;
	}
	for (uint32_t i = 0; !nobody && i < config->n_tenants; i++) {
		if (ids_name(&config->tenants[i].gids, gid))
			return (int)i;
	}
	for (uint32_t i = 0; !nobody && i < config->n_tenants; i++) {
		if (config->tenants[i].uids.any || config->tenants[i].gids.any)
			return (int)i;
	}
	return -1;
}

bool config_is_admin(const struct config *config, uid_t uid)
{
	if (uid == 0 || uid == geteuid())
		return true;
	for (uint32_t i = 0; i < config->n_tenants; i++) {
		if (ids_name(&config->tenants[i].admins, uid))
			return true;
	}
	return false;
}

/* A uid belongs to one tenant: two that name it are a mistake, which the order of sections must not decide. */
static int uids_check(const struct config *config, uint32_t tenant, char *why)
{
	const struct config_ids *uids = &config->tenants[tenant].uids;

	for (uint32_t other = 0; other < tenant; other++) {
		for (uint32_t i = 0; i < uids->n; i++) {
			if (!ids_name(&config->tenants[other].uids, uids->id[i]))
				continue;
			snprintf(why, CONFIG_WHY, "tenants %s and %s both name uid %u: name it in one of them",
				 config->tenants[other].name, config->tenants[tenant].name, uids->id[i]);
			return -EINVAL;
		}
	}
	return 0;
}

static int tenants_finish(struct config *config, char *why)
{
	if (config->n_tenants == 0) {
		/* A tenant of its own: nobody else reads the arena, so its clients may map it. */
		if (config_set(config, "default", "tenant default", "trusted", "yes", why) < 0)
			return -EINVAL;
		config->tenants[0].uids = (struct config_ids){ .n = 1, .id = { geteuid() } };
	}
	for (uint32_t i = 0; i < config->n_tenants; i++) {
		const struct config_tenant *tenant = &config->tenants[i];

		if (uids_check(config, i, why) < 0)
			return -EINVAL;
		if (tenant->uids.n || tenant->uids.any || tenant->gids.n || tenant->gids.any)
			continue;
		snprintf(why, CONFIG_WHY, "tenant %s names neither uids nor gids: nobody could ever belong to it",
			 tenant->name);
		return -EINVAL;
	}
	return 0;
}

/* ---- tiers ---------------------------------------------------------------------------------- */

static bool is_device(const char *path)
{
	struct stat is;

	return stat(path, &is) == 0 && S_ISBLK(is.st_mode);
}

/* What a tier on the block device @path can have. */
static int space_of_device(const char *path, uint64_t *ret)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const off_t bytes = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	const int r = bytes < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	*ret = bytes < 0 ? 0 : tier_device_room((uint64_t)bytes);
	return r;
}

/* The device, or the file system that will hold @path: of the nearest directory above it that is there. */
static int space_of(const char *path, uint64_t *ret)
{
	char text[CONFIG_TEXT_MAX];
	struct statvfs fs;

	if (is_device(path))
		return space_of_device(path, ret);

	snprintf(text, sizeof(text), "%s", path);
	while (statvfs(text, &fs) < 0) {
		const size_t before = strlen(text);
		const int error = errno;
		char *up = dirname(text);	/* cuts in place, or gives "." */

		if (error != ENOENT || strlen(up) >= before)
			return -error;
		memmove(text, up, strlen(up) + 1);
	}
	*ret = (uint64_t)fs.f_blocks * fs.f_frsize;
	return 0;
}

static int tier_finish(struct config_tier *tier, uint64_t extent, char *why)
{
	uint64_t whole = 0;
	struct stat is;
	char text[16];

	if (tier->path[0] == '\0' || tier->size[0] == '\0') {
		snprintf(why, CONFIG_WHY, "tier %s has no %s: give it both path and size", tier->name,
			 tier->path[0] ? "size" : "path");
		return -EINVAL;
	}
	if (stat(tier->path, &is) == 0 && !S_ISDIR(is.st_mode) && !S_ISBLK(is.st_mode)) {
		snprintf(why, CONFIG_WHY, "tier %s: path %s is neither a directory nor a block device: name one, or a "
			 "directory to be made", tier->name, tier->path);
		return -EINVAL;
	}
	const int r = space_of(tier->path, &whole);
	if (r < 0) {
		snprintf(why, CONFIG_WHY, "tier %s: path %s cannot be used: %s", tier->name, tier->path, strerror(-r));
		return -EINVAL;
	}
	if (size_parse(tier->size, whole, &tier->bytes) < 0 || tier->bytes < extent) {
		snprintf(why, CONFIG_WHY, "tier %s: size cannot be \"%s\": allowed is a size of one extent (%s) and more",
			 tier->name, tier->size, size_text(extent, text));
		return -EINVAL;
	}
	if (tier->bytes > whole) {
		snprintf(why, CONFIG_WHY, "tier %s: size cannot be \"%s\": %s %.200s has %s; allowed is less, as "
			 "50%%", tier->name, tier->size, is_device(tier->path) ? "the device" : "the file system of",
			 tier->path, size_text(whole, text));
		return -EINVAL;
	}
	if (tier->bytes / extent > UINT32_MAX / (extent / 4096)) {
		snprintf(why, CONFIG_WHY, "tier %s: size cannot be \"%s\": allowed are 16T", tier->name, tier->size);
		return -EINVAL;
	}
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* A broker of the name before the point has, or makes and removes, such a file in /dev/shm. */
static bool is_anothers_file(const char *name)
{
	const char *point = strrchr(name, '.');

	return point && point > name + 1 &&
	       (strcmp(point, ".arena") == 0 || strcmp(point, ".table") == 0 || strcmp(point, ".new") == 0);
}

static int numbers_finish(const struct config *config, char *why)
{
	const struct config_limits *limits = &config->limits;
	char is[16], has[16];

	if (control_name_check(config->broker.name) < 0) {
		snprintf(why, CONFIG_WHY, "broker.name cannot be \"%.80s\": allowed is / and 1 to 64 of [A-Za-z0-9._-], "
			 "but not /. and /..", config->broker.name);
		return -EINVAL;
	}
	if (is_anothers_file(config->broker.name)) {
		snprintf(why, CONFIG_WHY, "broker.name cannot be \"%.80s\": a broker named %.*s has files of that name; choose "
			 "another ending", config->broker.name,
			 (int)(strrchr(config->broker.name, '.') - config->broker.name), config->broker.name);
		return -EINVAL;
	}
	if (config->arena.extent % 4096 != 0) {
		snprintf(why, CONFIG_WHY, "arena.extent cannot be %lu: allowed are multiples of 4K",
			 (unsigned long)config->arena.extent);
		return -EINVAL;
	}
	if (config->arena.size < config->arena.extent) {
		snprintf(why, CONFIG_WHY, "arena.size (--memory) cannot be %s: allowed is one extent (%s) and more",
			 size_text(config->arena.size, is), size_text(config->arena.extent, has));
		return -EINVAL;
	}
	if (limits->deadline_ms > limits->deadline_max_ms || limits->lease_ms > limits->lease_max_ms) {
		snprintf(why, CONFIG_WHY, "limits.%s is above limits.%s: a default cannot exceed its maximum",
			 limits->lease_ms > limits->lease_max_ms ? "lease_ms" : "deadline_ms",
			 limits->lease_ms > limits->lease_max_ms ? "lease_max_ms" : "deadline_max_ms");
		return -EINVAL;
	}
	return 0;
}

static int gpu_finish(const struct config_gpu *gpu, char *why)
{
	if (strcmp(gpu->enabled, "yes") != 0 && strcmp(gpu->enabled, "no") != 0 && strcmp(gpu->enabled, "auto") != 0) {
		snprintf(why, CONFIG_WHY, "gpu.enabled cannot be \"%.32s\": allowed are yes, no and auto", gpu->enabled);
		return -EINVAL;
	}
	if (gpu->library[0] == '\0' || strlen(gpu->library) >= DEVICE_LIBRARY) {
		snprintf(why, CONFIG_WHY, "gpu.library cannot be \"%.64s\": allowed is a name or path of 1 to %u bytes",
			 gpu->library, DEVICE_LIBRARY - 1);
		return -EINVAL;
	}
	return 0;
}

int config_finish(struct config *config, char *why)
{
	if (numbers_finish(config, why) < 0 || gpu_finish(&config->gpu, why) < 0 || directories_finish(&config->broker, why) < 0 ||
	    tenants_finish(config, why) < 0)
		return -EINVAL;
	for (uint32_t i = 0; i < config->n_tiers; i++) {
		if (tier_finish(&config->tiers[i], config->arena.extent, why) < 0)
			return -EINVAL;
		for (uint32_t j = 0; j < i; j++) {
			if (strcmp(config->tiers[i].path, config->tiers[j].path) != 0)
				continue;
			snprintf(why, CONFIG_WHY, "tiers %s and %s have one path, %s: give each a directory of its own",
				 config->tiers[j].name, config->tiers[i].name, config->tiers[i].path);
			return -EINVAL;
		}
	}
	return 0;
}

#define ENTRY_BYTES	65536u	/* of arena and tiers, that make one entry of the index */
#define RECORDS_EACH	4u	/* of an entry's worth of arena */
#define ENTRIES_MIN	4096u

static uint32_t count_of(uint64_t n)
{
	return n < ENTRIES_MIN ? ENTRIES_MIN : n > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)n;
}

void config_index(const struct config *config, uint64_t arena_bytes, uint32_t *entries, uint32_t *records)
{
	uint64_t bytes = arena_bytes, in_arena = arena_bytes / ENTRY_BYTES;

	for (uint32_t i = 0; i < config->n_tiers; i++)
		bytes += config->tiers[i].bytes;
	*entries = count_of(config->arena.entries ? config->arena.entries : bytes / ENTRY_BYTES);
	/* Chunks that were said to be few are meant to be few in every way. */
	if (in_arena > *entries)
		in_arena = *entries;
	*records = count_of(config->arena.records ? config->arena.records :
			    *entries + (RECORDS_EACH - 1) * in_arena);
}

int config_fits_machine(const struct config *config, char *why)
{
	const uint64_t memory = config_memory();
	char is[16], has[16];

	if (memory == 0 || config->arena.size <= memory)
		return 0;
	snprintf(why, CONFIG_WHY, "arena.size (--memory) cannot be %s: this machine has %s of RAM; allowed is less, as 50%%",
		 size_text(config->arena.size, is), size_text(memory, has));
	return -EINVAL;
}

/* ---- reload --------------------------------------------------------------------------------- */

static size_t type_bytes(enum config_type type)
{
	switch (type) {
	case CONFIG_TYPE_TEXT:   return sizeof(CONFIG_TEXT);
	case CONFIG_TYPE_SPACE:  return sizeof(CONFIG_SPACE);
	case CONFIG_TYPE_SIZE:
	case CONFIG_TYPE_COUNT:  return sizeof(uint64_t);
	case CONFIG_TYPE_SWITCH: return sizeof(bool);
	case CONFIG_TYPE_IDS:    return sizeof(struct config_ids);
	default:                 return sizeof(int);
	}
}

static void section_reload(const struct config_section *section, uint8_t *to, const uint8_t *from,
			   void (*each)(void *arg, const char *section, const char *key), void *arg)
{
	for (uint32_t i = 0; i < section->n; i++) {
		const struct config_row *row = &section->rows[i];
		const size_t bytes = type_bytes(row->type);
		const bool text = row->type == CONFIG_TYPE_TEXT || row->type == CONFIG_TYPE_SPACE;

		if (text ? strcmp((char *)to + row->offset, (const char *)from + row->offset) == 0 :
			   memcmp(to + row->offset, from + row->offset, bytes) == 0)
			continue;
		if (row->when == CONFIG_RELOAD)
			memcpy(to + row->offset, from + row->offset, bytes);
		else
			each(arg, section->name, row->key);
	}
}

void config_reload(struct config *config, const struct config *fresh,
		   void (*each)(void *arg, const char *section, const char *key), void *arg)
{
	struct config from = *fresh;

	for (uint32_t s = 0; s < CONFIG_SECTION_TENANT; s++)
		section_reload(&config_sections[s], config_section_at(config, s, 0), config_section_at(&from, s, 0),
			       each, arg);
	/* Numbers of tenants and tiers are fixed at start: only those that were there then are looked at. */
	for (uint32_t s = CONFIG_SECTION_TENANT; s < CONFIG_SECTIONS; s++) {
		const uint32_t n = s == CONFIG_SECTION_TENANT ? config->n_tenants : config->n_tiers;
		const uint32_t m = s == CONFIG_SECTION_TENANT ? from.n_tenants : from.n_tiers;

		if (n != m)
			each(arg, config_sections[s].name, "their number");
		for (uint32_t i = 0; i < n && i < m; i++) {
			const bool same = s == CONFIG_SECTION_TENANT ?
				strcmp(config->tenants[i].name, from.tenants[i].name) == 0 :
				strcmp(config->tiers[i].name, from.tiers[i].name) == 0;

			if (same)
				section_reload(&config_sections[s], config_section_at(config, s, i),
					       config_section_at(&from, s, i), each, arg);
			else
				each(arg, config_sections[s].name, "their names and order");
		}
	}
}
