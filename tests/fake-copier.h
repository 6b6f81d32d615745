/*
 * A copier without a GPU, for tests of the broker's half: it speaks wire.h and copies between the arena and the
 * "device memory" of a test, which are memfds (VMM) or objects in /dev/shm whose name is the handle (IPC).
 * The test's own program is run as PROGRAM --copier FD; what it is to do wrong stands in its knobs, a file
 * that both map and whose path is the driver's name.
 */
#ifndef STOKER_TESTS_FAKE_COPIER_H
#define STOKER_TESTS_FAKE_COPIER_H

#include <stdatomic.h>
#include <stdint.h>

struct fake_knobs {
	/* Set by the test: */
	_Atomic uint32_t absent;	/* UP says that there is no such device */
	_Atomic uint32_t dies_early;	/* before UP */
	_Atomic uint32_t hold;		/* copies are taken and not begun */
	_Atomic uint32_t hangs;		/* it reads nothing and shows no sign of life */
	_Atomic uint32_t hanging;	/* it does */
	_Atomic uint32_t slow_us;	/* before each answer */
	_Atomic uint64_t poison;	/* dies of a region with this offset */
	_Atomic uint32_t dies_in;	/* after so many further steps, if not 0 */
	_Atomic uint32_t nonsense;	/* says what no copier says */
	/* Told by the copier: */
	_Atomic uint32_t starts, pid;
	_Atomic uint32_t regions, pools, fences;	/* that it has */
	_Atomic uint32_t extents, held, taken;
};

int fake_copier_main(int fd);

#endif
