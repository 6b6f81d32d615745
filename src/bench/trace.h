/*
 * A trace of requests: one JSON object a line, with `timestamp` (ms) and `hash_ids` (the request's
 * blocks, oldest first); other fields are ignored. Read as a stream, kept compactly.
 */
#ifndef STOKER_BENCH_TRACE_H
#define STOKER_BENCH_TRACE_H

#include <stdint.h>

struct trace {
	uint64_t requests;
	uint64_t blocks;	/* references: hash ids of all requests */
	uint64_t unique;	/* different hash ids */
	uint64_t prefix_hits;	/* blocks that an infinite cache serves, counting strict prefixes */
	uint64_t longest;	/* blocks of the longest request */
	uint64_t longest_line;	/* where in the file it is, from 1 */
	uint64_t *first;	/* requests + 1 offsets into `ids` */
	uint64_t *ids;		/* as the file has them */
	uint64_t *number;	/* the same, renumbered from 0 in order of appearance */
};

/*
 * Read at most @requests of @path (0: all). Returns 0, or -errno after saying on stderr which line of
 * which file is wrong, and how.
 */
int trace_read(const char *path, uint64_t requests, struct trace **ret);
void trace_free(struct trace *trace);	/* NULL is fine */

static inline uint64_t trace_length(const struct trace *trace, uint64_t request)
{
	return trace->first[request + 1] - trace->first[request];
}

#endif
