/*
 * Broker, honest client and hostile client under three uids, none of them 0.
 *
 * The broker is stokerd from the build tree, with two tenants. The honest client lives in a process of
 * its own, has been attached all the time, and makes a round when it is asked: it stores, finds and
 * retrieves, and every byte must be right. An attack is a function that runs in a child under
 * HOSTILE_UID and returns 0 if what it saw is as it should be.
 */
#ifndef STOKER_TESTS_HOSTILE_RIG_H
#define STOKER_TESTS_HOSTILE_RIG_H

#include "tests/raw-client.h"
#include "tests/suite.h"

enum { BROKER_UID = 64101, HONEST_UID = 64102, HOSTILE_UID = 64103, STRANGER_UID = 64104,
       NEIGHBOUR_UID = 64105 };	/* of the hostile one's tenant, and honest */

extern char rig_name[64], rig_directory[64];	/* of the broker: its name, its directory */

void rig_become(uid_t uid);
int rig_run_as(uid_t uid, int (*child)(void));	/* its exit status, or 128 + signal */
pid_t rig_start_as(uid_t uid, int (*child)(void));

/* Fixtures: before and after each test. After it, nothing of the attackers may be left. */
void rig_setup(void);
void rig_teardown(void);

void rig_honest_is_served(void);		/* one round, and every byte is right */
/** struct rig_loan - a lease of the honest client's, which lives on, and the digest of its model. */
struct rig_loan {
	uint64_t lease[2];
	uint8_t digest[MODEL_DIGEST_BYTES];
};
struct rig_loan rig_honest_lends(void);
void rig_newcomer_is_served(void);		/* another one attaches and makes a round */
uint64_t rig_counter(enum stoker_counter which);
/* Of the control page, which is refreshed several times a second: wait until it has the value. */
bool rig_gauge_becomes(enum stoker_gauge which, uint64_t value);
void rig_broker_pause(bool pause);		/* stop all its threads, or let them go on */
uint64_t rig_broker_kib(const char *field);	/* a field of the broker's /proc/PID/status */
uint32_t rig_broker_fds(void);			/* descriptors that the broker has open */

#endif
