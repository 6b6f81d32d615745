/* A copier with one worker and one simple pool, for tests of order and failure. */
#ifndef TESTS_COPIER_PLAIN_H
#define TESTS_COPIER_PLAIN_H

#include "tests/copier-rig.h"

/* One plane a layer, 16 blocks of 8 KiB: an object of 8 blocks and 8 layers has 512 KiB; 8 of them fill the arena. */
#define PLAIN_LAYERS	8u
#define PLAIN_BLOCKS	8u
#define PLAIN_BYTES	8192u
#define PLAIN_PAYLOAD	(PLAIN_LAYERS * PLAIN_BLOCKS * PLAIN_BYTES)
#define PLAIN_REGION_BYTES (2u << 20)
extern const uint32_t plain_ids[16];	/* of two objects */

/* After copier_make(): started, all extents registered, region 0 of a worker, pool 0. */
struct worker plain_open(struct copier_rig *c, bool vmm);
void plain_close(struct copier_rig *c, struct worker *worker);	/* and no import is left */
int plain_pool(struct copier_rig *c, uint32_t number, uint32_t region);	/* result */
/* @n objects from slot @slot on, of the two that the ids name in turn; of a load two at most. */
void plain_copy(struct copier_rig *c, uint32_t copy, bool store, uint32_t slot, uint32_t n);

#define PLAIN_TRIALS 2u		/* batches that a copier tries when it begins, one each way */
uint64_t plain_calls(enum fake_call call);	/* made by all processes so far */
void plain_wait_for_batches(uint64_t n);	/* until so many have been given to streams */
void plain_let_turn(struct copier_rig *c, uint64_t turns);	/* wait for so many of the copier's loop */

#endif
