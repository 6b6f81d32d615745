/*
 * The tables that everybody reads: operations, stages, statuses, counters, gauges, histograms.
 *
 * Each is one X-macro; enums, names, --help, JSON, manual tables and tests are made from them, so
 * none can drift. Numbers go over the wire and into shared memory: they are never reused. Stages,
 * statuses and what becomes of chunks are a promise to callers: they are in <stoker/status.h>, the
 * one public header that shm/ knows.
 */
#ifndef STOKER_SHM_TABLES_H
#define STOKER_SHM_TABLES_H

#include <stoker/status.h>

/* OP(symbol, number, name, meaning) */
#define STOKER_OPS(OP) \
	OP(LOOKUP,      1, "lookup",      "find the longest usable prefix of a key chain, prefetch and lease it") \
	OP(LOOKUP_MORE, 2, "lookup-more", "further keys of a chained lookup, named by head slot and piece") \
	OP(RETRIEVE,    3, "retrieve",    "copy leased chunks into blocks of a pool") \
	OP(STORE,       4, "store",       "copy blocks of a pool into the cache under the keys given") \
	OP(RELEASE,     5, "release",     "give a reader's share of a lease back") \
	OP(MAP,         6, "map",         "hold an object so that it can be read in the arena") \
	OP(UNMAP,       7, "unmap",       "end a hold, and say whether it held throughout") \
	OP(END_SESSION, 8, "end-session", "end the lookups and leases of a session") \
	OP(PING,        9, "ping",        "answer at once") \
	OP(CANCEL,     10, "cancel",      "look at the cancel word of a slot; has no answer of its own")

/* STATE(symbol, number, name, meaning): states of a broker. */
#define STOKER_STATES(STATE) \
	STATE(STARTING, 0, "starting", "reading its tables: clients attach, lookups answer 0 chunks") \
	STATE(SERVING,  1, "serving",  "all is well") \
	STATE(DEGRADED, 2, "degraded", "serves with less than was configured; the log says what") \
	STATE(DRAINING, 3, "draining", "takes no new stores; writes back, then stops if told so")

/* TIER_STATE(symbol, number, name, meaning) */
#define STOKER_TIER_STATES(TIER_STATE) \
	TIER_STATE(ABSENT,     0, "absent",     "this row is not in use") \
	TIER_STATE(RECOVERING, 1, "recovering", "its slab table is being read") \
	TIER_STATE(SERVING,    2, "serving",    "reads and writes") \
	TIER_STATE(FAILED,     3, "failed",     "out of service after too many errors, or refused at start") \
	TIER_STATE(STARTING,   4, "starting",   "its files are being opened")

/* GPU_STATE(symbol, number, name, meaning): of a GPU's copier process. */
#define STOKER_GPU_STATES(GPU_STATE) \
	GPU_STATE(ABSENT,   0, "absent",   "this row is not in use") \
	GPU_STATE(DOWN,     1, "down",     "no copier runs: nobody has memory registered, or the next one is to come after a fault") \
	GPU_STATE(STARTING, 2, "starting", "its copier opens driver and device") \
	GPU_STATE(UP,       3, "up",       "its copier runs") \
	GPU_STATE(ENDING,   4, "ending",   "its copier ends, or has ended and its copies are being ended")

/*
 * COUNTER(symbol, name, unit, meaning): only rising, one cell a thread, summed by readers.
 * Order is ABI within one release only: readers go by the build they came with.
 */
#define STOKER_COUNTERS(COUNTER) \
	COUNTER(LOOKUPS,            "lookups",            "jobs",   "LOOKUPs accepted") \
	COUNTER(RETRIEVES,          "retrieves",          "jobs",   "RETRIEVEs accepted") \
	COUNTER(STORES,             "stores",             "jobs",   "STOREs accepted") \
	COUNTER(MAPS,               "maps",               "jobs",   "MAPs accepted") \
	COUNTER(PINGS,              "pings",              "jobs",   "PINGs answered") \
	COUNTER(HITS_L1,            "hits_l1",            "chunks", "chunks that lookups found usable and in the arena") \
	COUNTER(HITS_DISK,          "hits_disk",          "chunks", "chunks that lookups found usable and had to read from disk") \
	COUNTER(MISSES,             "misses",             "chunks", "chunks asked for beyond the usable length") \
	COUNTER(CHUNKS_STORED,      "chunks_stored",      "chunks", "chunks whose objects a STORE completed") \
	COUNTER(CHUNKS_PRESENT,     "chunks_present",     "chunks", "chunks of STOREs that were there already") \
	COUNTER(CHUNKS_ELSEWHERE,   "chunks_elsewhere",   "chunks", "chunks of STOREs that another job was storing") \
	COUNTER(CHUNKS_REFUSED,     "chunks_refused",     "chunks", "chunks of STOREs for which there was no room or no right") \
	COUNTER(CHUNKS_INCOMPLETE,  "chunks_incomplete",  "chunks", "chunks of STOREs with missing blocks") \
	COUNTER(CHUNKS_RETRIEVED,   "chunks_retrieved",   "chunks", "chunks copied into pools") \
	COUNTER(LOAD_BYTES,         "load_bytes",         "bytes",  "bytes copied from the arena into pools") \
	COUNTER(STORE_BYTES,        "store_bytes",        "bytes",  "bytes copied from pools into the arena") \
	COUNTER(EVICTED_L1,         "evicted_l1",         "objects", "objects evicted from the arena") \
	COUNTER(EVICTED_DISK,       "evicted_disk",       "objects", "objects evicted from disk tiers") \
	COUNTER(EVICTED_ACCOUNT,    "evicted_account",    "chunks", "chunks evicted first because their account was above its soft quota") \
	COUNTER(EVICTED_UNWRITTEN,  "evicted_unwritten",  "objects", "objects evicted from the arena before they reached a tier that should have them") \
	COUNTER(SLABS_RECLAIMED,    "slabs_reclaimed",    "slabs",  "slabs taken from one object size for another") \
	COUNTER(ENTRIES_EVICTED,    "entries_evicted",    "chunks", "chunks forgotten because the index was full") \
	COUNTER(DISK_READS,         "disk_reads",         "objects", "objects read from disk tiers") \
	COUNTER(DISK_READ_BYTES,    "disk_read_bytes",    "bytes",  "bytes read from disk tiers") \
	COUNTER(DISK_WRITES,        "disk_writes",        "objects", "objects written to disk tiers") \
	COUNTER(DISK_WRITE_BYTES,   "disk_write_bytes",   "bytes",  "bytes written to disk tiers") \
	COUNTER(DISK_READ_ERRORS,   "disk_read_errors",   "objects", "reads that failed or came back short") \
	COUNTER(DISK_WRITE_ERRORS,  "disk_write_errors",  "objects", "writes that failed") \
	COUNTER(CHECKSUM_ERRORS,    "checksum_errors",    "objects", "objects whose bytes did not match their header; never served") \
	COUNTER(LEASES_GRANTED,     "leases_granted",     "leases", "leases given to lookups") \
	COUNTER(LEASES_EXPIRED,     "leases_expired",     "leases", "leases that ended by the clock") \
	COUNTER(JOBS_CANCELLED,     "jobs_cancelled",     "jobs",   "jobs that ended as cancelled") \
	COUNTER(JOBS_DEADLINE,      "jobs_deadline",      "jobs",   "jobs whose deadline passed") \
	COUNTER(JOBS_BAD,           "jobs_bad",           "jobs",   "jobs refused as bad requests") \
	COUNTER(JOBS_NO_MEMORY,     "jobs_no_memory",     "jobs",   "jobs that found no room") \
	COUNTER(JOBS_BOUNDED,       "jobs_bounded",       "jobs",   "jobs cut short or refused because their tenant or user had its share") \
	COUNTER(STORES_WAITED,      "stores_waited",      "jobs",   "STOREs that waited for write-back to make room") \
	COUNTER(POOL_FAULTS,        "pool_faults",        "pools",  "pools marked dead because their memory could not be touched") \
	COUNTER(CLIENTS_ATTACHED,   "clients_attached",   "clients", "clients that were let in") \
	COUNTER(CLIENTS_REFUSED,    "clients_refused",    "clients", "clients that were turned away") \
	COUNTER(CLIENTS_GONE,       "clients_gone",       "clients", "clients that left or died, all they held reclaimed") \
	COUNTER(CLIENTS_EXPELLED,   "clients_expelled",   "clients", "clients detached because of impossible input") \
	COUNTER(BAD_ENTRIES,        "bad_entries",        "entries", "impossible request entries") \
	COUNTER(BAD_MESSAGES,       "bad_messages",       "messages", "impossible messages on the socket") \
	COUNTER(WAKES_SENT,         "wakes_sent",         "wakes",  "completion pipes written for sleeping clients") \
	COUNTER(WAKES_TAKEN,        "wakes_taken",        "wakes",  "doorbells that woke or called the core thread") \
	COUNTER(CORE_SLEEPS,        "core_sleeps",        "times",  "times the core thread slept") \
	COUNTER(RECOVERED_L1,       "recovered_l1",       "objects", "objects taken over from the arena of the broker before") \
	COUNTER(RECOVERED_DISK,     "recovered_disk",     "objects", "objects found in slab tables at start") \
	COUNTER(RECOVERY_DROPPED,   "recovery_dropped",   "objects", "table entries not taken: of a model that the state directory does not remember, of an older epoch, overlapping or out of range") \
	COUNTER(RESETS,             "resets",             "resets", "models reset") \
	COUNTER(MODELS_FORGOTTEN,   "models_forgotten",   "models", "models that no client had open, forgotten for want of places") \
	COUNTER(GPU_COPIES,         "gpu_copies",         "copies", "copies between the arena and GPUs that have ended") \
	COUNTER(GPU_LOAD_BYTES,     "gpu_load_bytes",     "bytes",  "bytes copied to GPUs") \
	COUNTER(GPU_STORE_BYTES,    "gpu_store_bytes",    "bytes",  "bytes copied from GPUs") \
	COUNTER(GPU_BOUNCED_BYTES,  "gpu_bounced_bytes",  "bytes",  "of both, through the bounce buffer: their extents are not registered with the driver") \
	COUNTER(GPU_REFUSALS,       "gpu_refusals",       "extents", "registrations of an extent that a driver refused; each is tried again after a while") \
	COUNTER(GPU_IMPORTS,        "gpu_imports",        "regions", "regions of GPU memory that a copier opened, once more after its restart") \
	COUNTER(GPU_RESTARTS,       "gpu_restarts",       "copiers", "copier processes started for one that ended while it had regions")

/* GAUGE(symbol, name, unit, meaning): rises and falls, written by the core thread. */
#define STOKER_GAUGES(GAUGE) \
	GAUGE(ARENA_BYTES,     "arena_bytes",     "bytes",   "size of the arena as configured") \
	GAUGE(ARENA_POPULATED, "arena_populated", "bytes",   "of it, populated and in use for objects") \
	GAUGE(ARENA_USED,      "arena_used",      "bytes",   "of it, held by objects, their headers included") \
	GAUGE(ARENA_PINNED,    "arena_pinned",    "bytes",   "of it, pinned by leases, holds and I/O") \
	GAUGE(ARENA_DIRTY,     "arena_dirty",     "bytes",   "of it, not yet written to a disk tier") \
	GAUGE(ARENA_OBJECTS,   "arena_objects",   "objects", "objects in the arena") \
	GAUGE(ENTRIES,         "entries",         "chunks",  "chunks in the index") \
	GAUGE(ENTRIES_MAX,     "entries_max",     "chunks",  "chunks that the index can hold") \
	GAUGE(CLIENTS,         "clients",         "clients", "attached clients") \
	GAUGE(MODELS,          "models",          "models",  "open models") \
	GAUGE(POOLS,           "pools",           "pools",   "registered pools") \
	GAUGE(JOBS,            "jobs",            "jobs",    "jobs accepted and not done") \
	GAUGE(LEASES,          "leases",          "leases",  "leases that have not ended") \
	GAUGE(HOLDS,           "holds",           "holds",   "mapped objects") \
	GAUGE(WRITEBACK,       "writeback",       "objects", "objects waiting for or being written to disk") \
	GAUGE(READS,           "reads",           "objects", "objects waiting for or being read from disk") \
	GAUGE(ACCOUNTS,        "accounts",        "accounts", "accounts told apart, of all tenants") \
	GAUGE(ACCOUNTS_OVER,   "accounts_over",   "accounts", "accounts above their soft quota in the arena") \
	GAUGE(CHECKS,          "checks",          "objects", "objects whose checksum is to be made (a crash would lose them), or is being made or compared")

/* HISTOGRAM(symbol, name, unit, meaning): 64 octaves of 8 buckets each (shm/control.h). */
#define STOKER_HISTOGRAMS(HISTOGRAM) \
	HISTOGRAM(LOOKUP_NS,   "lookup_ns",   "ns", "entry taken to DONE, lookups that loaded nothing") \
	HISTOGRAM(PREFETCH_NS, "prefetch_ns", "ns", "entry taken to DONE, lookups that loaded") \
	HISTOGRAM(RETRIEVE_NS, "retrieve_ns", "ns", "entry taken to DONE, retrieves") \
	HISTOGRAM(STORE_NS,    "store_ns",    "ns", "entry taken to DONE, stores") \
	HISTOGRAM(READ_NS,     "read_ns",     "ns", "one object read from disk") \
	HISTOGRAM(WRITE_NS,    "write_ns",    "ns", "one object written to disk")

#define STOKER_AS_OP(symbol, number, name, meaning)         STOKER_OP_##symbol = (number),
#define STOKER_AS_STATE(symbol, number, name, meaning)      STOKER_STATE_##symbol = (number),
#define STOKER_AS_TIER_STATE(symbol, number, name, meaning) STOKER_TIER_##symbol = (number),
#define STOKER_AS_GPU_STATE(symbol, number, name, meaning)  STOKER_GPU_##symbol = (number),
#define STOKER_AS_COUNTER(symbol, name, unit, meaning)      STOKER_COUNTER_##symbol,
#define STOKER_AS_GAUGE(symbol, name, unit, meaning)        STOKER_GAUGE_##symbol,
#define STOKER_AS_HISTOGRAM(symbol, name, unit, meaning)    STOKER_HISTOGRAM_##symbol,

enum stoker_op { STOKER_OPS(STOKER_AS_OP) STOKER_OP_END };
enum stoker_state { STOKER_STATES(STOKER_AS_STATE) STOKER_STATE_END };
enum stoker_tier_state { STOKER_TIER_STATES(STOKER_AS_TIER_STATE) STOKER_TIER_END };
enum stoker_gpu_state { STOKER_GPU_STATES(STOKER_AS_GPU_STATE) STOKER_GPU_END };
enum stoker_counter { STOKER_COUNTERS(STOKER_AS_COUNTER) STOKER_COUNTER_END };
enum stoker_gauge { STOKER_GAUGES(STOKER_AS_GAUGE) STOKER_GAUGE_END };
enum stoker_histogram { STOKER_HISTOGRAMS(STOKER_AS_HISTOGRAM) STOKER_HISTOGRAM_END };

/*
 * A row as text. `number` is the enum value; for the last three tables it is the row's place.
 * All functions below return NULL for a number that has no row.
 */
struct stoker_row {
	int number;
	const char *name;
	const char *unit;	/* NULL where the table has none */
	const char *meaning;
};

const struct stoker_row *stoker_op_row(int op);
const struct stoker_row *stoker_stage_row(int stage);
const struct stoker_row *stoker_status_row(int status);
const struct stoker_row *stoker_chunk_row(int chunk);
const struct stoker_row *stoker_state_row(int state);
const struct stoker_row *stoker_tier_state_row(int state);
const struct stoker_row *stoker_gpu_state_row(int state);
const struct stoker_row *stoker_counter_row(int counter);
const struct stoker_row *stoker_gauge_row(int gauge);
const struct stoker_row *stoker_histogram_row(int histogram);

#endif
