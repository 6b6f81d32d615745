/*
 * What is where: one table of ranges, by address, of host and devices alike. See fake.h.
 *
 * Addresses of devices are taken from the process's own address space and are accessible to nobody, so
 * that host code that uses one as a pointer faults; the memory itself is mapped a second time elsewhere.
 */
#include "tests/fake-cuda/fake.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE UINT64_C(4096)

static struct fake_span **spans;
static unsigned n_spans, room;

/* The number of spans that begin at or before @address. */
static unsigned spans_until(cuda_address address)
{
	unsigned low = 0, high = n_spans;

	while (low < high) {
		const unsigned middle = low + (high - low) / 2;

		if (spans[middle]->start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct fake_span *fake_span_new(enum fake_kind kind, cuda_address start, uint64_t bytes)
{
	static uint64_t ids;
	const unsigned at = spans_until(start);
	struct fake_span *span = calloc(1, sizeof(*span));

	if (n_spans == room) {
		room = room ? 2 * room : 64;
		spans = realloc(spans, room * sizeof(struct fake_span *));
	}
	if (!span || !spans)
		fake_die("the test's process is out of memory");
	*span = (struct fake_span){ .kind = kind, .start = start, .bytes = bytes, .id = ++ids, .fd = -1, .marker_fd = -1 };
	memmove(&spans[at + 1], &spans[at], (n_spans - at) * sizeof(struct fake_span *));
	spans[at] = span;
	n_spans++;
	return span;
}

void fake_span_remove(struct fake_span *span, const char *deed)
{
	const unsigned at = spans_until(span->start) - 1;

	if (span->busy)
		fake_die("%s: %llu bytes at %#llx, of which %u queued copies or values speak", deed,
			 (unsigned long long)span->bytes, span->start, span->busy);
	memmove(&spans[at], &spans[at + 1], (n_spans - at - 1) * sizeof(struct fake_span *));
	n_spans--;
	free(span);
}

struct fake_span *fake_span_at(cuda_address address)
{
	const unsigned n = spans_until(address);

	return n > 0 && address - spans[n - 1]->start < spans[n - 1]->bytes ? spans[n - 1] : NULL;
}

struct fake_span *fake_span_overlapping(cuda_address start, uint64_t bytes)
{
	const unsigned n = spans_until(start);

	if (n > 0 && start - spans[n - 1]->start < spans[n - 1]->bytes)
		return spans[n - 1];
	return n < n_spans && spans[n]->start - start < bytes ? spans[n] : NULL;
}

unsigned fake_span_count(void)
{
	return n_spans;
}

struct fake_span *fake_span_number(unsigned i)
{
	return spans[i];
}

/* --- addresses -------------------------------------------------------------------------------------------------- */

/* One page more than asked, so that no two ranges are neighbours. */
static uint64_t taken(uint64_t bytes)
{
	return (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
}

cuda_address fake_addresses(uint64_t bytes, uint64_t alignment)
{
	const uint64_t all = taken(bytes) + alignment;
	char *start = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (start == MAP_FAILED)
		return 0;
	before = alignment ? (alignment - (uintptr_t)start % alignment) % alignment : 0;
	if (before)
		munmap(start, before);
	if (alignment - before)
		munmap(start + before + taken(bytes), alignment - before);
	return (uintptr_t)start + before;
}

void fake_addresses_free(cuda_address start, uint64_t bytes)
{
	munmap((void *)(uintptr_t)start, taken(bytes));
}

/* --- what is known of an address -------------------------------------------------------------------------------- */

uint32_t fake_handle_types(const struct fake_span *span)
{
	return span->kind == FAKE_MAPPING ? span->physical->properties.handle_types : 0;
}

static bool is_host(const struct fake_span *span)
{
	return span->kind == FAKE_HOST || span->kind == FAKE_HOST_ALIAS;
}

enum cuda_result fake_pointer_get_attribute(void *value, enum cuda_pointer_attribute attribute, cuda_address address)
{
	enum cuda_result result = fake_enter(FAKE_CALL_pointer_get_attribute, FAKE_CONTEXT);
	const struct fake_span *span = result == CUDA_OK ? fake_span_at(address) : NULL;
	uint64_t offset;

	if (result != CUDA_OK)
		return fake_leave(result);
	if (!span)
		return fake_leave(CUDA_RESULT_INVALID_VALUE);	/* no memory of CUDA's, as the driver says it */
	offset = address - span->start;
	switch (attribute) {
	case CUDA_POINTER_ATTRIBUTE_CONTEXT:
		*(struct cuda_context **)value = span->context;
		break;
	case CUDA_POINTER_ATTRIBUTE_MEMORY_TYPE:
		*(uint32_t *)value = is_host(span) ? CUDA_MEMORYTYPE_HOST : CUDA_MEMORYTYPE_DEVICE;
		break;
	case CUDA_POINTER_ATTRIBUTE_DEVICE_POINTER:
		*(cuda_address *)value = span->kind == FAKE_HOST ? span->other->start + offset : address;
		break;
	case CUDA_POINTER_ATTRIBUTE_HOST_POINTER:
		if (!is_host(span))
			return fake_leave(CUDA_RESULT_INVALID_VALUE);
		*(void **)value = span->memory + offset;
		break;
	case CUDA_POINTER_ATTRIBUTE_BUFFER_ID:
		*(uint64_t *)value = span->id;
		break;
	case CUDA_POINTER_ATTRIBUTE_IS_MANAGED:
		*(uint32_t *)value = 0;
		break;
	case CUDA_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
		*(int *)value = span->device;
		break;
	case CUDA_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
		*(uint32_t *)value = span->kind == FAKE_ALLOCATION && !fake.config.lacks_ipc;
		break;
	case CUDA_POINTER_ATTRIBUTE_RANGE_START_ADDR:
		*(cuda_address *)value = span->start;
		break;
	case CUDA_POINTER_ATTRIBUTE_RANGE_SIZE:
		*(size_t *)value = span->bytes;
		break;
	case CUDA_POINTER_ATTRIBUTE_MAPPED:
		*(uint32_t *)value = 1;
		break;
	case CUDA_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
		*(uint64_t *)value = fake_handle_types(span);
		break;
	}
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_mem_get_address_range(cuda_address *base, size_t *bytes, cuda_address address)
{
	enum cuda_result result = fake_enter(FAKE_CALL_mem_get_address_range, FAKE_CONTEXT);
	const struct fake_span *span = result == CUDA_OK ? fake_span_at(address) : NULL;

	if (result == CUDA_OK && (!span || is_host(span)))
		result = CUDA_RESULT_NOT_FOUND;
	if (result == CUDA_OK && base)
		*base = span->start;
	if (result == CUDA_OK && bytes)
		*bytes = span->bytes;
	return fake_leave(result);
}
