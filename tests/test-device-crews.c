/*
 * Helpers of the host backend and uids: whose memory takes as long as its owner likes keeps nobody else
 * waiting. Here it is a userfaultfd that makes whoever touches it wait.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/device/region.h"
#include "tests/device-rig.h"
#include "tests/suite.h"

/* A pool of one block of 4,096 bytes in @memory of @uid's. */
struct owned {
	struct device_region *region;
	struct device_pool *pool;
};

static struct owned owned_open(struct rig *rig, const struct model_layout *layout, const struct rig_memory *memory,
			       uid_t uid)
{
	const struct message_region_add message = { .kind = MESSAGE_REGION_HOST, .n_fds = 1,
						    .ranges = { { 0, memory->size } } };
	const struct message_plane plane = { .bytes = 4096, .rows = 1, .block_stride = 4096 };
	const int fd = dup(memory->fd);
	const struct device_memory given = { .uid = uid, .n_fds = 1, .fds = &fd, .host = &message };
	char why[MESSAGE_REASON] = "";
	struct owned ret;

	ck_assert_msg(device_host_backend.region_add(rig->device, &given, why, &ret.region) == 0, "%s", why);
	ck_assert_msg(device_host_backend.pool_add(rig->device, 0, 0, uid != 0, layout, 0, 1, &plane, 1, &ret.region, 1, why,
						   &ret.pool) == 0, "%s", why);
	return ret;
}

static void owned_close(struct owned *owned)
{
	device_host_backend.pool_close(owned->pool);
	device_host_backend.region_close(owned->region, 0);
}

/* Whoever touches @region, of @memory that has been punched, waits until this is closed. -1: it cannot be had. */
static int keep_waiting(const struct device_region *region, const struct rig_memory *memory)
{
	struct uffdio_register range = { .range = { (uintptr_t)region->base, memory->size },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return -1;
	expect(ioctl(fd, UFFDIO_API, &api) == 0);
	expect(fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)memory->size) == 0);
	expect(ioctl(fd, UFFDIO_REGISTER, &range) == 0);
	return fd;
}

/* As a client does that punches holes into its own memory, and is too slow in that to come to an end. */
START_TEST(a_uid_whose_memory_cannot_be_touched_now_keeps_no_other_waiting)
{
	const struct model_wire_row row = { .bytes = 4096 };
	const uint32_t id = 0;
	struct engine_copy_item items[2] = { { .pool = 0, .ids = &id }, { .pool = 1, .ids = &id, .payload = 8192 } };
	struct device_pool *pools[2];
	uint8_t failed[2][1];
	struct rig rig;

	rig_start(&rig, 1, 4096, 1 << 20);
	struct model_layout *layout = rig_layout(1, 1, &row, 1);
	struct rig_memory good = rig_memory(4096, true), slow = rig_memory(4096, true);
	struct owned honest = owned_open(&rig, layout, &good, 0), other = owned_open(&rig, layout, &slow, 4711);
	const int keeper = keep_waiting(other.region, &slow);

	if (keeper < 0) {
		printf("# skipped: the kernel gives no userfaultfd\n");
	} else {
		pools[0] = honest.pool;
		pools[1] = other.pool;
		memset(good.bytes, 0x5a, 4096);
		rig_copy(&rig, 1, true, layout, pools, &items[1], 1, failed[1]);
		rig_copy(&rig, 0, true, layout, pools, &items[0], 1, failed[0]);
		while (!rig.told[0].done)
			rig_reap(&rig);
		ck_assert_uint_eq(rig.told[1].done, 0);
		ck_assert_mem_eq(rig.arena.bytes, good.bytes, 4096);
		close(keeper);
		rig_wait(&rig);
	}
	owned_close(&honest);
	owned_close(&other);
	rig_stop(&rig);
	rig_memory_free(&good);
	rig_memory_free(&slow);
	model_layout_free(layout);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("device-crews");
	TCase *tests = tcase_create("crews");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_uid_whose_memory_cannot_be_touched_now_keeps_no_other_waiting);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
