/*
 * A whole broker: the control thread (which is the thread that calls broker_run()) and all that it
 * brings up and takes down. Its state is shared by the files of the control thread, one a noun:
 *
 *	broker.c	bringing up and taking down, in order
 *	control.c	its loop: connections, signals, what the core tells
 *	session.c	one connection: messages in and out, its end
 *	attach.c	HELLO and WELCOME: who is let in
 *	peer.c		what the kernel says of a peer
 *	describe.c	models: MODEL_OPEN, RESET, and what the state directory remembers
 *	register.c	regions and pools
 *	register-gpu.c	regions of GPUs, told in several messages
 *	devices.c	the devices that have them
 *	admin.c		verbs of stokerctl
 *	closer.c	closing what peers handed over, which may take as long as they like
 */
#ifndef STOKER_BROKER_BROKER_H
#define STOKER_BROKER_BROKER_H

#include "src/broker/arena.h"
#include "src/broker/config.h"
#include "src/broker/core.h"
#include "src/broker/locks.h"
#include "src/broker/models.h"
#include "src/broker/page.h"
#include "src/broker/populate.h"
#include "src/broker/tier.h"

#define BROKER_WHY 512u

enum broker_exit { BROKER_OK = 0, BROKER_FAILED = 1, BROKER_USAGE = 2, BROKER_IN_USE = 3 };

/** struct broker_options - how a broker is run; the second half is for stoker-bench and tests. */
struct broker_options {
	struct config config;		/* finished */
	int (*reload)(void *arg, struct config *ret, char *why);	/* read it again; NULL: HUP does nothing */
	void *reload_arg;
	const struct device_backend *backend;	/* NULL: the host's */
	bool null_arena;		/* reserved, never populated: for copies that touch nothing */
	int ready_fd;			/* where "ready NAME" is written; -1: nowhere */
};

/* Runs until TERM, INT or stop. Logs what is wrong, and returns an exit code. */
enum broker_exit broker_run(const struct broker_options *options);

/* ---- the control thread's own ------------------------------------------------------------------ */

/*
 * PHASE_WAITING (an I/O lock of a dead broker is held) -> PHASE_TIERS (their files are being opened: they know
 * epochs of models) -> PHASE_OPENING (remembered models are being opened) -> PHASE_RUNNING -> PHASE_DRAINING ->
 * PHASE_LEAVING (clients are being detached) -> PHASE_OVER
 */
enum broker_phase {
	PHASE_WAITING, PHASE_TIERS, PHASE_OPENING, PHASE_RUNNING, PHASE_DRAINING, PHASE_LEAVING, PHASE_OVER
};

/** struct source - what an epoll event is about. */
struct source {
	enum { SOURCE_LISTEN, SOURCE_SIGNAL, SOURCE_BELL, SOURCE_SOCKET, SOURCE_PIDFD, SOURCE_DEVICE } type;
	void *of;
};

struct session;

/** struct broker_device - a started device, by its number: see devices.h. */
struct broker_device {
	const struct device_backend *backend;
	struct device *device;		/* NULL: the number is free */
	uint64_t next_ns;		/* it is tended then at the latest */
	/* GPUs: */
	uint8_t uuid[DEVICE_UUID];
	struct source source;
	uid_t uid;			/* who named it first */
	bool proven;			/* it has opened memory, and the core knows it */
	uint64_t keep_ns;		/* until then an unproven one stays */
	struct control_gpu row;		/* as the control page has it */
	struct order order;
};

struct broker {
	const struct broker_options *options;
	struct config config;		/* as reloaded */
	enum broker_phase phase;
	enum broker_exit exit;
	struct locks locks;
	struct page page;
	struct control_block *block;	/* the control thread's counters */
	char socket[108];
	int listen_fd, signal_fd, epoll;
	struct source listen_source, signal_source, bell_source;

	struct core *core;
	struct link *link;		/* to the core */
	uint32_t seats;			/* limits.clients, or fewer where few files may be open */
	uint64_t arena_bytes;
	uint32_t entries, records;
	struct arena *arena;
	int arena_reader_fd;
	struct broker_device devices[DEVICES_MAX];	/* 0: the host's */
	uint32_t files;			/* descriptors of clients that may be kept open, all together */
	struct tier *tiers[ENGINE_TIERS_MAX];
	uint32_t tiers_awaited;		/* PHASE_TIERS: bit: neither open nor refused yet */
	struct starter *starter;
	struct models models;
	uint32_t models_awaited;	/* PHASE_OPENING: answers that are still to come */
	struct opening *openings;	/* models that wait until another one is forgotten */
	uint32_t epoch_floor;		/* models that were forgotten had no higher epochs: new ones begin in it */

	struct session *sessions;	/* all of them */
	struct session *dead;		/* freed at the end of a round: an event may still name them */
	struct session *clients[CONTROL_CLIENTS];	/* by number; NULL: free */
	uint32_t n_new, n_clients;
	uint64_t deadline_ns;		/* of the phase; 0 = none */
	uint64_t held_until_ns;		/* then sessions whose files are being closed go on; 0 = there are none */
	struct order machine_order, drain_order, quit_order, degraded_order;
	struct order tier_orders[ENGINE_TIERS_MAX], tenant_orders[CONFIG_TENANTS_MAX];
	uint32_t tenants_busy;		/* bit: its order is with the core */
	uint32_t tenants_stale;		/* bit: and its quotas have changed since */
	bool drain_done, degraded, degraded_sent, own_uid_said;
	struct session *stopper;	/* asked for stop; answered when drained */
	uint64_t stopper_request;
};

/* broker.c */
int broker_machine(struct broker *broker);	/* arena, device, tiers: once the I/O lock is decided */
/* Take the tiers that have opened; with @give_up those that have not are out of service. True: all is decided. */
bool broker_tiers_take(struct broker *broker, bool give_up);
int broker_start_recovery(struct broker *broker);	/* the remembered models are open */
void broker_degraded(struct broker *broker);

/* control.c */
int control_open(struct broker *broker, char *why);	/* socket, signals, epoll */
void control_run(struct broker *broker);		/* until PHASE_OVER */
void control_close(struct broker *broker);
int control_watch(struct broker *broker, int fd, struct source *source);
/*
 * Before @fd is closed or given away: epoll forgets by itself only a file that nobody has open any more, and a
 * process that is being started (a copier) has all of them until it is executed.
 */
void control_unwatch(struct broker *broker, int fd);
void control_stop(struct broker *broker);		/* drain and leave; called again: leave at once */

/* describe.c */
void models_remember(struct broker *broker);	/* open what the state directory knows */
void models_answer(struct broker *broker, struct order *order);	/* MODEL_OPEN, RESET, SAVE_EPOCH */

static inline void broker_count(struct broker *broker, enum stoker_counter counter)
{
	block_add(broker->block, counter, 1);
}

#endif
