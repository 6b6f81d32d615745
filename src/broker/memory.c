/* How much memory a broker may take; see memory.h. */
#include "src/broker/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH 512

/* The files of a control group's memory controller, in the two versions of the interface. */
struct interface {
	const char *mount;		/* below the root */
	const char *limit, *used;
	const char *reclaimable;	/* in memory.stat: page cache that goes when it must */
	const char *bound;
};
static const struct interface v2 = { "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file",
				     "the memory limit of its control group (memory.max)" };
static const struct interface v2_hybrid = { "/sys/fs/cgroup/unified", "memory.max", "memory.current", "inactive_file",
					    "the memory limit of its control group (memory.max)" };
static const struct interface v1 = { "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
				     "total_inactive_file", "the memory limit of its control group (memory.limit_in_bytes)" };

/* The number after @label at the start of a line of @path; with an empty label, the first. False: none. */
static bool number_of(const char *path, const char *label, uint64_t *ret)
{
	FILE *file = fopen(path, "re");
	char line[256];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		const size_t n = strlen(label);
		char *end;

		if (strncmp(line, label, n) != 0 || (n > 0 && line[n] != ' ' && line[n] != ':'))
			continue;
		*ret = strtoull(line + n + (line[n] == ':'), &end, 10);
		found = end > line + n + (line[n] == ':');
	}
	if (file)
		fclose(file);
	return found;
}

static void room_lower(uint64_t *room, const char **bound, uint64_t limit, uint64_t used, uint64_t whole, const char *by)
{
	const uint64_t left = limit > used ? limit - used : 0;
	const uint64_t reserve = whole / 10;
	const uint64_t mine = left > reserve ? left - reserve : 0;

	if (mine < *room) {
		*room = mine;
		*bound = by;
	}
}

/* One group: nothing is known of groups that our own namespace does not show, and then they bound nothing. */
static void group_look(const char *root, const struct interface *interface, const char *group, uint64_t *room,
		       const char **bound)
{
	char path[4 * PATH];
	uint64_t limit, used = 0, cache = 0;

	snprintf(path, sizeof(path), "%s%s%s/%s", root, interface->mount, group, interface->limit);
	if (!number_of(path, "", &limit) || limit >= 1ull << 60)	/* "max", or as good as that */
		return;
	snprintf(path, sizeof(path), "%s%s%s/%s", root, interface->mount, group, interface->used);
	number_of(path, "", &used);
	snprintf(path, sizeof(path), "%s%s%s/memory.stat", root, interface->mount, group);
	number_of(path, interface->reclaimable, &cache);
	room_lower(room, bound, limit, used > cache ? used - cache : 0, limit, interface->bound);
}

/* The group and all above it, up to the root of what is mounted. */
static void groups_look(const char *root, const struct interface *interface, const char *group, uint64_t *room,
			const char **bound)
{
	char path[PATH];

	snprintf(path, sizeof(path), "%s", strcmp(group, "/") == 0 ? "" : group);
	for (;;) {
		char *slash = strrchr(path, '/');

		group_look(root, interface, path, room, bound);
		if (!slash)
			return;
		*slash = '\0';
	}
}

static void all_groups_look(const char *root, uint64_t *room, const char **bound)
{
	char line[PATH], path[PATH];
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':');
		char *group = controllers ? strchr(++controllers, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (*controllers == '\0') {
			groups_look(root, &v2, group, room, bound);
			groups_look(root, &v2_hybrid, group, room, bound);
		} else if (strcmp(controllers, "memory") == 0) {
			groups_look(root, &v1, group, room, bound);
		}
	}
	if (file)
		fclose(file);
}

uint64_t memory_room(const char *root, const char **bound)
{
	uint64_t total = 0, available = 0, room = UINT64_MAX;
	char path[PATH];

	*bound = "nothing that is known";
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (number_of(path, "MemTotal", &total) && number_of(path, "MemAvailable", &available))
		room_lower(&room, bound, available * 1024, 0, total * 1024, "the machine's free memory (MemAvailable)");
	all_groups_look(root, &room, bound);
	return room;
}
