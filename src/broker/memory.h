/*
 * How much memory a broker may take here and now: what the machine and the control groups above it
 * have left, less a tenth that stays free. A tmpfs as large as RAM does not say ENOSPC when memory
 * ends: the OOM killer does, and it picks the workers.
 */
#ifndef STOKER_BROKER_MEMORY_H
#define STOKER_BROKER_MEMORY_H

#include <stdint.h>

/*
 * Bytes, and in @bound what bounds them, for people ("MemAvailable" or a control group's limit).
 * @root is put in front of /proc and /sys: "" but in tests.
 */
uint64_t memory_room(const char *root, const char **bound);

#endif
