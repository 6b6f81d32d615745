/*
 * Orders: what the control thread and the starter ask of the core thread, and what it tells them.
 *
 * An order belongs to who holds it. The asker allocates it, the core fills in how it ended and hands
 * the same struct back, so the core allocates nothing. What the core has to tell of its own accord
 * (a client broke the protocol, a client is gone, an epoch is to be saved) travels in orders that are
 * part of the channel or model concerned.
 *
 * A link is a pair of queues between one such thread and the core. Neither end ever waits for room:
 * what does not fit is kept in the sender's own list and goes first next time.
 */
#ifndef STOKER_BROKER_ORDER_H
#define STOKER_BROKER_ORDER_H

#include "shm/message.h"
#include "src/broker/tier.h"
#include "src/common/queue.h"
#include "src/device/device.h"
#include "src/engine/engine.h"

struct arena;
struct channel;
struct model;

/* ORDER(symbol, meaning): from control thread or starter to core, and back as its answer */
#define BROKER_ORDERS(ORDER) \
	ORDER(CLIENT_IN,   "a finished channel; has no answer") \
	ORDER(CLIENT_OUT,  "its client left; has no answer of its own, GONE follows") \
	ORDER(MODEL_OPEN,  "a model is described") \
	ORDER(MODEL_CLOSE, "a model that no client has open is to be forgotten") \
	ORDER(POOL_ADD,    "a pool is opened") \
	ORDER(POOL_DROP,   "answered when no copy touches it any more") \
	ORDER(RESET,       "begin an epoch; answered when no older job touches a pool") \
	ORDER(EPOCH_SAVED, "the state directory has the epoch; has no answer") \
	ORDER(TENANT,      "quotas of a tenant; has no answer") \
	ORDER(PING,        "answered at once") \
	ORDER(EVICT,       "free bytes of the arena") \
	ORDER(CLEAR,       "forget what nobody uses") \
	ORDER(ACCOUNTS,    "what a run of accounts has") \
	ORDER(DRAIN,       "take no stores, write back") \
	ORDER(QUIT,        "end of the core thread; has no answer") \
	ORDER(MACHINE,     "arena and the host's device are there") \
	ORDER(DEVICE,      "a further device; pools of it may follow") \
	ORDER(TIER_OPEN,   "a tier is open: extents are registered with it from now on") \
	ORDER(TIER_UP,     "its objects are known: it serves; result < 0: it never will") \
	ORDER(EXTENT,      "an extent is populated; result < 0: it cannot be") \
	ORDER(FOUND,       "objects that a table names") \
	ORDER(SERVE,       "recovery is over") \
	ORDER(DEGRADED,    "something that was configured is not there; has no answer") \
	/* from the core, of its own accord */ \
	ORDER(EXPELLED,    "a client broke the protocol") \
	ORDER(GONE,        "all that a client had is over") \
	ORDER(SAVE_EPOCH,  "make an epoch durable in the state directory") \
	ORDER(POOL_DEAD,   "a pool's memory could not be touched") \
	ORDER(TIER_CORRUPT, "checksums of a tier are wrong again and again: it is out of service") \
	/* never with the core: the device is waited for */ \
	ORDER(REGION_ADD,  "memory is being opened") \
	ORDER(REGION_DROP, "it is being closed")
#define BROKER_ORDER_AS_ENUM(symbol, meaning) ORDER_##symbol,
enum order_type { BROKER_ORDERS(BROKER_ORDER_AS_ENUM) };

#define DEVICES_MAX	64u	/* of a broker; number 0 is the host's, which also seals and verifies */
#define ORDER_FOUND_MAX 256u
/** struct order_found - objects of one table, to be recovered. */
struct order_found {
	uint32_t n;
	struct {
		struct engine_place place;
		struct engine_object object;
		uint32_t record;	/* of the arena table; ENGINE_NONE: from a tier */
		bool was_held;
	} each[ORDER_FOUND_MAX];
};

/** struct order_accounts - some rows of the accounting table: few enough to be looked at in one turn. */
struct order_accounts {
	uint32_t n;
	struct engine_account_figures each[MESSAGE_ACCOUNTS_MAX];
};

struct order {
	enum order_type type;
	int result;			/* 0 or -errno */
	enum stoker_status status;	/* MODEL_CLOSE, POOL_DROP, RESET, EVICT, CLEAR, DRAIN: how it ended */
	uint64_t value;			/* in: bytes to evict; out: bytes freed, epoch; ACCOUNTS: row to begin at, and next */
	struct order *next;		/* in a sender's own list */
	void *owner;			/* the asker's: who waits for this */
	uint64_t request;		/* the asker's: number of the message that asked */
	union {
		struct channel *channel;			/* CLIENT_*, EXPELLED, GONE */
		struct {					/* MODEL_*, RESET, EPOCH_*, SAVE_EPOCH */
			struct model *model;
			uint32_t epoch;
			uint64_t tag;
			const struct engine_model_config *config;
			bool evict;		/* CLOSE: its objects go for it */
		} model;
		struct {					/* POOL_*, DEAD */
			struct channel *channel;
			struct model *model;
			struct device_pool *opened;
			uint32_t number, part, n_blocks;
			uint32_t device;
		} pool;
		uint32_t region;				/* REGION_*: the client's number */
		struct { uint32_t number; struct engine_quota quota; } tenant;
		struct { struct arena *arena; const struct device_backend *backend; struct device *device; } machine;
		struct { uint32_t number; const struct device_backend *backend; struct device *device; } device;
		struct { struct tier *tier; uint32_t number; } tier;	/* TIER_* */
		struct { uint32_t awaited; } drain;		/* tiers that are being flushed; the core's */
		uint32_t extent;
		struct order_found *found;
		struct order_accounts *accounts;
		const char *why;				/* EXPELLED, with channel in `owner` */
	};
};

struct link {
	struct queue *to_core, *from_core;
	struct bell bell;			/* of the end that is not the core */
	struct bell *core_bell;
	struct order *waiting, **waiting_end;	/* the other end's own list */
	struct order *core_waiting, **core_waiting_end;	/* the core's own list */
};

int link_init(struct link *link, struct bell *core_bell);	/* 0 or -ENOMEM, -errno */
void link_fini(struct link *link);

/* The end that is not the core: */
void link_order(struct link *link, struct order *order);
struct order *link_answer(struct link *link);		/* NULL: none. Sends what waited, too */
/* The core: */
struct order *link_take(struct link *link);
void link_tell(struct link *link, struct order *order);
bool link_is_idle(struct link *link);			/* nothing to take, nothing that waits for room */

#endif
