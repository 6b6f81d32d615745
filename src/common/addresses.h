/* Runs of addresses to map files into, so that huge pages of shared memory find them aligned. */
#ifndef STOKER_COMMON_ADDRESSES_H
#define STOKER_COMMON_ADDRESSES_H

#include <stdint.h>

#define ADDRESSES_HUGE	(2ull << 20)	/* bytes of a huge page */

/*
 * Reserve @bytes (a multiple of 4,096) of addresses from a multiple of @align (a power of two, 4,096 or more) on; to touch them is a fault
 * until something is mapped over them (MAP_FIXED). The caller's, who ends them with munmap(). NULL with errno: no
 * such run is free.
 */
void *addresses_reserve(uint64_t bytes, uint64_t align);

#endif
