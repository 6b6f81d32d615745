/*
 * Talking on the attachment socket: whole messages with their descriptors, and the way from a
 * broker's name to a connected, checked socket. Knows nothing of handles, so that stokerctl, which
 * has no channel, uses it too.
 */
#ifndef STOKER_CLIENT_TALK_H
#define STOKER_CLIENT_TALK_H

#include <sys/types.h>

#include "shm/message.h"

#define TALK_WHY	512u	/* room for the text of a failure: MESSAGE_REASON and what we add */

#define TALK_FDS_MAX	MESSAGE_CUDA_FDS_MAX	/* the most that any message has */
struct talk_fds {
	uint32_t n;
	int fd[TALK_FDS_MAX];
};
void talk_fds_close(struct talk_fds *fds);

/* Send one message, waiting until @deadline_ns (CLOCK_MONOTONIC) for room. 0 or -errno; -EPIPE: the peer is gone. */
int talk_send(int sock, const void *message, size_t bytes, const int *fds, uint32_t n_fds, uint64_t deadline_ns);

/*
 * Receive one message without waiting. Returns its length (at least a whole header, whose `bytes`
 * agrees), -EAGAIN, -EPIPE (the peer is gone) or -EBADMSG. Descriptors beyond @max_fds are closed
 * and make the message bad. With @max_fds = 0, @ret_fds may be NULL.
 */
ssize_t talk_receive(int sock, void *buffer, size_t bytes, struct talk_fds *ret_fds, uint32_t max_fds);

/* Wait for something to receive. 0, -ETIMEDOUT, or -errno. */
int talk_wait(int sock, uint64_t deadline_ns);

/** struct talk_rules - whose broker is believed. */
struct talk_rules {
	uint32_t broker_uid;	/* this one too, besides root's and one's own; 0: none */
};
/*
 * Connect to the broker @name ("/stoker", by its control page, or the path of a socket), and check
 * that page and socket belong to one uid that @rules allow. Never waits. Returns the socket
 * (non-blocking, close-on-exec) or -errno with a text in @why (TALK_WHY bytes); -ENOENT: no broker.
 */
int talk_connect(const char *name, const struct talk_rules *rules, uid_t *ret_uid, char *why);

/* Send HELLO. @geometry: NULL with MESSAGE_HELLO_ADMIN. */
int talk_hello(int sock, uint32_t flags, const char *client_name, const struct channel_geometry *geometry,
	       uint64_t deadline_ns);
/* Is the message of @bytes a WELCOME that lets us in? 0 or -errno with a text in @why. */
int talk_welcome_check(const struct message_welcome *welcome, size_t bytes, const char *name, char *why);

uint64_t talk_now_ns(void);	/* CLOCK_MONOTONIC */

__attribute__((format(printf, 2, 3))) void talk_why(char *why, const char *format, ...);

#endif
