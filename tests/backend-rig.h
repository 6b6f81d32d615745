/*
 * The broker's half of one GPU with a copier of the tests' own (fake-copier.h): a backend, device memory, pools and
 * copies in a few lines. Control thread and core thread are one, unless a test says otherwise. The test's program
 * is its own copier: main() hands --copier on.
 */
#ifndef STOKER_TESTS_BACKEND_RIG_H
#define STOKER_TESTS_BACKEND_RIG_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/device-rig.h"
#include "tests/fake-copier.h"
#include "tests/suite.h"

#define GPU		device_cuda_backend
#define COPIES		64u
#define EXTENT		(1u << 20)
#define ARENA		(8u << 20)
#define LAYERS		3u
#define ROW		1024u		/* bytes of a block in a plane */
#define BLOCKS		4u		/* of an object */
#define POOL_BLOCKS	64u
#define POOL_BYTES	(LAYERS * POOL_BLOCKS * ROW)
#define TOKENS		4096u

/* One world a test; Check runs each in a process of its own. */
struct gpu_world {
	struct device *device;
	struct bell bell;
	struct rig_memory arena;
	struct fake_knobs *knobs;
	char path[64];
	int lock;
	uint64_t extent_bytes;		/* of the next backend */
	struct model_layout *layout;
	uint32_t n_names;		/* objects in /dev/shm that stand for device memory */
	/* Answers, by token; how often, and how. */
	uint32_t answered[TOKENS];
	int result[TOKENS];
	char why[MESSAGE_REASON];	/* of the last failure */
	/* Copies, by number. */
	uint32_t done[COPIES], layers[COPIES], running;
	enum engine_result ended[COPIES];
	uint32_t deaths;
};
extern struct gpu_world w;

/** struct piece - device memory of a test. */
struct piece {
	uint8_t *bytes;
	char name[64];			/* IPC: in /dev/shm */
	uint32_t n;
	struct device_region *region;
	uint64_t token;
};

/** struct job - one copy of one object, and all that has to stay while it runs. */
struct job {
	struct engine_copy_item item;
	uint32_t ids[BLOCKS];
	uint8_t failed;
	struct device_pool *pools[8];
};
extern struct job jobs[COPIES];

uint64_t now_ns(void);
/* Another backend, for the same GPU. */
struct device *device_new(uint64_t idle_ns, uint32_t hang_ms);
/* A checked fixture: a backend, an arena, a layout. */
void setup(void);
void teardown(void);
/* A turn of the control thread, and one of the core's. */
void tend(void);
void core_once(void);
uint64_t token(void);
/* Ask for a region of memory that has a name; its answer is not awaited. */
void ask_ipc(struct piece *piece, uint64_t offset, uint64_t bytes, int fence);
/* A region of POOL_BYTES, open. */
struct piece ipc(void);
/* A region in @n allocations of one page each, from the third one on; its answer is not awaited. */
void ask_vmm(struct piece *piece, uint32_t n);
struct piece vmm(uint32_t n);		/* likewise; open */
/* Ask for a pool over all of a piece; its answer is not awaited. */
struct device_pool *ask_pool(const struct piece *piece, uint32_t number, uint64_t *ret_token);
struct device_pool *pool_on(const struct piece *piece, uint32_t number);
/* Give a region back, and wait for that. */
void drop(struct piece *piece);
/* Begin copy @number of one object: BLOCKS blocks from @first_block on. */
void copy(uint32_t number, bool store, struct device_pool *pool, uint32_t object, uint32_t first_block);
void fill(const struct piece *piece, uint32_t seed);
/* Store four blocks, load them four blocks further, compare. */
void there_and_back(const struct piece *piece, struct device_pool *pool, uint32_t number);
/* The next copier is there, and has said so: copies that come too early fail. */
void until_back(struct device_pool *pool);

/* Both threads' turns, until @what holds; asleep in between on what they are to sleep on. */
#define until(what) \
	do { \
		const uint64_t end_ = now_ns() + 30000000000ull; \
		tend(); \
		core_once(); \
		while (!(what)) { \
			struct pollfd wait_[2] = { { GPU.watch(w.device), POLLIN, 0 }, { w.bell.fd, POLLIN, 0 } }; \
			bell_arm(&w.bell); \
			GPU.arm(w.device); \
			core_once(); \
			poll(wait_, 2, 5); \
			bell_disarm(&w.bell); \
			tend(); \
			core_once(); \
			ck_assert_msg(now_ns() < end_, "waited in vain for: %s", #what); \
		} \
	} while (0)

#endif
