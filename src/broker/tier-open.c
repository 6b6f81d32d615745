/*
 * Opening a disk tier: who may have it, and whether what lies there is ours and fits.
 *
 * The directory belongs to this uid and nobody else can write there; a lock file inside is held by
 * one broker and by its ring (uring.c), so two brokers never share a tier, and a successor waits until
 * the last transfer of a killed one has landed.
 *
 * Seats. If it does not land (the disk hangs), the files that it may still write to are left alone and
 * this boot makes new ones: in the directory itself is seat 0, beside it are `stoker-1` to `stoker-7`,
 * each a whole tier with a lock of its own. A further seat is for a broker that comes after a dead one
 * of its own name alone, which the lock file and the I/O lock of that name (locks.h) say. The next broker
 * that finds a lower seat free uses that one again, and removes those further ones whose locks
 * are free: so nothing that was begun because of a fault outlives it.
 *
 * Everything foreign is looked at before anything is written. See superblock.h and slabs.h for what
 * is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/files.h"
#include "src/broker/tier-inside.h"
#include "src/common/log.h"
#include "src/common/size.h"

#define FILE_NAME	"stoker-tier"
#define FILE_NEW	"stoker-tier.new"
#define LOCK_NAME	"stoker-lock"
#define SEAT_NAME	"stoker-%u"
#define SEATS		8u
#define LOCK_TRIES	100	/* of 10 ms: what a killed broker's ring takes to end */
#define OWNER_BYTES	512u	/* of the lock file: the holder's pid, a line end, its owner, a line end */

/* --- seats --- */

/* What the lock file says: @pid for people, and whether its holder is a broker of our own name. */
static bool lock_read(const struct tier *tier, char pid[24])
{
	char text[OWNER_BYTES] = "";
	const ssize_t n = pread(tier->lock, text, sizeof(text) - 1, 0);
	char *owner = n > 0 ? strchr(text, '\n') : NULL;

	text[n > 0 ? n : 0] = '\0';
	if (owner)
		*owner++ = '\0';
	snprintf(pid, 24, "%.*s", (int)strspn(text, "0123456789"), text);
	if (owner)
		owner[strcspn(owner, "\n")] = '\0';
	return owner && tier->config.owner && strcmp(owner, tier->config.owner) == 0;
}

static void lock_sign(struct tier *tier)
{
	char text[OWNER_BYTES];
	const int n = snprintf(text, sizeof(text), "%ld\n%s\n", (long)getpid(),
			       tier->config.owner ? tier->config.owner : "");

	/* A full disk must not keep a broker from serving what is there: it costs a word in a message, or
	 * a further seat. */
	if (n >= (int)sizeof(text) || ftruncate(tier->lock, 0) < 0 ||
	    files_write(tier->lock, text, (size_t)n, 0) < 0)
		log_debug("tier %s: could not write who it is into %s/" LOCK_NAME, tier->config.name, tier->path);
}

/* The seat's lock, -EBUSY, or another -errno, each with its reason. *ret_ours: a broker of our name has it. */
static int lock_take(struct tier *tier, int tries, bool *ret_ours, char *why)
{
	char pid[24];

	*ret_ours = false;
	tier->lock = files_open(tier->dir, tier->path, LOCK_NAME, O_RDWR | O_CREAT, why);
	if (tier->lock < 0)
		return tier->lock;
	for (int i = 0; flock(tier->lock, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno == EWOULDBLOCK && i < tries) {
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
			continue;
		}
		if (errno != EWOULDBLOCK)
			return files_why(errno, why, "cannot lock %.120s/" LOCK_NAME ": %m", tier->path);
		*ret_ours = lock_read(tier, pid);
		return files_why(EBUSY, why, "the tier %.120s is in use by another broker (pid %s); stop it or name another "
				 "directory", tier->path, pid[0] ? pid : "unknown");
	}
	lock_sign(tier);
	return 0;
}

static void seat_leave(struct tier *tier)
{
	if (tier->dir >= 0)
		close(tier->dir);
	if (tier->lock >= 0)
		close(tier->lock);
	tier->dir = tier->lock = -1;
}

/* Open the directory of @seat and take its lock. */
static int seat_enter(struct tier *tier, uint32_t seat, bool *ret_ours, char *why)
{
	char *path = NULL;
	int r;

	*ret_ours = false;
	r = seat == 0 ? asprintf(&path, "%s", tier->config.path) :
			asprintf(&path, "%s/" SEAT_NAME, tier->config.path, seat);
	free(tier->path);
	tier->path = r < 0 ? NULL : path;
	if (!tier->path)
		return files_why(ENOMEM, why, "no memory for the tier %.120s", tier->config.path);
	tier->seat = seat;
	tier->dir = files_directory(tier->path, why);
	/* Nobody waits in a further seat: the broker has waited for the I/O lock before it came here. */
	r = tier->dir < 0 ? tier->dir : lock_take(tier, tier->config.io_is_held ? 0 : LOCK_TRIES, ret_ours, why);
	if (r < 0)
		seat_leave(tier);
	return r;
}

static int seat_take(struct tier *tier, char *why)
{
	bool ours;
	int r;

	for (uint32_t seat = 0; seat < SEATS; seat++) {
		r = seat_enter(tier, seat, &ours, why);
		if (r != -EBUSY || !ours || !tier->config.io_is_held)
			return r;
	}
	return files_why(EBUSY, why, "%.120s and all " SEAT_NAME " to " SEAT_NAME " in it are held by brokers that are gone: "
			 "their disk I/O hangs; look at the disk, or name another directory", tier->config.path, 1u,
			 SEATS - 1);
}

/* Unlink what a tier of ours has in the directory @dir that is @path: somebody's notes stay, and it with them. */
static void seat_remove(int dir, const char *path)
{
	static const char *const names[] = { FILE_NEW, FILE_NAME, "stoker-slabs.new", "stoker-slabs", LOCK_NAME };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlinkat(dir, names[i], 0);
	if (rmdir(path) < 0)
		log_debug("%s could not be removed: %m", path);
}

/* Further seats that nobody sits in: what the faults of earlier boots left. */
static void seats_sweep(const struct tier *tier)
{
	char path[4096], unused[FILES_WHY];

	for (uint32_t seat = 1; seat < SEATS; seat++) {
		if (seat == tier->seat ||
		    snprintf(path, sizeof(path), "%s/" SEAT_NAME, tier->config.path, seat) >= (int)sizeof(path))
			continue;
		const int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		const int lock = dir < 0 ? -1 : files_open(dir, path, LOCK_NAME, O_RDWR, unused);

		if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0) {
			log_info("tier %s: %s, made while disk I/O of a dead broker was under way, is removed",
				 tier->config.name, path);
			seat_remove(dir, path);
		}
		if (lock >= 0)
			close(lock);
		if (dir >= 0)
			close(dir);
	}
}

/* A new file with a superblock, under its final name once that is durable. */
static int file_make(struct tier *tier, char *why)
{
	int r = -EIO, fd;

	unlinkat(tier->dir, FILE_NEW, 0);	/* of a broker that was killed right here */
	fd = openat(tier->dir, FILE_NEW, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0) {
		r = superblock_write(fd, tier->superblock);
		close(fd);
	}
	if (r == 0)
		r = files_rename(tier->dir, FILE_NEW, FILE_NAME);
	if (r == 0)
		return 0;
	if (fd < 0)
		r = -errno;
	errno = -r;
	return files_why(-r, why, "cannot make %.140s: %m", tier->file_path);
}

/* Look at what is there, or make it. tier->file is a plain descriptor then. */
static int file_open(struct tier *tier, char *why)
{
	struct stat st;
	int r;

	tier->file = files_open(tier->dir, tier->path, FILE_NAME, O_RDWR, why);
	if (tier->file == -ENOENT) {
		tier->fresh = true;
		r = file_make(tier, why);
		if (r < 0)
			return r;
		tier->file = files_open(tier->dir, tier->path, FILE_NAME, O_RDWR, why);
	}
	if (tier->file < 0)
		return tier->file;
	if (fstat(tier->file, &st) < 0 || st.st_size < (off_t)SUPERBLOCK_BYTES)
		return files_why(EBADMSG, why, "%.140s is no tier of stoker's (it is too short); move it away or name another "
				 "directory", tier->file_path);
	return superblock_read(tier->file, tier->file_path, "remove it and stoker-slabs", tier->config.extent_bytes, why,
			       tier->superblock);
}

/* Is there room for all of it? Asked before anything else is made. */
static int file_room(struct tier *tier, char *why)
{
	const uint64_t bytes = SUPERBLOCK_DATA + tier->units * 4096;
	char wanted[16], given[16];
	struct statvfs vfs;
	struct stat st;
	uint64_t room;

	if (fstatvfs(tier->file, &vfs) < 0 || fstat(tier->file, &st) < 0)
		return files_why(errno, why, "cannot look at the file system of %.140s: %m", tier->file_path);
	room = (uint64_t)vfs.f_bavail * vfs.f_frsize + (uint64_t)st.st_blocks * 512;
	if (bytes <= room)
		return 0;
	return files_why(ENOSPC, why, "no room for the tier %.100s: %s are wanted and its file system has %s; make it smaller "
			 "or free some", tier->path, size_text(bytes, wanted), size_text(room, given));
}

static int file_size(struct tier *tier, char *why)
{
	if (ftruncate(tier->file, (off_t)(SUPERBLOCK_DATA + tier->units * 4096)) == 0)
		return 0;
	if (errno == EFBIG)
		return files_why(EFBIG, why, "cannot give %.100s its size: %m; raise the limit of file sizes (LimitFSIZE=infinity, "
				 "ulimit -f), or make the tier smaller", tier->file_path);
	return files_why(errno, why, "cannot give %.140s its size: %m", tier->file_path);
}

/* Open the file once more past the page cache, and try it: some file systems say no at the read only. */
static void file_go_direct(struct tier *tier)
{
	void *page = aligned_alloc(4096, 4096);
	int fd = tier->config.no_direct ? -1 : files_open(tier->dir, tier->path, FILE_NAME, O_RDWR | O_DIRECT,
							  (char[FILES_WHY]){ "" });

	if (fd >= 0 && page && files_read(fd, page, 4096, 0) == 0) {
		close(tier->file);
		tier->file = fd;
		tier->direct = true;
	} else {
		if (fd >= 0)
			close(fd);
		if (!tier->config.no_direct)
			log_warning("tier %s: the file system of %s has no O_DIRECT, so its bytes pass through the page cache, "
				    "slower and in memory twice; use ext4 or xfs", tier->config.name, tier->path);
	}
	free(page);
}

static int files_take(struct tier *tier, char *why)
{
	int r;

	if (asprintf(&tier->file_path, "%s/" FILE_NAME, tier->path) < 0) {
		tier->file_path = NULL;
		return files_why(ENOMEM, why, "no memory for the tier %.120s", tier->path);
	}
	r = file_open(tier, why);
	if (r == 0)
		r = file_room(tier, why);
	/* The log is looked at before the file grows: a foreign one refuses the whole directory. */
	if (r == 0)
		r = slabs_open(tier->dir, tier->path, tier->superblock->uuid, tier->units, tier->fresh, why, &tier->slabs);
	if (r == 0)
		r = file_size(tier, why);
	if (r == 0)
		file_go_direct(tier);
	return r;
}

/* What was made a moment ago holds nothing. A slab table that was refused is not of our making. */
static void files_take_back(struct tier *tier)
{
	if (!tier->fresh)
		return;
	unlinkat(tier->dir, FILE_NAME, 0);
	if (tier->slabs)
		unlinkat(tier->dir, "stoker-slabs", 0);
}

static bool is_device(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

int tier_files_open(struct tier *tier, char *why)
{
	int r;

	if (tier->units == 0)
		return files_why(EINVAL, why, "the tier %.120s is smaller than one extent of %" PRIu64 " bytes; make it larger",
				 tier->config.path, tier->config.extent_bytes);
	if (tier->config.as_device || is_device(tier->config.path))
		return tier_device_open(tier, why);
	r = seat_take(tier, why);
	if (r < 0)
		return r;
	r = files_take(tier, why);
	if (r < 0) {
		files_take_back(tier);
		return r;
	}
	if (tier->seat > 0)
		log_warning("tier %s: disk I/O of a broker that is gone is still under way in %s: this boot makes files of its "
			    "own in %s, and the next start without it uses the old ones again", tier->config.name,
			    tier->config.path, tier->path);
	seats_sweep(tier);
	return 0;
}

/*
 * Where the file system keeps blocks reserved without writing them, reserve all now; elsewhere the
 * file stays sparse, and a disk that fills up later is a write error. Seconds for a new terabyte: it
 * is done when the tier is up already, and only holds up what has just been stored.
 */
void tier_files_reserve(struct tier *tier)
{
	struct statfs fs;

	if (tier->notes < 0 && fstatfs(tier->file, &fs) == 0 &&
	    (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC) &&
	    fallocate(tier->file, 0, 0, (off_t)(SUPERBLOCK_DATA + tier->units * 4096)) < 0)
		log_info("tier %s: could not reserve %s beforehand: %m; blocks are found as they are written",
			 tier->config.name, tier->file_path);
}
