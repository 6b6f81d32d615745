/*
 * Verbs of stokerctl. Each is an order to the core, one function of a table; the answer goes out when
 * the engine has done it. STOP is answered when the broker has drained, just before it leaves. ACCOUNTS
 * are asked for some at a time, so that however many there are the core is not held up.
 */
#include <stdio.h>
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

static void accounts(struct session *session, const struct message_admin *message)
{
	struct order_accounts *accounts = calloc(1, sizeof(*accounts));
	struct order *order = accounts ? session_order(session, message->header.request, ORDER_ACCOUNTS) : NULL;

	if (!accounts)
		session_refuse(session, message->header.request, STOKER_STATUS_NO_MEMORY, "the broker is out of memory; try again");
	if (!order) {
		free(accounts);
		return;
	}
	order->accounts = accounts;
	order->value = message->argument;
	link_order(session->broker->link, order);
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
	[ADMIN_VERB_ACCOUNTS] = accounts,
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

static void accounts_answer(struct session *session, struct order *order)
{
	const struct order_accounts *found = order->accounts;
	const struct message_answer answer = { .status = order->status, .value = order->value, .number = found->n };
	struct message_account rows[MESSAGE_ACCOUNTS_MAX] = { 0 };

	for (uint32_t i = 0; i < found->n; i++) {
		const struct engine_account_figures *figures = &found->each[i];
		const struct config_tenant *tenant = &session->broker->config.tenants[figures->tenant];

		rows[i] = (struct message_account){
			.account = figures->others ? 0 : figures->account, .others = figures->others,
			.arena_bytes = figures->arena_bytes, .disk_bytes = figures->disk_bytes,
			.arena_quota = tenant->account_arena_quota, .disk_quota = tenant->account_disk_quota,
			.chunks = figures->chunks,
		};
		snprintf(rows[i].tenant, sizeof(rows[i].tenant), "%s", tenant->name);
	}
	session_answer_more(session, order->request, &answer, rows, found->n * sizeof(rows[0]), -1);
}

void admin_answer(struct session *session, struct order *order)
{
	const struct message_answer answer = { .status = order->status, .value = order->value };

	if (order->type == ORDER_ACCOUNTS) {
		accounts_answer(session, order);
		free(order->accounts);
	} else {
		session_answer(session, order->request, &answer);
	}
	free(order);
	session_release(session);
}
