/*
 * Lanes: the shared segment of one copier process, as memory and descriptors. Who has one when is in backend.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/device/cuda/backend.h"

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	if (lane->segment)
		munmap(lane->segment, lane->bytes);
	if (lane->memory_fd >= 0)
		close(lane->memory_fd);
	if (lane->bell_fd >= 0)
		close(lane->bell_fd);
	free(lane);
}

static int lane_map(struct lane *lane)
{
	void *at;

	lane->memory_fd = memfd_create("stoker-copier", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (lane->memory_fd < 0 || ftruncate(lane->memory_fd, (off_t)lane->bytes) < 0 ||
	    fcntl(lane->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	at = mmap(NULL, lane->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, lane->memory_fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	lane->segment = wire_segment_make(at, LANE_ENTRIES, LANE_ENTRIES, LANE_ITEMS);
	lane->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return lane->bell_fd < 0 ? -errno : 0;
}

int lane_make(struct lane **ret)
{
	struct lane *lane = calloc(1, sizeof(*lane));
	int r;

	if (!lane)
		return -ENOMEM;
	lane->memory_fd = lane->bell_fd = -1;
	lane->item_bytes = LANE_ITEMS;
	lane->bytes = wire_segment_bytes(LANE_ENTRIES, LANE_ENTRIES, LANE_ITEMS);
	r = lane_map(lane);
	if (r < 0) {
		lane_free(lane);
		return r;
	}
	lane->commands = wire_commands(lane->segment);
	lane->events = wire_events(lane->segment);
	lane->items = wire_items(lane->segment);
	*ret = lane;
	return 0;
}
