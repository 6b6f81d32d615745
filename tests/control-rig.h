/*
 * What tests of the broker's socket share: a small broker (whole-rig.h), and a client that says what it
 * likes (raw-client.h) and expects to be answered.
 */
#ifndef STOKER_TESTS_CONTROL_RIG_H
#define STOKER_TESTS_CONTROL_RIG_H

#include "tests/raw-client.h"
#include "tests/whole-rig.h"

/* A fixture. Further options go into whole.options[1] and following. */
static inline void setup(void)
{
	whole_make();
	whole.memory = "8M";
	whole.options[0] = "--set=arena.extent=1M";
}

static inline struct raw attach(void)
{
	struct raw raw;

	ck_assert_int_eq(raw_attach(whole.name, &raw), 0);
	return raw;
}

static inline enum stoker_status ask(struct raw *raw, void *message, uint32_t type, size_t bytes,
				     struct message_answer *ret)
{
	struct message_header *header = message;
	struct message_answer unused;

	header->type = type;
	ret = ret ? ret : &unused;
	ck_assert_int_eq(raw_ask(raw, header, bytes, NULL, 0, ret), 0);
	return ret->status;
}

static inline int ping(struct raw *raw)
{
	static uint32_t generation;
	const struct stoker_request_head head = { .op = STOKER_OP_PING, .slot = 1, .generation = ++generation };

	raw_submit(raw, &head);
	return raw_await(raw, 1, head.generation);
}

#endif
