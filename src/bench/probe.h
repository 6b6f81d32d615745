/*
 * The bare probe: what finding keys in memory costs at least on this machine. A table as large as the
 * engine's index, entries of the same size, the same keys in the same places of their order; probed in
 * batches with prefetching, bucket, then entry; the entry's pin counted, a result written for each key.
 */
#ifndef STOKER_BENCH_PROBE_H
#define STOKER_BENCH_PROBE_H

#include <stdint.h>

#include <stoker/stoker.h>

struct probe;

struct probe *probe_new(uint32_t entries);	/* NULL: no memory */
void probe_add(struct probe *probe, const struct stoker_key *key);
/* @ret[i]: the entry of key i, or 0xffffffff. Returns how many there are up to the first gap. */
uint32_t probe_run(struct probe *probe, const struct stoker_key *keys, uint32_t n, uint32_t *ret);

#endif
