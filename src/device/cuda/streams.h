/*
 * Slices of copies on the streams of a device.
 *
 * A slice is a piece of a copy (src/device/copy.h) with its runs of bytes. It is given to a lane: a stream
 * for loads or for stores, which ends its slices in the order in which it got them. After the runs of a
 * slice a mark is put into the stream; when the mark is seen, the device has done with the slice's memory
 * on both sides. A mark is a rising number, written in stream order into a pinned word of the lane, so to
 * look is to load a word; where a device cannot do that, an event that is queried.
 *
 * How runs are moved is behind `struct mover`: the driver's batched copy, in both of its signatures, or one
 * asynchronous copy a run; a gather kernel is one more.
 *
 * Loads have streams of their own at the highest priority and may have many slices queued. A lane of stores
 * has two at most, so that a load never waits for more than those.
 *
 * Results: CUDA_OK or what the driver said. Fatal ones (cuda_result_is_fatal) leave nothing but to exit.
 */
#ifndef STOKER_DEVICE_CUDA_STREAMS_H
#define STOKER_DEVICE_CUDA_STREAMS_H

#include "src/device/cuda/driver.h"
#include "src/device/cuda/pin.h"

#define LANES_MAX	16u		/* each way */
#define LOAD_DEPTH	8u		/* slices on a lane */
#define STORE_DEPTH	2u
#define LANE_DEPTH	8u		/* the larger */

/** struct slice - a piece of a copy while it is on a stream. */
struct slice {
	struct copy_piece piece;	/* first */
	struct slice *next;		/* on its lane; or the next free one */
	struct bounce *bounce;		/* what it goes through, or NULL */
	uint32_t number;		/* its lane's, rising */
	bool failed;			/* not all of its runs could be given to the stream */
};

/** struct moves - runs as the driver takes them. */
struct moves {
	cuda_address *to, *from;
	size_t *bytes;
	uint32_t n, room;
};

struct lane {
	struct cuda_stream *stream;
	bool store;
	uint32_t depth, n;		/* slices on it, at most and now */
	uint32_t issued;		/* number of the last slice */
	struct slice *first, *last;
	uint64_t since_ns;		/* when the first slice became the first */
	_Atomic uint32_t *word;		/* on a line of its own; number of the last slice that has ended */
	cuda_address word_address;
	struct cuda_event *events[LANE_DEPTH];	/* by number, where words are not used */
};

struct streams;
/** struct mover - a way of moving runs. */
struct mover {
	const char *name;		/* for the log: "batched copies" */
	uint32_t runs_max;		/* of a slice: what the host spends a millisecond or two for, at most */
	/* Put @moves into the stream. On failure some of them may be in it. */
	enum cuda_result (*move)(struct streams *streams, struct lane *lane, const struct moves *moves);
};

struct streams {
	const struct cuda_driver *cuda;
	const struct mover *mover;
	bool words;			/* marks are words; else events */
	uint8_t *arena;
	struct lane lanes[2 * LANES_MAX];	/* loads', then stores' */
	uint32_t n_lanes, n_loads;
	struct moves moves;
	void *word_memory;
	bool word_registered;
};

/* Returns 0 or -errno with the reason; a device that hangs hangs here. */
int streams_open(struct streams *streams, const struct cuda_driver *cuda, uint8_t *arena, uint32_t loads,
		 uint32_t stores, char *why);
/* Which ways it has: a text for the log. */
void streams_how(const struct streams *streams, char *text, size_t bytes);

/* The lane with the fewest slices that has room for one, or NULL. */
struct lane *streams_lane(struct streams *streams, bool store);
/*
 * Put a slice with its runs into the stream: what is registered directly, the rest through slice->bounce. Zeros
 * are written at once. slice->failed tells whether all of it went; the slice is on the lane in any case, and
 * ends there, unless the result is a fatal one.
 */
enum cuda_result streams_issue(struct streams *streams, struct lane *lane, struct slice *slice, const struct plan *plan,
			       struct pin *pin, uint64_t now_ns);
/* The next slice of the lane that has ended, taken off it; NULL: none, or *@ret is a fatal result. */
struct slice *streams_ended(struct streams *streams, struct lane *lane, uint64_t now_ns, enum cuda_result *ret);
/* Ask the driver for errors of what is under way: a word is never written after one. */
enum cuda_result streams_look(struct streams *streams);

#endif
