/*
 * The devices of a broker, by number, on the control thread: 0 is the host's, the others are GPUs, one for
 * each UUID that somebody registered memory of.
 *
 * A GPU's backend is started when its UUID is named for the first time, and the core hears of it when it has
 * opened memory: until then it is unproven, because anybody can name a UUID that is not there. An unproven one
 * is stopped as soon as it has nothing to do; a uid may have at most as many of them as it leaves places to
 * others. A proven one stays: a started backend without a copier costs next to nothing.
 *
 * Each GPU has a row in the control page, which this thread writes whenever it has tended that GPU.
 */
#ifndef STOKER_BROKER_DEVICES_H
#define STOKER_BROKER_DEVICES_H

#include <sys/types.h>

#include "src/broker/broker.h"

int devices_start(struct broker *broker);	/* the host's; 0 or -errno, and a line in the log */
void devices_stop(struct broker *broker);	/* all, after the core has ended */

/* Number of the GPU @uuid, for @uid. Or -errno, with the reason in @why (MESSAGE_REASON bytes). */
int devices_find(struct broker *broker, uid_t uid, const uint8_t uuid[DEVICE_UUID], char *why);
void devices_proven(struct broker *broker, uint32_t number);	/* it has opened memory */

void devices_event(struct broker_device *device);	/* its descriptor is readable */
/* Tend those that are due, and hand over their answers. */
void devices_tend(struct broker *broker, uint64_t now_ns);
uint64_t devices_due(const struct broker *broker);	/* when at the latest; UINT64_MAX: never */

#endif
