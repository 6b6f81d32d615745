/*
 * A session: one connection to the broker's socket, from accept to the return of the last thing that
 * was asked for in its name.
 *
 * NEW --HELLO--> ATTACHED or ADMIN --end of file, death, expulsion--> LEAVING --GONE, last order--> freed
 *
 * The socket and the pidfd are closed on the way to LEAVING; what the core still uses (channel,
 * pools, regions) is freed when it has said GONE. A message is received whole into private memory
 * and has exactly the length that its type and counts ask for, or costs the peer its attachment.
 */
#ifndef STOKER_BROKER_SESSION_H
#define STOKER_BROKER_SESSION_H

#include <sys/socket.h>

#include "shm/message.h"
#include "src/broker/broker.h"
#include "src/broker/channel.h"

#define SESSION_REGIONS_MAX	64u
#define SESSION_ORDERS_MAX	64u	/* asked and not answered; more is no honest library */
#define SESSION_NAME		64u
#define SESSION_FDS		5u	/* that stay open of an attached client */
#define SESSIONS_NEW_MAX	64u	/* connections that have not said HELLO yet */
#define FDS_OF_A_MESSAGE	253u	/* the kernel's SCM_MAX_FD: no message carries more */

enum session_state { SESSION_NEW, SESSION_ATTACHED, SESSION_ADMIN, SESSION_LEAVING };

/*
 * FREE --it is opened--> OPEN --dropped--> FREE; OPENING and CLOSING stand between where the device answers later.
 * Pools are made of OPEN ones alone.
 */
enum region_state { REGION_FREE, REGION_OPENING, REGION_OPEN, REGION_CLOSING };
struct session_region {
	enum region_state state;
	uint32_t device;		/* number of the broker's device that has it */
	uint32_t n_ranges, n_files;	/* mappings, and descriptors that are kept, of which all clients have shares */
	struct device_region *region;
};

/** struct session_parts - memory of a GPU whose last message has not come yet. */
struct session_parts {
	struct message_region_add_cuda first;
	uint32_t n;
	int *fds;
	uint64_t *fd_bytes;
	enum stoker_status status;	/* not OK: it will be refused, for this reason */
	char why[MESSAGE_REASON];
};

struct session_pool {
	struct device_pool *pool;
	uint64_t regions;		/* mask of the regions that it views */
	uint32_t device;		/* that has all of them */
	bool known;			/* to the core */
	bool dropping;
};

struct session {
	struct session *next, **link;	/* in the list of all */
	struct broker *broker;
	enum session_state state;
	int fd, pidfd;
	struct source socket_source, pid_source;
	struct ucred peer;
	int tenant;			/* -1: none */
	char name[SESSION_NAME];	/* printable ASCII */
	uint64_t deadline_ns;		/* NEW: HELLO must have come */
	bool held_back;			/* its messages wait: for the broker to be opened, or its files to be closed */
	bool has_arena;			/* it was given the arena's descriptor */
	bool gone;			/* the core has nothing of it any more */
	uint32_t orders;		/* with the core */
	uint32_t number;		/* of the client */
	struct channel *channel;
	struct order in_order, out_order;
	struct session_region regions[SESSION_REGIONS_MAX];
	struct session_parts *parts;	/* NULL: none */
	struct session_pool pools[CHANNEL_POOLS_MAX];
};

/** struct incoming - a message as it was received. */
struct incoming {
	size_t bytes;
	uint32_t n_fds;
	int fds[FDS_OF_A_MESSAGE];
	alignas(64) uint8_t data[MESSAGE_BYTES_MAX];
};

int session_accept(struct broker *broker, int fd);		/* takes @fd, also on failure */
void session_event(struct session *session, bool hung_up);	/* something to read, or the peer's end is closed */
void session_close(struct session *session, const char *why);	/* NULL: it left by itself */
void session_expel(struct session *session, const char *why);	/* the peer broke the protocol */
void session_core_gone(struct session *session);		/* the core said GONE */
void session_release(struct session *session);		/* one order less: free it if it was the last */

/* Answer @request. A peer that does not take its answers is let go. */
void session_answer(struct session *session, uint64_t request, const struct message_answer *answer);
void session_answer_more(struct session *session, uint64_t request, const struct message_answer *answer,
			 const void *more, size_t more_bytes, int fd);	/* @fd: -1 = none; it stays the caller's */
__attribute__((format(printf, 4, 5))) void session_refuse(struct session *session, uint64_t request,
							  enum stoker_status status, const char *format, ...);
int session_send(struct session *session, const void *head, size_t head_bytes, const void *more,
		 size_t more_bytes, const int *fds, uint32_t n_fds);

/* A new order in the name of @session, for the message @request. NULL: answered already. */
struct order *session_order(struct session *session, uint64_t request, enum order_type type);

/* attach.c */
void attach_hello(struct session *session, const struct incoming *in);
int attach_arena(struct session *session, uint64_t *ret_bytes);	/* its descriptor, if it is to be given now; or -1 */
/* peer.c: credentials; @ret_pidfd: -1 where the kernel has none to give. 0, or -errno: the peer is gone */
int peer_identify(int fd, struct ucred *ret, int *ret_pidfd);
/** struct opening - a model that is to be opened: found, described, or waiting for a place. */
struct opening {
	struct opening *next;
	struct session *session;
	uint64_t request;
	uint8_t digest[MODEL_DIGEST_BYTES];
	struct model_layout *layout;	/* owned; NULL: by digest alone */
	uint64_t tried, emptied;	/* numbers of models that were not to be forgotten for it, nor emptied */
};

/* forget.c */
bool forget_one_for(const struct opening *opening, enum models_lack lack);	/* true: it waits, and is tried again */
void forget_wait(const struct opening *opening);	/* until what is being forgotten is, or is kept */
void forget_file(struct broker *broker, const uint8_t identity[MODEL_DIGEST_BYTES], uint32_t epoch);
void forget_leave(struct session *session);	/* what it waits for is not wanted any more */
void forget_answer(struct broker *broker, struct order *order);	/* MODEL_CLOSE */
/* describe.c */
void describe_open_go(const struct opening *opening);	/* its layout is taken */
uint32_t describe_epoch(const struct broker *broker, const struct model *model);	/* in which it begins */
void describe_open(struct session *session, const struct incoming *in);
void describe_reset(struct session *session, const struct incoming *in);
void describe_close(struct session *session);	/* all models that it has open */
struct model *describe_find(struct session *session, uint32_t number);	/* NULL: not open here */
/* register.c */
void register_region(struct session *session, struct incoming *in);
void register_region_drop(struct session *session, const struct incoming *in);
void register_pool(struct session *session, const struct incoming *in);
void register_pool_drop(struct session *session, const struct incoming *in);
void register_answer(struct session *session, struct order *order);
void register_close(struct session *session);	/* all pools and regions: the core has let go */
/* What a device answers later: of whom the order says that the token is. */
void register_device_answer(const struct device_answer *answer);
int register_region_number(struct session *session, uint64_t request);	/* a free one; -1: refused, and said so */
/* A region of number @number is asked for at device @device. */
void register_region_open(struct session *session, uint64_t request, uint32_t number, uint32_t device,
			  struct device_memory *memory);
enum stoker_status register_status(int error);
/* register-gpu.c */
void register_gpu_region(struct session *session, struct incoming *in);
void register_parts_drop(struct session *session);	/* NULL parts are fine */
/* admin.c */
void admin_verb(struct session *session, const struct incoming *in);
void admin_answer(struct session *session, struct order *order);

#endif
