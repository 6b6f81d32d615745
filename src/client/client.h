/*
 * The library's own words: handle, attachment, job, and the things that outlive an attachment.
 *
 *	handle		what the caller has. Lives from stoker_attach() to stoker_close(), whatever
 *			brokers come and go
 *	attachment	what one WELCOME brought: socket, pipes, channel, arena. Counted: a job that
 *			was submitted to it or a mapping of its arena keeps it after its broker died
 *	job		one slot number of the handle. Its generation rises for ever, over attachments too,
 *			so that slot and generation name one job of the handle's life
 *	object		a model, region or pool: opened again at each new attachment
 *
 * Invariants:
 * - Nothing is allocated but by attaching (again) and by opening models, regions and pools.
 * - Everything is used by one thread at a time; client_enter() tells a second one so.
 * - The broker's answers are read from the slot of the attachment that the job was submitted to.
 * - BROKER_GONE is private to the handle, never written to a slot.
 *
 * Files: talk (socket), greet (WELCOME to attachment), handle (attach, close), away (re-attach),
 * gone (noticing and ending), object, model, region, pool, slots (submit), lookup, transfer (STORE and
 * RETRIEVE), batch (those that take several slots), release, answer (poll, finish, done), wait, map,
 * hasher, fork, text.
 */
#ifndef STOKER_CLIENT_CLIENT_H
#define STOKER_CLIENT_CLIENT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stoker/stoker.h>

#include "shm/control.h"
#include "shm/layout.h"
#include "shm/message.h"
#include "shm/model.h"
#include "shm/ring.h"
#include "src/client/talk.h"

#define CLIENT_SLOTS_MAX	(CHANNEL_SMALL_MAX + CHANNEL_LARGE_MAX)
#define CLIENT_RESERVED		8u	/* small slots kept back for RELEASE, END_SESSION, UNMAP */
#define CLIENT_BATCHES		8u	/* jobs of several slots at once: each has two large slots or more, if it names all of its chunks */
#define CLIENT_BATCH_BASE	0x10000u /* slot numbers on the wire have 16 bits; batches begin here */
#define CLIENT_ROUND_TRIP_MS	30000u	/* how long calls that ask on the socket wait at most */

/* ---- attachment --------------------------------------------------------------------------------- */

struct attachment {
	struct attachment *next;	/* all of a handle */
	uint32_t references;		/* the handle while it is the present one, jobs, mappings */
	uint32_t ordinal;		/* from 1; never used twice by a handle */
	int sock, doorbell, completion, fence;	/* all but fence are -1 when the broker is gone */
	const struct control_page *page;
	uint8_t *channel;
	struct channel_plan plan;
	const uint8_t *arena;		/* NULL: not given or not wanted */
	uint64_t arena_bytes;
	uid_t uid;			/* the broker's */
	bool quiet;			/* its broker is gone and so is all that wrote for it */
};

static inline struct stoker_slot *attachment_slot(const struct attachment *at, uint32_t slot)
{
	return (struct stoker_slot *)(at->channel + at->plan.slot_offset) + slot;
}

/* ---- jobs --------------------------------------------------------------------------------------- */

enum job_state {
	JOB_FREE,
	JOB_RUNNING,	/* submitted: the truth is in the slot of its attachment */
	JOB_FENCED,	/* the broker is gone, but what copies for it may still touch the pool */
	JOB_GONE,	/* over: BROKER_GONE */
};
enum job_owner { OWNER_CALLER, OWNER_LIBRARY, OWNER_BATCH };

struct job {
	uint32_t live;		/* generation, while it runs at the present attachment; else 0 */
	uint32_t generation;	/* the last one used */
	uint8_t state;		/* enum job_state */
	uint8_t owner;		/* enum job_owner */
	uint8_t op;		/* enum stoker_op */
	uint8_t batch;		/* with OWNER_BATCH: which */
	bool cancelled;
	uint32_t n_keys;	/* LOOKUP: of the whole chain */
	uint32_t n_chunks;	/* STORE, RETRIEVE: status bytes to be had */
	struct attachment *at;
};

/* A STORE or RETRIEVE that took several slots. */
struct batch {
	uint32_t generation;
	uint32_t n_parts;	/* 0: free */
	uint16_t slot[CHANNEL_LARGE_MAX];
	uint32_t first[CHANNEL_LARGE_MAX];	/* place of each part's first status byte */
	bool end_share;		/* RELEASE the reader's share when all parts are done */
	uint32_t reader;
	struct stoker_lease lease;
};

enum slot_class { SLOT_SMALL, SLOT_LARGE, SLOT_KEPT_BACK, SLOT_CLASSES };

struct slot_list {
	uint32_t n;
	uint16_t slot[CLIENT_SLOTS_MAX];
};

/* ---- what is opened again at each attachment ----------------------------------------------------- */

enum object_kind { OBJECT_MODEL, OBJECT_REGION, OBJECT_POOL };
enum object_question { QUESTION_OPEN, QUESTION_DROP, QUESTION_RESET };

struct object {
	struct stoker *c;
	struct object *next;		/* of a handle, in order of making: no pool before its model */
	enum object_kind kind;
	uint32_t number;		/* the broker's, at the attachment `ordinal` */
	uint32_t ordinal;		/* 0: never opened, or its opening failed */
	uint32_t tried;			/* attachment at which it was opened or refused last */
	uint64_t request;		/* asked and not answered yet; 0: nothing */
	enum object_question question;	/* which, or which was last */
	int result;			/* of the last answer: 0 or -errno */
	uint32_t users;			/* objects that name this one */
};

struct stoker_model {
	struct object object;
	uint8_t digest[MODEL_DIGEST_BYTES];
	struct model_layout *layout;	/* NULL: by digest, nobody has described it yet */
	uint8_t *description;		/* as it travels; NULL: opened by digest */
	uint32_t description_bytes;
	bool closed;			/* by the caller, while pools still need it */
};

struct stoker_region {
	struct object object;
	/* How it is given to a broker, if it is no memory in files: a device's room knows (src/device/). It may
	 * be the first field of something larger, of one piece. NULL: the ranges below. */
	int (*send)(struct stoker_region *region, int sock, uint64_t deadline_ns);
	uint32_t n;
	int fd[MESSAGE_FDS_MAX];	/* duplicates, for the next broker */
	struct { uint64_t offset, bytes; } range[MESSAGE_FDS_MAX];
};

struct stoker_pool {
	struct object object;
	struct stoker_model *model;
	uint16_t group, shard;
	uint32_t blocks;		/* of an object */
	uint32_t n_blocks, n_planes;
	struct stoker_plane planes[];
};

/* What calls for a device of the worker keep with a handle (src/device/). */
struct client_device {
	void (*close)(struct client_device *device, bool forked);	/* by stoker_close() */
};

/* ---- handle --------------------------------------------------------------------------------------- */

enum phase {
	PHASE_AWAY,		/* no broker */
	PHASE_GREETED,		/* HELLO is sent, WELCOME awaited */
	PHASE_RESTORING,	/* let in; models, regions, pools are being opened again, one by one */
	PHASE_ATTACHED,
};

struct stoker {
	/* What stoker_poll() touches comes first. */
	struct stoker_slot *slots;	/* of the present attachment */
	uint32_t n_slots;		/* 0: there is none */
	uint32_t polls;			/* counted, to look at the broker's life now and then */
	uint64_t look_ticks;		/* when that look is due */

	struct request_producer requests;
	struct response_consumer responses;
	struct attachment *at;		/* the present one, or NULL */
	_Atomic uint32_t busy;		/* a call is running: tells a second thread that it must not */
	bool forked;			/* this is the child's copy: nothing here is usable */
	enum phase phase;

	struct slot_list free[SLOT_CLASSES];
	struct slot_list own;		/* slots of jobs that the library forgets when they are DONE */
	uint32_t kept_back;		/* how many slots are SLOT_KEPT_BACK */
	struct job jobs[CLIENT_SLOTS_MAX];
	struct batch batches[CLIENT_BATCHES];
	uint64_t done[(CLIENT_SLOTS_MAX + 63) / 64];	/* jobs known to be over and not finished */
	uint32_t fenced;		/* jobs in JOB_FENCED */

	struct attachment *attachments;	/* all that are still referred to */
	struct object *objects;
	uint32_t ordinal;		/* of the last attachment made */
	uint64_t request;		/* of the last message sent */

	int epoll;			/* completion pipe, socket, fences: what stoker_fd() gives */
	int coming;			/* socket of a try to which WELCOME has not come; -1: none */
	struct attachment *arriving;	/* of a try that is being restored, or NULL */
	uid_t coming_uid;
	uint64_t next_try_ns, try_end_ns;

	uint64_t ticks_0, ns_0;		/* a moment by both clocks, to know how fast ticks are */
	uint64_t ticks_per_look;	/* 10 ms */
	volatile uint32_t *ready;	/* the ready words, mapped by themselves so that they stay in place */
	uint32_t n_ready;

	uint32_t flags;			/* STOKER_OPTION_* */
	uint32_t attach_timeout_ms;
	struct talk_rules rules;
	struct channel_geometry wish;
	char client_name[64];
	char *name;
	struct client_device *device;	/* NULL until a device is first used */
	struct stoker *next_handle;	/* of the process, for fork */
	char error[TALK_WHY];
	uint8_t *message;		/* MESSAGE_BYTES_MAX of room for one message */
};

/* text.c */
__attribute__((format(printf, 3, 4))) int client_fail(struct stoker *c, int r, const char *format, ...);
int client_status_errno(uint32_t status);

/* handle.c: every public call but poll begins with enter and ends with leave. */
int client_enter(struct stoker *c);		/* 0, -EOWNERDEAD, -EBUSY */
int client_leave(struct stoker *c, int r);	/* returns r */
int client_need_broker(struct stoker *c);	/* 0 or -EPIPE; goes on re-attaching, never waits for long */

/*
 * Take a struct of the caller's that begins with its size into @to of @bytes: fields that the caller
 * does not know are 0. -EINVAL: a size that cannot be; -E2BIG: a field that we do not know is set.
 */
int client_take_struct(void *to, size_t bytes, const void *from);
int client_take_options(struct stoker *c, void *to, size_t bytes, const void *from);	/* says why not */

/* greet.c */
/* Map the arena, unless it is mapped or not wanted. @fd stays the caller's. */
int greet_arena(struct stoker *c, struct attachment *at, int fd, uint64_t bytes);
int greet_take(struct stoker *c, const struct message_welcome *welcome, struct talk_fds *fds, uid_t uid,
	       struct attachment **ret);
struct attachment *attachment_get(struct attachment *at);
void attachment_put(struct stoker *c, struct attachment *at);
int attachment_watch(struct stoker *c, const struct attachment *at);	/* it wakes sleepers from now on */
void attachment_unwatch(struct stoker *c, const struct attachment *at);
void attachment_close(int *fd);		/* -1 afterwards; of what fork.c looks at */
void attachment_hang_up(struct attachment *at);	/* close all but the fence */
bool attachment_is_quiet(struct attachment *at);	/* its broker being gone: has the fence fallen? */

/* away.c */
int away_step(struct stoker *c);	/* 0: attached; -EAGAIN: a try goes on; else it failed, or is not due */
int away_until(struct stoker *c, uint64_t deadline_ns);	/* try at once, until attached, failed or late */
void away_stop(struct stoker *c);	/* give a try up */

/* gone.c */
uint64_t gone_ticks(void);
void gone_clock(struct stoker *c);	/* compare the two clocks, and say when the next look is due */
bool gone_look(struct stoker *c);	/* look at socket and control page: true: the broker is gone, jobs are ended */
void gone_end(struct stoker *c);	/* it is gone: end what can be ended */
void gone_fences(struct stoker *c);	/* jobs behind fences that have fallen are over */

/* slots.c */
void slots_lay_out(struct stoker *c);	/* a new attachment: rings and free lists */
int slot_take(struct stoker *c, enum slot_class class);	/* a slot, or -EAGAIN */
void slot_give_back(struct stoker *c, uint32_t slot);	/* taken and not submitted, or its job is over */
void slot_submit(struct stoker *c, uint32_t slot, struct stoker_request_head *head, enum job_owner owner);
void slot_cancel(struct stoker *c, uint32_t slot);
void slot_disown(struct stoker *c, uint32_t slot);	/* nobody waits for it any more: forget it when it is DONE */
void slots_recycle(struct stoker *c);	/* forget what the library asked for itself and is over */

/* object.c */
void object_add(struct stoker *c, struct object *object, enum object_kind kind);
void object_forget(struct object *object);	/* out of the handle's list; does not free */
void object_free(struct object *object);
bool object_is_open(const struct object *object);	/* at the present attachment */
int object_need(const struct object *object, const char *what);	/* 0, or -EPIPE with a text if it is not */
int object_open(struct object *object);		/* ask, wait for the answer: 0 or -errno with text */
int object_drop(struct object *object);		/* likewise; of a gone broker: when all is quiet */
int object_send_open(struct object *object, int sock, uint32_t ordinal, uint64_t deadline_ns);
int object_send(struct object *object, enum object_question question, int sock, void *message, size_t bytes,
		const int *fds, uint32_t n_fds, uint64_t deadline_ns);
/* A message of a question that takes several, the last of which object_send() sends. */
int object_send_part(struct object *object, int sock, void *message, size_t bytes, const int *fds, uint32_t n_fds,
		     uint64_t deadline_ns);
int object_await(struct object *object, uint64_t deadline_ns);	/* until the question is answered */
int object_listen(struct stoker *c, int sock, uint32_t ordinal);	/* take messages that are there: 0 or -errno */

/* model.c, region.c, pool.c: ask for one to be opened, and what the answer brings besides a number */
int model_send(struct stoker_model *model, int sock, uint64_t deadline_ns);
int model_hear(struct stoker_model *model, const struct message_answer *answer, size_t bytes);
void model_free(struct stoker_model *model);
void model_put(struct stoker_model *model);	/* a pool needs it no more: free it if it has been closed */
int region_send(struct stoker_region *region, int sock, uint64_t deadline_ns);
int region_register(struct stoker *c, struct stoker_region *region);	/* register it; freed on failure */
void region_free(struct stoker_region *region);
int pool_send(struct stoker_pool *pool, int sock, uint32_t ordinal, uint64_t deadline_ns);

/* answer.c */
bool job_is_done(const struct job *job, uint32_t slot);
uint64_t job_word(const struct job *job, uint32_t slot);	/* 0 if the slot answers another job */
struct job *job_find(struct stoker *c, struct stoker_job job);	/* of one slot, not finished; else NULL */
void answers_take(struct stoker *c);	/* what the response ring hints at goes to c->done */

/* batch.c */
struct batch *batch_find(struct stoker *c, struct stoker_job job);
struct batch *batch_new(struct stoker *c, struct stoker_job *ret);	/* a free one, or NULL */
enum stoker_stage batch_stage(struct stoker *c, const struct batch *batch);
void batch_progress(struct stoker *c, const struct batch *batch, struct stoker_progress *ret);
void batch_finish(struct stoker *c, struct batch *batch, struct stoker_result *ret, uint8_t *chunks,
		  uint32_t n_chunks);

/* answer.c, used by batch.c as well: one slot's part of it */
void slot_progress(struct stoker *c, uint32_t slot, struct stoker_progress *ret);
void slot_result(struct stoker *c, uint32_t slot, struct stoker_result *ret);
void slot_chunks(struct stoker *c, uint32_t slot, uint8_t *chunks, uint32_t n);

/* lookup.c: what all submits share */
uint32_t deadline_us(uint32_t deadline_ms);
uint8_t *slot_input(struct stoker *c, uint32_t slot);
int client_ready(struct stoker *c, struct stoker_model *model);	/* may jobs name this model? 0 or -errno */

/* transfer.c: STORE and RETRIEVE */
struct transfer {
	const struct stoker_model *model;
	const struct stoker_blocks *blocks;
	uint32_t n_blocks;
	const struct stoker_key *keys;		/* STORE; else NULL */
	const uint32_t *tokens;			/* STORE: of each chunk, or NULL */
	uint32_t first, end;			/* chunks: places in the lease, or among the keys */
	struct stoker_request_head head;	/* of each part, but for its counts */
	union stoker_request_line line;		/* of the first part */
};
int transfer_submit(struct stoker *c, struct transfer *t, struct stoker_job *ret);

/* wait.c */
int wait_until(struct stoker *c, struct stoker_job job, uint64_t deadline_ns);
void wait_relax(void);		/* in a spinning loop */

/* release.c */
int release_share(struct stoker *c, const struct stoker_lease *lease, uint32_t reader);
int slot_take_kept_back(struct stoker *c);	/* waits up to a millisecond for one; -EAGAIN, or -EPIPE: it is gone */

/* fork.c */
void fork_watch(struct stoker *c);	/* from now on a child closes and refuses this handle */
void fork_forget(struct stoker *c);

#endif
