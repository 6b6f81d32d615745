/*
 * Bytes that can be made again: word i of an object's payload is a mix of (model, key, group, shard,
 * i). So whoever knows an object's name knows what every byte of it must be, wherever it has been.
 *
 * And the other pattern, of blocks that must not have been written: payload bytes never equal it but by
 * a chance of 2^-64 a word.
 */
#ifndef STOKER_BENCH_PAYLOAD_H
#define STOKER_BENCH_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#include <stoker/stoker.h>

/* Name of the bytes of one object. */
uint64_t payload_seed(const char *model, const struct stoker_key *key, uint32_t group, uint32_t shard);

/* @offset, @bytes: within the payload, multiples of 8. */
void payload_fill(void *to, uint64_t seed, uint64_t offset, size_t bytes);
uint64_t payload_wrong(const void *from, uint64_t seed, uint64_t offset, size_t bytes);	/* bytes that differ */

void pattern_fill(void *to, size_t bytes);
uint64_t pattern_wrong(const void *from, size_t bytes);

/* The key of block @id of a trace. */
struct stoker_key payload_key(uint64_t id);

#endif
