/*
 * The two ways of wire.h as memory and system calls: the layout of the segment, and messages with
 * descriptors on a SOCK_SEQPACKET pair, each sent and taken whole.
 */
#include "src/device/cuda/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PART_ALIGNMENT 4096u

static uint64_t round_up(uint64_t n)
{
	return (n + PART_ALIGNMENT - 1) & ~(uint64_t)(PART_ALIGNMENT - 1);
}

size_t wire_segment_bytes(uint32_t commands, uint32_t events, uint64_t item_bytes)
{
	return round_up(sizeof(struct wire_segment)) + round_up(shared_queue_bytes(commands)) +
	       round_up(shared_queue_bytes(events)) + round_up(item_bytes);
}

struct wire_segment *wire_segment_make(void *memory, uint32_t commands, uint32_t events, uint64_t item_bytes)
{
	struct wire_segment *segment = memory;

	segment->commands_at = round_up(sizeof(*segment));
	segment->events_at = segment->commands_at + round_up(shared_queue_bytes(commands));
	segment->items_at = segment->events_at + round_up(shared_queue_bytes(events));
	segment->item_bytes = item_bytes;
	shared_queue_make((uint8_t *)memory + segment->commands_at, commands);
	shared_queue_make((uint8_t *)memory + segment->events_at, events);
	return segment;
}

struct shared_queue *wire_commands(struct wire_segment *segment)
{
	return shared_queue_of((uint8_t *)segment + segment->commands_at);
}

struct shared_queue *wire_events(struct wire_segment *segment)
{
	return shared_queue_of((uint8_t *)segment + segment->events_at);
}

uint8_t *wire_items(struct wire_segment *segment)
{
	return (uint8_t *)segment + segment->items_at;
}

/* Room for the descriptors of a message, aligned as the kernel wants it. */
union descriptors {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(WIRE_FDS_MAX * sizeof(int))];
};

int wire_send(int fd, bool wait, const void *message, const int *fds, uint32_t n_fds)
{
	const struct wire_header *header = message;
	struct iovec part = { .iov_base = (void *)message, .iov_len = header->bytes };
	struct msghdr out = { .msg_iov = &part, .msg_iovlen = 1 };
	union descriptors room;
	ssize_t r;

	if (n_fds) {
		memset(&room, 0, sizeof(room));
		out.msg_control = room.bytes;
		out.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		room.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
						.cmsg_len = CMSG_LEN(n_fds * sizeof(int)) };
		memcpy(CMSG_DATA(&room.header), fds, n_fds * sizeof(int));
	}
	do
		r = sendmsg(fd, &out, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

/* The descriptors that came along; 0 or -EBADMSG if they were not all taken. */
static int take_descriptors(struct msghdr *in, int *fds, uint32_t *n_fds)
{
	*n_fds = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(in); c; c = CMSG_NXTHDR(in, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*n_fds = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *n_fds * sizeof(int));
	}
	return in->msg_flags & MSG_CTRUNC ? -EBADMSG : 0;
}

int wire_receive(int fd, void *message, size_t room, int *fds, uint32_t *n_fds)
{
	struct iovec part = { .iov_base = message, .iov_len = room };
	union descriptors control;
	struct msghdr in = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
			     .msg_controllen = CMSG_LEN(WIRE_FDS_MAX * sizeof(int)) };	/* its space has one more */
	const struct wire_header *header = message;
	bool reset = false;
	ssize_t n;
	int r;

	/* A peer that has gone and left something unread is told of first, and once; what it had said follows. */
	do {
		n = recvmsg(fd, &in, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n >= 0 || (errno != EINTR && (errno != ECONNRESET || reset)))
			break;
		reset |= errno == ECONNRESET;
	} while (true);
	if (n <= 0)
		return n == 0 || errno == ECONNRESET ? -EPIPE : -errno;
	r = take_descriptors(&in, fds, n_fds);
	if (r == 0 && !(in.msg_flags & MSG_TRUNC) && (size_t)n >= sizeof(*header) && header->bytes == (size_t)n)
		return (int)n;
	for (uint32_t i = 0; i < *n_fds; i++)
		close(fds[i]);
	*n_fds = 0;
	return -EBADMSG;
}
