/*
 * For tests of the whole: a stokerd of the build tree under a private name with private directories,
 * looked at through its control page, its log and /proc. Workers for it are in worker-rig.h.
 *
 * One broker at a time. Check runs each test in a process of its own, so the state is static.
 */
#ifndef STOKER_TESTS_WHOLE_RIG_H
#define STOKER_TESTS_WHOLE_RIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "shm/control.h"
#include "tests/suite.h"

struct whole {
	char name[64], directory[64];	/* the directory has tier/, log and what the broker makes */
	const char *memory;		/* --memory; whole_make() says 24M */
	bool tier;			/* a tier of 64M in DIRECTORY/tier */
	const char *forbidden;		/* what the kernel is to refuse it (see forbid.c); NULL: nothing */
	const char *options[8];		/* further ones, as --set=SECTION.KEY=VALUE; the last one of its kind counts */
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
/* Run it until it closes stdout and ends: what it wrote there, and its exit status. */
int whole_run(char *said, size_t bytes);
void whole_launch(void);	/* it has to say "ready" */
void whole_start(void);		/* it has to come up, to serve, and to have all of its arena */
int whole_wait(void);		/* for its end: its exit status, or 1,000 + the signal that ended it */
int whole_end(int signal_number);	/* the same, after this signal */

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

/* Until @what holds, looked at every millisecond; a test that waits in vain says for what. */
#define await(what) \
	do { \
		int left_ = 60000; \
		while (!(what) && left_-- > 0) \
			usleep(1000); \
		ck_assert_msg(left_ > 0, "waited in vain for: %s", #what); \
	} while (0)

#endif
