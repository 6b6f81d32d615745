/*
 * See fake-broker.h. One thread answers the socket; everything it shares with the test is under the
 * lock. There is one client at a time: the one that attached last has the rings.
 */
#include "tests/fake-broker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/client/talk.h"

#define CLIENTS 8

struct fake_client {
	int sock, doorbell, completion, fence;
	struct channel_plan plan;
	uint8_t *channel;
	struct request_consumer requests;
	struct response_producer responses;
};

struct fake {
	struct fake_options options;
	char name[72], socket[108];
	struct control_page *page;
	int page_fd, listener, stop, arena_fd;
	uint8_t *arena;
	pthread_t thread, server;
	bool dead, serving;
	_Atomic bool serve_stop;
	void (*serve)(struct fake *fake, const struct fake_request *request);
	pthread_mutex_t lock;
	struct fake_client clients[CLIENTS];
	uint32_t n_clients, numbers;
	_Atomic uint32_t messages[MESSAGE_END];
	struct fake_gpu_message gpu[16];
};

/* A call that must not fail. */
static int must(int r)
{
	if (r < 0) {
		perror("fake broker");
		abort();
	}
	return r;
}

static void page_make(struct fake *fake)
{
	shm_unlink(fake->name);
	fake->page_fd = must(shm_open(fake->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
	must(ftruncate(fake->page_fd, sizeof(*fake->page)));
	fake->page = mmap(NULL, sizeof(*fake->page), PROT_READ | PROT_WRITE, MAP_SHARED, fake->page_fd, 0);
	assert(fake->page != MAP_FAILED);
	fake->page->abi = fake->options.abi ? fake->options.abi : STOKER_ABI;
	fake->page->bytes = sizeof(*fake->page);
	snprintf(fake->page->name, sizeof(fake->page->name), "%s", fake->name);
	snprintf(fake->page->version, sizeof(fake->page->version), "fake");
	snprintf(fake->page->socket, sizeof(fake->page->socket), "%s", fake->socket);
	fake->page->magic = CONTROL_MAGIC;
}

static void listen_on(struct fake *fake)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	unlink(fake->socket);
	memcpy(address.sun_path, fake->socket, sizeof(address.sun_path));
	fake->listener = must(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	must(bind(fake->listener, (struct sockaddr *)&address, sizeof(address)));
	must(listen(fake->listener, 8));
}

static int channel_make(struct fake *fake, struct fake_client *client, const struct channel_geometry *wish)
{
	struct channel_geometry geometry = *wish;
	struct channel_header *header;
	int fd;

	if (fake->options.slots_small_max && geometry.slots_small > fake->options.slots_small_max)
		geometry.slots_small = fake->options.slots_small_max;
	must(channel_plan_make(&geometry, &client->plan));
	fd = must(memfd_create("fake-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	must(ftruncate(fd, (off_t)client->plan.bytes));
	if (!fake->options.unsealed)
		must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	client->channel = mmap(NULL, client->plan.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(client->channel != MAP_FAILED);
	header = (struct channel_header *)client->channel;
	header->magic = STOKER_CHANNEL_MAGIC;
	header->abi = STOKER_ABI;
	header->bytes_pages = (uint32_t)(client->plan.bytes / STOKER_PAGE);
	header->geometry = geometry;
	client->requests = (struct request_consumer){
		.entries = (struct stoker_entry *)(client->channel + client->plan.request_offset),
		.mask = client->plan.requests - 1,
	};
	client->responses = (struct response_producer){
		.words = (_Atomic uint64_t *)(client->channel + client->plan.response_offset),
		.mask = client->plan.responses - 1,
	};
	return fd;
}

static void welcome(struct fake *fake, struct fake_client *client, const struct message_hello *hello)
{
	struct message_welcome message = {
		.header = { MESSAGE_WELCOME, sizeof(message), hello->header.request },
		.abi = fake->options.abi ? fake->options.abi : STOKER_ABI,
		.status = fake->options.refuse,
		.arena_bytes = fake->options.arena_bytes,
		.flags = fake->options.arena_bytes ? MESSAGE_WELCOME_ARENA : 0,
	};
	int fds[6], doorbell[2], completion[2], fence[2];
	uint32_t n = 5;

	if (message.status != STOKER_STATUS_OK)
		snprintf(message.reason, sizeof(message.reason), "there are too many of you");
	if (message.status != STOKER_STATUS_OK || (hello->flags & MESSAGE_HELLO_ADMIN)) {
		talk_send(client->sock, &message, sizeof(message), NULL, 0, UINT64_MAX);
		return;
	}
	fds[0] = fake->page_fd;
	fds[1] = channel_make(fake, client, &hello->geometry);
	must(pipe2(doorbell, O_CLOEXEC | O_NONBLOCK));
	must(pipe2(completion, O_CLOEXEC | O_NONBLOCK));
	must(pipe2(fence, O_CLOEXEC | O_NONBLOCK));
	client->doorbell = doorbell[0];
	client->completion = completion[1];
	client->fence = fence[1];
	fds[2] = doorbell[1];
	fds[3] = completion[0];
	fds[4] = fence[0];
	if (fake->options.arena_bytes)
		fds[n++] = fake->arena_fd;
	message.geometry = client->plan.geometry;
	talk_send(client->sock, &message, sizeof(message), fds, n, UINT64_MAX);
	for (int i = 1; i < 5; i++)
		close(fds[i]);
}

static void answer(struct fake *fake, struct fake_client *client, const struct message_header *header)
{
	struct message_answer message = { .header = { MESSAGE_ANSWER, sizeof(message), header->request } };

	if (header->type == MESSAGE_REGION_DROP || header->type == MESSAGE_POOL_DROP) {
		if (fake->options.no_drop)
			return;
	} else {
		message.number = ++fake->numbers;
	}
	message.layout_known = 1;
	talk_send(client->sock, &message, sizeof(message), NULL, 0, UINT64_MAX);
}

/* Returns whether it is the last message of its region, which is to be answered. */
static bool gpu_note(struct fake *fake, const void *buffer, uint32_t n_fds)
{
	const struct message_region_add_cuda *message = buffer;
	const uint32_t i = atomic_load(&fake->messages[MESSAGE_REGION_ADD_CUDA]);

	if (i < sizeof(fake->gpu) / sizeof(fake->gpu[0]))
		fake->gpu[i] = (struct fake_gpu_message){ *message, n_fds };
	if (message->more)
		atomic_fetch_add(&fake->messages[MESSAGE_REGION_ADD_CUDA], 1);
	return !message->more;
}

const struct fake_gpu_message *fake_gpu_message(const struct fake *fake, uint32_t i)
{
	return &fake->gpu[i];
}

static void client_hear(struct fake *fake, struct fake_client *client)
{
	static _Alignas(8) uint8_t buffer[MESSAGE_BYTES_MAX];
	const struct message_header *header = (const struct message_header *)buffer;
	struct talk_fds fds = { 0 };
	const ssize_t n = talk_receive(client->sock, buffer, sizeof(buffer), &fds, TALK_FDS_MAX);

	if (n == -EAGAIN)
		return;
	if (n < 0) {
		close(client->sock);
		client->sock = -1;
		return;
	}
	const uint32_t n_fds = fds.n;

	talk_fds_close(&fds);
	if (header->type == MESSAGE_REGION_ADD_CUDA && !gpu_note(fake, buffer, n_fds))
		return;
	if (header->type < MESSAGE_END)
		atomic_fetch_add(&fake->messages[header->type], 1);
	if (header->type != MESSAGE_HELLO)
		answer(fake, client, header);
	else if (!fake->options.silent)
		welcome(fake, client, (const struct message_hello *)buffer);
}

static void client_accept(struct fake *fake)
{
	struct fake_client *client = &fake->clients[fake->n_clients];

	assert(fake->n_clients < CLIENTS);
	memset(client, 0, sizeof(*client));
	client->doorbell = client->completion = client->fence = -1;
	client->sock = must(accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
	fake->n_clients++;
}

static void *socket_thread(void *arg)
{
	struct fake *fake = arg;

	for (;;) {
		struct pollfd set[2 + CLIENTS] = { { fake->stop, POLLIN, 0 }, { fake->listener, POLLIN, 0 } };
		uint32_t n = fake->n_clients;

		for (uint32_t i = 0; i < n; i++)
			set[2 + i] = (struct pollfd){ fake->clients[i].sock, POLLIN, 0 };
		must(poll(set, 2 + n, -1));
		if (set[0].revents)
			return NULL;
		pthread_mutex_lock(&fake->lock);
		for (uint32_t i = 0; i < n; i++) {
			if (set[2 + i].revents)
				client_hear(fake, &fake->clients[i]);
		}
		if (set[1].revents)
			client_accept(fake);
		pthread_mutex_unlock(&fake->lock);
	}
}

struct fake *fake_start(const char *name, const struct fake_options *options)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	assert(fake);
	if (options)
		fake->options = *options;
	snprintf(fake->name, sizeof(fake->name), "%s", name);
	snprintf(fake->socket, sizeof(fake->socket), "/tmp%s.socket", name);
	pthread_mutex_init(&fake->lock, NULL);
	page_make(fake);
	listen_on(fake);
	fake->stop = must(eventfd(0, EFD_CLOEXEC));
	fake->arena_fd = -1;
	if (fake->options.arena_bytes) {
		fake->arena_fd = must(memfd_create("fake-arena", MFD_CLOEXEC));
		must(ftruncate(fake->arena_fd, (off_t)fake->options.arena_bytes));
		fake->arena = mmap(NULL, fake->options.arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fake->arena_fd, 0);
		assert(fake->arena != MAP_FAILED);
	}
	must(-pthread_create(&fake->thread, NULL, socket_thread, fake));
	return fake;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void fake_die(struct fake *fake)
{
	const uint64_t one = 1;

	if (fake->dead)
		return;
	fake_serve_end(fake);
	must((int)write(fake->stop, &one, sizeof(one)));
	pthread_join(fake->thread, NULL);
	close_fd(&fake->listener);
	for (uint32_t i = 0; i < fake->n_clients; i++) {
		close_fd(&fake->clients[i].sock);
		close_fd(&fake->clients[i].doorbell);
		close_fd(&fake->clients[i].completion);
	}
	fake->dead = true;
}

void fake_fence_falls(struct fake *fake)
{
	for (uint32_t i = 0; i < fake->n_clients; i++)
		close_fd(&fake->clients[i].fence);
}

void fake_free(struct fake *fake)
{
	fake_die(fake);
	fake_fence_falls(fake);
	for (uint32_t i = 0; i < fake->n_clients; i++) {
		if (fake->clients[i].channel)
			munmap(fake->clients[i].channel, fake->clients[i].plan.bytes);
	}
	if (fake->arena)
		munmap(fake->arena, fake->options.arena_bytes);
	close_fd(&fake->arena_fd);
	close_fd(&fake->page_fd);
	close_fd(&fake->stop);
	munmap(fake->page, sizeof(*fake->page));
	shm_unlink(fake->name);
	unlink(fake->socket);
	pthread_mutex_destroy(&fake->lock);
	free(fake);
}

const char *fake_socket(const struct fake *fake)
{
	return fake->socket;
}

struct control_page *fake_page(struct fake *fake)
{
	return fake->page;
}

uint32_t fake_messages(const struct fake *fake, enum message_type type)
{
	return atomic_load(&fake->messages[type]);
}

uint8_t *fake_arena(struct fake *fake)
{
	return fake->arena;
}

/* ---- data plane ---------------------------------------------------------------------------------- */

static struct fake_client *current(struct fake *fake)
{
	struct fake_client *client = NULL;

	pthread_mutex_lock(&fake->lock);
	for (uint32_t i = 0; i < fake->n_clients; i++) {
		if (fake->clients[i].channel)
			client = &fake->clients[i];
	}
	pthread_mutex_unlock(&fake->lock);
	assert(client);
	return client;
}

static struct stoker_slot *slot_of(struct fake_client *client, uint32_t slot)
{
	assert(slot < client->plan.slots);
	return (struct stoker_slot *)(client->channel + client->plan.slot_offset) + slot;
}

int fake_take(struct fake *fake, struct fake_request *ret)
{
	struct fake_client *client = current(fake);
	const int r = request_take(&client->requests, &ret->head);

	if (r <= 0)
		return r;
	shm_take(&ret->line, &slot_of(client, ret->head.slot)->request, sizeof(ret->line));
	ret->input = client->channel + plan_input_offset(&client->plan, ret->head.slot);
	return 1;
}

void fake_need_wake(struct fake *fake, uint32_t value)
{
	struct channel_header *header = (struct channel_header *)current(fake)->channel;

	atomic_store(&header->need_wake, value);
}

uint32_t fake_rings(struct fake *fake)
{
	char bytes[256];
	const ssize_t n = read(current(fake)->doorbell, bytes, sizeof(bytes));

	return n > 0 ? (uint32_t)n : 0;
}

void fake_hint(struct fake *fake, uint32_t slot)
{
	response_put(&current(fake)->responses, slot);
}

bool fake_is_waited_for(struct fake *fake, uint32_t slot, uint32_t generation)
{
	return atomic_load(&slot_of(current(fake), slot)->client.want_wake) == generation;
}

bool fake_publish(struct fake *fake, uint32_t slot, uint32_t generation, const struct fake_answer *a)
{
	struct fake_client *client = current(fake);
	struct stoker_slot *shared = slot_of(client, slot);
	uint8_t *output = client->channel + plan_output_offset(&client->plan, slot);
	struct stoker_slot_broker *line = &shared->broker;

	line->found = a->found;
	line->found_l1 = a->found_l1;
	line->expected_us = a->expected_us;
	line->ready = a->ready;
	line->layers = a->layers;
	line->n = a->n;
	for (int i = 0; i < 3; i++)
		line->counts[i] = a->counts[i];
	line->lease_ms = a->lease_ms;
	for (int i = 0; i < 2; i++)
		line->lease[i] = a->lease[i];
	if (a->output)
		memcpy(output, a->output, a->output_bytes);
	if (a->chunks)
		memcpy(output + plan_status_offset(&client->plan, slot), a->chunks, a->n_chunks);
	atomic_store(&line->word, slot_word(generation, a->status, a->stage));
	if (a->stage != STOKER_STAGE_DONE)
		return false;
	if (atomic_load(&shared->client.want_done) == generation)
		atomic_store(&shared->device.done, generation);
	if (!a->no_hint)
		response_put(&client->responses, slot);
	if (!fake_is_waited_for(fake, slot, generation))
		return false;
	must((int)write(client->completion, "", 1));
	return true;
}

uint32_t fake_cancel_word(struct fake *fake, uint32_t slot)
{
	return atomic_load(&slot_of(current(fake), slot)->client.cancel);
}

uint32_t fake_ready_word(struct fake *fake, uint32_t index)
{
	struct fake_client *client = current(fake);

	return atomic_load_explicit((_Atomic uint32_t *)(client->channel + client->plan.ready_offset) + index,
				    memory_order_acquire);
}

static void *serve_thread(void *arg)
{
	struct fake *fake = arg;
	struct fake_request request;

	while (!atomic_load(&fake->serve_stop)) {
		if (fake_take(fake, &request) > 0)
			fake->serve(fake, &request);
		else
			usleep(100);
	}
	return NULL;
}

void fake_serve(struct fake *fake, void (*serve)(struct fake *fake, const struct fake_request *request))
{
	fake->serve = serve;
	atomic_store(&fake->serve_stop, false);
	fake->serving = true;
	must(-pthread_create(&fake->server, NULL, serve_thread, fake));
}

void fake_serve_end(struct fake *fake)
{
	if (!fake->serving)
		return;
	atomic_store(&fake->serve_stop, true);
	pthread_join(fake->server, NULL);
	fake->serving = false;
}
