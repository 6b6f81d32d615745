/*
 * The arena as the device sees it: extents registered with it one by one, between turns of the copier's
 * loop, and pinned memory of the copier's own through which everything else goes.
 *
 * A device copies asynchronously only from and to memory that is registered. Registering takes long (up
 * to a tenth of a second for an extent of small pages), so one extent is registered a turn, and an extent
 * that is not registered yet, or could not be, is served through the bounce buffer: slower by a copy of the
 * host's, counted, and said once. One that was refused is tried again, after pauses that grow from PAUSE_MIN to
 * PAUSE_MAX or when the limit of locked memory was raised; where that succeeds the others follow at once. Extents
 * stay registered as long as the process lives.
 *
 * The bounce buffer has slots for loads and slots for stores apart, so that neither waits for the other.
 */
#ifndef STOKER_DEVICE_CUDA_PIN_H
#define STOKER_DEVICE_CUDA_PIN_H

#include "src/device/cuda/driver.h"
#include "src/device/cuda/plan.h"

#define PIN_CALL_MAX	(64ull << 30)	/* bytes of one registration: drivers fail beyond 512 GiB, and for good */
#define BOUNCE_SLOTS	2u		/* each way */
#define BOUNCE_BYTES_MIN (64u << 10)	/* of a slot */

/** struct bounce - a slot of the bounce buffer, of one slice while that is under way. */
struct bounce {
	struct bounce *next_free;
	bool store;
	uint8_t *memory;
	uint64_t used;
	/* Of a store: what is to be copied on into the arena when the slice has ended. */
	struct bounce_part { uint64_t host, at, bytes; } *parts;
	uint32_t n_parts, parts_room;
};

enum pin_state { PIN_UNKNOWN, PIN_WANTED, PIN_REGISTERED, PIN_REFUSED };

struct pin {
	const struct cuda_driver *cuda;
	uint8_t *arena;
	uint64_t arena_bytes, extent_bytes;
	uint32_t n_extents;
	uint8_t *extents;		/* enum pin_state */
	uint32_t n_wanted, look_from;
	uint32_t n_refused;
	enum cuda_result refusal;	/* the last one's result */
	uint64_t refusals;		/* registrations that failed, ever */
	uint64_t retry_ns, pause_ns, look_ns;	/* of what was refused: the next try, the pause, a look at the limit */
	uint64_t limit;			/* of locked memory, when something was refused last */
	uint64_t registered_bytes, bounced_bytes;
	uint64_t changes;		/* rises with each extent that is registered */
	uint8_t *bounce_memory;
	uint64_t bounce_bytes, slot_bytes;
	struct bounce slots[2 * BOUNCE_SLOTS];
	struct bounce *free_slots[2];	/* loads', stores' */
};

/* Registers the bounce buffer. Returns 0 or -errno with the reason. */
int pin_open(struct pin *pin, const struct cuda_driver *cuda, uint8_t *arena, uint64_t arena_bytes,
	     uint64_t extent_bytes, uint64_t bounce_bytes, char *why);
void pin_want(struct pin *pin, uint32_t extent);
/* Is there an extent to be registered, for the first time or once more? */
bool pin_is_due(struct pin *pin, uint64_t now_ns);
/* Register it. Returns the driver's answer where it is fatal, else CUDA_OK. */
enum cuda_result pin_step(struct pin *pin, uint64_t now_ns);
bool pin_covers(const struct pin *pin, uint64_t offset, uint64_t bytes);	/* all of it is registered */

struct bounce *bounce_take(struct pin *pin, bool store);	/* NULL: none is free */
/*
 * An address for @run, which is not registered, in the slot: a load's bytes are copied there. NULL: no memory,
 * or no room, which the caller has made sure of.
 */
uint8_t *bounce_place(struct pin *pin, struct bounce *slot, const struct plan_run *run);
/* The slice has ended: a store's bytes go on into the arena if @copied; the slot is free. */
void bounce_put(struct pin *pin, struct bounce *slot, bool copied);

#endif
