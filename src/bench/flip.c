/*
 * Damage on purpose, so that it is known that replay would see it: one bit of a stored payload is
 * flipped where the broker keeps it. The payload is found by its own first bytes, at any multiple of
 * 4,096 bytes, so that nothing here depends on how the broker lays out its memory.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/payload.h"
#include "src/bench/replay.h"

#define UNIT	   4096u
#define HEAD	   64u		/* bytes by which a payload is known */
#define READ_BYTES (4u << 20)

/* In the middle of the first 64 bytes, whatever the size of the object. */
static int flip_at(int fd, off_t at)
{
	uint8_t byte;

	if (pread(fd, &byte, 1, at + HEAD / 2) != 1)
		return -1;
	byte ^= 0x10;
	return pwrite(fd, &byte, 1, at + HEAD / 2) == 1 ? 0 : -1;
}

/* Look through the whole file; holes are skipped. Returns copies flipped, or -1 with errno. */
static int64_t flip_file(const char *path, const uint8_t head[HEAD])
{
	int64_t found = 0;
	uint8_t *buffer = NULL;
	off_t at = 0;
	ssize_t n;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (posix_memalign((void **)&buffer, UNIT, READ_BYTES) != 0) {
		close(fd);
		return -1;
	}
	while (found >= 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		at -= at % UNIT;
		n = pread(fd, buffer, READ_BYTES, at);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i + HEAD <= n; i += UNIT) {
			if (memcmp(buffer + i, head, HEAD) != 0)
				continue;
			found = flip_at(fd, at + i) < 0 ? -1 : found + 1;
			if (found < 0)
				break;
		}
		at += n;
	}
	free(buffer);
	fsync(fd);
	close(fd);
	return found;
}

static void head_of(uint64_t id, uint8_t ret[HEAD])
{
	const struct stoker_key key = payload_key(id);

	payload_fill(ret, payload_seed(REPLAY_MODEL, &key, 0, 0), 0, HEAD);
}

int64_t flip_arena(const struct own_broker *broker, uint64_t id)
{
	uint8_t head[HEAD];
	char path[128];
	int64_t found;

	head_of(id, head);
	snprintf(path, sizeof(path), "/dev/shm%s.arena", broker->name);
	found = flip_file(path, head);
	if (found < 0)
		bench_say("could not look through \"%s\": %s", path, strerror(errno));
	return found;
}

int64_t flip_disk(const struct own_broker *broker, uint64_t id)
{
	DIR *directory = opendir(broker->tier);
	struct dirent *entry;
	uint8_t head[HEAD];
	int64_t found = 0;

	head_of(id, head);
	while (directory && found >= 0 && (entry = readdir(directory))) {
		char path[640];
		int64_t more;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", broker->tier, entry->d_name);
		more = flip_file(path, head);
		found = more < 0 ? more : found + more;
	}
	if (!directory || found < 0)
		bench_say("could not look through the tier in \"%s\": %s", broker->tier, strerror(errno));
	if (directory)
		closedir(directory);
	return directory ? found : -1;
}
