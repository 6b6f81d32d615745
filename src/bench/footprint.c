/* See footprint.h. */
#include "config.h"

#include "src/bench/footprint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHANNEL "/memfd:stoker-channel "	/* as the broker names those that it makes */

/* ---- mappings ---------------------------------------------------------------------------------- */

static FILE *maps_open(const struct own_broker *broker)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)broker->pid);
	return fopen(path, "re");
}

static bool mapped_bytes(const struct own_broker *broker, uint64_t *ret)
{
	FILE *maps = maps_open(broker);
	unsigned long long from, to;
	char line[4608], mode[8];

	*ret = 0;
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx %7s", &from, &to, mode) == 3 && strchr(mode, 's'))
			*ret += to - from;
	}
	if (maps)
		fclose(maps);
	return maps && *ret > 0;	/* what may not be read is empty; every broker maps its page */
}

static bool private_bytes(const struct own_broker *broker, uint64_t *ret)
{
	unsigned long long kib = 0;
	bool found = false;
	char path[64], line[256];
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)broker->pid);
	status = fopen(path, "re");
	while (status && !found && fgets(line, sizeof(line), status))
		found = sscanf(line, "RssAnon: %llu kB", &kib) == 1;
	if (status)
		fclose(status);
	*ret = kib * 1024;
	return found;
}

static const char *mapping_of(const struct own_broker *broker, pid_t pid, uint32_t living)
{
	FILE *maps = maps_open(broker);
	const char *found = NULL;
	uint32_t channels = 0;
	char line[4608], pool[64];

	snprintf(pool, sizeof(pool), "/memfd:" FOOTPRINT_POOL "%d ", (int)pid);
	while (maps && !found && fgets(line, sizeof(line), maps)) {
		channels += strstr(line, CHANNEL) != NULL;
		if (strstr(line, pool))
			found = "a mapping of its pool's memory";
		else if (channels > living)
			found = "the mapping of its channel";
	}
	if (maps)
		fclose(maps);
	return found;
}

/* ---- descriptors ------------------------------------------------------------------------------- */

static DIR *descriptors_open(const struct own_broker *broker, char path[64])
{
	snprintf(path, 64, "/proc/%d/fd", (int)broker->pid);
	return opendir(path);
}

static uint64_t entries_of(DIR *directory)
{
	const struct dirent *entry;
	uint64_t n = 0;

	while ((entry = readdir(directory)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	return n;
}

static bool is_pidfd_of(const struct own_broker *broker, const char *number, pid_t pid)
{
	char path[384], line[128];
	bool is = false;
	FILE *info;
	int of;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)broker->pid, number);
	info = fopen(path, "re");
	while (info && !is && fgets(line, sizeof(line), info))
		is = sscanf(line, "Pid: %d", &of) == 1 && of == (int)pid;
	if (info)
		fclose(info);
	return is;
}

static const char *descriptor_of(const struct own_broker *broker, pid_t pid)
{
	char path[64], link[384], to[128], pool[64];
	const struct dirent *entry;
	const char *found = NULL;
	DIR *directory = descriptors_open(broker, path);

	snprintf(pool, sizeof(pool), "/memfd:" FOOTPRINT_POOL "%d ", (int)pid);
	while (directory && !found && (entry = readdir(directory))) {
		snprintf(link, sizeof(link), "%s/%s", path, entry->d_name);
		const ssize_t n = readlink(link, to, sizeof(to) - 1);

		to[n > 0 ? n : 0] = '\0';
		if (strncmp(to, pool, strlen(pool)) == 0)
			found = "a descriptor of its pool's memory";
		else if (strstr(to, "pidfd") && is_pidfd_of(broker, entry->d_name, pid))
			found = "the descriptor that tells of its death";
	}
	if (directory)
		closedir(directory);
	return found;
}

/* ---- names ------------------------------------------------------------------------------------- */

static uint64_t shared_memory_names(const struct own_broker *broker)
{
	const size_t length = strlen(broker->name + 1);
	DIR *directory = opendir("/dev/shm");
	const struct dirent *entry;
	uint64_t n = 0;

	while (directory && (entry = readdir(directory))) {
		const char rest = strncmp(entry->d_name, broker->name + 1, length) == 0 ? entry->d_name[length] : 'x';

		n += rest == '\0' || rest == '.';
	}
	if (directory)
		closedir(directory);
	return n;
}

static uint64_t runtime_files(const struct own_broker *broker)
{
	char path[sizeof(broker->page->socket)];
	DIR *directory;
	uint64_t n;
	char *slash;

	memcpy(path, broker->page->socket, sizeof(path));
	path[sizeof(path) - 1] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return 0;
	*slash = '\0';
	directory = opendir(path);
	n = directory ? entries_of(directory) : 0;
	if (directory)
		closedir(directory);
	return n;
}

/* ---- all of it --------------------------------------------------------------------------------- */

void footprint_take(const struct own_broker *broker, struct footprint *ret)
{
	char path[64];
	DIR *directory = descriptors_open(broker, path);

	*ret = (struct footprint){
		.descriptors = directory ? entries_of(directory) : 0,
		.files = shared_memory_names(broker) + runtime_files(broker),
		.clients = own_broker_gauge(broker, STOKER_GAUGE_CLIENTS),
		.pools = own_broker_gauge(broker, STOKER_GAUGE_POOLS),
		.jobs = own_broker_gauge(broker, STOKER_GAUGE_JOBS),
		.leases = own_broker_gauge(broker, STOKER_GAUGE_LEASES),
		.pinned_bytes = own_broker_gauge(broker, STOKER_GAUGE_ARENA_PINNED),
	};
	ret->told = mapped_bytes(broker, &ret->mapped_bytes) && private_bytes(broker, &ret->private_bytes) && directory;
	if (directory)
		closedir(directory);
}

const char *footprint_of(const struct own_broker *broker, pid_t pid, uint32_t living)
{
	const char *found;

	/* First what costs least to look at, and goes last but for what the control thread closes. */
	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++) {
		struct control_client row;

		if (!control_read_client(broker->page, i, &row) || (row.used && row.pid == (uint32_t)pid))
			return "its row of the control page";
	}
	found = mapping_of(broker, pid, living);
	return found ? found : descriptor_of(broker, pid);
}
