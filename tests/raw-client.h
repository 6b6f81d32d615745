/*
 * A client without the library: it says on the socket and writes into its channel whatever a test
 * wants. For tests of what bad input gets.
 */
#ifndef STOKER_TESTS_RAW_CLIENT_H
#define STOKER_TESTS_RAW_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

#include "shm/control.h"
#include "shm/message.h"
#include "shm/ring.h"

struct raw {
	int socket;
	int fds[MESSAGE_FDS_MAX];	/* as WELCOME gave them: page, channel, doorbell, completion, fence, arena */
	uint32_t n_fds;
	struct message_welcome welcome;
	struct channel_plan plan;
	uint8_t *channel;
	struct request_producer requests;
	uint64_t next_request;
};

int raw_connect(const char *name);	/* to the socket that the control page names; -errno */
#define RAW_FDS_MAX 253		/* as many descriptors as the kernel lets a message carry */
/* Send @bytes with @fds; 0 or -errno. */
int raw_send(int socket, const void *message, size_t bytes, const int *fds, uint32_t n_fds);
/* Receive one message within a second: its bytes, 0 at end of file, -ETIMEDOUT, -errno. */
ssize_t raw_receive(int socket, void *to, size_t bytes, int *fds, uint32_t *n_fds);
/* Connect, HELLO, WELCOME, map. 0, -EACCES (refused: see welcome.reason) or -errno. */
int raw_attach(const char *name, struct raw *ret);
void raw_close(struct raw *raw);

/* Is the connection over? Waits up to a second for it. */
bool raw_is_expelled(struct raw *raw);

struct stoker_slot *raw_slot(struct raw *raw, uint32_t slot);
uint8_t *raw_input(struct raw *raw, uint32_t slot);
/* Put an entry and ring the doorbell. */
void raw_submit(struct raw *raw, const struct stoker_request_head *head);
/* Wait up to a second until the slot is DONE for @generation: its status, or -ETIMEDOUT. */
int raw_await(struct raw *raw, uint32_t slot, uint32_t generation);

/* Open a plain model (one group, one part, one plane of @bytes a block) and ask for its number; -1: refused. */
int raw_model(struct raw *raw, const char *name, uint32_t bytes);
/* Ask something that is answered by ANSWER. 0 and the answer, or -errno. */
int raw_ask(struct raw *raw, struct message_header *message, size_t bytes, const int *fds, uint32_t n_fds,
	    struct message_answer *ret);

#endif
