/*
 * What tests of a disk tier share: a tier in a directory of its own under the current one, an arena of
 * plain memory beside it, objects with bytes that follow from their number, and calls that wait.
 */
#ifndef STOKER_TESTS_TIER_BENCH_H
#define STOKER_TESTS_TIER_BENCH_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/tier.h"
#include "tests/image-whole.h"

#define BENCH_EXTENT	(1u << 20)
#define BENCH_EXTENTS	8u
#define BENCH_IOS	64u

struct bench {
	char path[64];
	struct tier_config config;
	struct bell bell;
	struct tier *tier;
	char why[256];
	struct tier_event events[BENCH_IOS];	/* by io, of those that have ended */
	bool ended[BENCH_IOS];
	uint32_t n_failed;			/* TIER_FAILED events */
	uint64_t epoch_token;			/* of the last EPOCH_DONE */
	enum engine_result epoch_result;
};

static inline int bench_remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st, (void)type, (void)walk;
	return remove(path);
}

static inline void bench_remove(const char *path)
{
	nftw(path, bench_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void bench_init(struct bench *bench, uint64_t bytes)
{
	memset(bench, 0, sizeof(*bench));
	strcpy(bench->path, "test-tier-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(bench->path));
	ck_assert_int_eq(bell_init(&bench->bell), 0);
	bench->config = (struct tier_config){
		.name = "disk0", .path = bench->path, .bytes = bytes, .extent_bytes = BENCH_EXTENT,
		.depth_bytes = 8 << 20, .arena_bytes = BENCH_EXTENTS * BENCH_EXTENT, .io_lock_fd = -1,
		.bell = &bench->bell, .ios = BENCH_IOS,
	};
	bench->config.arena = mmap(NULL, bench->config.arena_bytes, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(bench->config.arena, MAP_FAILED);
}

/* Open @config's tier, however long it takes: 0 and @ret, or -errno with the reason. */
static inline int bench_try(const struct tier_config *config, char *why, struct tier **ret)
{
	int r = tier_new(config, ret);

	if (r < 0)
		return r;
	while ((r = tier_opened(*ret, 1000000000u, why)) == -EINPROGRESS)
		;
	if (r == 0)
		return 0;
	tier_stop(*ret);
	*ret = NULL;
	return r;
}

static inline void bench_open(struct bench *bench)
{
	const int r = bench_try(&bench->config, bench->why, &bench->tier);

	ck_assert_msg(r == 0, "tier not open: %d, %s", r, bench->why);
}

static inline void bench_run(struct bench *bench)
{
	ck_assert_int_eq(tier_start(bench->tier), 0);
	/* All but the last: its transfers are plain ones. */
	for (uint32_t i = 0; i < BENCH_EXTENTS - 1; i++)
		tier_extent_ready(bench->tier, i);
}

static inline void bench_start(struct bench *bench)
{
	bench_open(bench);
	bench_run(bench);
}

static inline void bench_stop(struct bench *bench)
{
	tier_stop(bench->tier);
	bench->tier = NULL;
}

static inline void bench_fini(struct bench *bench)
{
	bench_stop(bench);
	munmap(bench->config.arena, bench->config.arena_bytes);
	bell_fini(&bench->bell);
	bench_remove(bench->path);
}

static inline struct engine_object bench_object(uint64_t number)
{
	return (struct engine_object){
		.key = { { number, ~number, 3, 4 } }, .parent = { { number - 1 } }, .account = 7,
		.sequence = 1000 + number, .first_token = number * 256, .model = 5, .epoch = 1, .tokens = 256,
		.group = 1, .shard = 2, .part = 9,
	};
}

static inline struct image_identity bench_identity(uint8_t model, uint64_t image_bytes)
{
	struct image_identity identity = { .payload_bytes = image_bytes - MODEL_IMAGE_HEADER };

	memset(identity.model_digest, model, sizeof(identity.model_digest));
	return identity;
}

/* A sealed image of object @number at @unit of the arena; its checksum goes into the object returned. */
static inline struct engine_object bench_image(struct bench *bench, uint64_t number, uint32_t unit, uint64_t bytes)
{
	struct engine_object object = bench_object(number);
	const struct image_identity identity = bench_identity(1, bytes);
	uint8_t *image = bench->config.arena + (uint64_t)unit * 4096;

	for (uint64_t i = MODEL_IMAGE_HEADER; i < bytes; i += 8)
		*(uint64_t *)(image + i) = number * 0x9e3779b97f4a7c15u + i;
	object.checksum = seal_whole(image, &object, &identity);
	return object;
}

static inline struct engine_io bench_io(uint32_t io, uint64_t bytes, uint32_t arena, uint32_t disk,
					const struct engine_object *object)
{
	return (struct engine_io){
		.io = io, .object = *object, .arena = { ENGINE_NONE, arena, bytes }, .disk = { 0, disk, bytes },
	};
}

static inline void bench_submit(struct bench *bench, bool write, const struct engine_io *io)
{
	const struct image_identity identity = bench_identity(1, io->disk.bytes);

	bench->ended[io->io] = false;
	ck_assert_int_eq(tier_submit(bench->tier, write, io, &identity), 0);
}

/* Take what has ended; sleeps until something has. */
static inline void bench_reap(struct bench *bench)
{
	struct tier_event events[16];
	uint32_t n;

	while ((n = tier_reap(bench->tier, events, 16)) == 0) {
		bell_arm(&bench->bell);
		n = tier_reap(bench->tier, events, 16);
		if (n == 0) {
			uint64_t rings;
			struct timespec wait = { .tv_nsec = 1000000 };

			nanosleep(&wait, NULL);
			(void)!read(bench->bell.fd, &rings, sizeof(rings));
		}
		bell_disarm(&bench->bell);
		if (n > 0)
			break;
	}
	for (uint32_t i = 0; i < n; i++) {
		if (events[i].type == TIER_FAILED) {
			bench->n_failed++;
		} else if (events[i].type == TIER_EPOCH_DONE) {
			bench->epoch_token = events[i].token;
			bench->epoch_result = events[i].result;
		} else {
			ck_assert(!bench->ended[events[i].io]);
			bench->events[events[i].io] = events[i];
			bench->ended[events[i].io] = true;
		}
	}
}

static inline enum engine_result bench_wait(struct bench *bench, uint32_t io)
{
	while (!bench->ended[io])
		bench_reap(bench);
	return bench->events[io].result;
}

static inline enum engine_result bench_move(struct bench *bench, bool write, const struct engine_io *io)
{
	bench_submit(bench, write, io);
	return bench_wait(bench, io->io);
}

static inline void bench_slab(struct bench *bench, bool add, uint32_t disk, uint64_t bytes,
			      const struct engine_object *object)
{
	const struct image_identity identity = bench_identity(1, bytes);

	ck_assert_int_eq(tier_slab(bench->tier, add, &(struct engine_place){ 0, disk, bytes }, object, &identity), 0);
}

/* Object @number stored at @disk as the engine would do it, through @unit of the arena. */
static inline struct engine_object bench_store(struct bench *bench, uint64_t number, uint32_t unit, uint32_t disk,
					       uint64_t bytes)
{
	const struct engine_object object = bench_image(bench, number, unit, bytes);
	const struct engine_io io = bench_io(0, bytes, unit, disk, &object);

	ck_assert_int_eq(bench_move(bench, true, &io), ENGINE_OK);
	bench_slab(bench, true, disk, bytes, &object);
	return object;
}

/* Read @object and verify it, as the engine would: OK, FAILED or CORRUPT. */
static inline enum engine_result bench_load(struct bench *bench, const struct engine_object *object, uint32_t unit,
					    uint32_t disk, uint64_t bytes)
{
	const struct engine_io io = bench_io(1, bytes, unit, disk, object);
	const struct image_identity identity = bench_identity(1, bytes);
	uint8_t *image = bench->config.arena + (uint64_t)unit * 4096;
	enum engine_result result;
	uint64_t checksum;

	memset(image, 0xee, bytes);
	result = bench_move(bench, false, &io);
	return result == ENGINE_OK ? verify_whole(image, object, &identity, &checksum) : result;
}

struct bench_found {
	uint32_t n;
	struct tier_found found[4096];
};

static inline bool bench_found_one(void *arg, const struct tier_found *found)
{
	struct bench_found *all = arg;

	ck_assert_uint_lt(all->n, 4096);
	all->found[all->n++] = *found;
	return true;
}

static inline uint32_t bench_recover(struct bench *bench, struct bench_found *ret)
{
	ret->n = 0;
	ck_assert_int_eq(tier_recover(bench->tier, bench_found_one, ret), 0);
	return ret->n;
}

static inline char *bench_file(const struct bench *bench, const char *name, char ret[128])
{
	snprintf(ret, 128, "%s/%s", bench->path, name);
	return ret;
}

/* Change bytes of a file behind the tier's back. */
static inline void bench_poke(const struct bench *bench, const char *name, uint64_t offset, const void *bytes, size_t n)
{
	char path[128];
	const int fd = open(bench_file(bench, name, path), O_WRONLY | O_CREAT, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, n, (off_t)offset), (ssize_t)n);
	close(fd);
}

static inline uint64_t bench_size(const struct bench *bench, const char *name)
{
	char path[128];
	struct stat st;

	ck_assert_int_eq(stat(bench_file(bench, name, path), &st), 0);
	return (uint64_t)st.st_size;
}

#endif
