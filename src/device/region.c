/*
 * Regions: checks first, all of them, then addresses.
 *
 * A range is taken if its file is shared memory (tmpfs, memfd, hugetlbfs), open for reading and
 * writing, not one of the broker's, allocated, and as long as it says. All of that can change the
 * moment after: a memfd sealed against shrinking keeps its length, everything else goes behind the
 * guard. Memory on hugetlbfs is always guarded: a hole punched into it cannot be filled when the
 * huge pages have run out, and seals do not forbid holes.
 */
#include "src/device/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "src/common/addresses.h"
#include "src/device/guard.h"
#include "src/device/refuse.h"

#define UNMAP_BYTES (256ull << 20)

/** struct range - one descriptor's part of a region while it is being checked. */
struct range {
	uint32_t number;
	int fd;
	uint64_t offset, bytes;
	uint64_t page;		/* unit of the file system: 4,096, or the huge page */
	struct stat stat;
	bool sealed;		/* nobody can shrink it */
};

/*
 * F_GET_SEALS comes first: it answers for tmpfs and hugetlbfs alone, from the kernel's memory. Asking a
 * stranger's file system instead (fstat, fstatfs) could wait for a peer that serves it (FUSE).
 */
static int check_kind(struct range *range, char *why)
{
	const int seals = fcntl(range->fd, F_GET_SEALS), flags = fcntl(range->fd, F_GETFL);
	struct statfs fs;

	if (seals < 0 || flags < 0 || (flags & O_PATH))
		return refuse(why, -EINVAL, "cannot register range %u: its descriptor is no file in shared memory; "
			      "use memfd_create, shm_open or hugetlbfs", range->number);
	if ((flags & O_ACCMODE) != O_RDWR)
		return refuse(why, -EACCES, "cannot register range %u: its descriptor is not open for reading and "
			      "writing; open it with O_RDWR", range->number);
	if (fstat(range->fd, &range->stat) < 0 || fstatfs(range->fd, &fs) < 0)
		return refuse(why, -EBADF, "cannot register range %u: its descriptor cannot be looked at; "
			      "use memfd_create or shm_open", range->number);
	if (!S_ISREG(range->stat.st_mode) || (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC))
		return refuse(why, -EINVAL, "cannot register range %u: its descriptor is no regular file of tmpfs or "
			      "hugetlbfs; use memfd_create or shm_open", range->number);
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return refuse(why, -EACCES, "cannot register range %u: its file is sealed against writing; "
			      "use one without that seal", range->number);
	range->page = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : STOKER_PAGE;
	range->sealed = (seals & F_SEAL_SHRINK) && fs.f_type == TMPFS_MAGIC;
	return 0;
}

static int check_owner(const struct region_rules *rules, const struct range *range, char *why)
{
	for (uint32_t i = 0; i < rules->n_own; i++)
		if (rules->own[i].device == range->stat.st_dev && rules->own[i].inode == range->stat.st_ino)
			return refuse(why, -EACCES, "cannot register range %u: its file is the broker's own; "
				      "register the worker's memory", range->number);
	return 0;
}

/* @at: where in the region the range will begin. */
static int check_bounds(const struct range *range, uint64_t at, char *why)
{
	const uint64_t size = (uint64_t)range->stat.st_size;

	if (range->bytes == 0)
		return refuse(why, -EINVAL, "cannot register range %u: it has 0 bytes; leave it out", range->number);
	if ((range->offset | range->bytes) & (range->page - 1))
		return refuse(why, -EINVAL, "cannot register range %u: offset %llu or bytes %llu is no multiple of the "
			      "file's pages of %llu bytes; align both", range->number,
			      (unsigned long long)range->offset, (unsigned long long)range->bytes,
			      (unsigned long long)range->page);
	if (at & (range->page - 1))
		return refuse(why, -EINVAL, "cannot register range %u: the ranges before it are no multiple of its "
			      "pages of %llu bytes; put huge pages first", range->number,
			      (unsigned long long)range->page);
	if (range->bytes > size || range->offset > size - range->bytes)
		return refuse(why, -ERANGE, "cannot register range %u: offset %llu and bytes %llu go beyond the "
			      "%llu bytes of its file; call ftruncate first", range->number,
			      (unsigned long long)range->offset, (unsigned long long)range->bytes,
			      (unsigned long long)size);
	return 0;
}

/*
 * Has the file memory behind every page? Touching a hole would make the page, at the broker's cost.
 * What is asked is the whole file, because no call tells it of a part without risk: lseek(SEEK_HOLE)
 * waits for a peer that sits in a read of the same open file, and mincore() does not count pages that
 * were allocated and never written.
 */
static int check_allocated(const struct range *range, char *why)
{
	const uint64_t allocated = (uint64_t)range->stat.st_blocks * 512;
	const uint64_t size = ((uint64_t)range->stat.st_size + range->page - 1) & ~(range->page - 1);

	if (allocated < size)
		return refuse(why, -ENOSPC, "cannot register range %u: %llu bytes of its file have no memory yet; "
			      "call posix_fallocate for all of it first", range->number,
			      (unsigned long long)(size - allocated));
	return 0;
}

/* Map a checked range into its place of the region's addresses. */
static int map_range(struct device_region *region, const struct range *range, uint64_t at, char *why)
{
	uint8_t *base = region->base + at;
	int r;

	if (mmap(base, range->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, range->fd,
		 (off_t)range->offset) == MAP_FAILED) {
		r = -errno;
		return refuse(why, r, "could not map range %u: %s; have vm.max_map_count raised, or register "
			      "fewer ranges", range->number, strerror(-r));
	}
	madvise(base, range->bytes, MADV_DONTDUMP);	/* a core dump of the broker is no place for KV */
	if (range->sealed)
		return 0;
	r = guard_add(base, range->bytes, &region->faulted);
	if (r < 0)
		return refuse(why, r, "could not register range %u: all %u guards of unsealed memory are in use; "
			      "seal the memfd with F_SEAL_SHRINK", range->number, GUARD_RANGES_MAX);
	region->guarded[range->number] = true;
	return 0;
}

/* Addresses for all ranges in one run, from a multiple of @align on. */
static int reserve(struct device_region *region, uint64_t bytes, uint64_t align, char *why)
{
	region->base = addresses_reserve(bytes, align);
	if (!region->base)
		return refuse(why, -ENOMEM, "could not register region: no run of %llu addresses is free; "
			      "register less at once", (unsigned long long)bytes);
	region->bytes = bytes;
	region->page = align;
	return 0;
}

static int check_total(const struct region_rules *rules, const struct message_region_add *message,
		       char *why, uint64_t *ret)
{
	uint64_t total = 0;

	if (message->kind != MESSAGE_REGION_HOST)
		return refuse(why, -EINVAL, "cannot register region: kind %u is not host memory; use kind %u",
			      message->kind, MESSAGE_REGION_HOST);
	if (message->n_fds == 0 || message->n_fds > MESSAGE_FDS_MAX)
		return refuse(why, -EINVAL, "cannot register region: it has %u ranges; use 1 to %u",
			      message->n_fds, MESSAGE_FDS_MAX);
	for (uint32_t i = 0; i < message->n_fds; i++) {
		if (message->ranges[i].bytes > rules->bytes_max - total)
			return refuse(why, -E2BIG, "cannot register region: its ranges are more than the %llu bytes "
				      "allowed; register less at once", (unsigned long long)rules->bytes_max);
		total += message->ranges[i].bytes;
	}
	*ret = total;
	return 0;
}

static int check_ranges(const struct region_rules *rules, const struct message_region_add *message,
			const int *fds, char *why, struct range *ranges)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < message->n_fds; i++) {
		struct range *range = &ranges[i];
		int r;

		*range = (struct range){ .number = i, .fd = fds[i], .offset = message->ranges[i].offset,
					 .bytes = message->ranges[i].bytes };
		r = check_kind(range, why);
		if (r == 0)
			r = check_owner(rules, range, why);
		if (r == 0)
			r = check_bounds(range, at, why);
		if (r == 0)
			r = check_allocated(range, why);
		if (r < 0)
			return r;
		at += range->bytes;
	}
	return 0;
}

static int map_ranges(struct device_region *region, const struct range *ranges, uint32_t n, char *why)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		int r;

		region->range_at[i] = at;
		region->n_ranges = i + 1;
		r = map_range(region, &ranges[i], at, why);
		if (r < 0)
			return r;
		at += ranges[i].bytes;
	}
	return 0;
}

void region_enter_window(struct device_region *region, uint64_t window)
{
	const uint64_t at = window << REGION_WINDOW_BITS;
	const uint64_t left = region->bytes - at, whole = 1ull << REGION_WINDOW_BITS;

	/* As if it were read: of what is there that enters 16 pages at once, and they are writable too. */
	madvise(region->base + at, left < whole ? left : whole, MADV_POPULATE_READ);
	atomic_fetch_or_explicit(&region->entered[window / 64], 1ull << window % 64, memory_order_relaxed);
}

int region_open(const struct region_rules *rules, const struct message_region_add *message, const int *fds,
		char *why, struct device_region **ret)
{
	struct range ranges[MESSAGE_FDS_MAX];
	struct device_region *region;
	uint64_t bytes = 0, align = ADDRESSES_HUGE;
	int r;

	r = check_total(rules, message, why, &bytes);
	if (r == 0)
		r = check_ranges(rules, message, fds, why, ranges);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < message->n_fds; i++)
		align = ranges[i].page > align ? ranges[i].page : align;
	region = calloc(1, sizeof(*region));
	if (!region)
		return refuse(why, -ENOMEM, "could not register region: the broker is out of memory; try again");
	region->entered = calloc((bytes >> REGION_WINDOW_BITS) / 64 + 1, sizeof(region->entered[0]));
	if (!region->entered)
		r = refuse(why, -ENOMEM, "could not register region: the broker is out of memory; try again");
	if (r == 0)
		r = reserve(region, bytes, align, why);
	if (r == 0)
		r = map_ranges(region, ranges, message->n_fds, why);
	if (r < 0) {
		region_close(region);
		return r;
	}
	*ret = region;
	return 0;
}

/* In pieces: who else wants to map or unmap something waits for one, and not for all of a large region. */
static void unmap(const struct device_region *region)
{
	const uint64_t piece = region->page > UNMAP_BYTES ? region->page : UNMAP_BYTES;

	for (uint64_t at = 0; at < region->bytes; at += piece)
		munmap(region->base + at, region->bytes - at < piece ? region->bytes - at : piece);
}

void region_close(struct device_region *region)
{
	if (!region)
		return;
	assert(region->pools == 0);
	for (uint32_t i = 0; i < region->n_ranges; i++)
		if (region->guarded[i])
			guard_remove(region->base + region->range_at[i]);
	if (region->base)
		unmap(region);
	free(region->entered);
	free(region);
}
