#include "tests/raw-client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int raw_connect(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct control_page *page;
	int fd, r = control_map(name, &page);

	if (r < 0)
		return r;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", page->socket);
	control_unmap(page);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

int raw_send(int socket, const void *message, size_t bytes, const int *fds, uint32_t n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * RAW_FDS_MAX)];
	} control;
	struct iovec vector = { .iov_base = (void *)message, .iov_len = bytes };
	struct msghdr header = { .msg_iov = &vector, .msg_iovlen = 1 };

	memset(&control, 0, sizeof(control));
	if (n_fds) {
		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
	}
	return sendmsg(socket, &header, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

ssize_t raw_receive(int socket, void *to, size_t bytes, int *fds, uint32_t *n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
	} control;
	struct iovec vector = { .iov_base = to, .iov_len = bytes };
	struct msghdr header = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes) };
	struct pollfd wait = { .fd = socket, .events = POLLIN };
	ssize_t n;

	if (n_fds)
		*n_fds = 0;
	if (poll(&wait, 1, 5000) == 0)
		return -ETIMEDOUT;
	n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		const uint32_t count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		for (uint32_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (fds && n_fds && *n_fds < MESSAGE_FDS_MAX)
				fds[(*n_fds)++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

static int map_channel(struct raw *raw)
{
	int r = channel_plan_make(&raw->welcome.geometry, &raw->plan);

	if (r < 0)
		return r;
	raw->channel = mmap(NULL, raw->plan.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, raw->fds[1], 0);
	if (raw->channel == MAP_FAILED)
		return -errno;
	raw->requests = (struct request_producer){
		.entries = (struct stoker_entry *)(raw->channel + raw->plan.request_offset),
		.mask = raw->plan.requests - 1,
	};
	return 0;
}

int raw_attach(const char *name, struct raw *ret)
{
	struct message_hello hello = {
		.header = { .type = MESSAGE_HELLO, .bytes = sizeof(hello), .request = 1 },
		.abi = STOKER_ABI, .client_name = "raw",
		.geometry = { .slots_small = 16, .slots_large = 2, .ready_words = 1024 },
	};
	ssize_t n;
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->socket = raw_connect(name);
	if (ret->socket < 0)
		return ret->socket;
	r = raw_send(ret->socket, &hello, sizeof(hello), NULL, 0);
	if (r < 0)
		return r;
	n = raw_receive(ret->socket, &ret->welcome, sizeof(ret->welcome), ret->fds, &ret->n_fds);
	if (n != (ssize_t)sizeof(ret->welcome))
		return n < 0 ? (int)n : -EPROTO;
	if (ret->welcome.status != STOKER_STATUS_OK)
		return -EACCES;
	ret->next_request = 2;
	return map_channel(ret);
}

void raw_close(struct raw *raw)
{
	if (raw->channel && raw->channel != MAP_FAILED)
		munmap(raw->channel, raw->plan.bytes);
	for (uint32_t i = 0; i < raw->n_fds; i++)
		close(raw->fds[i]);
	if (raw->socket >= 0)
		close(raw->socket);
	memset(raw, 0, sizeof(*raw));
	raw->socket = -1;
}

bool raw_is_expelled(struct raw *raw)
{
	char rest[4096];
	ssize_t n;

	do
		n = raw_receive(raw->socket, rest, sizeof(rest), NULL, NULL);
	while (n > 0);		/* answers that were on their way */
	return n == 0 || n == -ECONNRESET || n == -EPIPE;
}

struct stoker_slot *raw_slot(struct raw *raw, uint32_t slot)
{
	return (struct stoker_slot *)(raw->channel + raw->plan.slot_offset) + slot;
}

uint8_t *raw_input(struct raw *raw, uint32_t slot)
{
	return raw->channel + plan_input_offset(&raw->plan, slot);
}

void raw_submit(struct raw *raw, const struct stoker_request_head *head)
{
	const char byte = 1;

	request_put(&raw->requests, head);
	if (write(raw->fds[2], &byte, 1) < 0 && errno != EAGAIN && errno != EPIPE)	/* full; let go */
		perror("doorbell");
}

int raw_await(struct raw *raw, uint32_t slot, uint32_t generation)
{
	for (int i = 0; i < 5000; i++) {
		const uint64_t word = atomic_load(&raw_slot(raw, slot)->broker.word);

		if (slot_word_generation(word) == generation && slot_word_stage(word) == STOKER_STAGE_DONE)
			return (int)slot_word_status(word);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return -ETIMEDOUT;
}

int raw_ask(struct raw *raw, struct message_header *message, size_t bytes, const int *fds, uint32_t n_fds,
	    struct message_answer *ret)
{
	static uint8_t buffer[MESSAGE_BYTES_MAX];
	ssize_t n;
	int r;

	message->bytes = (uint32_t)bytes;
	message->request = raw->next_request++;
	r = raw_send(raw->socket, message, bytes, fds, n_fds);
	if (r < 0)
		return r;
	n = raw_receive(raw->socket, buffer, sizeof(buffer), NULL, NULL);
	if (n <= 0)
		return n < 0 ? (int)n : -EPIPE;
	if ((size_t)n < sizeof(*ret))
		return -EPROTO;
	memcpy(ret, buffer, sizeof(*ret));
	return 0;
}

int raw_model(struct raw *raw, const char *name, uint32_t bytes)
{
	struct {
		struct message_model_open open;
		struct model_wire wire;
		struct model_wire_group group;
		struct model_wire_row row;
	} message;
	struct message_answer answer;

	memset(&message, 0, sizeof(message));
	message.open.header.type = MESSAGE_MODEL_OPEN;
	message.open.description_bytes = sizeof(message.wire) + sizeof(message.group) + sizeof(message.row);
	snprintf(message.wire.name, sizeof(message.wire.name), "%s", name);
	message.wire.chunk_tokens = 256;
	message.wire.n_groups = message.wire.n_rows = 1;
	message.group = (struct model_wire_group){ .kind = MODEL_GROUP_FULL, .block_tokens = 256, .blocks = 1 };
	message.row.bytes = bytes;
	static_assert(offsetof(__typeof__(message), row) == sizeof(message.open) + sizeof(message.wire) +
		      sizeof(message.group), "a description travels without gaps");
	const int r = raw_ask(raw, &message.open.header, sizeof(message.open) + message.open.description_bytes, NULL, 0,
			      &answer);
	if (r == 0 && answer.status == STOKER_STATUS_OK)
		return (int)answer.number;
	fprintf(stderr, "model %s: %s\n", name, r < 0 ? strerror(-r) : answer.reason);
	return -1;
}
