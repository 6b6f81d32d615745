/*
 * For tests of the whole: a stokerd of the build tree under a private name with private directories,
 * looked at through its control page, its log and /proc; and workers with libstoker whose every byte
 * is known, so that what comes back can be checked without asking anybody.
 *
 * One broker at a time. Check runs each test in a process of its own, so the state is static.
 */
#ifndef STOKER_TESTS_WHOLE_RIG_H
#define STOKER_TESTS_WHOLE_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <stoker/stoker.h>

#include "shm/control.h"

/* ---- a broker ---------------------------------------------------------------------------------- */

struct whole {
	char name[64], directory[64];	/* the directory has tier/, log and what the broker makes */
	const char *memory;		/* --memory; whole_make() says 24M */
	bool tier;			/* a tier of 64M in DIRECTORY/tier */
	const char *forbidden;		/* what the kernel is to refuse it (see forbid.c); NULL: nothing */
	const char *settings[4];	/* further ones for --set */
	pid_t broker;			/* 0: none */
};
extern struct whole whole;

/* Name and directory; fixtures call it. A test that fails never comes to whole_clean(): whatever is left of
 * it then is ended and removed all the same. */
void whole_make(void);
pid_t whole_fork(void);		/* a child that does not outlive the test */
void whole_clean(void);		/* end and remove all of it */
void whole_clean_objects(void);	/* what a broker of this name left in /dev/shm */
/* Start stokerd. 0: it said "ready"; else its exit status, and there is none. */
int whole_try(void);
void whole_start(void);		/* it has to come up, to serve, and to have all of its arena */
int whole_end(int signal_number);	/* its exit status, or 1,000 + the signal that ended it */

const struct control_page *whole_page(void);	/* of the broker that runs */
uint64_t whole_gauge(enum stoker_gauge gauge);
uint64_t whole_counter(enum stoker_counter counter);
void whole_await_gauge(enum stoker_gauge gauge, uint64_t value);
void whole_await_state(enum stoker_state state);
int whole_ctl(const char *arguments);		/* stokerctl: its exit status */
uint32_t whole_logged(const char *text);	/* lines of the log, of all its brokers, that hold it */
uint32_t whole_descriptors(void);		/* that the broker has open */
/* Files in /dev/shm that bear its name, as "arena table" in the order of the alphabet; the page is ".". */
void whole_objects(char *ret, size_t bytes);

/* ---- a worker ----------------------------------------------------------------------------------- */

#define WORKER_LAYERS	2u
#define WORKER_ROWS	4u	/* two planes a layer */
#define WORKER_BLOCKS	2u	/* of a chunk */
#define WORKER_BYTES	4096u	/* of a block in one plane */
#define WORKER_CHUNKS	64u	/* places for chunks in a pool */
#define WORKER_POOL_BLOCKS	(WORKER_CHUNKS * WORKER_BLOCKS)
#define WORKER_PLANE	((size_t)WORKER_POOL_BLOCKS * WORKER_BYTES)
#define WORKER_POOL	(WORKER_ROWS * WORKER_PLANE)

struct worker {
	struct stoker *c;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint8_t *memory, *expected;	/* what the pool holds, and what it has to */
};

void worker_start(struct worker *w);		/* attached, model open, pool added */
void worker_end(struct worker *w);
void worker_wipe(struct worker *w, uint8_t byte);	/* both copies */
/* KV of chunk @chunk at place @place of the pool: into one copy, or is it there? */
void worker_fill(uint8_t *memory, uint32_t place, uint32_t chunk);
bool worker_holds(const uint8_t *memory, uint32_t place, uint32_t chunk);
void worker_check(const struct worker *w);	/* the whole pool, byte for byte */

/* Chunks are numbered; the chain of chunk 1,000 c + i is c, and i its place in it. */
void worker_keys(struct stoker_key *keys, uint32_t first, uint32_t n);
/* Submit; 0 or what the library said. Places of the pool from @place on, every @step'th. */
int worker_store(struct worker *w, uint32_t first, uint32_t n, uint32_t place, uint32_t step, struct stoker_job *ret);
int worker_retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t n, uint32_t place, uint32_t step,
		    const struct stoker_retrieve_options *options, struct stoker_job *ret);
/* Wait and finish. A job that does not end within 60 s is a hang, and fails the test. */
struct stoker_result worker_finish(struct worker *w, struct stoker_job job);

/* The same as whole steps that have to go well. */
void worker_stores(struct worker *w, uint32_t first, uint32_t n);
struct stoker_result worker_looks_up(struct worker *w, uint32_t first, uint32_t n);
/* Look up @n chunks from @first on, of which @found have to be there, retrieve those, and check every byte. */
struct stoker_result worker_gets(struct worker *w, uint32_t first, uint32_t n, uint32_t found);

#endif
