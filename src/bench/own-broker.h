/*
 * A broker of the bench's own: stokerd with a private name and directories of its own, gone without
 * a trace when the bench ends, however it ends: a guardian process, forked before anything else,
 * removes everything when its pipe says that the bench is no more.
 */
#ifndef STOKER_BENCH_OWN_BROKER_H
#define STOKER_BENCH_OWN_BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/control.h"

#define OWN_BROKER_SETTINGS 16u

struct own_broker_config {
	uint64_t memory;	/* of the arena; 0: the daemon's default */
	uint64_t disk;		/* of one tier; 0: none */
	uint32_t n;		/* settings of the command's own; those of --set come after, and win */
	char set[OWN_BROKER_SETTINGS][96];
	/* NULL: run stokerd; else this, in a process of its own, with SECTION.KEY=VALUE for all of the above. */
	int (*run)(const char *const *settings, uint32_t n, int ready_fd);
};
__attribute__((format(printf, 2, 3))) void own_broker_set(struct own_broker_config *config, const char *format, ...);

struct own_broker {
	char name[72];
	pid_t pid;			/* 0: attached to somebody else's */
	uint64_t started_ns;		/* just before exec */
	uint64_t ready_ns;		/* "ready NAME" came */
	const struct control_page *page;	/* mapped; counters of this boot */
	char tier[256];			/* directory of the tier, "" = none */
};

/*
 * Extents of an arena or tier of @bytes: the daemon's default, smaller ones where that is more than all of it.
 */
uint64_t own_broker_extent(uint64_t bytes);
/*
 * Start a broker, or with --attach look for the one named. Returns 0, or -errno after saying on stderr
 * what went wrong. One at a time.
 */
int own_broker_start(const struct own_broker_config *config, struct own_broker *ret);
/*
 * Did the broker refuse its options or settings, as sizes that do not fit the machine? Then the bench was
 * used wrongly; what is wrong the broker has said.
 */
bool own_broker_refused(void);
/*
 * Wait until it has read its tables and its arena is populated as far as it will be: what is measured
 * or counted before depends on how fast the machine zeroes memory. False, after saying so: it took too long.
 */
bool own_broker_serving(const struct own_broker *broker);
/* Kill it at once, as a crash would; with @reboot, shared memory is lost too. Its tier stays. */
void own_broker_kill(struct own_broker *broker, bool reboot);
/* Start it again, as it was configured. */
int own_broker_again(struct own_broker *broker);
/* Has it died by itself? Says so on stderr, once. */
bool own_broker_died(struct own_broker *broker);
/* Stop it and remove all of it. False: it had died, or did not stop in order. */
bool own_broker_stop(struct own_broker *broker);

uint64_t own_broker_counter(const struct own_broker *broker, enum stoker_counter counter);
uint64_t own_broker_gauge(const struct own_broker *broker, enum stoker_gauge gauge);
/* Wait until a crash would lose nothing: all is sealed, and on disk where there is one. False: not within @timeout_ms. */
bool own_broker_settled(const struct own_broker *broker, uint32_t timeout_ms);

#endif
