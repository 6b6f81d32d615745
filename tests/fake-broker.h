/*
 * A broker for tests of the library: it makes control page, socket and channels with the code of shm/,
 * answers messages on the socket from a thread of its own, and leaves the rings to the test, which
 * takes requests and publishes answers when it wants to. It can refuse, lie, die and come back.
 */
#ifndef TESTS_FAKE_BROKER_H
#define TESTS_FAKE_BROKER_H

#include <stdbool.h>

#include "shm/control.h"
#include "shm/message.h"
#include "shm/ring.h"

struct fake_options {
	uint32_t abi;			/* 0: ours */
	uint32_t refuse;		/* status of WELCOME; 0: welcome */
	bool unsealed;			/* a channel that could be shrunk */
	bool silent;			/* never answer HELLO */
	bool no_drop;			/* never answer REGION_DROP and POOL_DROP */
	uint64_t arena_bytes;		/* 0: no arena */
	uint32_t slots_small_max;	/* 0: as wished */
};

struct fake;

struct fake *fake_start(const char *name, const struct fake_options *options);
/* As a SIGKILL: socket, pipes and channel close; page and socket file stay. The fence does not fall. */
void fake_die(struct fake *fake);
void fake_fence_falls(struct fake *fake);
void fake_free(struct fake *fake);		/* dies if it has not, and cleans up */
const char *fake_socket(const struct fake *fake);
struct control_page *fake_page(struct fake *fake);
uint32_t fake_messages(const struct fake *fake, enum message_type type);	/* received so far */
uint8_t *fake_arena(struct fake *fake);
/* The @i-th REGION_ADD_CUDA so far (of the first 16), with the descriptors that really came along. */
struct fake_gpu_message {
	struct message_region_add_cuda message;
	uint32_t n_fds;
};
const struct fake_gpu_message *fake_gpu_message(const struct fake *fake, uint32_t i);

/* --- the data plane, by one thread at a time; client: the one that attached last ---------------- */

struct fake_request {
	struct stoker_request_head head;
	union stoker_request_line line;
	const uint8_t *input;
};
/* Take the next request. 1, 0 (none), or -EBADMSG. */
int fake_take(struct fake *fake, struct fake_request *ret);
void fake_need_wake(struct fake *fake, uint32_t value);
uint32_t fake_rings(struct fake *fake);		/* bytes that lay in the doorbell */

struct fake_answer {
	uint32_t stage, status;
	uint32_t found, found_l1, expected_us, ready, layers, n, counts[3], lease_ms;
	uint64_t lease[2];
	const void *output;		/* at the start of the output area */
	uint32_t output_bytes;
	const uint8_t *chunks;		/* status bytes */
	uint32_t n_chunks;
	bool no_hint;			/* nothing in the response ring */
};
/* Publish, and wake if the client wants it. Returns whether it wanted. */
bool fake_publish(struct fake *fake, uint32_t slot, uint32_t generation, const struct fake_answer *answer);
void fake_hint(struct fake *fake, uint32_t slot);	/* one entry in the response ring */
bool fake_is_waited_for(struct fake *fake, uint32_t slot, uint32_t generation);	/* it sleeps until that is DONE */
uint32_t fake_cancel_word(struct fake *fake, uint32_t slot);
uint32_t fake_ready_word(struct fake *fake, uint32_t index);

/* A thread that takes every request and gives it to @serve until fake_serve_end() or the death. */
void fake_serve(struct fake *fake, void (*serve)(struct fake *fake, const struct fake_request *request));
void fake_serve_end(struct fake *fake);

#endif
