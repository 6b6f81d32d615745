/*
 * All settings of stokerd: one table a section. The fields of struct config, the parser, --help,
 * --check-config, --set and stoker.conf(5) are made from these rows, so that none can drift.
 *
 * S(key, TYPE, default, min, max, WHEN, meaning)
 *	key	as people write it, and the field of the section's struct
 *	TYPE	a CONFIG_* type of config.h: TEXT, SIZE (bytes; % of RAM), SPACE (bytes; % of the
 *		file system), COUNT, SWITCH (yes or no), IDS (user or group ids), POLICY, LEVEL
 *	default	as people would write it; "" = worked out at start, as its meaning says
 *	min, max	bounds of numbers, sizes in bytes; 0, 0 = none
 *	WHEN	RELOAD: taken over at HUP; START: read at start alone
 */
#ifndef STOKER_BROKER_SETTINGS_H
#define STOKER_BROKER_SETTINGS_H

/* clang-format off */
#define SETTINGS_BROKER(S) \
	S(name,               TEXT,   "/stoker", 0, 0, START, "name of this broker: / and 1 to 64 of [A-Za-z0-9._-], but not /. and /..") \
	S(runtime_directory,  TEXT,   "",  0, 0, START, "directory of socket and locks; root: /run/stoker, else $XDG_RUNTIME_DIR/stoker or /tmp/stoker-UID") \
	S(state_directory,    TEXT,   "",  0, 0, START, "directory of what outlives a broker; root: /var/lib/stoker, else $XDG_STATE_HOME/stoker or ~/.local/state/stoker") \
	S(log_level,          LEVEL,  "info", 0, 0, RELOAD, "what is logged: error, warning, info or debug") \
	S(threads,            COUNT,  "2", 1, 64, START, "helper threads that copy and make checksums; as " \
	  "many again for each other uid that registers memory") \
	S(spin_us,            COUNT,  "50", 0, 1000000, START, "microseconds for which a client stays polled after its last request") \
	S(drain_timeout_ms,   COUNT,  "10000", 0, 3600000, RELOAD, "how long a stopping broker writes back before it gives up")

#define SETTINGS_ARENA(S) \
	S(size,               SIZE,   "25%", 1, 0, START, "DRAM for objects: bytes, or a share of RAM; cut to what the machine can give") \
	S(extent,             SIZE,   "64M", 65536, 1073741824, START, "unit of populating and registering; a multiple of 4K") \
	S(policy,             POLICY, "arc", 0, 0, START, "what is evicted first: lru or arc") \
	S(refill_permille,    COUNT,  "20", 0, 500, START, "of the arena, kept free by eviction in the background; 0: evict only when room is needed") \
	S(entries,            COUNT,  "0", 0, 2147483648, START, "chunks that the index can hold; 0: one for each 64K of arena and tiers") \
	S(records,            COUNT,  "0", 0, 2147483648, START, "objects (parts of chunks) that can be known; 0: one for each 16K of arena and 64K of tiers") \
	S(held_permille,      COUNT,  "250", 0, 1000, START, "of the arena, that one client may hold mapped") \
	S(recovered_hold_ms,  COUNT,  "30000", 0, 3600000, START, "how long objects that were in use at a crash are kept")

#define SETTINGS_DISK(S) \
	S(write_back,         SWITCH, "yes", 0, 0, START, "write stored objects to the tiers; no: tiers are only read") \
	S(depth,              SIZE,   "64M", 1048576, 17179869184, START, "bytes of reads and writes under way at a tier") \
	S(ios,                COUNT,  "512", 16, 65536, START, "reads, writes and checks under way at once, all tiers together")

#define SETTINGS_GPU(S) \
	S(enabled,            TEXT,   "auto", 0, 0, START, "memory of GPUs may be registered: yes, no, or auto (where the driver is there; yes: a broker that cannot open it is degraded)") \
	S(library,            TEXT,   "libcuda.so.1", 0, 0, START, "the driver, opened by a copier process at the first registration") \
	S(streams_load,       COUNT,  "2", 1, 16, START, "streams of each GPU that load") \
	S(streams_store,      COUNT,  "2", 1, 16, START, "streams of each GPU that store") \
	S(bounce,             SIZE,   "64M", 65536, 17179869184, START, "pinned memory of each copier, through which objects go whose extents are not registered with the driver") \
	S(slice,              SIZE,   "8M", 65536, 1073741824, START, "bytes of a store that are issued at once: a load waits for no more of it") \
	S(hang_ms,            COUNT,  "10000", 100, 3600000, START, "how long a GPU or its copier may show no sign of life before the copier is replaced") \
	S(idle_ms,            COUNT,  "60000", 0, 86400000, START, "how long a copier without regions stays")

#define SETTINGS_LIMITS(S) \
	S(clients,            COUNT,  "256", 1, 256, START, "clients attached at once; fewer where the limit of open files does not allow them (five each)") \
	S(clients_per_uid,    COUNT,  "0", 0, 256, RELOAD, "of them, of one uid; 0: with several uids as many as it leaves to others, so half of all if it is alone") \
	S(models,             COUNT,  "64", 1, 64, START, "models known at once; the least recently used that no client has open makes room for a new one") \
	S(pools,              COUNT,  "1024", 1, 65536, START, "pools registered at once, all clients together; several tenants have equal shares, of which a uid has as many as it leaves to others") \
	S(leases,             COUNT,  "65536", 16, 16777216, START, "leases at once; tenants have equal shares, of which a uid has as many as it leaves to others") \
	S(holds,              COUNT,  "4096", 1, 16777216, START, "mapped objects at once; shared as leases are") \
	S(leased_chunks,      COUNT,  "1048576", 4096, 268435456, START, "chunks in all leases and running lookups together; shared as leases are") \
	S(accounts,           COUNT,  "4096", 0, 65000, START, "accounts told apart, tenants have equal shares; further ones of a tenant count as one") \
	S(deadline_ms,        COUNT,  "10000", 1, 3600000, START, "deadline of a request that names none") \
	S(deadline_max_ms,    COUNT,  "300000", 1, 3600000, START, "longest deadline") \
	S(lease_ms,           COUNT,  "30000", 1, 3600000, START, "life of a lease that names none") \
	S(lease_max_ms,       COUNT,  "600000", 1, 3600000, START, "longest life of a lease")

#define SETTINGS_TENANT(S) \
	S(uids,               IDS,    "", 0, 0, RELOAD, "users of this tenant: ids or names, separated by blanks or commas; *: anybody") \
	S(gids,               IDS,    "", 0, 0, RELOAD, "groups (primary) whose members belong to this tenant") \
	S(admins,             IDS,    "", 0, 0, RELOAD, "users who may use the admin verbs, besides root and the broker's own") \
	S(trusted,            SWITCH, "no", 0, 0, RELOAD, "its clients may map the whole arena, that of other tenants too") \
	S(arena_quota,        SIZE,   "0", 0, 0, RELOAD, "most bytes of the arena; 0: no limit") \
	S(disk_quota,         SIZE,   "0", 0, 0, RELOAD, "most bytes of the tiers; 0: no limit") \
	S(account_arena_quota, SIZE,  "0", 0, 0, RELOAD, "soft quota of each account in the arena: above it, it loses its chunks before others do; 0: none") \
	S(account_disk_quota, SIZE,   "0", 0, 0, RELOAD, "the same on the tiers; 0: none") \
	S(models,             COUNT,  "0", 0, 64, RELOAD, "models of this tenant at once; 0: an equal share of limits.models") \
	S(leases,             COUNT,  "0", 0, 16777216, RELOAD, "leases of this tenant at once; 0: an equal share of limits.leases") \
	S(leased_chunks,      COUNT,  "0", 0, 268435456, RELOAD, "chunks in them and in its running lookups; 0: an equal share of limits.leased_chunks") \
	S(holds,              COUNT,  "0", 0, 16777216, RELOAD, "objects that its clients map at once; 0: an equal share of limits.holds")

#define SETTINGS_TIER(S) \
	S(path,               TEXT,   "", 0, 0, START, "directory of this tier: made if it is absent, never shared; or a block device that is empty") \
	S(size,               SPACE,  "", 0, 0, START, "bytes for objects, or a share of its file system or device")

/* SECTION(symbol, name, many, meaning): many: any number of them, [name NAME]. */
#define SETTINGS_SECTIONS(SECTION) \
	SECTION(BROKER, broker, 0, "the daemon itself") \
	SECTION(ARENA,  arena,  0, "the DRAM tier and the index") \
	SECTION(DISK,   disk,   0, "all disk tiers") \
	SECTION(GPU,    gpu,    0, "all GPUs; a copier process for each that somebody registers memory of") \
	SECTION(LIMITS, limits, 0, "what bounds clients") \
	SECTION(TENANT, tenant, 1, "a trust domain; without any there is one, \"default\": the broker's own uid") \
	SECTION(TIER,   tier,   1, "a disk tier, in the order in which they are written")
/* clang-format on */

#endif
