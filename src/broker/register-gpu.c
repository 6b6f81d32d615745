/*
 * Regions of GPUs, as clients tell them: one message, or several where a region lies in more allocations than
 * a message can carry. All of them are taken before anything is said, because the last one alone is
 * answered; what is wrong with an earlier one is kept until then. What a device can tell (is there
 * such a GPU, does the memory belong to it) its copier does; here is what the message alone shows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/broker/closer.h"
#include "src/broker/devices.h"
#include "src/broker/session.h"
#include "src/broker/share.h"
#include "src/device/refuse.h"

#define REGION_BYTES_MAX	(1ull << 48)	/* more than any device has addresses for */

/* ---- shares ------------------------------------------------------------------------------------ */

static uint64_t files_of(const struct session *session)
{
	uint64_t n = session->parts ? session->parts->n : 0;

	for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++)
		n += session->regions[i].n_files;
	return n;
}

static bool has_room_for_files(const struct session *session, uint32_t n)
{
	const struct share files = { .total = session->broker->files, .of = files_of, .by_tenant = true };

	return share_allows(session, &files, n);
}

/* ---- parts ------------------------------------------------------------------------------------- */

static void parts_free(struct session_parts *parts, uid_t uid)
{
	for (uint32_t i = 0; i < parts->n; i++)
		closer_close(uid, parts->fds[i]);
	free(parts->fds);
	free(parts->fd_bytes);
	free(parts);
}

void register_parts_drop(struct session *session)
{
	if (session->parts)
		parts_free(session->parts, session->peer.uid);
	session->parts = NULL;
}

static void parts_refuse(struct session_parts *parts, enum stoker_status status, const char *why)
{
	if (parts->status != STOKER_STATUS_OK)
		return;
	parts->status = status;
	snprintf(parts->why, sizeof(parts->why), "%s", why);
}

/*
 * Memory that a driver exports is a device or a file without a name, and so is that of a fake one. Nothing else is
 * passed on: closing it could take as long as its owner likes. This asks no file system.
 */
static bool may_be_memory(int fd)
{
	struct statx is;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &is) < 0)
		return false;
	switch (is.stx_mode & S_IFMT) {
	case S_IFCHR:
	case 0:
		return true;
	case S_IFREG:
		return !closer_must(fd);
	default:
		return false;
	}
}

static enum stoker_status message_check(const struct session *session, const struct message_region_add_cuda *message,
					const struct incoming *in, char *why)
{
	if (strcmp(session->broker->config.gpu.enabled, "no") == 0) {
		refuse(why, 0, "this broker has no GPU support: gpu.enabled is no; set it to auto and start the broker again, "
		       "or register memory of the host");
		return STOKER_STATUS_REFUSED;
	}
	if (message->bytes == 0 || message->bytes > REGION_BYTES_MAX || message->offset > REGION_BYTES_MAX) {
		refuse(why, 0, "cannot register memory of a GPU: offset %llu and %llu bytes are out of range",
		       (unsigned long long)message->offset, (unsigned long long)message->bytes);
		return STOKER_STATUS_BAD_REQUEST;
	}
	for (uint32_t i = 0; i < message->n_fds; i++) {
		if (message->fd_bytes[i] == 0 || message->fd_bytes[i] % STOKER_PAGE ||
		    message->fd_bytes[i] > REGION_BYTES_MAX) {
			refuse(why, 0, "cannot register memory of a GPU: descriptor %u is of %llu bytes; allocations are "
			       "multiples of %u", i, (unsigned long long)message->fd_bytes[i], STOKER_PAGE);
			return STOKER_STATUS_BAD_REQUEST;
		}
		if (!may_be_memory(in->fds[i])) {
			refuse(why, 0, "cannot register memory of a GPU: descriptor %u is no exported allocation; use "
			       "cuMemExportToShareableHandle", i);
			return STOKER_STATUS_BAD_REQUEST;
		}
	}
	if (!has_room_for_files(session, message->n_fds)) {
		refuse(why, 0, "uid %u has its share of the %u descriptors that regions of GPUs may keep open: drop some, or "
		       "raise the broker's limit of open files", (unsigned)session->peer.uid, session->broker->files);
		return STOKER_STATUS_REFUSED;
	}
	return STOKER_STATUS_OK;
}

/* Impossible for a library: what no mistake of an application makes. */
static const char *impossible(const struct session_parts *parts, const struct message_region_add_cuda *message,
			      const struct incoming *in)
{
	if (message->reserved || message->more > 1)
		return "it registered memory of a GPU with a reserved bit set";
	if (message->kind != MESSAGE_CUDA_IPC && message->kind != MESSAGE_CUDA_VMM)
		return "it registered memory of a GPU of an unknown kind";
	if (message->n_fds != in->n_fds || message->n_fds > MESSAGE_CUDA_FDS_MAX)
		return "it registered memory of a GPU with another number of descriptors than it says";
	if (message->kind == MESSAGE_CUDA_IPC ? message->n_fds != 0 || message->more : message->n_fds == 0)
		return "it registered memory of a GPU with descriptors that its kind does not have";
	if (parts && (parts->first.header.request != message->header.request ||
		      memcmp(parts->first.uuid, message->uuid, sizeof(message->uuid)) != 0 ||
		      parts->first.kind != message->kind || parts->first.offset != message->offset ||
		      parts->first.bytes != message->bytes))
		return "it went on with another region than it had begun to register";
	return NULL;
}

static int parts_grow(struct session_parts *parts, uint32_t n)
{
	int *fds = realloc(parts->fds, (parts->n + n + 1) * sizeof(*fds));
	uint64_t *bytes;

	if (!fds)
		return -ENOMEM;
	parts->fds = fds;
	bytes = realloc(parts->fd_bytes, (parts->n + n + 1) * sizeof(*bytes));
	if (!bytes)
		return -ENOMEM;
	parts->fd_bytes = bytes;
	return 0;
}

/* Take what the message carries; or keep why not, and leave its descriptors to be closed. */
static void parts_add(struct session *session, const struct message_region_add_cuda *message, struct incoming *in)
{
	struct session_parts *parts = session->parts;
	char why[MESSAGE_REASON] = "the broker is out of memory; try again";
	enum stoker_status status = message_check(session, message, in, why);

	if (status == STOKER_STATUS_OK && parts->status == STOKER_STATUS_OK && parts_grow(parts, message->n_fds) < 0)
		status = STOKER_STATUS_NO_MEMORY;
	if (status != STOKER_STATUS_OK)
		parts_refuse(parts, status, why);
	if (parts->status != STOKER_STATUS_OK)
		return;
	memcpy(parts->fds + parts->n, in->fds, message->n_fds * sizeof(in->fds[0]));
	memcpy(parts->fd_bytes + parts->n, message->fd_bytes, message->n_fds * sizeof(message->fd_bytes[0]));
	parts->n += message->n_fds;
	in->n_fds = 0;
}

/* Does the region lie in what was handed over? Of an IPC handle only the driver knows. */
static bool fits(const struct session_parts *parts)
{
	const struct message_region_add_cuda *first = &parts->first;
	uint64_t bytes = 0;

	if (first->kind == MESSAGE_CUDA_IPC)
		return true;
	for (uint32_t i = 0; i < parts->n && bytes <= 2 * REGION_BYTES_MAX; i++)
		bytes += parts->fd_bytes[i];
	return first->offset <= bytes && first->bytes <= bytes - first->offset;
}

/* ---- the region -------------------------------------------------------------------------------- */

static void region_open(struct session *session, struct session_parts *parts)
{
	const uint64_t request = parts->first.header.request;
	struct device_memory memory = { .uid = session->peer.uid, .n_fds = parts->n, .fds = parts->fds,
					.cuda = &parts->first, .fd_bytes = parts->fd_bytes,
					.fence = session->channel->fence };
	int device = -1, number;

	if (parts->status == STOKER_STATUS_OK && !fits(parts))
		parts_refuse(parts, STOKER_STATUS_BAD_REQUEST, "cannot register memory of a GPU: offset and bytes lie "
			     "beyond the allocations whose descriptors came; send all of them, or mend the range");
	if (parts->status == STOKER_STATUS_OK) {
		device = devices_find(session->broker, session->peer.uid, parts->first.uuid, parts->why);
		parts->status = device < 0 ? STOKER_STATUS_REFUSED : STOKER_STATUS_OK;
	}
	if (parts->status != STOKER_STATUS_OK) {
		session_refuse(session, request, parts->status, "%s", parts->why);
		return;
	}
	number = register_region_number(session, request);
	if (number < 0)
		return;
	session->regions[number].n_files = parts->n;
	parts->n = 0;	/* the backend's from here on */
	register_region_open(session, request, (uint32_t)number, (uint32_t)device, &memory);
}

void register_gpu_region(struct session *session, struct incoming *in)
{
	const struct message_region_add_cuda *message = (const void *)in->data;
	const char *why = impossible(session->parts, message, in);
	const uid_t uid = session->peer.uid;
	struct session_parts *parts;

	if (why) {
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, why);
		return;
	}
	if (!session->parts) {
		session->parts = calloc(1, sizeof(*session->parts));
		if (!session->parts) {
			session_expel(session, "the broker has no memory for what it registers");
			return;
		}
		session->parts->first = *message;
	}
	parts_add(session, message, in);
	if (message->more)
		return;
	parts = session->parts;
	session->parts = NULL;	/* an answer that is not taken ends the session, and whatever is its */
	region_open(session, parts);
	parts_free(parts, uid);
}
