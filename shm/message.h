/*
 * Messages on the attachment socket (SOCK_SEQPACKET), for what is rare.
 *
 * A message has the exact length that its type and counts ask for; any other length, an unknown
 * type, a set reserved bit or a descriptor where none is expected costs the peer its attachment.
 * Every message but HELLO is answered by one ANSWER with the same `request`; HELLO by a WELCOME.
 * Answers may come in another order than the questions (RESET and drops wait for running jobs).
 */
#ifndef STOKER_SHM_MESSAGE_H
#define STOKER_SHM_MESSAGE_H

#include "shm/layout.h"
#include "shm/model.h"

#define MESSAGE_BYTES_MAX	131072u
#define MESSAGE_FDS_MAX		16u
#define MESSAGE_REASON		192u
#define MESSAGE_PLANES_MAX	2048u

/* MESSAGE(symbol, number, name, meaning) */
#define STOKER_MESSAGES(MESSAGE) \
	MESSAGE(HELLO,       1, "hello",       "a client asks to be let in") \
	MESSAGE(WELCOME,     2, "welcome",     "it is (or not, with the reason)") \
	MESSAGE(MODEL_OPEN,  3, "model-open",  "open a model by description or by digest") \
	MESSAGE(REGION_ADD,  4, "region-add",  "register memory") \
	MESSAGE(REGION_DROP, 5, "region-drop", "give it back; answered when nobody touches it any more") \
	MESSAGE(POOL_ADD,    6, "pool-add",    "register a view of regions for one part of a model") \
	MESSAGE(POOL_DROP,   7, "pool-drop",   "drop it; answered when nobody touches it any more") \
	MESSAGE(RESET,       8, "reset",       "begin a new epoch of a model") \
	MESSAGE(ADMIN,       9, "admin",       "a verb of stokerctl") \
	MESSAGE(ANSWER,     10, "answer",      "how a request ended") \
	MESSAGE(REGION_ADD_CUDA, 11, "region-add-cuda", "register memory of a GPU")
#define STOKER_AS_MESSAGE(symbol, number, name, meaning) MESSAGE_##symbol = (number),
enum message_type { STOKER_MESSAGES(STOKER_AS_MESSAGE) MESSAGE_END };

/* ADMIN_VERB(symbol, number, name, meaning): who may: the broker's uid, root, configured admins. */
#define STOKER_ADMIN_VERBS(ADMIN_VERB) \
	ADMIN_VERB(PING,  1, "ping",  "answer from the core thread") \
	ADMIN_VERB(EVICT, 2, "evict", "free at least the bytes named from the arena") \
	ADMIN_VERB(CLEAR, 3, "clear", "forget all objects that nobody uses, in every tier") \
	ADMIN_VERB(DRAIN, 4, "drain", "take no stores, write back, and answer when done") \
	ADMIN_VERB(STOP,  5, "stop",  "drain and exit") \
	ADMIN_VERB(ACCOUNTS, 6, "accounts", "what the accounts of all tenants have")
#define STOKER_AS_ADMIN_VERB(symbol, number, name, meaning) ADMIN_VERB_##symbol = (number),
enum admin_verb { STOKER_ADMIN_VERBS(STOKER_AS_ADMIN_VERB) ADMIN_VERB_END };

struct message_header {
	uint32_t type;
	uint32_t bytes;		/* of the whole message */
	uint64_t request;	/* chosen by the asker, repeated in the answer */
};

#define MESSAGE_HELLO_ADMIN 1u	/* for admin verbs only: no channel is made */
struct message_hello {
	struct message_header header;
	uint32_t abi;
	uint32_t flags;
	char client_name[64];
	struct channel_geometry geometry;
};

/* Descriptors, in this order: control page (read-only), channel, doorbell (write end), completion
 * pipe (read end), fence (read end), and with MESSAGE_WELCOME_ARENA the arena (read-only). With
 * MESSAGE_HELLO_ADMIN, or if status is not OK: none. */
#define MESSAGE_WELCOME_ARENA 1u
struct message_welcome {
	struct message_header header;
	uint32_t abi;
	uint32_t status;	/* enum stoker_status; REFUSED, NOT_PERMITTED, BAD_REQUEST, NO_MEMORY */
	uint8_t boot_id[16];
	struct channel_geometry geometry;
	uint32_t client;	/* number, as the row in the control page */
	uint32_t flags;
	uint64_t arena_bytes;
	char reason[MESSAGE_REASON];
};

#define MESSAGE_MODEL_BY_DIGEST 1u
struct message_model_open {
	struct message_header header;
	uint32_t flags;
	uint32_t description_bytes;		/* 0 with BY_DIGEST */
	uint8_t digest[MODEL_DIGEST_BYTES];	/* of the description; checked against it if both are there */
	/* the description follows: struct model_wire, groups, rows */
};

struct message_region_add {	/* n_fds descriptors come along; their ranges are joined in this order */
	struct message_header header;
	uint32_t kind;		/* enum message_region_kind */
	uint32_t n_fds;		/* 1 to MESSAGE_FDS_MAX */
	struct {
		uint64_t offset;	/* in the descriptor, a multiple of 4,096 */
		uint64_t bytes;		/* a multiple of 4,096, above 0 */
	} ranges[MESSAGE_FDS_MAX];
};
enum message_region_kind { MESSAGE_REGION_HOST = 1, MESSAGE_REGION_CUDA = 2 };

/*
 * Memory of a GPU. IPC: the handle of an allocation, and where in it the region lies. VMM: n_fds
 * descriptors come along, of allocations that lie one behind the other, and where in them all the
 * region lies. With `more` set, another message follows that has the same header, uuid, kind, offset
 * and bytes and further descriptors; the last one alone is answered. Any other message between them,
 * but those of other clients, costs the peer its attachment.
 */
#define MESSAGE_CUDA_FDS_MAX 128u
enum message_cuda_kind { MESSAGE_CUDA_IPC = 1, MESSAGE_CUDA_VMM = 2 };
struct message_region_add_cuda {
	struct message_header header;
	uint8_t uuid[16];	/* of the device */
	uint32_t kind;		/* enum message_cuda_kind */
	uint32_t n_fds;		/* VMM: 1 to MESSAGE_CUDA_FDS_MAX; IPC: 0 */
	uint32_t more;		/* 0 or 1 */
	uint32_t reserved;
	uint64_t offset, bytes;	/* of the region in the memory that is given; bytes above 0 */
	uint8_t handle[64];	/* IPC; VMM: 0 */
	uint64_t fd_bytes[MESSAGE_CUDA_FDS_MAX];	/* of each descriptor's memory; those not used: 0 */
};

struct message_plane {		/* in the order of the part's rows */
	uint32_t region;
	uint16_t layer, plane;
	uint64_t offset;	/* of block 0 in the region */
	uint64_t block_stride;
	uint32_t bytes;		/* of one row; rows x bytes = the model's bytes of a block */
	uint32_t rows;
	uint64_t row_stride;
};
static_assert(sizeof(struct message_plane) == 40, "planes travel without padding");

struct message_pool_add {
	struct message_header header;
	uint32_t model;
	uint16_t group, shard;
	uint32_t n_blocks;	/* block ids 0 to n_blocks - 1 */
	uint32_t n_planes;	/* follow at once */
};

struct message_drop {		/* REGION_DROP, POOL_DROP */
	struct message_header header;
	uint32_t number;
	uint32_t reserved;
};

struct message_reset {
	struct message_header header;
	uint32_t model;
	uint32_t has_tag;
	uint64_t tag;
};

struct message_admin {
	struct message_header header;
	uint32_t verb;
	uint32_t reserved;
	uint64_t argument;	/* EVICT: bytes; ACCOUNTS: 0, then the value of the answer before */
};

struct message_answer {
	struct message_header header;
	uint32_t status;		/* enum stoker_status */
	uint32_t number;		/* of the model, region or pool; ACCOUNTS: of rows that follow */
	uint64_t value;			/* RESET: the epoch; EVICT, CLEAR: bytes freed; REGION_ADD: bytes;
					 * ACCOUNTS: argument of the question for what follows, 0: that was all;
					 * MODEL_OPEN with a descriptor: of the arena, which was not there
					 * yet at WELCOME */
	uint32_t layout_known;		/* MODEL_OPEN: 0 = by digest, and no worker has described it yet */
	uint32_t described_bytes;	/* MODEL_OPEN by digest: the description follows */
	char reason[MESSAGE_REASON];	/* "" if OK */
};

#define MESSAGE_ACCOUNTS_MAX 256u	/* rows in an answer */
struct message_account {
	char tenant[64];
	uint64_t account;			/* its label; 0 with `others` */
	uint64_t arena_bytes, disk_bytes;	/* of its chunks */
	uint64_t arena_quota, disk_quota;	/* its soft quotas; 0 = none. Of `others`: of each of them */
	uint32_t chunks;
	uint32_t others;			/* 1: all accounts of the tenant that found no row of their own */
};
static_assert(sizeof(struct message_account) == 112, "rows of accounts travel without padding");
static_assert(sizeof(struct message_answer) + MESSAGE_ACCOUNTS_MAX * sizeof(struct message_account) <=
	      MESSAGE_BYTES_MAX, "an answer is one message");

#endif
