/*
 * Verbs of stokerctl. Each is an order to the core, one function of a table; the answer goes out when
 * the engine has done it. STOP is answered when the broker has drained, just before it leaves.
 */
#include <stdlib.h>

#include "src/broker/session.h"
#include "src/common/log.h"

static void verb_send(struct session *session, const struct message_admin *message, enum order_type type)
{
	struct order *order = session_order(session, message->header.request, type);

	if (!order)
		return;
	order->value = message->argument;
	link_order(session->broker->link, order);
}

static void ping(struct session *session, const struct message_admin *message)
{
	verb_send(session, message, ORDER_PING);
}

static void evict(struct session *session, const struct message_admin *message)
{
	verb_send(session, message, ORDER_EVICT);
}

static void clear(struct session *session, const struct message_admin *message)
{
	verb_send(session, message, ORDER_CLEAR);
}

static void drain(struct session *session, const struct message_admin *message)
{
	log_info("uid %u asked to drain", (unsigned)session->peer.uid);
	verb_send(session, message, ORDER_DRAIN);
}

static void stop(struct session *session, const struct message_admin *message)
{
	struct broker *broker = session->broker;

	log_info("uid %u asked to stop", (unsigned)session->peer.uid);
	if (broker->stopper) {
		session_refuse(session, message->header.request, STOKER_STATUS_REFUSED, "the broker is stopping already");
		return;
	}
	broker->stopper = session;
	broker->stopper_request = message->header.request;
	control_stop(broker);
}

static void (*const admin_verbs[])(struct session *session, const struct message_admin *message) = {
	[ADMIN_VERB_PING] = ping,
	[ADMIN_VERB_EVICT] = evict,
	[ADMIN_VERB_CLEAR] = clear,
	[ADMIN_VERB_DRAIN] = drain,
	[ADMIN_VERB_STOP] = stop,
};

void admin_verb(struct session *session, const struct incoming *in)
{
	const struct message_admin *message = (const void *)in->data;

	if (message->verb == 0 || message->verb >= ADMIN_VERB_END)
		session_refuse(session, message->header.request, STOKER_STATUS_BAD_REQUEST,
			       "this broker does not know verb %u", message->verb);
	else if (!config_is_admin(&session->broker->config, session->peer.uid))
		session_refuse(session, message->header.request, STOKER_STATUS_NOT_PERMITTED,
			       "uid %u is no admin of this broker", (unsigned)session->peer.uid);
	else
		admin_verbs[message->verb](session, message);
}

void admin_answer(struct session *session, struct order *order)
{
	const struct message_answer answer = { .status = order->status, .value = order->value };

	session_answer(session, order->request, &answer);
	free(order);
	session_release(session);
}
