/*
 * The copies that the broker has asked for, from COPY to DONE.
 *
 * A transfer is a copy of src/device/copy.h with its items in memory of its own. It waits for its turn
 * (src/device/turns.h: loads and stores apart, by priority), gives a slice to a lane of streams, goes to the
 * back of its queue, and so on; ended slices tell how many of its layers are over. One that needs the bounce
 * buffer, while all of that is in use, is parked until a slot of its direction is free.
 *
 * A transfer is over when all of it has been cut and no slice of it is on a stream: only then DONE is told.
 * Cancelling cuts the rest off. An item that cannot be right (no pool, wrong counts, a place outside the
 * arena) fails, the others go on.
 */
#ifndef STOKER_DEVICE_CUDA_TRANSFER_H
#define STOKER_DEVICE_CUDA_TRANSFER_H

#include "src/device/cuda/streams.h"
#include "src/device/cuda/view.h"
#include "src/device/turns.h"

struct transfer;
struct transfers {
	struct streams *streams;
	struct pin *pin;
	struct views *views;
	uint64_t slice_bytes;
	uint32_t copies_max, n;		/* under way, not told DONE included */
	uint32_t n_slices;		/* on streams */
	struct transfer **hash;		/* by number */
	uint32_t hash_mask;
	struct turns ready[2];		/* loads', stores' */
	struct turns parked[2];		/* for a slot of the bounce buffer */
	struct transfer *tell_first, *tell_last;
	struct slice *slices, *free_slices;
	struct plan plan;
	uint64_t load_bytes, store_bytes;	/* of ended slices */
};

/* Returns 0 or -ENOMEM. */
int transfers_open(struct transfers *transfers, struct streams *streams, struct pin *pin, struct views *views,
		   uint32_t copies_max, uint64_t slice_bytes);

/* @items: command->bytes of them; copied. Returns 0 or -ENOMEM. */
int transfer_begin(struct transfers *transfers, const struct wire_command *command, const uint8_t *items);
void transfer_cancel(struct transfers *transfers, uint32_t number);	/* unknown: its DONE is on its way */

/*
 * A bounded number of steps of what can be done now: true if any was. A fatal result is left in @ret, and
 * then nothing but to exit is.
 */
bool transfers_issue(struct transfers *transfers, uint64_t now_ns, enum cuda_result *ret);
bool transfers_collect(struct transfers *transfers, uint64_t now_ns, enum cuda_result *ret);
/* Put what is to be told into @events until it is full: how many were put. */
uint32_t transfers_tell(struct transfers *transfers, struct shared_queue *events);
static inline bool transfers_under_way(const struct transfers *transfers)
{
	return transfers->n > 0;
}

#endif
