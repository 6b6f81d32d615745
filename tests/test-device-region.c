/*
 * What a client may register with the host backend, what is refused and in which words, and what
 * happens when memory goes away under a copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/device/guard.h"
#include "src/device/region.h"
#include "tests/device-rig.h"
#include "tests/suite.h"

#define HOST	device_host_backend
#define SIZE	(1u << 20)

static struct rig rig;

static void setup(void)
{
	rig_start(&rig, 2, 4096, 8 << 20);
}

static void teardown(void)
{
	rig_stop(&rig);
}

static struct message_region_add message_of(uint64_t offset, uint64_t bytes)
{
	return (struct message_region_add){ .kind = MESSAGE_REGION_HOST, .n_fds = 1, .ranges = { { offset, bytes } } };
}

/* Refused, with that error and a whole sentence that has these words. */
static void refused(const struct message_region_add *message, const int *fds, int error, const char *words)
{
	const uint32_t files = rig_open_files();
	struct device_region *region = NULL;
	char why[MESSAGE_REASON] = "";

	ck_assert_int_eq(rig_region_try(&rig, message, fds, why, &region), error);
	ck_assert_msg(strstr(why, words) != NULL, "\"%s\" is not in \"%s\"", words, why);
	ck_assert_uint_lt(strlen(why), MESSAGE_REASON - 1);	/* not cut off */
	ck_assert_ptr_null(region);
	ck_assert_uint_eq(rig_open_files(), files);
}

static void refused_range(int fd, uint64_t offset, uint64_t bytes, int error, const char *words)
{
	const struct message_region_add message = message_of(offset, bytes);

	refused(&message, &fd, error, words);
}

START_TEST(what_is_no_shared_memory_is_refused)
{
	char path[] = "/tmp/stoker-test-XXXXXX";
	const int file = mkstemp(path), directory = open("/dev/shm", O_RDONLY | O_DIRECTORY);
	const int any = open("/dev/shm", O_PATH);
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(ftruncate(file, SIZE), 0);
	unlink(path);
	refused_range(ends[1], 0, SIZE, -EINVAL, "range 0: its descriptor is no file in shared memory; use memfd_create");
	refused_range(directory, 0, SIZE, -EINVAL, "no file in shared memory");
	refused_range(any, 0, SIZE, -EINVAL, "no file in shared memory");
	refused_range(-1, 0, SIZE, -EINVAL, "no file in shared memory");
	refused_range(file, 0, SIZE, -EINVAL, "no file in shared memory");
	close(file);
	close(directory);
	close(any);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(what_cannot_be_written_is_refused)
{
	struct rig_memory m = rig_memory(SIZE, false);
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", m.fd);
	fd = open(path, O_RDONLY);
	refused_range(fd, 0, SIZE, -EACCES, "not open for reading and writing; open it with O_RDWR");
	close(fd);
	fd = open(path, O_WRONLY);
	refused_range(fd, 0, SIZE, -EACCES, "not open for reading and writing");
	close(fd);
	rig_memory_free(&m);

	fd = memfd_create("sealed", MFD_ALLOW_SEALING);
	ck_assert_int_eq(posix_fallocate(fd, 0, SIZE), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	refused_range(fd, 0, SIZE, -EACCES, "sealed against writing");
	close(fd);
}
END_TEST

START_TEST(the_brokers_own_files_are_refused)
{
	const struct rig_memory table = rig_memory(SIZE, false);
	struct device_host host = { .arena = rig.arena.bytes, .arena_bytes = rig.arena.size, .arena_fd = rig.arena.fd,
				    .bell = &rig.bell, .threads = 1, .copies = 1, .own_fds = &table.fd, .n_own = 1 };
	struct rig other = { 0 };
	struct rig_memory m = table;

	refused_range(rig.arena.fd, 0, SIZE, -EACCES, "range 0: its file is the broker's own");
	ck_assert_int_eq(HOST.start(&host, &other.device), 0);
	const struct message_region_add message = message_of(0, SIZE);
	struct device_region *region;
	char why[MESSAGE_REASON] = "";
	ck_assert_int_eq(rig_region_try(&other, &message, &table.fd, why, &region), -EACCES);
	ck_assert_ptr_nonnull(strstr(why, "broker's own"));
	HOST.stop(other.device);
	rig_memory_free(&m);
}
END_TEST

START_TEST(a_range_that_is_not_in_the_file_or_not_aligned_is_refused)
{
	struct rig_memory m = rig_memory(SIZE, false);

	refused_range(m.fd, 0, 0, -EINVAL, "it has 0 bytes");
	refused_range(m.fd, 0, SIZE - 1, -EINVAL, "offset 0 or bytes 1048575 is no multiple");
	refused_range(m.fd, 2048, 4096, -EINVAL, "offset 2048 or bytes 4096 is no multiple of the file's pages of 4096");
	refused_range(m.fd, 0, SIZE + 4096, -ERANGE, "go beyond the 1048576 bytes of its file; call ftruncate first");
	refused_range(m.fd, 4096, SIZE, -ERANGE, "go beyond");
	refused_range(m.fd, -4096ull, 8192, -ERANGE, "go beyond");	/* the sum would wrap */
	refused_range(m.fd, SIZE, 4096, -ERANGE, "go beyond");
	rig_memory_free(&m);
}
END_TEST

START_TEST(a_message_of_another_kind_or_count_or_size_is_refused)
{
	struct rig_memory m = rig_memory(SIZE, false);
	struct message_region_add message = message_of(0, SIZE);
	const int fds[2] = { m.fd, m.fd };

	message.kind = 2;
	refused(&message, fds, -EINVAL, "kind 2 is not host memory");
	message.kind = MESSAGE_REGION_HOST;
	message.n_fds = 0;
	refused(&message, fds, -EINVAL, "it has 0 ranges; use 1 to 16");
	message.n_fds = 2;
	message.ranges[0].bytes = -4096ull;
	message.ranges[1].bytes = 8192;			/* together 4,096, if it were let wrap */
	refused(&message, fds, -E2BIG, "bytes allowed; register less at once");
	rig_memory_free(&m);
}
END_TEST

START_TEST(a_file_that_is_not_wholly_allocated_is_refused)
{
	const int fd = memfd_create("sparse", MFD_CLOEXEC);
	const struct message_region_add message = message_of(SIZE, SIZE);
	struct device_region *region;
	char why[MESSAGE_REASON] = "";

	ck_assert_int_eq(ftruncate(fd, 4 * SIZE), 0);
	refused_range(fd, 0, 4 * SIZE, -ENOSPC, "4194304 bytes of its file have no memory yet; call posix_fallocate");
	ck_assert_int_eq(posix_fallocate(fd, SIZE, 2 * SIZE), 0);
	refused_range(fd, SIZE, SIZE, -ENOSPC, "2097152 bytes of its file have no memory yet");
	ck_assert_int_eq(posix_fallocate(fd, 0, 4 * SIZE), 0);
	ck_assert_msg(rig_region_try(&rig, &message, &fd, why, &region) == 0, "%s", why);
	ck_assert_uint_eq(HOST.region_bytes(region), SIZE);
	HOST.region_close(region, 0);
	close(fd);
}
END_TEST

static uint32_t mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	uint32_t n = 0;
	int c;

	ck_assert_ptr_nonnull(maps);
	while ((c = fgetc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

START_TEST(no_descriptor_and_no_mapping_is_left_behind)
{
	struct rig_memory m = rig_memory(SIZE, _i);
	const uint32_t files = rig_open_files(), maps = mappings();

	for (int i = 0; i < 1000; i++) {
		struct device_region *region = NULL;
		struct message_region_add message = message_of(i % 10 ? 0 : 1, SIZE);
		char why[MESSAGE_REASON];
		int fd = dup(m.fd);

		const struct device_memory memory = { .n_fds = 1, .fds = &fd, .host = &message };

		if (HOST.region_add(rig.device, &memory, why, &region) == 0)
			HOST.region_close(region, 0);
		else
			ck_assert_int_eq(i % 10, 0);
	}
	ck_assert_uint_eq(rig_open_files(), files);
	ck_assert_uint_lt(mappings(), maps + 100);	/* of 1,000; libraries map some of their own */
	rig_memory_free(&m);
}
END_TEST

/* What a refused region's descriptors hold may be freed with them, which takes as long as there is much of it. */
static uint32_t n_given;

static void closed_later(uid_t uid, int fd)
{
	ck_assert_uint_eq(uid, 77);
	n_given++;
	close(fd);
}

START_TEST(the_descriptors_of_a_refused_region_are_closed_by_whom_the_broker_names)
{
	const struct device_host host = { .arena = rig.arena.bytes, .arena_bytes = rig.arena.size,
					  .arena_fd = rig.arena.fd, .bell = &rig.bell, .threads = 1, .copies = 1,
					  .close_fd = closed_later };
	const struct rig_memory m = rig_memory(SIZE, true);
	const int fd = dup(m.fd);
	const struct message_region_add message = message_of(1, SIZE);
	const struct device_memory memory = { .uid = 77, .n_fds = 1, .fds = &fd, .host = &message };
	struct device_region *region;
	struct device *device;
	char why[MESSAGE_REASON];

	n_given = 0;
	ck_assert_int_eq(HOST.start(&host, &device), 0);
	ck_assert_int_lt(HOST.region_add(device, &memory, why, &region), 0);
	ck_assert_uint_eq(n_given, 1);
	HOST.stop(device);
	rig_memory_free(&(struct rig_memory){ m.fd, m.bytes, m.size });
}
END_TEST

/* ---- pools ----------------------------------------------------------------------------------- */

#define BLOCK 4096u

/* A model of two layers with K and V, and the planes of a pool of 16 blocks that fits it. */
static struct model_layout *layout_of_four_rows(void)
{
	const struct model_wire_row rows[] = {
		{ .layer = 0, .plane = 0, .bytes = BLOCK }, { .layer = 0, .plane = 1, .bytes = BLOCK },
		{ .layer = 1, .plane = 0, .bytes = BLOCK }, { .layer = 1, .plane = 1, .bytes = BLOCK },
	};

	return rig_layout(1, 4, rows, 4);
}

static void planes_of_four_rows(struct message_plane planes[4], uint32_t region)
{
	for (uint32_t i = 0; i < 4; i++)
		planes[i] = (struct message_plane){ .region = region, .layer = (uint16_t)(i / 2), .plane = i % 2,
						    .offset = i * 16 * BLOCK, .block_stride = BLOCK, .bytes = BLOCK,
						    .rows = 1 };
}

struct pool_case {
	struct model_layout *layout;
	struct rig_memory memory;
	struct device_region *regions[3];	/* number 1 is registered */
	struct message_plane planes[4];
	uint32_t part, n_blocks, n_planes;
};

static struct pool_case pool_case(void)
{
	struct pool_case c = { .layout = layout_of_four_rows(), .n_blocks = 16, .n_planes = 4,
			       .memory = rig_memory(4 * 16 * BLOCK, true) };

	c.regions[1] = rig_region(&rig, &c.memory);
	planes_of_four_rows(c.planes, 1);
	return c;
}

static int pool_try(const struct pool_case *c, char *why, struct device_pool **ret)
{
	return HOST.pool_add(rig.device, 0, 3, 4, c->layout, c->part, c->n_blocks, c->planes, c->n_planes, c->regions, 3,
			     why, ret);
}

static void pool_refused(const struct pool_case *c, int error, const char *words)
{
	struct device_pool *pool = NULL;
	char why[MESSAGE_REASON] = "";

	ck_assert_int_eq(pool_try(c, why, &pool), error);
	ck_assert_msg(strstr(why, words) != NULL, "\"%s\" is not in \"%s\"", words, why);
	ck_assert_ptr_eq(strstr(why, "cannot add pool 4: "), why);
	ck_assert_uint_lt(strlen(why), MESSAGE_REASON - 1);
	ck_assert_ptr_null(pool);
}

START_TEST(a_pool_that_differs_from_the_model_is_refused_by_the_field_that_differs)
{
	const struct pool_case good = pool_case();
	struct pool_case c = good;
	struct device_pool *pool;
	char why[MESSAGE_REASON] = "";

#define DIFFERS(change, error, words) do { change; pool_refused(&c, error, words); c = good; } while (0)
	DIFFERS(c.n_planes = 3, -EINVAL, "it has 3 planes where group 0, shard 0 of the model has 4");
	DIFFERS(c.part = 1, -EINVAL, "the model has no part 1; it has 1");
	DIFFERS(c.n_blocks = 0, -EINVAL, "n_blocks is 0");
	DIFFERS(c.planes[2].layer = 7, -EINVAL, "its plane 2 is layer 7, plane 0 where the model has layer 1, plane 0");
	DIFFERS(c.planes[3].plane = 0, -EINVAL, "its plane 3 is layer 1, plane 0 where the model has layer 1, plane 1");
	DIFFERS(c.planes[1].bytes = 100, -EINVAL, "rows 1 x bytes 100 of layer 0, plane 1 differ from the model's 4096");
	DIFFERS(c.planes[1].rows = 2, -EINVAL, "rows 2 x bytes 4096 of layer 0, plane 1 differ from the model's 4096");
	DIFFERS(c.planes[1].rows = 0, -EINVAL, "rows 0 x bytes 4096");
	DIFFERS(c.planes[0].bytes = 0, -EINVAL, "rows 1 x bytes 0");
	DIFFERS(c.planes[0].region = 0, -ENOENT, "layer 0, plane 0: region 0 is not registered; register it first");
	DIFFERS(c.planes[0].region = 3, -ENOENT, "region 3 is not registered");
	DIFFERS(c.planes[0].region = UINT32_MAX, -ENOENT, "region 4294967295 is not registered");
#undef DIFFERS
	ck_assert_msg(pool_try(&good, why, &pool) == 0, "%s", why);	/* it was the change each time */
	HOST.pool_close(pool);
	HOST.region_close(c.regions[1], 0);
	rig_memory_free(&c.memory);
	model_layout_free(c.layout);
}
END_TEST

START_TEST(a_block_beyond_its_region_is_refused_also_where_64_bits_would_wrap)
{
	const struct pool_case good = pool_case();
	struct pool_case c = good;

#define BEYOND(change) do { change; pool_refused(&c, -ERANGE, "lies beyond the 262144 bytes of region 1"); c = good; } while (0)
	BEYOND(c.n_blocks = 17);
	BEYOND(c.n_blocks = UINT32_MAX);
	BEYOND(c.planes[3].offset += 1);
	BEYOND(c.planes[0].offset = UINT64_MAX);
	BEYOND(c.planes[0].offset = UINT64_MAX - BLOCK + 1);
	BEYOND(c.planes[0].block_stride = UINT64_MAX / 15 + 1);	/* x 15 is 4 modulo 2^64 */
	BEYOND((c.planes[0].rows = 4, c.planes[0].bytes = BLOCK / 4, c.planes[0].row_stride = 1ull << 63));
#undef BEYOND
	HOST.region_close(c.regions[1], 0);
	rig_memory_free(&c.memory);
	model_layout_free(c.layout);
}
END_TEST

START_TEST(ranges_of_several_descriptors_are_one_region)
{
	struct rig_memory m[3] = { rig_memory(3 * BLOCK, true), rig_memory(8 * BLOCK, false), rig_memory(64 * BLOCK, true) };
	struct message_region_add message = { .kind = MESSAGE_REGION_HOST, .n_fds = 3, .ranges = {
		{ BLOCK, BLOCK }, { 0, 8 * BLOCK }, { 2 * BLOCK, 55 * BLOCK } } };
	const int fds[3] = { m[0].fd, m[1].fd, m[2].fd };
	struct pool_case c = { .layout = layout_of_four_rows(), .n_blocks = 16, .n_planes = 4 };
	const uint32_t ids[4] = { 0, 1, 9, 8 };		/* of plane 0: in the first, the second, and the third file */
	const struct engine_copy_item item = { .payload = 4096, .ids = ids };
	struct device_pool *pool;
	char why[MESSAGE_REASON] = "";
	uint8_t failed;

	ck_assert_msg(rig_region_try(&rig, &message, fds, why, &c.regions[1]) == 0, "%s", why);
	ck_assert_uint_eq(HOST.region_bytes(c.regions[1]), 64 * BLOCK);
	planes_of_four_rows(c.planes, 1);
	ck_assert_msg(pool_try(&c, why, &pool) == 0, "%s", why);
	for (uint32_t i = 0; i < 3; i++)
		rig_fill(&rig, m[i].bytes, m[i].size);
	rig_copy(&rig, 0, true, c.layout, &pool, &item, 1, &failed);
	rig_wait(&rig);
	ck_assert_int_eq(rig.told[0].result, ENGINE_OK);
	ck_assert(memcmp(rig.arena.bytes + 4096, m[0].bytes + BLOCK, BLOCK) == 0);
	ck_assert(memcmp(rig.arena.bytes + 4096 + BLOCK, m[1].bytes, BLOCK) == 0);
	ck_assert(memcmp(rig.arena.bytes + 4096 + 2 * BLOCK, m[2].bytes + 2 * BLOCK, BLOCK) == 0);
	ck_assert(memcmp(rig.arena.bytes + 4096 + 3 * BLOCK, m[1].bytes + 7 * BLOCK, BLOCK) == 0);
	HOST.pool_close(pool);
	HOST.region_close(c.regions[1], 0);
	for (uint32_t i = 0; i < 3; i++)
		rig_memory_free(&m[i]);
	model_layout_free(c.layout);
}
END_TEST

/* ---- memory that goes away --------------------------------------------------------------------- */

#define TRUNCATED_BLOCKS 1024u		/* of each of four planes: 16 MiB in all */

/** struct faulting - a pool over memory that can be truncated, and one beside it over memory that cannot. */
struct faulting {
	struct model_layout *layout;
	struct rig_memory memory[2];
	struct device_region *regions[2];
	struct device_pool *pools[2];
	uint32_t ids[64][4];
	struct engine_copy_item items[64];
	uint8_t failed[64];
};

static void faulting_open(struct faulting *f)
{
	char why[MESSAGE_REASON] = "";

	memset(f, 0, sizeof(*f));
	f->layout = layout_of_four_rows();
	for (uint32_t i = 0; i < 2; i++) {
		struct message_plane planes[4];

		f->memory[i] = rig_memory(4ull * TRUNCATED_BLOCKS * BLOCK, i == 1);
		memset(f->memory[i].bytes, 0x40 + (int)i, f->memory[i].size);
		f->regions[i] = rig_region(&rig, &f->memory[i]);
		planes_of_four_rows(planes, i);
		for (uint32_t p = 0; p < 4; p++)
			planes[p].offset = p * TRUNCATED_BLOCKS * BLOCK;
		ck_assert_msg(HOST.pool_add(rig.device, 0, 3, i, f->layout, 0, TRUNCATED_BLOCKS, planes, 4, f->regions, 2,
					    why, &f->pools[i]) == 0, "%s", why);
	}
	for (uint32_t i = 0; i < 64; i++) {
		for (uint32_t b = 0; b < 4; b++)
			f->ids[i][b] = TRUNCATED_BLOCKS / 2 + i * 4 + b;
		f->items[i] = (struct engine_copy_item){ .payload = 4096 + i * 17 * 4096, .pool = i % 2,
							 .ids = f->ids[i] };
	}
}

static void faulting_close(struct faulting *f)
{
	for (uint32_t i = 0; i < 2; i++) {
		HOST.pool_close(f->pools[i]);
		HOST.region_close(f->regions[i], 0);
		rig_memory_free(&f->memory[i]);
	}
	model_layout_free(f->layout);
}

START_TEST(memory_that_was_truncated_fails_its_items_kills_its_pool_and_harms_nothing_else)
{
	static struct faulting f;
	const bool store = _i;

	faulting_open(&f);
	ck_assert_int_eq(ftruncate(f.memory[0].fd, 0), 0);
	rig_copy(&rig, 0, store, f.layout, f.pools, f.items, 64, f.failed);
	rig_wait(&rig);
	ck_assert_int_eq(rig.told[0].result, ENGINE_FAILED);
	ck_assert_uint_eq(rig.told[0].layers, 0);	/* no layer was whole */
	for (uint32_t i = 0; i < 64; i++)
		ck_assert_uint_eq(f.failed[i], i % 2 == 0);
	ck_assert_uint_eq(rig.deaths, 1);
	ck_assert_uint_eq(rig.dead_client, 3);
	ck_assert_uint_eq(rig.dead_pool, 0);
	for (uint32_t i = 1; store && i < 64; i += 2)
		for (uint32_t b = 0; b < 16; b++)
			ck_assert_uint_eq(rig.arena.bytes[f.items[i].payload + b * BLOCK + 17], 0x41);

	rig_copy(&rig, 1, store, f.layout, f.pools, f.items, 64, f.failed);	/* dead it stays, told it is once */
	rig_wait(&rig);
	ck_assert_int_eq(rig.told[1].result, ENGINE_FAILED);
	ck_assert_uint_eq(rig.deaths, 1);
	faulting_close(&f);
}
END_TEST

START_TEST(truncated_memory_serves_again_once_it_is_allocated_and_registered_anew)
{
	static struct faulting f;
	struct device_pool *pool = NULL;
	struct message_plane planes[4];
	char why[MESSAGE_REASON] = "";

	faulting_open(&f);
	ck_assert_int_eq(ftruncate(f.memory[0].fd, 0), 0);
	rig_copy(&rig, 0, true, f.layout, f.pools, f.items, 64, f.failed);
	rig_wait(&rig);
	planes_of_four_rows(planes, 0);
	for (uint32_t i = 0; i < 4; i++)
		planes[i].offset = i * TRUNCATED_BLOCKS * BLOCK;
	ck_assert_int_eq(HOST.pool_add(rig.device, 0, 3, 9, f.layout, 0, TRUNCATED_BLOCKS, planes, 4, f.regions, 2, why, &pool), -EFAULT);
	ck_assert_ptr_nonnull(strstr(why, "memory of region 0 has gone away; register the region again"));

	ck_assert_int_eq(posix_fallocate(f.memory[0].fd, 0, (off_t)f.memory[0].size), 0);
	memset(f.memory[0].bytes, 0x55, f.memory[0].size);
	HOST.pool_close(f.pools[0]);
	HOST.region_close(f.regions[0], 0);
	f.regions[0] = rig_region(&rig, &f.memory[0]);
	ck_assert_int_eq(HOST.pool_add(rig.device, 0, 3, 0, f.layout, 0, TRUNCATED_BLOCKS, planes, 4, f.regions, 2, why,
				       &f.pools[0]), 0);
	rig_copy(&rig, 0, true, f.layout, f.pools, f.items, 64, f.failed);
	rig_wait(&rig);
	ck_assert_int_eq(rig.told[0].result, ENGINE_OK);
	ck_assert_uint_eq(rig.arena.bytes[f.items[0].payload], 0x55);
	faulting_close(&f);
}
END_TEST

START_TEST(memory_that_goes_away_under_a_running_copy_ends_that_copy_only)
{
	static struct faulting f;

	for (uint32_t round = 0; round < 20; round++) {
		rig.deaths = 0;
		faulting_open(&f);
		rig_copy(&rig, 0, round % 2, f.layout, f.pools, f.items, 64, f.failed);
		for (uint32_t i = 0; i < round && rig.running; i++)
			rig_reap(&rig);
		ck_assert_int_eq(ftruncate(f.memory[0].fd, (off_t)f.memory[0].size / 4), 0);
		rig_wait(&rig);
		/* Whichever was faster: what failed is of the dead pool, and what is said agrees. */
		for (uint32_t i = 0; i < 64; i++)
			ck_assert_uint_le(f.failed[i], i % 2 == 0);
		ck_assert_uint_eq(rig.deaths, rig.told[0].result == ENGINE_FAILED);
		faulting_close(&f);
	}
}
END_TEST

START_TEST(a_fault_in_memory_that_nobody_guards_still_kills)
{
	const pid_t child = fork();
	int status;

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		const int fd = memfd_create("gone", 0);
		volatile uint8_t *bytes = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

		if (guard_start() == 0 && close(2) == 0)	/* a sanitizer would say much about it */
			(void)bytes[0];
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}
END_TEST

/* Pages of [@at, @at + @bytes) that our own page tables have. */
static uint32_t pages_entered(const uint8_t *at, uint64_t bytes)
{
	const int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint32_t n = 0;

	ck_assert_int_ge(map, 0);
	for (uint64_t i = 0; i < bytes / 4096; i++) {
		uint64_t entry;

		ck_assert_int_eq(pread(map, &entry, 8, (off_t)(((uintptr_t)at / 4096 + i) * 8)), 8);
		n += entry >> 63;
	}
	close(map);
	return n;
}

START_TEST(what_is_to_be_written_is_entered_into_the_page_tables_windows_at_a_time)
{
	const uint64_t window = 1ull << REGION_WINDOW_BITS, size = 3 * window + 4096;
	struct rig_memory memory = rig_memory(size, true);

	memset(memory.bytes, 1, size);
	struct device_region *region = rig_region(&rig, &memory);
	ck_assert_uint_eq(pages_entered(region->base, size), 0);
	region_enter(region, region->base + 100, 1);
	ck_assert_uint_eq(pages_entered(region->base, size), window / 4096);
	region_enter(region, region->base + 2 * window - 1, 2);		/* both sides of a border */
	ck_assert_uint_eq(pages_entered(region->base, size), 3 * window / 4096);
	region_enter(region, region->base + size - 1, 1);		/* the last one is cut off */
	ck_assert_uint_eq(pages_entered(region->base, size), size / 4096);
	HOST.region_close(region, 0);
	rig_memory_free(&memory);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("device-region");
	TCase *regions = tcase_create("regions");
	TCase *pools = tcase_create("pools");
	TCase *faults = tcase_create("faults");

	tcase_add_checked_fixture(regions, setup, teardown);
	tcase_set_timeout(regions, 120);
	tcase_add_test(regions, what_is_no_shared_memory_is_refused);
	tcase_add_test(regions, what_cannot_be_written_is_refused);
	tcase_add_test(regions, the_brokers_own_files_are_refused);
	tcase_add_test(regions, a_range_that_is_not_in_the_file_or_not_aligned_is_refused);
	tcase_add_test(regions, a_message_of_another_kind_or_count_or_size_is_refused);
	tcase_add_test(regions, a_file_that_is_not_wholly_allocated_is_refused);
	tcase_add_loop_test(regions, no_descriptor_and_no_mapping_is_left_behind, 0, 2);
	tcase_add_test(regions, the_descriptors_of_a_refused_region_are_closed_by_whom_the_broker_names);
	tcase_add_test(regions, what_is_to_be_written_is_entered_into_the_page_tables_windows_at_a_time);
	tcase_add_checked_fixture(pools, setup, teardown);
	tcase_add_test(pools, a_pool_that_differs_from_the_model_is_refused_by_the_field_that_differs);
	tcase_add_test(pools, a_block_beyond_its_region_is_refused_also_where_64_bits_would_wrap);
	tcase_add_test(pools, ranges_of_several_descriptors_are_one_region);
	tcase_add_checked_fixture(faults, setup, teardown);
	tcase_set_timeout(faults, 120);
	tcase_add_loop_test(faults, memory_that_was_truncated_fails_its_items_kills_its_pool_and_harms_nothing_else, 0, 2);
	tcase_add_test(faults, truncated_memory_serves_again_once_it_is_allocated_and_registered_anew);
	tcase_add_test(faults, memory_that_goes_away_under_a_running_copy_ends_that_copy_only);
	tcase_add_test(faults, a_fault_in_memory_that_nobody_guards_still_kills);
	suite_add_tcase(s, regions);
	suite_add_tcase(s, pools);
	suite_add_tcase(s, faults);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
