/*
 * The way to an attachment, the first and every later one, as steps that never wait:
 *
 *	AWAY --connected, HELLO sent--> GREETED --WELCOME--> RESTORING --all asked--> ATTACHED
 *
 * Any failure leads back to AWAY, and the next try is not before 100 ms have passed. Calls that find
 * no broker make one step and go on without; stoker_attach() and stoker_reattach() step until the
 * end, and sleep in between. So a broker that is back is found by whoever works, at no cost that
 * shows, and a broker that hangs holds up nobody.
 *
 * RESTORING opens models, regions and pools again, in the order of their making. One that the new
 * broker refuses stays closed: calls that name it say so; the others are served.
 */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "src/client/client.h"

#define RETRY_NS	100000000u

void away_stop(struct stoker *c)
{
	attachment_close(&c->coming);
	if (c->arriving) {
		attachment_put(c, c->arriving);
		c->arriving = NULL;
		for (struct object *object = c->objects; object; object = object->next)
			object->request = 0;
	}
	if (c->phase != PHASE_ATTACHED)
		c->phase = PHASE_AWAY;
}

static int away_fail(struct stoker *c, int r)
{
	away_stop(c);
	c->next_try_ns = talk_now_ns() + RETRY_NS;
	return r;
}

static int away_hello(struct stoker *c)
{
	const uint64_t now = talk_now_ns();
	int r;

	if (now < c->next_try_ns)
		return -EPIPE;
	r = talk_connect(c->name, &c->rules, &c->coming_uid, c->error);
	if (r < 0)
		return away_fail(c, r);
	c->coming = r;
	r = talk_hello(c->coming, 0, c->client_name, &c->wish, now);
	if (r < 0) {
		client_fail(c, r, "could not attach to \"%s\": could not greet it: %s", c->name, strerror(-r));
		return away_fail(c, r);
	}
	c->try_end_ns = now + c->attach_timeout_ms * 1000000ull;
	c->phase = PHASE_GREETED;
	return 0;
}

static int away_late(struct stoker *c, const char *what)
{
	if (talk_now_ns() < c->try_end_ns)
		return -EAGAIN;
	client_fail(c, -ETIMEDOUT, "could not attach to \"%s\": it did not answer %s in time; if stokerctl ping hangs "
		    "too, the broker does", c->name, what);
	return away_fail(c, -ETIMEDOUT);
}

static int away_welcome(struct stoker *c)
{
	struct talk_fds fds = { 0 };
	const ssize_t n = talk_receive(c->coming, c->message, MESSAGE_BYTES_MAX, &fds, MESSAGE_FDS_MAX);
	int r;

	if (n == -EAGAIN)
		return away_late(c, "the greeting");
	if (n < 0) {
		r = client_fail(c, n == -EPIPE ? -ENOENT : (int)n,
				"could not attach to \"%s\": it went away before it answered", c->name);
		return away_fail(c, r);
	}
	r = talk_welcome_check((const struct message_welcome *)c->message, (size_t)n, c->name, c->error);
	if (r < 0)
		talk_fds_close(&fds);
	else
		r = greet_take(c, (const struct message_welcome *)c->message, &fds, c->coming_uid, &c->arriving);
	if (r < 0)
		return away_fail(c, r);
	c->coming = -1;
	c->try_end_ns = talk_now_ns() + CLIENT_ROUND_TRIP_MS * 1000000ull;
	c->phase = PHASE_RESTORING;
	return 0;
}

static int away_restore(struct stoker *c)
{
	struct attachment *at = c->arriving;
	int r = object_listen(c, at->sock, at->ordinal);

	if (r < 0) {
		client_fail(c, r, "could not attach to \"%s\" again: it went away meanwhile", c->name);
		return away_fail(c, r);
	}
	for (struct object *object = c->objects; object; object = object->next) {
		if (object->request != 0)
			return away_late(c, "the opening of a model, region or pool");
		if (object->tried == at->ordinal || object->question == QUESTION_DROP)
			continue;
		r = object_send_open(object, at->sock, at->ordinal, talk_now_ns());
		if (r == -EPIPE || r == -ETIMEDOUT)
			return away_fail(c, r);
		if (r == 0)
			return -EAGAIN;
	}
	r = attachment_watch(c, at);
	if (r < 0) {
		attachment_unwatch(c, at);
		return away_fail(c, r);
	}
	c->at = at;
	c->arriving = NULL;
	c->phase = PHASE_ATTACHED;
	slots_lay_out(c);
	gone_clock(c);
	return 0;
}

int away_step(struct stoker *c)
{
	for (;;) {
		int r;

		switch (c->phase) {
		case PHASE_ATTACHED:
			return 0;
		case PHASE_AWAY:
			r = away_hello(c);
			break;
		case PHASE_GREETED:
			r = away_welcome(c);
			break;
		default:
			r = away_restore(c);
			break;
		}
		if (r < 0)
			return r;
	}
}

/*
 * Wait for the broker, or for a place among those that wait to be let in: whoever connects all the time can
 * take every one that becomes free, but not each time before we do.
 */
static int away_wait(const struct stoker *c, uint64_t deadline_ns)
{
	if (c->coming >= 0 || c->arriving)
		return talk_wait(c->coming >= 0 ? c->coming : c->arriving->sock, deadline_ns);
	poll(NULL, 0, 1);
	return talk_now_ns() < deadline_ns ? 0 : -ETIMEDOUT;
}

int away_until(struct stoker *c, uint64_t deadline_ns)
{
	for (;;) {
		c->next_try_ns = 0;
		int r = away_step(c);

		if (r != -EAGAIN)
			return r;
		r = away_wait(c, deadline_ns);
		if (r == -ETIMEDOUT) {
			if (c->coming < 0 && !c->arriving)
				return r;	/* talk_connect() has said that too many wait */
			away_stop(c);
			return client_fail(c, r, "could not attach to \"%s\": it did not answer in time; if stokerctl ping "
					   "hangs too, the broker does", c->name);
		}
	}
}
