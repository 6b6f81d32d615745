/* See devices.h. */
#include "src/broker/devices.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/closer.h"
#include "src/broker/session.h"
#include "src/common/log.h"

static_assert(CONTROL_GPUS == DEVICES_MAX - 1, "each GPU has a row in the control page");

#define PIECE_BYTES	(1u << 20)
#define UNPROVEN_NS	1000000000u	/* an unproven one stays that long, so that it is not started again at once */

/* ---- starting ---------------------------------------------------------------------------------- */

static int start(struct broker *broker, const struct device_gpu *gpu, const struct device_backend *backend,
		 struct device **ret)
{
	const struct config *config = &broker->config;
	const int own[] = { broker->page.reader_fd, broker->arena->table_fd };
	const struct device_host host = {
		.arena = broker->arena->base,
		.arena_bytes = broker->arena->bytes,
		.arena_fd = broker->arena->fd,
		.bell = core_bell(broker->core),
		.threads = (uint32_t)config->broker.threads,
		.copies = broker->seats * (CHANNEL_SMALL_MAX + CHANNEL_LARGE_MAX),
		.piece_bytes = PIECE_BYTES,
		.checks = (uint32_t)config->disk.ios,
		.own_fds = own,
		.n_own = sizeof(own) / sizeof(own[0]),
		.gpu = gpu,
		.close_fd = closer_close,
	};

	return backend->start(&host, ret);
}

int devices_start(struct broker *broker)
{
	struct broker_device *host = &broker->devices[0];
	const struct device_backend *backend =
		broker->options->backend ? broker->options->backend : &device_host_backend;
	const int r = start(broker, NULL, backend, &host->device);

	if (r < 0) {
		log_error("device backend %s could not be started: %s", backend->name, strerror(-r));
		return r;
	}
	host->backend = backend;
	host->proven = true;
	host->next_ns = UINT64_MAX;
	return 0;
}

static int gpu_start(struct broker *broker, struct broker_device *device, const uint8_t uuid[DEVICE_UUID])
{
	const struct config_gpu *config = &broker->config.gpu;
	struct device_gpu gpu = {
		.streams_load = (uint32_t)config->streams_load,
		.streams_store = (uint32_t)config->streams_store,
		.bounce_bytes = config->bounce,
		.slice_bytes = config->slice,
		.hang_ms = (uint32_t)config->hang_ms,
		.idle_ns = config->idle_ms * 1000000,
		.program = "/proc/self/exe",
		.extent_bytes = broker->config.arena.extent,
		.io_lock_fd = broker->locks.io_fd,
		.core_block = &broker->page.control->blocks[0],
		.control_block = broker->block,
	};
	int r;

	memcpy(gpu.uuid, uuid, sizeof(gpu.uuid));
	snprintf(gpu.library, sizeof(gpu.library), "%.*s", (int)sizeof(gpu.library) - 1, config->library);
	r = start(broker, &gpu, &device_cuda_backend, &device->device);
	if (r < 0)
		return r;
	device->backend = &device_cuda_backend;
	device->source = (struct source){ SOURCE_DEVICE, device };
	r = control_watch(broker, device->backend->watch(device->device), &device->source);
	if (r < 0) {
		device->backend->stop(device->device);
		device->device = NULL;
		return r;
	}
	memcpy(device->uuid, uuid, sizeof(device->uuid));
	device->next_ns = 0;
	return 0;
}

/* ---- finding ----------------------------------------------------------------------------------- */

/* A free place; or 0: all are taken, or enough by @uid's GPUs that have never opened anything. */
static uint32_t place_for(const struct broker *broker, uid_t uid)
{
	uint32_t found = 0, free_places = 0, unproven = 0;

	for (uint32_t i = DEVICES_MAX - 1; i > 0; i--) {
		const struct broker_device *device = &broker->devices[i];

		if (!device->device) {
			found = i;
			free_places++;
		} else {
			unproven += !device->proven && device->uid == uid;
		}
	}
	return unproven < free_places ? found : 0;
}

int devices_find(struct broker *broker, uid_t uid, const uint8_t uuid[DEVICE_UUID], char *why)
{
	struct broker_device *device;
	uint32_t number;
	int r;

	for (uint32_t i = 1; i < DEVICES_MAX; i++) {
		if (broker->devices[i].device && memcmp(broker->devices[i].uuid, uuid, DEVICE_UUID) == 0)
			return (int)i;
	}
	number = place_for(broker, uid);
	if (number == 0) {
		snprintf(why, MESSAGE_REASON, "no more GPUs can be opened for uid %u: it has named too many that are not "
			 "there; check the UUID, then try again in a second", (unsigned)uid);
		return -EBUSY;
	}
	device = &broker->devices[number];
	r = gpu_start(broker, device, uuid);
	if (r < 0) {
		snprintf(why, MESSAGE_REASON, "the GPU's backend could not be started: %s; try again", strerror(-r));
		return r;
	}
	device->uid = uid;
	device->proven = false;
	device->keep_ns = clock_kernel_ns() + UNPROVEN_NS;
	return (int)number;
}

void devices_proven(struct broker *broker, uint32_t number)
{
	struct broker_device *device = &broker->devices[number];

	if (device->proven)
		return;
	device->proven = true;
	device->order = (struct order){ .type = ORDER_DEVICE,
					.device = { number, device->backend, device->device } };
	link_order(broker->link, &device->order);
}

/* ---- tending ----------------------------------------------------------------------------------- */

void devices_event(struct broker_device *device)
{
	device->next_ns = 0;
}

/* Its row in the control page, if anything of it has changed. */
static void row_write(struct broker *broker, struct broker_device *device)
{
	struct control_gpu row;

	memset(&row, 0, sizeof(row));
	if (device->device)
		device->backend->figures(device->device, &row);
	if (memcmp(&row, &device->row, sizeof(row)) == 0)
		return;
	memcpy(&device->row, &row, sizeof(row));
	control_write_gpu(broker->page.control, (uint32_t)(device - broker->devices) - 1, &row);
}

/* It named a GPU that is not there, or one whose memory could not be opened. */
static void give_up_unproven(struct broker *broker, struct broker_device *device, uint64_t now_ns)
{
	const int fd = device->backend->watch(device->device);

	if (!device->backend->is_idle(device->device))
		return;
	if (now_ns < device->keep_ns) {
		if (device->keep_ns < device->next_ns)
			device->next_ns = device->keep_ns;
		return;
	}
	control_unwatch(broker, fd);
	device->backend->stop(device->device);
	device->device = NULL;
}

void devices_tend(struct broker *broker, uint64_t now_ns)
{
	struct device_answer answer;

	for (uint32_t i = 1; i < DEVICES_MAX; i++) {
		struct broker_device *device = &broker->devices[i];

		if (!device->device || now_ns < device->next_ns)
			continue;
		device->next_ns = device->backend->tend(device->device, now_ns);
		while (device->backend->answer(device->device, &answer))
			register_device_answer(&answer);
		if (!device->proven)
			give_up_unproven(broker, device, now_ns);
		row_write(broker, device);
	}
}

uint64_t devices_due(const struct broker *broker)
{
	uint64_t due = UINT64_MAX;

	for (uint32_t i = 1; i < DEVICES_MAX; i++) {
		if (broker->devices[i].device && broker->devices[i].next_ns < due)
			due = broker->devices[i].next_ns;
	}
	return due;
}

void devices_stop(struct broker *broker)
{
	for (uint32_t i = DEVICES_MAX; i-- > 0;) {
		if (broker->devices[i].device)
			broker->devices[i].backend->stop(broker->devices[i].device);
		broker->devices[i].device = NULL;
	}
}
