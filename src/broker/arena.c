/*
 * The arena and its table as shared memory objects: made, checked against what the machine has, or
 * taken over from the broker before.
 *
 * A name under /dev/shm can be taken by anyone who comes first, so what is there is looked at and not
 * trusted: an object of another uid refuses the start; one of ours that does not fit is dropped.
 * The table's first page says what both objects were made for, and by its inode which arena it is that the
 * table describes.
 *
 * Reserving is posix_fallocate(), later and by other threads: a file system that is full is then an
 * error and not a SIGBUS. The table's share of pages comes with each extent.
 */
#include "src/broker/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/broker/files.h"
#include "src/broker/memory.h"
#include "src/common/addresses.h"
#include "src/common/log.h"
#include "src/common/size.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* of Linux 6.1, younger than Debian 12's glibc */
#endif

#define LEAVING_MS 1000	/* longest wait for a holder of the table that is leaving */

struct names {
	char arena[96], table[96];
};

static void names_make(const char *name, struct names *ret)
{
	snprintf(ret->arena, sizeof(ret->arena), "%.80s.arena", name);
	snprintf(ret->table, sizeof(ret->table), "%.80s.table", name);
}

void arena_unlink(const char *name)
{
	struct names names;

	names_make(name, &names);
	/* The table first: an arena without one is dropped, a table without its arena too. */
	shm_unlink(names.table);
	shm_unlink(names.arena);
}

static uint64_t table_bytes(const struct arena *arena)
{
	const uint64_t bytes = ARENA_HEADER + (uint64_t)arena->records * sizeof(struct arena_entry);

	return (bytes + 4095) / 4096 * 4096;
}

/* --- limits --- */

/* Of the file system behind @fd and of memory, for who already has @mine bytes of it. */
static uint64_t room_of(int fd, uint64_t mine, const char **bound)
{
	struct statvfs vfs;
	uint64_t room = memory_room("", bound);

	room = room > UINT64_MAX - mine ? UINT64_MAX : room + mine;
	if (fstatvfs(fd, &vfs) == 0 && vfs.f_blocks > 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize + mine < room) {
		room = (uint64_t)vfs.f_bavail * vfs.f_frsize + mine;
		*bound = "the size of /dev/shm (remount it larger)";
	}
	return room;
}

uint64_t arena_limit(const char **ret_bound)
{
	const int dir = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const uint64_t room = room_of(dir, 0, ret_bound);

	if (dir >= 0)
		close(dir);
	return room;
}

static int limits_check(const struct arena *arena, char *why)
{
	struct stat st[2];
	struct statfs fs;
	char wanted[16], given[16];
	const char *bound;
	uint64_t room;

	if (fstat(arena->fd, &st[0]) < 0 || fstat(arena->table_fd, &st[1]) < 0 || fstatfs(arena->fd, &fs) < 0)
		return files_why(errno, why, "cannot look at the arena: %m");
	if (fs.f_type != TMPFS_MAGIC)
		return files_why(EINVAL, why, "/dev/shm is no tmpfs, so the arena's size would have no bound; mount a tmpfs there");
	room = room_of(arena->fd, ((uint64_t)st[0].st_blocks + (uint64_t)st[1].st_blocks) * 512, &bound);
	/* A little more than there is, so that who cut the arena to arena_limit() a moment ago is not refused
	 * because of what others took since. The table, and that, come out of the tenth that stays free. */
	if (arena->bytes <= room + room / 50)
		return 0;
	return files_why(ENOSPC, why, "an arena of %s does not fit: %s allows %s (a tenth of RAM stays free); ask for less "
			 "memory", size_text(arena->bytes, wanted), bound, size_text(room, given));
}

/* --- objects --- */

static uint64_t header_check(const struct arena_header *header)
{
	return XXH3_64bits(header, offsetof(struct arena_header, check));
}

/*
 * Two brokers may not have one arena: each would give places out that the other has filled. NAME.lock does not
 * keep them apart if they have different runtime directories, as /dev/shm has none of that. The table is given to
 * nobody, so what is held of its open file ends with the process; soon, if that is on its way out.
 */
static int table_lock(int fd, const char *table, char *why)
{
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == LEAVING_MS)
			return files_why(errno == EWOULDBLOCK ? EBUSY : errno, why, "the name is in use: a broker with another "
					 "broker.runtime_directory has /dev/shm%.80s; stop it, or start this one with another "
					 "--name", table);
		usleep(1000);
	}
	return 0;
}

/* Open an object that may be there: its descriptor, -ENOENT, or another error with the reason. */
static int object_open(const char *name, struct stat *st, char *why)
{
	const int fd = shm_open(name, O_RDWR, 0);

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || fstat(fd, st) < 0)
		files_why(errno, why, "cannot open /dev/shm%.80s: %m; remove it or choose another name", name);
	else if (!S_ISREG(st->st_mode))
		files_why(EPERM, why, "/dev/shm%.80s is no regular file; remove it or choose another name", name);
	else if (st->st_uid != geteuid())
		files_why(EPERM, why, "/dev/shm%.80s belongs to uid %u and the broker runs as %u; remove it or choose another "
			  "name", name, (unsigned)st->st_uid, (unsigned)geteuid());
	else
		return fd;
	if (fd >= 0)
		close(fd);
	return -EPERM;
}

int arena_check(const char *name, char *why)
{
	struct names names;
	struct stat st;

	names_make(name, &names);
	for (int i = 0; i < 2; i++) {
		const int fd = object_open(i ? names.table : names.arena, &st, why);
		const int r = i && fd >= 0 ? table_lock(fd, names.table, why) : 0;

		if (fd >= 0)
			close(fd);
		else if (fd != -ENOENT)
			return fd;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Why the objects that are there cannot be taken over; NULL: they can. */
static const char *misfit(const struct arena *arena, const struct stat *a, const struct stat *t)
{
	struct arena_header header;

	if (((a->st_mode | t->st_mode) & 0777) != 0600)
		return "others could have opened it";
	if (files_read(arena->table_fd, &header, sizeof(header), 0) < 0 || header.magic != ARENA_MAGIC ||
	    header.check != header_check(&header))
		return "its table has no good header";
	if (header.format != ARENA_FORMAT)
		return "its table is of another release";
	if (header.bytes != arena->bytes || header.extent_bytes != arena->extent_bytes ||
	    header.records != arena->records || (uint64_t)a->st_size != arena->bytes ||
	    (uint64_t)t->st_size != table_bytes(arena))
		return "it was made for another geometry";
	if (header.inode != a->st_ino)
		return "its table describes another arena";
	return NULL;
}

static void objects_close(struct arena *arena)
{
	if (arena->fd >= 0)
		close(arena->fd);
	if (arena->table_fd >= 0)
		close(arena->table_fd);
	arena->fd = arena->table_fd = -1;
}

/* 1: both objects are there and fit; 0: there is nothing, or nothing that fits, which is gone now; -errno. */
static int objects_take_over(struct arena *arena, const char *name, const struct names *names, bool fresh, char *why)
{
	struct stat a, t;
	const char *because = "one of its two objects is missing";
	int r;

	arena->fd = object_open(names->arena, &a, why);
	arena->table_fd = arena->fd == -ENOENT || arena->fd >= 0 ? object_open(names->table, &t, why) : -1;
	if ((arena->fd < 0 && arena->fd != -ENOENT) || (arena->table_fd < 0 && arena->table_fd != -ENOENT))
		return arena->fd < 0 && arena->fd != -ENOENT ? arena->fd : arena->table_fd;
	if (arena->fd == -ENOENT && arena->table_fd == -ENOENT)
		return 0;
	r = arena->table_fd >= 0 ? table_lock(arena->table_fd, names->table, why) : 0;
	if (r < 0)
		return r;
	if (fresh)
		because = "its I/O has not ended";
	else if (arena->fd >= 0 && arena->table_fd >= 0)
		because = misfit(arena, &a, &t);
	if (!because)
		return 1;
	log_warning("the arena %s of the broker before is not taken over: %s; it begins empty", names->arena, because);
	objects_close(arena);
	arena_unlink(name);
	return 0;
}

static int object_make(const char *name, uint64_t bytes, char *why)
{
	const int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

	if (fd >= 0 && fchmod(fd, 0600) == 0 && ftruncate(fd, (off_t)bytes) == 0)
		return fd;
	files_why(errno, why, "cannot make /dev/shm%.80s: %m", name);
	if (fd >= 0)
		close(fd);
	return -EIO;
}

static int objects_make(struct arena *arena, const struct names *names, bool unbounded, char *why)
{
	struct arena_header header = {
		.magic = ARENA_MAGIC, .format = ARENA_FORMAT, .records = arena->records, .bytes = arena->bytes,
		.extent_bytes = arena->extent_bytes,
	};
	struct stat st;
	int r;

	arena->fd = object_make(names->arena, arena->bytes, why);
	if (arena->fd < 0)
		return arena->fd;
	arena->table_fd = object_make(names->table, table_bytes(arena), why);
	if (arena->table_fd < 0)
		return arena->table_fd;
	r = table_lock(arena->table_fd, names->table, why);
	if (r == 0 && !unbounded)
		r = limits_check(arena, why);
	if (r < 0)
		return r;
	if (posix_fallocate(arena->table_fd, 0, ARENA_HEADER) != 0 || fstat(arena->fd, &st) < 0)
		return files_why(ENOSPC, why, "/dev/shm is full; ask for less memory or remount it larger");
	header.inode = st.st_ino;
	header.check = header_check(&header);
	r = files_write(arena->table_fd, &header, sizeof(header), 0);
	return r == 0 ? 0 : files_why(-r, why, "cannot write the header of the arena's table");
}

static int objects_map(struct arena *arena, char *why)
{
	void *at = addresses_reserve(arena->bytes, ADDRESSES_HUGE);
	void *base = at ? mmap(at, arena->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena->fd, 0) : MAP_FAILED;
	void *table = mmap(NULL, table_bytes(arena), PROT_READ | PROT_WRITE, MAP_SHARED, arena->table_fd, 0);

	if (at && base == MAP_FAILED)
		munmap(at, arena->bytes);
	arena->base = base == MAP_FAILED ? NULL : base;
	arena->header = table == MAP_FAILED ? NULL : table;
	if (!arena->base || !arena->header)
		return files_why(ENOMEM, why, "cannot map an arena of %" PRIu64 " bytes: %m; ask for less memory, or raise the "
				 "limit of address space (ulimit -v)", arena->bytes);
	arena->table = (struct arena_entry *)((uint8_t *)table + ARENA_HEADER);
	/* A child process (a copier) has no business in here, and we do not want to pay for its copy of the map. */
	madvise(base, arena->bytes, MADV_DONTFORK);
	madvise(table, table_bytes(arena), MADV_DONTFORK);
	return 0;
}

static bool is_whole(const struct arena *arena)
{
	struct stat st[2];

	return fstat(arena->fd, &st[0]) == 0 && fstat(arena->table_fd, &st[1]) == 0 &&
	       (uint64_t)st[0].st_blocks * 512 >= arena->bytes && (uint64_t)st[1].st_blocks * 512 >= table_bytes(arena);
}

static int arena_make(struct arena *arena, const char *name, bool fresh, bool unbounded, char *why)
{
	struct names names;
	int r;

	if (arena->extents == 0 || arena->extent_bytes % 4096 != 0)
		return files_why(EINVAL, why, "an arena needs at least one extent of %" PRIu64 " bytes; ask for more memory",
				 arena->extent_bytes);
	names_make(name, &names);
	r = objects_take_over(arena, name, &names, fresh, why);
	if (r < 0)
		return r;
	arena->warm = r == 1;
	arena->whole = arena->warm && is_whole(arena);
	r = arena->warm ? limits_check(arena, why) : objects_make(arena, &names, unbounded, why);
	if (r == 0)
		r = objects_map(arena, why);
	if (r < 0 && r != -EBUSY && !arena->warm)
		arena_unlink(name);	/* what was made a moment ago holds nothing */
	return r;
}

static int open_any(const char *name, uint64_t bytes, uint64_t extent_bytes, uint32_t records, bool fresh,
		    bool unbounded, char *why, struct arena **ret)
{
	struct arena *arena = calloc(1, sizeof(*arena));
	int r;

	if (!arena)
		return files_why(ENOMEM, why, "no memory for the arena %.80s", name);
	arena->fd = arena->table_fd = -1;
	arena->extent_bytes = extent_bytes;
	arena->extents = (uint32_t)(bytes / extent_bytes);
	arena->bytes = arena->extents * extent_bytes;
	arena->records = records;
	r = arena_make(arena, name, fresh, unbounded, why);
	if (r < 0) {
		arena_close(arena);
		return r;
	}
	*ret = arena;
	return 0;
}

int arena_open(const char *name, uint64_t bytes, uint64_t extent_bytes, uint32_t records, bool fresh, char *why,
	       struct arena **ret)
{
	return open_any(name, bytes, extent_bytes, records, fresh, false, why, ret);
}

int arena_open_null(const char *name, uint64_t bytes, uint64_t extent_bytes, uint32_t records, char *why,
		    struct arena **ret)
{
	return open_any(name, bytes, extent_bytes, records, true, true, why, ret);
}

void arena_close(struct arena *arena)
{
	if (!arena)
		return;
	if (arena->base)
		munmap(arena->base, arena->bytes);
	if (arena->header)
		munmap(arena->header, table_bytes(arena));
	objects_close(arena);
	free(arena);
}

/* --- populating --- */

/* The table's share of pages that comes with an extent. */
static int table_reserve(const struct arena *arena, uint32_t extent)
{
	const uint64_t share = table_bytes(arena) / arena->extents;
	const uint64_t first = extent * share;
	const uint64_t end = extent + 1 == arena->extents ? table_bytes(arena) : first + share;

	return end > first ? -posix_fallocate(arena->table_fd, (off_t)first, (off_t)(end - first)) : 0;
}

/*
 * Enter pages into our own tables now: to register a buffer costs 30 times more without. By touching
 * them, because madvise() keeps the address space locked over its whole range, and whoever maps
 * something meanwhile waits, with all page faults behind it. What a broker before has written is
 * there already: a load then enters 16 pages at once.
 */
static void pages_touch(const struct arena *arena, uint8_t *at, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += 4096) {
		if (arena->warm)
			(void)*(volatile uint8_t *)(at + i);
		else
			(void)__atomic_fetch_or(at + i, 0, __ATOMIC_RELAXED);
	}
}

/*
 * Populate a whole huge page, whatever options /dev/shm is mounted with: the kernel makes one of a small page and
 * the room around it when it is asked to. That is ten times faster than page by page, copies then miss the TLB
 * less, and a disk's requests have fewer segments. False if there is none to be had (no such kernel, no
 * room, memory in pieces).
 */
static bool populate_huge(struct arena *arena, uint64_t at)
{
	return fallocate(arena->fd, 0, (off_t)at, 4096) == 0 &&
	       madvise(arena->base + at, ADDRESSES_HUGE, MADV_COLLAPSE) == 0;
}

static int populate_small(struct arena *arena, uint64_t at, uint64_t bytes)
{
	const int r = -posix_fallocate(arena->fd, (off_t)at, (off_t)bytes);

	if (r == 0)
		pages_touch(arena, arena->base + at, bytes);
	return r;
}

int arena_populate_part(struct arena *arena, uint32_t extent, uint64_t at, uint64_t bytes, bool huge)
{
	const uint64_t first = extent * arena->extent_bytes + at;
	const uint64_t end = first + bytes;
	int r;

	/* A part at a time: it keeps the address space locked over its whole range. */
	if (arena->whole && madvise(arena->base + first, bytes, MADV_POPULATE_READ) == 0)
		return 0;
	r = at == 0 ? table_reserve(arena, extent) : 0;
	huge &= !arena->warm;	/* what a broker before has filled keeps its pages: to move its bytes takes long */
	for (uint64_t i = first; i < end && r == 0;) {
		const uint64_t next = (i | (ADDRESSES_HUGE - 1)) + 1 < end ? (i | (ADDRESSES_HUGE - 1)) + 1 : end;

		if (huge && next - i == ADDRESSES_HUGE && populate_huge(arena, i))
			atomic_fetch_add_explicit(&arena->huge_bytes, ADDRESSES_HUGE, memory_order_relaxed);
		else
			r = populate_small(arena, i, next - i);
		i = next;
	}
	return r;
}

void arena_vacate(struct arena *arena, uint32_t extent)
{
	/* What a broker before has left there may be told of in the table still: it keeps its bytes. */
	if (!arena->warm)
		fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)(extent * arena->extent_bytes), (off_t)arena->extent_bytes);
}

int arena_populate(struct arena *arena, uint32_t extent)
{
	int r = 0;

	for (uint64_t at = 0; at < arena->extent_bytes && r == 0; at += ARENA_PART)
		r = arena_populate_part(arena, extent, at, arena->extent_bytes - at < ARENA_PART ?
					arena->extent_bytes - at : ARENA_PART, true);
	if (r < 0)
		arena_vacate(arena, extent);
	return r;
}
