/*
 * Regions: a worker's memory, registered with the broker once per attachment. Duplicates of the
 * descriptors are kept, because the next broker needs them again; the caller may close its own.
 *
 * All that can be told without the broker is told here; whether the memory is shared, allocated and
 * writable the broker judges, for it is the broker that must be able to rely on it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/client/client.h"

int region_send(struct stoker_region *region, int sock, uint64_t deadline_ns)
{
	struct message_region_add add = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST,
					  .n_fds = region->n };

	if (region->send)
		return region->send(region, sock, deadline_ns);
	for (uint32_t i = 0; i < region->n; i++) {
		add.ranges[i].offset = region->range[i].offset;
		add.ranges[i].bytes = region->range[i].bytes;
	}
	return object_send(&region->object, QUESTION_OPEN, sock, &add, sizeof(add), region->fd, region->n, deadline_ns);
}

void region_free(struct stoker_region *region)
{
	for (uint32_t i = 0; i < region->n; i++) {
		if (region->fd[i] >= 0)
			close(region->fd[i]);
	}
	free(region);
}

static int ranges_take(struct stoker *c, struct stoker_region *region, const struct stoker_range *ranges, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (ranges[i].bytes == 0 || ranges[i].bytes % STOKER_PAGE || ranges[i].offset % STOKER_PAGE)
			return client_fail(c, -EINVAL, "range %u: offset and bytes are multiples of 4096, bytes above 0", i);
		region->range[i].offset = ranges[i].offset;
		region->range[i].bytes = ranges[i].bytes;
		region->fd[i] = fcntl(ranges[i].fd, F_DUPFD_CLOEXEC, 3);
		if (region->fd[i] < 0)
			return client_fail(c, -errno, "range %u: descriptor %d cannot be duplicated: %s", i, ranges[i].fd,
					   strerror(errno));
		region->n = i + 1;
	}
	return 0;
}

int region_register(struct stoker *c, struct stoker_region *region)
{
	int r;

	object_add(c, &region->object, OBJECT_REGION);
	r = object_open(&region->object);
	if (r < 0) {
		object_forget(&region->object);
		region_free(region);
	}
	return r;
}

static int region_add(struct stoker *c, const struct stoker_range *ranges, uint32_t n, struct stoker_region **ret)
{
	struct stoker_region *region;
	int r = client_need_broker(c);

	if (r < 0)
		return client_fail(c, r, "there is no broker \"%s\" to register memory with", c->name);
	if (!ranges || !ret || n < 1 || n > MESSAGE_FDS_MAX)
		return client_fail(c, -EINVAL, "a region has 1 to %u ranges, and a place for itself", MESSAGE_FDS_MAX);
	region = calloc(1, sizeof(*region));
	if (!region)
		return client_fail(c, -ENOMEM, "could not register memory: out of memory");
	r = ranges_take(c, region, ranges, n);
	if (r < 0) {
		region_free(region);
		return r;
	}
	r = region_register(c, region);
	if (r == 0)
		*ret = region;
	return r;
}

int stoker_region_add(struct stoker *c, const struct stoker_range *ranges, uint32_t n, struct stoker_region **ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, region_add(c, ranges, n, ret));
}

int stoker_region_drop(struct stoker_region *region)
{
	struct stoker *c = region ? region->object.c : NULL;
	int r = client_enter(c);

	if (r < 0)
		return r;
	r = object_drop(&region->object);
	if (r == 0) {
		object_forget(&region->object);
		region_free(region);
	}
	return client_leave(c, r);
}
