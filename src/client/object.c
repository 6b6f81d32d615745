/*
 * Models, regions and pools as far as they are alike: each is opened by one message on the socket,
 * has a number at each attachment, and is opened again at the next one.
 *
 * One question at a time and object. Answers may come late (a drop or a reset waits for running
 * jobs), after the caller's patience has ended: whoever receives next hands them to the object that
 * asked, and an answer that nobody waits for is forgotten.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "src/client/client.h"

void object_add(struct stoker *c, struct object *object, enum object_kind kind)
{
	struct object **link = &c->objects;

	object->c = c;
	object->kind = kind;
	while (*link)
		link = &(*link)->next;
	*link = object;
}

void object_forget(struct object *object)
{
	struct object **link = &object->c->objects;

	while (*link != object)
		link = &(*link)->next;
	*link = object->next;
}

void object_free(struct object *object)
{
	switch (object->kind) {
	case OBJECT_MODEL:
		model_free((struct stoker_model *)object);
		break;
	case OBJECT_REGION:
		region_free((struct stoker_region *)object);
		break;
	case OBJECT_POOL:
		free(object);
		break;
	}
}

bool object_is_open(const struct object *object)
{
	return object->c->at && object->ordinal == object->c->at->ordinal;
}

int object_need(const struct object *object, const char *what)
{
	if (object_is_open(object))
		return 0;
	return client_fail(object->c, -EPIPE, "the broker that is there now did not open this %s; drop it and make it "
			   "again to hear why", what);
}

int object_send(struct object *object, enum object_question question, int sock, void *message, size_t bytes,
		const int *fds, uint32_t n_fds, uint64_t deadline_ns)
{
	struct message_header *header = message;
	int r;

	header->bytes = (uint32_t)bytes;
	header->request = ++object->c->request;
	r = talk_send(sock, message, bytes, fds, n_fds, deadline_ns);
	if (r < 0)
		return r;
	object->request = header->request;
	object->question = question;
	object->result = -EINPROGRESS;
	return 0;
}

int object_send_part(struct object *object, int sock, void *message, size_t bytes, const int *fds, uint32_t n_fds,
		     uint64_t deadline_ns)
{
	struct message_header *header = message;

	header->bytes = (uint32_t)bytes;
	header->request = object->c->request + 1;	/* which object_send() will use up */
	return talk_send(sock, message, bytes, fds, n_fds, deadline_ns);
}

int object_send_open(struct object *object, int sock, uint32_t ordinal, uint64_t deadline_ns)
{
	object->tried = ordinal;
	switch (object->kind) {
	case OBJECT_MODEL:
		return model_send((struct stoker_model *)object, sock, deadline_ns);
	case OBJECT_REGION:
		return region_send((struct stoker_region *)object, sock, deadline_ns);
	default:
		return pool_send((struct stoker_pool *)object, sock, ordinal, deadline_ns);
	}
}

static void object_hear(struct object *object, uint32_t ordinal, const struct message_answer *answer, size_t bytes)
{
	object->request = 0;
	object->result = client_status_errno(answer->status);
	if (object->result < 0)
		client_fail(object->c, 0, "%.*s", (int)strnlen(answer->reason, MESSAGE_REASON), answer->reason);
	if (object->question != QUESTION_OPEN)
		return;
	if (object->result == 0 && object->kind == OBJECT_MODEL)
		object->result = model_hear((struct stoker_model *)object, answer, bytes);
	if (object->result == 0) {
		object->number = answer->number;
		object->ordinal = ordinal;
	}
}

/* One who attached before the broker had its arena gets it with a model. Without it there are copies. */
static void arena_hear(struct stoker *c, uint32_t ordinal, const struct message_answer *answer, struct talk_fds *fds)
{
	struct attachment *at = c->arriving && c->arriving->ordinal == ordinal ? c->arriving : c->at;

	if (fds->n > 0 && at && at->ordinal == ordinal && answer->status == STOKER_STATUS_OK)
		greet_arena(c, at, fds->fd[0], answer->value);
	talk_fds_close(fds);
}

int object_listen(struct stoker *c, int sock, uint32_t ordinal)
{
	for (;;) {
		const struct message_answer *answer = (const struct message_answer *)c->message;
		struct talk_fds fds = { 0 };
		const ssize_t n = talk_receive(sock, c->message, MESSAGE_BYTES_MAX, &fds, 1);

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		if (answer->header.type != MESSAGE_ANSWER || (size_t)n < sizeof(*answer)) {
			talk_fds_close(&fds);
			return -EBADMSG;
		}
		arena_hear(c, ordinal, answer, &fds);
		for (struct object *object = c->objects; object; object = object->next) {
			if (object->request == answer->header.request) {
				object_hear(object, ordinal, answer, (size_t)n);
				break;
			}
		}
	}
}

int object_await(struct object *object, uint64_t deadline_ns)
{
	struct stoker *c = object->c;

	while (object->request != 0) {
		if (object_listen(c, c->at->sock, c->at->ordinal) < 0) {
			gone_end(c);	/* which answers every question with -EPIPE */
			break;
		}
		if (object->request != 0 && talk_wait(c->at->sock, deadline_ns) == -ETIMEDOUT)
			return client_fail(c, -ETIMEDOUT, "the broker \"%s\" has not answered yet; call again to wait on",
					   c->name);
	}
	return object->result;
}

static uint64_t round_trip_end(void)
{
	return talk_now_ns() + CLIENT_ROUND_TRIP_MS * 1000000ull;
}

int object_open(struct object *object)
{
	struct stoker *c = object->c;
	const uint64_t end = round_trip_end();
	int r = object_send_open(object, c->at->sock, c->at->ordinal, end);

	if (r == -EPIPE)
		gone_end(c);
	return r < 0 ? r : object_await(object, end);
}

/* Wait until nothing of brokers that are gone can touch this client's memory any more. */
static int await_fences(struct stoker *c, uint64_t deadline_ns)
{
	for (struct attachment *at = c->attachments; at; at = at->next) {
		if (at == c->at || at == c->arriving)
			continue;
		while (!attachment_is_quiet(at)) {
			if (talk_wait(at->fence, deadline_ns) == -ETIMEDOUT)
				return client_fail(c, -ETIMEDOUT, "copies of a broker that is gone have not ended yet; call "
						   "again to wait on, and do not free the memory before");
		}
	}
	return 0;
}

static int ask_drop(struct object *object, uint64_t deadline_ns)
{
	struct stoker *c = object->c;
	struct message_drop drop = {
		.header.type = object->kind == OBJECT_REGION ? MESSAGE_REGION_DROP : MESSAGE_POOL_DROP,
		.number = object->number,
	};
	int r = 0;

	/* Asked before and not answered in time: go on waiting for that answer. */
	if (object->request == 0 || object->question != QUESTION_DROP)
		r = object_send(object, QUESTION_DROP, c->at->sock, &drop, sizeof(drop), NULL, 0, deadline_ns);
	if (r == -EPIPE)
		gone_end(c);
	if (r == 0)
		r = object_await(object, deadline_ns);
	return r;
}

int object_drop(struct object *object)
{
	struct stoker *c = object->c;
	const uint64_t end = round_trip_end();
	int r = 0;

	if (object->users > 0)
		return client_fail(c, -EBUSY, "something still uses it; drop the pools first");
	if (object_is_open(object)) {
		r = ask_drop(object, end);
	} else {
		/* The broker that is being attached to was asked for it: it forgets all of that with the attachment. */
		if (c->arriving && object->tried == c->arriving->ordinal) {
			away_stop(c);
			c->next_try_ns = 0;
		}
		object->question = QUESTION_DROP;
	}
	if (r == 0 || r == -EPIPE)
		r = await_fences(c, end);
	return r;
}
