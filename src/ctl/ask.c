/*
 * Admin verbs on the attachment socket: HELLO as an admin, WELCOME, the verb, its answer. Who may ask
 * is the broker's decision; page.c has seen to it that what listens is the broker whose page status shows.
 * What it says of a refusal is another process's text.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/client/talk.h"
#include "src/ctl/ctl.h"

#define GREETING_MS 5000u

static uint64_t end_of(uint32_t timeout_ms)
{
	return timeout_ms == 0 ? UINT64_MAX : talk_now_ns() + timeout_ms * 1000000ull;
}

/* Wait for a message of at least @bytes. */
static enum ctl_exit receive(const struct ctl *ctl, int sock, void *buffer, size_t bytes, uint64_t deadline_ns,
			     ssize_t *ret)
{
	ssize_t n;
	int r;

	do {
		r = talk_wait(sock, deadline_ns);
		if (r < 0)
			return ctl_fail(CTL_FAILED, "the broker \"%s\" did not answer in time; it may hang: stokerctl status "
					"works all the same", ctl->name);
		n = talk_receive(sock, buffer, bytes, NULL, 0);
	} while (n == -EAGAIN);
	if (n == -EPIPE)
		return ctl_fail(CTL_NO_BROKER, "the broker \"%s\" went away before it answered", ctl->name);
	if (n < 0)
		return ctl_fail(CTL_FAILED, "what the broker \"%s\" answered is no message: %s", ctl->name,
				strerror((int)-n));
	*ret = n;
	return CTL_DONE;
}

static enum ctl_exit greet(const struct ctl *ctl, int sock)
{
	const uint64_t deadline = end_of(GREETING_MS);
	struct message_welcome welcome;
	char why[TALK_WHY] = "";
	enum ctl_exit e;
	ssize_t n;
	int r;

	r = talk_hello(sock, MESSAGE_HELLO_ADMIN, "stokerctl", NULL, deadline);
	if (r < 0)
		return ctl_fail(r == -EPIPE ? CTL_NO_BROKER : CTL_FAILED, "could not greet the broker \"%s\": %s", ctl->name, strerror(-r));
	e = receive(ctl, sock, &welcome, sizeof(welcome), deadline, &n);
	if (e != CTL_DONE)
		return e;
	r = talk_welcome_check(&welcome, (size_t)n, ctl->name, why);
	if (r == 0)
		return CTL_DONE;
	ctl_clean(why, sizeof(why));
	return ctl_fail(r == -EACCES ? CTL_NOT_PERMITTED : CTL_FAILED, "%s", why);
}

enum ctl_exit ctl_question(const struct ctl *ctl, int sock, enum admin_verb verb, uint64_t argument,
			   uint32_t timeout_ms, struct message_answer *ret, size_t room)
{
	struct message_admin admin = {
		.header = { .type = MESSAGE_ADMIN, .bytes = sizeof(admin), .request = 2 },
		.verb = verb,
		.argument = argument,
	};
	const int r = talk_send(sock, &admin, sizeof(admin), NULL, 0, end_of(GREETING_MS));
	enum ctl_exit e;
	ssize_t n;

	if (r < 0)
		return ctl_fail(r == -EPIPE ? CTL_NO_BROKER : CTL_FAILED, "could not ask the broker \"%s\": %s", ctl->name,
				strerror(-r));
	e = receive(ctl, sock, ret, room, end_of(timeout_ms), &n);
	if (e != CTL_DONE)
		return e;
	if (n < (ssize_t)sizeof(*ret) || ret->header.type != MESSAGE_ANSWER || ret->header.request != admin.header.request)
		return ctl_fail(CTL_FAILED, "the broker \"%s\" answered something else than was asked", ctl->name);
	if (ret->status == STOKER_STATUS_OK)
		return CTL_DONE;
	ctl_clean(ret->reason, sizeof(ret->reason));
	return ctl_fail(ret->status == STOKER_STATUS_NOT_PERMITTED ? CTL_NOT_PERMITTED : CTL_FAILED,
			"the broker \"%s\" refused: %s", ctl->name, ret->reason);
}

enum ctl_exit ctl_open(const struct ctl *ctl, int *ret_sock)
{
	int sock;
	enum ctl_exit e = ctl_connect(ctl, &sock);

	if (e != CTL_DONE)
		return e;
	e = greet(ctl, sock);
	if (e == CTL_DONE)
		*ret_sock = sock;
	else
		close(sock);
	return e;
}

enum ctl_exit ctl_ask(const struct ctl *ctl, enum admin_verb verb, uint64_t argument, uint32_t timeout_ms,
		      struct message_answer *ret, uint64_t *ret_ns)
{
	uint64_t before;
	int sock;
	enum ctl_exit e = ctl_open(ctl, &sock);

	if (e != CTL_DONE)
		return e;
	before = talk_now_ns();
	e = ctl_question(ctl, sock, verb, argument, timeout_ms, ret, sizeof(*ret));
	if (ret_ns)
		*ret_ns = talk_now_ns() - before;
	close(sock);
	return e;
}
