/* Sizes as people write them: 4096, 64K, 2G, 1T (powers of 1,024), 10% of a whole. */
#ifndef STOKER_COMMON_SIZE_H
#define STOKER_COMMON_SIZE_H

#include <stdint.h>

/* @whole: what 100% is; 0 = no percentages here. Returns 0, -EINVAL (no size) or -ERANGE. */
int size_parse(const char *text, uint64_t whole, uint64_t *ret);

/* "1.5 GiB" into a static-free buffer of at least 16 bytes; returns it. */
char *size_text(uint64_t bytes, char ret[16]);

#endif
