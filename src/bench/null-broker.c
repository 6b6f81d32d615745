#include "config.h"

#include "src/bench/null-broker.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/broker/broker.h"
#include "src/common/log.h"
#include "src/device/device.h"

/* Called by the core thread alone, but for region_* and pool_*, which need no memory. */
struct device {
	struct bell *bell;
	uint32_t first, n, max;		/* completions that the core has not taken, a ring */
	struct device_event *events;
};

struct device_region { uint64_t bytes; };
struct device_pool { uint32_t number; };

static int null_start(const struct device_host *host, struct device **ret)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return -ENOMEM;
	device->bell = host->bell;
	device->max = host->copies + host->checks;
	device->events = calloc(device->max, sizeof(*device->events));
	if (!device->events) {
		free(device);
		return -ENOMEM;
	}
	*ret = device;
	return 0;
}

static void null_stop(struct device *device)
{
	free(device->events);
	free(device);
}

static int complete(struct device *device, const struct device_event *event)
{
	if (device->n == device->max)
		return -EAGAIN;
	device->events[(device->first + device->n++) % device->max] = *event;
	return 0;
}

static int null_copy(struct device *device, const struct device_copy *copy)
{
	const struct device_event event = {
		.type = DEVICE_DONE, .copy = copy->request.copy, .result = ENGINE_OK,
	};

	return complete(device, &event);
}

static int null_check(struct device *device, bool seal, const struct engine_check *check,
		      const struct image_identity *identity)
{
	const struct device_event event = {
		.type = DEVICE_CHECKED, .copy = check->io, .result = ENGINE_OK, .checksum = 1,
	};

	(void)seal;
	(void)identity;
	return complete(device, &event);
}

static void null_cancel(struct device *device, uint32_t copy)
{
	(void)device;
	(void)copy;
}

static uint32_t null_reap(struct device *device, struct device_event *ret, uint32_t n)
{
	const uint32_t many = n < device->n ? n : device->n;

	for (uint32_t i = 0; i < many; i++)
		ret[i] = device->events[(device->first + i) % device->max];
	device->first = (device->first + many) % device->max;
	device->n -= many;
	return many;
}

static int null_region_add(struct device *device, const struct device_memory *memory, char *why,
			   struct device_region **ret)
{
	struct device_region *region = calloc(1, sizeof(*region));

	(void)device;
	(void)why;
	for (uint32_t i = 0; i < memory->n_fds; i++) {
		close(memory->fds[i]);
		if (region)
			region->bytes += memory->host->ranges[i].bytes;
	}
	*ret = region;
	return region ? 0 : -ENOMEM;
}

static int null_region_close(struct device_region *region, uint64_t token)
{
	(void)token;
	free(region);
	return 0;
}

static uint64_t null_region_bytes(const struct device_region *region)
{
	return region->bytes;
}

static int null_pool_add(struct device *device, uint64_t token, uint32_t client, uint32_t number,
			 const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
			 const struct message_plane *planes, uint32_t n_planes,
			 struct device_region *const *regions, uint32_t n_regions, char *why,
			 struct device_pool **ret)
{
	struct device_pool *pool = calloc(1, sizeof(*pool));

	(void)device; (void)token; (void)client; (void)layout; (void)part; (void)n_blocks; (void)planes; (void)n_planes;
	(void)regions; (void)n_regions; (void)why;
	if (!pool)
		return -ENOMEM;
	pool->number = number;
	*ret = pool;
	return 0;
}

static void null_pool_close(struct device_pool *pool)
{
	free(pool);
}

static const struct device_backend null_backend = {
	.name = "null",
	.kind = MESSAGE_REGION_HOST,
	.start = null_start,
	.stop = null_stop,
	.region_add = null_region_add,
	.region_close = null_region_close,
	.region_bytes = null_region_bytes,
	.pool_add = null_pool_add,
	.pool_close = null_pool_close,
	.copy = null_copy,
	.cancel = null_cancel,
	.reap = null_reap,
	.check = null_check,
};

int null_broker_run(const char *const *settings, uint32_t n, int ready_fd)
{
	static struct broker_options options;
	char why[CONFIG_WHY];
	int r = 0;

	log_init("stoker-bench", LOG_LEVEL_WARNING);
	options.backend = &null_backend;
	options.null_arena = true;
	options.ready_fd = ready_fd;
	config_init(&options.config);
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = config_set_argument(&options.config, settings[i], why);
	if (r == 0)
		r = config_finish(&options.config, why);
	if (r < 0) {
		bench_say("%s", why);
		return BROKER_USAGE;
	}
	return (int)broker_run(&options);
}
