#include "tests/device-rig.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct rig_memory rig_memory(uint64_t size, bool sealed)
{
	struct rig_memory m = { .fd = memfd_create("rig", MFD_CLOEXEC | MFD_ALLOW_SEALING), .size = size };

	ck_assert_int_ge(m.fd, 0);
	ck_assert_int_eq(posix_fallocate(m.fd, 0, (off_t)size), 0);
	if (sealed)
		ck_assert_int_eq(fcntl(m.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	m.bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	ck_assert_ptr_ne(m.bytes, MAP_FAILED);
	return m;
}

void rig_memory_free(struct rig_memory *memory)
{
	munmap(memory->bytes, memory->size);
	close(memory->fd);
}

void rig_start(struct rig *rig, uint32_t threads, uint64_t piece_bytes, uint64_t arena_bytes)
{
	memset(rig, 0, sizeof(*rig));
	rig->seed = 1;
	rig->arena = rig_memory(arena_bytes, false);
	ck_assert_int_eq(bell_init(&rig->bell), 0);

	const struct device_host host = {
		.arena = rig->arena.bytes, .arena_bytes = arena_bytes, .arena_fd = rig->arena.fd,
		.bell = &rig->bell, .threads = threads, .copies = RIG_COPIES, .piece_bytes = piece_bytes,
	};
	ck_assert_int_eq(device_host_backend.start(&host, &rig->device), 0);
}

void rig_stop(struct rig *rig)
{
	device_host_backend.stop(rig->device);
	bell_fini(&rig->bell);
	rig_memory_free(&rig->arena);
}

/* SplitMix64 */
uint64_t rig_random(struct rig *rig)
{
	uint64_t z = rig->seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint32_t rig_below(struct rig *rig, uint32_t n)
{
	return (uint32_t)(rig_random(rig) % n);
}

void rig_fill(struct rig *rig, uint8_t *bytes, uint64_t n)
{
	for (uint64_t i = 0; i + 8 <= n; i += 8) {
		const uint64_t word = rig_random(rig);

		memcpy(bytes + i, &word, 8);
	}
}

static void look_at(struct rig *rig, const struct device_event *e)
{
	switch (e->type) {
	case DEVICE_PROGRESS:
		ck_assert_uint_lt(e->copy, RIG_COPIES);
		ck_assert_uint_gt(e->layers, rig->told[e->copy].layers);	/* told only when it rises */
		ck_assert_uint_eq(rig->told[e->copy].done, 0);
		rig->told[e->copy].layers = e->layers;
		rig->told[e->copy].progress++;
		break;
	case DEVICE_DONE:
		ck_assert_uint_lt(e->copy, RIG_COPIES);
		ck_assert_uint_eq(rig->told[e->copy].done, 0);
		rig->told[e->copy].done = 1;
		rig->told[e->copy].result = e->result;
		rig->order[rig->n_order++] = e->copy;
		rig->running--;
		break;
	case DEVICE_POOL_DEAD:
		rig->deaths++;
		rig->dead_client = e->client;
		rig->dead_pool = e->pool;
		break;
	case DEVICE_CHECKED:
		rig->checks++;
		rig->checked = *e;
		rig->order[rig->n_order++] = 1000 + e->copy;
		break;
	}
}

void rig_reap(struct rig *rig)
{
	struct device_event events[3];
	uint32_t n = device_host_backend.reap(rig->device, events, 3);

	if (n == 0) {		/* as the core does: arm, look once more, sleep */
		struct pollfd wait = { .fd = rig->bell.fd, .events = POLLIN };

		bell_arm(&rig->bell);
		n = device_host_backend.reap(rig->device, events, 3);
		if (n == 0)
			ck_assert_int_eq(poll(&wait, 1, 30000), 1);	/* else a ring was lost */
		bell_disarm(&rig->bell);
	}
	for (uint32_t i = 0; i < n; i++)
		look_at(rig, &events[i]);
}

void rig_wait(struct rig *rig)
{
	while (rig->running)
		rig_reap(rig);
}

struct model_layout *rig_layout(uint32_t n_groups, uint32_t blocks, const struct model_wire_row *rows, uint32_t n_rows)
{
	const struct model_wire wire = { .name = "rig", .chunk_tokens = blocks, .n_groups = n_groups, .n_rows = n_rows };
	const size_t bytes = sizeof(wire) + n_groups * sizeof(struct model_wire_group) + n_rows * sizeof(*rows);
	uint8_t *description = calloc(1, bytes);
	struct model_layout *layout;
	char why[192] = "";

	ck_assert_ptr_nonnull(description);
	memcpy(description, &wire, sizeof(wire));
	for (uint32_t g = 0; g < n_groups; g++) {
		const struct model_wire_group group = { .block_tokens = 1, .blocks = blocks };

		memcpy(description + sizeof(wire) + g * sizeof(group), &group, sizeof(group));
	}
	memcpy(description + bytes - n_rows * sizeof(*rows), rows, n_rows * sizeof(*rows));
	ck_assert_msg(model_layout_make(description, bytes, why, &layout) == 0, "%s", why);
	free(description);
	return layout;
}

int rig_region_try(struct rig *rig, const struct message_region_add *message, const int *fds, char *why,
		   struct device_region **ret)
{
	int copies[MESSAGE_FDS_MAX];
	struct device_memory memory = { .fds = copies, .host = message };

	for (; memory.n_fds < message->n_fds && memory.n_fds < MESSAGE_FDS_MAX; memory.n_fds++)
		copies[memory.n_fds] = fcntl(fds[memory.n_fds], F_DUPFD_CLOEXEC, 0);
	return device_host_backend.region_add(rig->device, &memory, why, ret);
}

struct device_region *rig_region(struct rig *rig, const struct rig_memory *memory)
{
	const struct message_region_add message = { .kind = MESSAGE_REGION_HOST, .n_fds = 1,
						    .ranges = { { 0, memory->size } } };
	struct device_region *region;
	char why[MESSAGE_REASON] = "";

	ck_assert_msg(rig_region_try(rig, &message, &memory->fd, why, &region) == 0, "%s", why);
	return region;
}

void rig_copy_layers(struct rig *rig, uint32_t number, bool store, const struct model_layout *layout,
		     struct device_pool *const *pools, const struct engine_copy_item *items, uint32_t n,
		     uint8_t *failed, uint32_t layer_first, uint32_t layer_end)
{
	const struct device_copy copy = {
		.request = { .copy = number, .store = store, .layer_first = layer_first, .layer_end = layer_end,
			     .n_items = n, .items = items, .failed = failed },
		.layout = layout, .pools = pools,
	};

	memset(failed, 0, n);
	memset(&rig->told[number], 0, sizeof(rig->told[number]));
	rig->running++;
	ck_assert_int_eq(device_host_backend.copy(rig->device, &copy), 0);
}

void rig_copy(struct rig *rig, uint32_t number, bool store, const struct model_layout *layout,
	      struct device_pool *const *pools, const struct engine_copy_item *items, uint32_t n, uint8_t *failed)
{
	rig_copy_layers(rig, number, store, layout, pools, items, n, failed, 0, UINT32_MAX);
}

uint32_t rig_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
