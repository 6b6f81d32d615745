/*
 * A disk tier on a block device of its own, without a file system:
 *
 *	0		superblock, two copies
 *	1 MiB		slab table, two areas (slabs.h), each 1/128 of the device, 2 MiB at least
 *	then		images
 *
 * The broker holds the device open exclusively (O_EXCL), as mount and mkfs do: one that is mounted, part of
 * something else or another broker's is refused, and while a killed broker's ring has I/O on it the
 * kernel keeps it that one's. There is no further place as in a directory: a device where I/O hangs
 * is out of service.
 *
 * It is written only if it bears our superblock, or nothing at all: its first and its last 4 MiB are
 * zeros. That is more than any list of signatures knows: file systems, partition tables, LVM, RAID, encryption and
 * swap all leave something in one of the two. Whoever wants the device for us clears it first.
 *
 * Where the areas and images lie is in the superblock, so that a device that has grown is read as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/files.h"
#include "src/broker/tier-inside.h"
#include "src/common/log.h"
#include "src/common/size.h"

#define MIB		1048576u
#define END_BYTES	(4u * MIB)	/* that have to be clear */
#define LOG_SHARE	128u
#define LOG_MIN		(2u * MIB)
#define OPEN_TRIES	100	/* of 10 ms: what a killed broker's ring takes to end */
#define CLEAR		"clear it (blkdiscard -z)"

static uint64_t log_bytes(uint64_t device)
{
	const uint64_t share = device / LOG_SHARE / MIB * MIB;

	return share < LOG_MIN ? LOG_MIN : share;
}

static uint64_t data_begin(uint64_t device)
{
	return SUPERBLOCK_DATA + 2 * log_bytes(device);
}

uint64_t tier_device_room(uint64_t bytes)
{
	return bytes > data_begin(bytes) ? bytes - data_begin(bytes) : 0;
}

/* Ours alone from now on, or -errno. */
static int exclusive_open(const struct tier *tier, int flags)
{
	int fd = open(tier->path, O_RDWR | O_CLOEXEC | flags | (tier->config.as_device ? 0 : O_EXCL));

	if (fd < 0)
		return -errno;
	if (!tier->config.as_device || flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	close(fd);
	return -EBUSY;
}

static int device_take(struct tier *tier, char *why)
{
	int direct = tier->config.no_direct ? 0 : O_DIRECT;
	struct stat st;

	tier->file = exclusive_open(tier, direct);
	for (int i = 0; i < OPEN_TRIES && (tier->file == -EBUSY || (tier->file == -EINVAL && direct)); i++) {
		if (tier->file == -EINVAL)
			direct = 0;
		else if (!tier->config.io_is_held)
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		else
			break;		/* waited for already */
		tier->file = exclusive_open(tier, direct);
	}
	if (tier->file == -EBUSY)
		return files_why(EBUSY, why, "the device %.120s is in use: it is mounted, part of another device or another "
				 "broker's, or I/O of a dead broker hangs on it; name another one", tier->path);
	if (tier->file < 0)
		return files_why(-tier->file, why, "cannot open the device %.120s: %s; give uid %u the right to read and write it",
				 tier->path, strerror(-tier->file), (unsigned)geteuid());
	tier->direct = direct != 0;
	if (!tier->direct && !tier->config.no_direct)
		log_warning("tier %s: the device %s has no O_DIRECT, so its bytes pass through the page cache, slower and in "
			    "memory twice", tier->config.name, tier->path);
	tier->notes = open(tier->path, O_RDWR | O_CLOEXEC);
	if (tier->notes < 0 || fstat(tier->notes, &st) < 0)
		return files_why(errno, why, "cannot open the device %.120s once more: %m", tier->path);
	if (st.st_mode & 002)
		return files_why(EPERM, why, "the device %.120s can be written by anybody (mode %04o); chmod o-w it", tier->path,
				 (unsigned)st.st_mode & 07777);
	return 0;
}

/* Nothing but zeros in the END_BYTES at @at: 1, 0 or -errno. */
static int is_clear(int fd, uint64_t at)
{
	uint8_t *bytes = malloc(END_BYTES);
	int r;

	if (!bytes)
		return -ENOMEM;
	r = files_read(fd, bytes, END_BYTES, at);
	if (r == 0)
		r = bytes[0] == 0 && memcmp(bytes, bytes + 1, END_BYTES - 1) == 0;
	free(bytes);
	return r;
}

/* A superblock for a device that is clear at both ends; refuses any other. */
static int device_make(struct tier *tier, uint64_t bytes, char *why)
{
	const int first = is_clear(tier->notes, 0), last = first == 1 ? is_clear(tier->notes, bytes - END_BYTES) : first;
	int r;

	if (last < 0)
		return files_why(-last, why, "cannot read the device %.120s: %s", tier->path, strerror(-last));
	if (last == 0)
		return files_why(EBADMSG, why, "the device %.100s is not empty: there is something in its %s 4 MiB, as a file system, "
				 "a partition table or LVM leaves; name another one, or, if nothing on it is needed, " CLEAR,
				 tier->path, first == 1 ? "last" : "first");
	tier->superblock->data = data_begin(bytes);
	tier->superblock->log_bytes = log_bytes(bytes);
	tier->fresh = true;
	r = superblock_write(tier->notes, tier->superblock);
	return r < 0 ? files_why(-r, why, "cannot write to the device %.120s: %s", tier->path, strerror(-r)) : 0;
}

static bool magic_is_there(int fd)
{
	uint64_t magic[2] = { 0 };

	for (uint64_t i = 0; i < 2; i++)
		if (files_read(fd, &magic[i], sizeof(magic[i]), i * SUPERBLOCK_BYTES) < 0)
			magic[i] = 0;
	return magic[0] == SUPERBLOCK_MAGIC || magic[1] == SUPERBLOCK_MAGIC;
}

/* What the superblock says of places holds for this device, or it is another's. */
static int places_check(const struct tier *tier, uint64_t bytes, char *why)
{
	const struct superblock *s = tier->superblock;
	const uint64_t wanted = tier->units * 4096;
	char is[16], has[16];

	if (s->log_bytes < LOG_MIN || s->log_bytes > bytes / 2 || s->log_bytes % 4096 != 0 ||
	    s->data != SUPERBLOCK_DATA + 2 * s->log_bytes || s->data >= bytes)
		return files_why(EBADMSG, why, "the device %.120s bears a tier that was made for a file or a larger device; " CLEAR
				 " to begin anew", tier->path);
	if (wanted <= bytes - s->data)
		return 0;
	return files_why(ENOSPC, why, "no room for the tier on %.100s: %s are wanted and it has %s; make it smaller", tier->path,
			 size_text(wanted, is), size_text(bytes - s->data, has));
}

int tier_device_open(struct tier *tier, char *why)
{
	off_t bytes;
	int r;

	tier->path = strdup(tier->config.path);
	tier->file_path = strdup(tier->config.path);
	if (!tier->path || !tier->file_path)
		return files_why(ENOMEM, why, "no memory for the tier %.120s", tier->config.path);
	r = device_take(tier, why);
	if (r < 0)
		return r;
	bytes = lseek(tier->notes, 0, SEEK_END);
	if (bytes < 0 || tier_device_room((uint64_t)bytes) < tier->units * 4096)
		return files_why(ENOSPC, why, "the device %.120s is too small for this tier and what is noted of it; make it smaller",
				 tier->path);
	r = magic_is_there(tier->notes) ?
	    superblock_read(tier->notes, tier->path, CLEAR, tier->config.extent_bytes, why, tier->superblock) :
	    device_make(tier, (uint64_t)bytes, why);
	if (r == 0)
		r = places_check(tier, (uint64_t)bytes, why);
	if (r < 0)
		return r;
	tier->data = tier->superblock->data;
	return slabs_open_device(tier->notes, tier->path, SUPERBLOCK_DATA, tier->superblock->log_bytes,
				 tier->superblock->uuid, tier->units, tier->fresh, why, &tier->slabs);
}
