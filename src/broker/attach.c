/*
 * HELLO and WELCOME: who is let in, as which tenant, with what. Identity is the kernel's word; the
 * message only says which protocol is spoken and how large a channel is wished for. Whoever is turned
 * away is told why.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/session.h"
#include "src/broker/share.h"
#include "src/common/log.h"

__attribute__((format(printf, 3, 4)))
static void turn_away(struct session *session, enum stoker_status status, const char *format, ...)
{
	struct message_welcome welcome = {
		.header = { .type = MESSAGE_WELCOME, .bytes = sizeof(welcome), .request = 1 },
		.abi = STOKER_ABI,
		.status = status,
	};
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(welcome.reason, sizeof(welcome.reason), format, arguments);
	va_end(arguments);
	log_debug("client \"%s\" (uid %u, pid %d) is turned away: %s", session->name, (unsigned)session->peer.uid,
		 (int)session->peer.pid, welcome.reason);
	broker_count(session->broker, STOKER_COUNTER_CLIENTS_REFUSED);
	session_send(session, &welcome, sizeof(welcome), NULL, 0, NULL, 0);
	session_close(session, NULL);
}

/* What the client calls itself, made fit for a terminal. */
static void name_take(struct session *session, const char name[SESSION_NAME])
{
	uint32_t i;

	for (i = 0; i < SESSION_NAME - 1 && name[i]; i++)
		session->name[i] = name[i] > ' ' && name[i] < 127 && name[i] != '"' ? name[i] : '_';
	session->name[i] = '\0';
}

static uint32_t clamp(uint32_t n, uint32_t low, uint32_t high)
{
	return n < low ? low : n > high ? high : n;
}

/* A wish, bounded. */
static struct channel_geometry geometry_bound(const struct channel_geometry *wish)
{
	return (struct channel_geometry){
		.slots_small = clamp(wish->slots_small, 1, CHANNEL_SMALL_MAX),
		.slots_large = clamp(wish->slots_large, 1, CHANNEL_LARGE_MAX),
		.ready_words = (clamp(wish->ready_words, 1, CHANNEL_READY_MAX) + 1023) / 1024 * 1024,
	};
}

static uint64_t one(const struct session *session)
{
	(void)session;
	return 1;
}

/* Seats of the new client's uid are taken: none that it asks for more is let in. */
static bool uid_is_full(const struct session *session, uint32_t of_uid)
{
	const struct config_limits *limits = &session->broker->config.limits;
	const struct share seats = { .total = session->broker->seats, .of = one };

	if (limits->clients_per_uid)
		return of_uid >= limits->clients_per_uid;
	return session->broker->n_clients < session->broker->seats && !share_allows(session, &seats, 1);
}

/* The number of a new client, or -1: @why says which limit forbids it. */
static int number_find(const struct session *session, char why[MESSAGE_REASON])
{
	const struct broker *broker = session->broker;
	uint32_t of_uid = 0, number = CONTROL_CLIENTS;

	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++) {
		if (!broker->clients[i])
			number = number == CONTROL_CLIENTS ? i : number;
		else
			of_uid += broker->clients[i]->peer.uid == session->peer.uid;
	}
	if (uid_is_full(session, of_uid)) {
		snprintf(why, MESSAGE_REASON, "%u clients of uid %u are attached, which is the limit: raise "
			 "limits.clients_per_uid", of_uid, (unsigned)session->peer.uid);
		return -1;
	}
	if (broker->n_clients >= broker->seats || number >= broker->seats) {
		snprintf(why, MESSAGE_REASON, "%u clients are attached, which is the limit: raise limits.clients",
			 broker->n_clients);
		return -1;
	}
	return (int)number;
}

static bool may_map_arena(const struct session *session)
{
	const struct config *config = &session->broker->config;

	return config->n_tenants == 1 || config->tenants[session->tenant].trusted;
}

int attach_arena(struct session *session, uint64_t *ret_bytes)
{
	const struct broker *broker = session->broker;

	if (session->has_arena || broker->arena_reader_fd < 0 || !may_map_arena(session))
		return -1;
	session->has_arena = true;
	*ret_bytes = broker->arena->bytes;
	return broker->arena_reader_fd;
}

static void row_fill(struct session *session)
{
	struct control_client *row = &session->channel->row;
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	row->used = 1;
	snprintf(row->name, sizeof(row->name), "%s", session->name);
	row->uid = session->peer.uid;
	row->pid = (uint32_t)session->peer.pid;
	row->attached_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int welcome_send(struct session *session, const struct channel_ends *ends)
{
	const struct broker *broker = session->broker;
	uint64_t arena_bytes = 0;
	const int arena = attach_arena(session, &arena_bytes);
	struct message_welcome welcome = {
		.header = { .type = MESSAGE_WELCOME, .bytes = sizeof(welcome), .request = 1 },
		.abi = STOKER_ABI,
		.status = STOKER_STATUS_OK,
		.geometry = session->channel->plan.geometry,
		.client = session->number,
	};
	int fds[6] = { broker->page.reader_fd, ends->memory, ends->doorbell, ends->completion, ends->fence };
	uint32_t n = 5;

	memcpy(welcome.boot_id, broker->page.control->boot_id, sizeof(welcome.boot_id));
	/* While the I/O of a dead broker is waited for there is none yet: then it comes with the first model. */
	if (arena >= 0) {
		welcome.flags |= MESSAGE_WELCOME_ARENA;
		welcome.arena_bytes = arena_bytes;
		fds[n++] = arena;
	}
	return session_send(session, &welcome, sizeof(welcome), NULL, 0, fds, n);
}

static void let_in(struct session *session, int number, const struct channel_geometry *wish)
{
	const struct channel_geometry geometry = geometry_bound(wish);
	struct broker *broker = session->broker;
	struct channel_ends ends;

	int r = channel_new(&geometry, (uint32_t)number, &ends, &session->channel);
	if (r < 0) {
		turn_away(session, STOKER_STATUS_NO_MEMORY, "its channel could not be made: %s; the broker needs more "
			  "memory or descriptors", strerror(-r));
		return;
	}
	session->number = (uint32_t)number;
	session->channel->session = session;
	session->channel->tenant = (uint32_t)session->tenant;
	row_fill(session);
	r = welcome_send(session, &ends);
	channel_ends_close(&ends);
	if (r < 0) {
		/* The core never heard of it. */
		channel_free(session->channel);
		session->channel = NULL;
		session_close(session, NULL);
		return;
	}
	broker->clients[number] = session;
	broker->n_clients++;
	broker->n_new--;
	session->state = SESSION_ATTACHED;
	broker_count(broker, STOKER_COUNTER_CLIENTS_ATTACHED);
	log_debug("client %d \"%s\" is attached: uid %u, pid %d, tenant %s", number, session->name,
		  (unsigned)session->peer.uid, (int)session->peer.pid, broker->config.tenants[session->tenant].name);
	if (session->peer.uid == geteuid() && !broker->own_uid_said) {
		broker->own_uid_said = true;
		log_info("a client of the broker's own uid %u is attached: it could reopen and trace anything, so it is "
			 "guarded against by accident only", (unsigned)session->peer.uid);
	}
	session->in_order = (struct order){ .type = ORDER_CLIENT_IN, .channel = session->channel, .owner = session };
	session->orders++;
	link_order(broker->link, &session->in_order);
}

static void let_in_admin(struct session *session)
{
	struct message_welcome welcome = {
		.header = { .type = MESSAGE_WELCOME, .bytes = sizeof(welcome), .request = 1 },
		.abi = STOKER_ABI,
		.status = STOKER_STATUS_OK,
	};

	memcpy(welcome.boot_id, session->broker->page.control->boot_id, sizeof(welcome.boot_id));
	session->broker->n_new--;
	session->state = SESSION_ADMIN;
	if (session_send(session, &welcome, sizeof(welcome), NULL, 0, NULL, 0) < 0)
		session_close(session, NULL);
}

void attach_hello(struct session *session, const struct incoming *in)
{
	const struct message_hello *hello = (const void *)in->data;
	struct broker *broker = session->broker;
	const unsigned uid = session->peer.uid;
	char why[MESSAGE_REASON];

	name_take(session, hello->client_name);
	if (hello->abi != STOKER_ABI) {
		turn_away(session, STOKER_STATUS_BAD_REQUEST, "its layout version is %u, this daemon speaks %u; install "
			  "the client library of the daemon's release", hello->abi, STOKER_ABI);
		return;
	}
	if (hello->flags & ~MESSAGE_HELLO_ADMIN || hello->geometry.reserved != 0) {
		broker_count(broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "its hello has an unknown flag or a reserved bit set");
		return;
	}
	if (hello->flags & MESSAGE_HELLO_ADMIN) {
		if (config_is_admin(&broker->config, session->peer.uid))
			let_in_admin(session);
		else
			turn_away(session, STOKER_STATUS_NOT_PERMITTED, "uid %u is no admin of this broker: root, uid %u "
				  "and tenant.admins are", uid, (unsigned)geteuid());
		return;
	}
	session->tenant = config_tenant_of(&broker->config, session->peer.uid, session->peer.gid);
	if (session->tenant < 0) {
		turn_away(session, STOKER_STATUS_NOT_PERMITTED, "no tenant of this broker names uid %u or gid %u; add it "
			  "to tenant.uids", uid, (unsigned)session->peer.gid);
		return;
	}
	if (broker->phase > PHASE_RUNNING) {
		turn_away(session, STOKER_STATUS_REFUSED, "the broker is stopping");
		return;
	}
	const int number = number_find(session, why);
	if (number < 0)
		turn_away(session, STOKER_STATUS_REFUSED, "%s", why);
	else
		let_in(session, number, &hello->geometry);
}
