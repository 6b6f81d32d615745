/*
 * Chains of objects, as several commands move them: store one, look one up, retrieve one. Keys of a
 * chain follow from its number. Times are from submit to DONE, in ns.
 */
#ifndef STOKER_BENCH_CHAIN_H
#define STOKER_BENCH_CHAIN_H

#include <stdint.h>

#include "src/bench/mover.h"

#define CHAIN_MAX 256u		/* objects of a chain; the mover's window is at least as many */

void chain_keys(uint64_t chain, uint32_t n, struct stoker_key *ret);

/* All return 0, or -errno with a text in mover->why. @took: added to; NULL: not wanted. */
int chain_store(struct mover *mover, uint64_t chain, uint32_t n, uint64_t *took);
/* All @n chunks must be found; the lease is in @ret. */
int chain_lookup(struct mover *mover, uint64_t chain, uint32_t n, struct stoker_result *ret, uint64_t *took);
/* Ends the lease. Every byte is checked, outside of the time taken; *@wrong is added to. */
int chain_retrieve(struct mover *mover, uint64_t chain, uint32_t n, const struct stoker_lease *lease,
		   uint64_t *took, uint64_t *wrong);

#endif
