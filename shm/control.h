/*
 * The control page: POSIX shm object /NAME, mode 0644, written by the broker alone.
 *
 * A reader maps it read-only, checks it with control_check() and then needs nobody: status works on
 * a hung broker. Counters and histograms are one block a thread, written by that thread with
 * relaxed stores and summed by readers; rows of tables are under a seqlock each. It holds no key,
 * token or model name. Each boot makes a new page and renames it into place; `dead` is set in the
 * old one by whoever sweeps it.
 */
#ifndef STOKER_SHM_CONTROL_H
#define STOKER_SHM_CONTROL_H

#include <stdbool.h>

#include "shm/layout.h"

#define CONTROL_MAGIC		0x6b6f7473676570ull	/* "pegstok" */
#define CONTROL_TIERS		16u
#define CONTROL_CLIENTS		256u
#define CONTROL_MODELS		64u
#define CONTROL_GPUS		63u
#define CONTROL_BLOCKS		32u	/* threads that count */
#define CONTROL_COUNTERS	128u
#define CONTROL_GAUGES		64u
#define CONTROL_HISTOGRAMS	8u
#define CONTROL_BUCKETS		512u	/* 64 octaves x 8 */
#define CONTROL_TEXT		128u

static_assert(STOKER_COUNTER_END <= CONTROL_COUNTERS, "a counter has no cell");
static_assert(STOKER_GAUGE_END <= CONTROL_GAUGES, "a gauge has no cell");
static_assert(STOKER_HISTOGRAM_END <= CONTROL_HISTOGRAMS, "a histogram has no cells");

/* Rows: `version` is odd while the row is written. A row whose first field says so is unused. */
struct control_tier {
	_Atomic uint32_t version;
	uint32_t state;			/* enum stoker_tier_state; 0 = unused row */
	char name[32];
	char path[CONTROL_TEXT];
	uint64_t bytes, used_bytes, objects;
	uint64_t read_errors, write_errors, checksum_errors;
	uint64_t reserved[4];
};

struct control_client {
	_Atomic uint32_t version;
	uint32_t used;
	char name[64];			/* as the client calls itself, printable ASCII only */
	uint32_t uid, pid;		/* as the kernel said at attach; pid 0 = unknown */
	uint64_t attached_ns;		/* CLOCK_BOOTTIME */
	uint64_t jobs, leases, holds, pools;
	uint64_t lookups, retrieves, stores;
	uint64_t reserved[3];
};

struct control_model {
	_Atomic uint32_t version;
	uint32_t used;
	uint8_t digest[32];		/* of description and tenant */
	uint32_t epoch;
	uint32_t parts;
	uint64_t chunk_tokens, object_bytes;	/* bytes of the largest part's image */
	uint64_t reserved[3];
};

struct control_gpu {
	_Atomic uint32_t version;
	uint32_t state;			/* enum stoker_gpu_state; 0 = unused row */
	char name[48];			/* "GPU-" and its UUID */
	char why[192];			/* its copier ended last, unasked; "" = it never did */
	uint64_t restarts;		/* copiers started for one that ended while it had regions */
	uint64_t regions, pools;	/* registered; those that are being closed among them */
	uint64_t registered_bytes;	/* of the arena, with the driver by the copier that runs */
	uint64_t imported_bytes;	/* of workers' memory, opened by the copier that runs */
	uint64_t bounced_bytes, load_bytes, store_bytes;	/* by all its copiers */
	uint64_t reserved[4];
};
static_assert(sizeof(struct control_tier) == 248 && sizeof(struct control_client) == 168 &&
	      sizeof(struct control_model) == 88 && sizeof(struct control_gpu) == 344,
	      "the layout is ABI: raise STOKER_ABI");

struct control_block {
	alignas(64) _Atomic uint64_t counters[CONTROL_COUNTERS];
	_Atomic uint64_t histograms[CONTROL_HISTOGRAMS][CONTROL_BUCKETS];
};

struct control_page {
	uint64_t magic;
	uint32_t abi;
	uint32_t bytes;			/* sizeof(struct control_page) */
	uint8_t boot_id[16];		/* random, new at each start of a broker */
	uint64_t started_ns;		/* CLOCK_BOOTTIME */
	uint32_t uid, pid;		/* of the broker; for people to read, trusted by nobody */
	char name[72];			/* "/stoker" */
	char version[24];
	char socket[108];		/* path of the SOCK_SEQPACKET socket */
	alignas(64) _Atomic uint32_t state;	/* enum stoker_state */
	_Atomic uint32_t dead;		/* 1 = this page belongs to a broker that is gone */
	alignas(64) _Atomic uint64_t gauges[CONTROL_GAUGES];
	struct control_tier tiers[CONTROL_TIERS];
	struct control_client clients[CONTROL_CLIENTS];
	struct control_model models[CONTROL_MODELS];
	struct control_gpu gpus[CONTROL_GPUS];
	struct control_block blocks[CONTROL_BLOCKS];
};
static_assert(offsetof(struct control_page, state) == 256 && offsetof(struct control_page, gauges) == 320 &&
	      offsetof(struct control_page, tiers) == 832 && offsetof(struct control_page, clients) == 4800 &&
	      offsetof(struct control_page, models) == 47808 && offsetof(struct control_page, gpus) == 53440 &&
	      offsetof(struct control_page, blocks) == 75136, "the layout is ABI: raise STOKER_ABI");

/* Of a name as users write it: 0 or -EINVAL. "/" and 1 to 64 of [A-Za-z0-9._-]. */
int control_name_check(const char *name);

/*
 * Is the mapped object of @bytes a control page that this build reads? Returns 0, -EPROTO (no
 * control page), -EPROTONOSUPPORT (another ABI; page->abi says which) or -EPIPE (marked dead).
 */
int control_check(const struct control_page *page, size_t bytes);

/* Map the control page of @name read-only. Returns 0, or -errno; -ENOENT: there is no such broker. */
int control_map(const char *name, const struct control_page **ret);
/* The same for an open descriptor (it stays the caller's): for whoever looks at its owner first. */
int control_map_fd(int fd, const struct control_page **ret);
void control_unmap(const struct control_page *page);

/* Writers: between begin and end the row is the writer's own; one writer a row. */
void control_row_begin(_Atomic uint32_t *version);
void control_row_end(_Atomic uint32_t *version);
/* The same in one call: publish a private copy (its `version` is not looked at). Prefer these: they */
/* store word by word as readers load, so that readers in the same process race with nothing. */
void control_write_tier(struct control_page *page, uint32_t i, const struct control_tier *row);
void control_write_client(struct control_page *page, uint32_t i, const struct control_client *row);
void control_write_model(struct control_page *page, uint32_t i, const struct control_model *row);
void control_write_gpu(struct control_page *page, uint32_t i, const struct control_gpu *row);

/* Readers: a consistent copy of the row. Returns false if the writer kept changing it. */
bool control_read_tier(const struct control_page *page, uint32_t i, struct control_tier *ret);
bool control_read_client(const struct control_page *page, uint32_t i, struct control_client *ret);
bool control_read_model(const struct control_page *page, uint32_t i, struct control_model *ret);
bool control_read_gpu(const struct control_page *page, uint32_t i, struct control_gpu *ret);

/* The sum of one counter over all blocks. */
uint64_t control_counter(const struct control_page *page, enum stoker_counter counter);

/* Histograms: bucket of a value, lowest value of a bucket, and a quantile (0 to 1) over all blocks. */
uint32_t histogram_bucket(uint64_t value);
uint64_t histogram_value(uint32_t bucket);
uint64_t control_quantile(const struct control_page *page, enum stoker_histogram histogram, double q);

/* For the one thread that writes @block. */
static inline void block_add(struct control_block *block, enum stoker_counter counter, uint64_t n)
{
	_Atomic uint64_t *cell = &block->counters[counter];

	atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n,
			      memory_order_relaxed);
}
/* histogram_bucket() without a call: the engine's archive may need nobody. */
static inline uint32_t block_bucket(uint64_t value)
{
	const uint32_t octave = value < 8 ? 0 : 63 - (uint32_t)__builtin_clzll(value);

	return value < 8 ? (uint32_t)value : (octave - 2) * 8 + (uint32_t)(value >> (octave - 3) & 7);
}
static inline void block_record(struct control_block *block, enum stoker_histogram histogram, uint64_t value)
{
	_Atomic uint64_t *cell = &block->histograms[histogram][block_bucket(value)];

	atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

#endif
