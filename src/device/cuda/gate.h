/*
 * Streams that wait for slots must not wait for ever. The broker writes what they wait for; when it is gone
 * and all that copied for it too (its fence falls), a thread of this gate does, for nobody may be in the
 * library then: the worker's thread itself may be waiting for the stream. It starts with the first wait of
 * an attachment, and sleeps.
 */
#ifndef STOKER_DEVICE_CUDA_GATE_H
#define STOKER_DEVICE_CUDA_GATE_H

#include <pthread.h>
#include <stdbool.h>

#include "shm/layout.h"

#define GATE_SLOTS (CHANNEL_SMALL_MAX + CHANNEL_LARGE_MAX)

struct gate {
	struct stoker_slot *slots;		/* mapped for as long as the gate stands */
	int fence, stop[2];			/* its own; -1: the thread does not run */
	pthread_t thread;
	_Atomic bool fallen;
	_Atomic uint32_t waited[GATE_SLOTS];	/* the generation that a stream waits for last; 0: none */
};

void gate_init(struct gate *gate, struct stoker_slot *slots);
/* Watch @fence, of which the gate takes a duplicate. Does nothing if it does so already. 0 or -errno. */
int gate_start(struct gate *gate, int fence);
/* From now on a stream may wait for this job: it will be let through if the broker is gone. */
void gate_expect(struct gate *gate, uint32_t slot, uint32_t generation);
/* Let all through that wait now. */
void gate_open(struct gate *gate);
void gate_stop(struct gate *gate, bool forked);	/* a forked child has no thread to wait for */

#endif
