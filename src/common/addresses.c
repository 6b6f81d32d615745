/* See addresses.h. More is asked for than needed, and what lies beside the aligned run is given back at once. */
#include "src/common/addresses.h"

#include <stddef.h>
#include <sys/mman.h>

void *addresses_reserve(uint64_t bytes, uint64_t align)
{
	uint8_t *found = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t skip;

	if (found == MAP_FAILED)
		return NULL;
	skip = -(uintptr_t)found & (align - 1);
	if (skip)
		munmap(found, skip);
	munmap(found + skip + bytes, align - skip);
	return found + skip;
}
