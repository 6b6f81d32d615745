/* See session.h. */
#include "src/broker/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/closer.h"
#include "src/common/log.h"

#define HELLO_TIMEOUT_NS	5000000000u
#define UID_UNKNOWN		((uid_t)-1)
#define SEND_BUFFER		(1 << 20)
#define HOLD_NS			10000000u	/* between two looks whether its files have been closed */

/* ---- beginning and end ------------------------------------------------------------------------- */

/* Connections of @uid that have not said HELLO, and the oldest of them. */
static uint32_t new_of(const struct broker *broker, uid_t uid, struct session **ret_oldest)
{
	uint32_t n = 0;

	*ret_oldest = NULL;
	for (struct session *session = broker->sessions; session; session = session->next) {
		if (session->state == SESSION_NEW && session->peer.uid == uid) {
			*ret_oldest = session;
			n++;
		}
	}
	return n;
}

/*
 * Places for connections that say nothing yet are few: when they are taken, the uid that has most of
 * them gives its oldest one, so that nobody keeps another uid out by connecting and saying nothing.
 */
static int new_room(struct broker *broker, uid_t uid)
{
	struct session *victim = NULL, *oldest;
	uint32_t most;

	if (broker->n_new < SESSIONS_NEW_MAX)
		return 0;
	most = new_of(broker, uid, &oldest);
	for (struct session *session = broker->sessions; session; session = session->next) {
		const uint32_t n = session->state == SESSION_NEW ? new_of(broker, session->peer.uid, &oldest) : 0;

		if (n > most) {
			most = n;
			victim = oldest;
		}
	}
	if (!victim)
		return -EBUSY;
	session_close(victim, "it connected and said nothing, and others wait");
	return 0;
}

static int identify(struct broker *broker, struct session *session, int fd)
{
	const int r = peer_identify(fd, &session->peer, &session->pidfd);

	return r < 0 ? r : new_room(broker, session->peer.uid);
}

int session_accept(struct broker *broker, int fd)
{
	struct session *session = calloc(1, sizeof(*session));
	const int buffer = SEND_BUFFER;
	int r = -ENOMEM;

	if (session) {
		session->pidfd = -1;
		session->peer.uid = UID_UNKNOWN;
		r = identify(broker, session, fd);
	}
	if (r < 0) {
		broker_count(broker, STOKER_COUNTER_CLIENTS_REFUSED);
		if (session && session->pidfd >= 0)
			close(session->pidfd);
		closer_take_socket(session ? session->peer.uid : UID_UNKNOWN, fd);
		free(session);
		return r;
	}
	session->broker = broker;
	session->fd = fd;
	session->tenant = -1;
	session->deadline_ns = clock_kernel_ns() + HELLO_TIMEOUT_NS;
	session->socket_source = (struct source){ SOURCE_SOCKET, session };
	session->pid_source = (struct source){ SOURCE_PIDFD, session };
	session->next = broker->sessions;
	session->link = &broker->sessions;
	if (session->next)
		session->next->link = &session->next;
	broker->sessions = session;
	broker->n_new++;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	r = control_watch(broker, fd, &session->socket_source);
	if (r == 0 && session->pidfd >= 0)
		r = control_watch(broker, session->pidfd, &session->pid_source);
	if (r < 0)
		session_close(session, "it cannot be watched: the machine is out of memory");
	return r;
}

/* Nothing of it is left anywhere but in the events of this round. */
static void session_free(struct session *session)
{
	*session->link = session->next;
	if (session->next)
		session->next->link = session->link;
	session->next = session->broker->dead;
	session->broker->dead = session;
}

static void free_if_over(struct session *session)
{
	if (session->state == SESSION_LEAVING && session->gone && session->orders == 0)
		session_free(session);
}

void session_release(struct session *session)
{
	session->orders--;
	free_if_over(session);
}

/* Whoever can connect can be let go as often as it likes. */
static void say_let_go(const struct session *session, const char *why)
{
	static struct log_limit limit;
	uint32_t unsaid;

	if (!log_may(&limit, clock_kernel_ns(), &unsaid))
		return;
	if (unsaid)
		log_warning("%u more clients were let go", unsaid);
	log_warning("client \"%s\" (uid %u, pid %d) is let go: %s", session->name[0] ? session->name : "?",
		    (unsigned)session->peer.uid, (int)session->peer.pid, why);
}

void session_close(struct session *session, const char *why)
{
	struct broker *broker = session->broker;
	const enum session_state was = session->state;

	if (was == SESSION_LEAVING)
		return;
	if (why)
		say_let_go(session, why);
	session->state = SESSION_LEAVING;
	control_unwatch(broker, session->fd);
	closer_take_socket(session->peer.uid, session->fd);
	if (session->pidfd >= 0) {
		control_unwatch(broker, session->pidfd);
		close(session->pidfd);
	}
	session->fd = session->pidfd = -1;
	if (broker->stopper == session)
		broker->stopper = NULL;
	if (was == SESSION_NEW)
		broker->n_new--;
	forget_leave(session);
	register_parts_drop(session);
	if (session->channel) {
		session->out_order = (struct order){ .type = ORDER_CLIENT_OUT, .channel = session->channel,
						     .owner = session };
		session->orders++;
		link_order(broker->link, &session->out_order);
	} else {
		session->gone = true;
	}
	free_if_over(session);
}

void session_expel(struct session *session, const char *why)
{
	broker_count(session->broker, STOKER_COUNTER_CLIENTS_EXPELLED);
	session_close(session, why);
}

void session_core_gone(struct session *session)
{
	struct broker *broker = session->broker;

	register_close(session);
	describe_close(session);
	channel_free(session->channel);
	session->channel = NULL;
	broker->clients[session->number] = NULL;
	broker->n_clients--;
	broker_count(broker, STOKER_COUNTER_CLIENTS_GONE);
	log_debug("client %u \"%s\" is gone", session->number, session->name);
	session->gone = true;
	free_if_over(session);
}

/* ---- sending ----------------------------------------------------------------------------------- */

union fd_room {
	char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
	struct cmsghdr align;
};

int session_send(struct session *session, const void *head, size_t head_bytes, const void *more,
		 size_t more_bytes, const int *fds, uint32_t n_fds)
{
	struct iovec parts[2] = { { (void *)(uintptr_t)head, head_bytes }, { (void *)(uintptr_t)more, more_bytes } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = more_bytes ? 2 : 1 };
	union fd_room room;
	ssize_t n;

	if (n_fds > 0) {
		memset(&room, 0, sizeof(room));
		message.msg_control = room.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(session->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void session_answer_more(struct session *session, uint64_t request, const struct message_answer *answer,
			 const void *more, size_t more_bytes, int fd)
{
	struct message_answer message = *answer;

	if (session->state == SESSION_LEAVING)
		return;
	message.header = (struct message_header){
		.type = MESSAGE_ANSWER,
		.bytes = (uint32_t)(sizeof(message) + more_bytes),
		.request = request,
	};
	const int r = session_send(session, &message, sizeof(message), more, more_bytes, &fd, fd >= 0);
	if (r == -EAGAIN)
		session_expel(session, "it asks and does not take its answers");
	else if (r < 0)
		session_close(session, NULL);
}

void session_answer(struct session *session, uint64_t request, const struct message_answer *answer)
{
	session_answer_more(session, request, answer, NULL, 0, -1);
}

void session_refuse(struct session *session, uint64_t request, enum stoker_status status, const char *format, ...)
{
	struct message_answer answer = { .status = status };
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(answer.reason, sizeof(answer.reason), format, arguments);
	va_end(arguments);
	session_answer(session, request, &answer);
}

struct order *session_order(struct session *session, uint64_t request, enum order_type type)
{
	struct order *order = NULL;

	if (session->orders < SESSION_ORDERS_MAX)
		order = calloc(1, sizeof(*order));
	if (!order) {
		session_refuse(session, request, STOKER_STATUS_REFUSED,
			       "%u requests of this client are unanswered: wait for answers first", session->orders);
		return NULL;
	}
	order->type = type;
	order->owner = session;
	order->request = request;
	session->orders++;
	return order;
}

/* ---- receiving --------------------------------------------------------------------------------- */

static void fds_take(struct msghdr *message, struct incoming *in)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (in->n_fds < FDS_OF_A_MESSAGE)
				in->fds[in->n_fds++] = fd;
		}
	}
}

static void fds_close(uid_t uid, struct incoming *in)
{
	for (uint32_t i = 0; i < in->n_fds; i++)
		closer_close(uid, in->fds[i]);
	in->n_fds = 0;
}

/*
 * Returns 0, -EAGAIN (nothing there), -EPIPE (end of file), or -EBADMSG. Descriptors are always taken: there
 * is room for as many as a message can carry, because the kernel would close the others here and now.
 */
static int receive(int fd, struct incoming *in)
{
	struct iovec part = { in->data, sizeof(in->data) };
	static _Thread_local union {
		char bytes[CMSG_SPACE(sizeof(int) * FDS_OF_A_MESSAGE)];
		struct cmsghdr align;
	} room;
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes,
				  .msg_controllen = sizeof(room.bytes) };
	struct message_header header;
	ssize_t n;

	in->n_fds = 0;
	do
		n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : -EPIPE;
	fds_take(&message, in);
	if (n == 0 && in->n_fds == 0)
		return -EPIPE;
	in->bytes = (size_t)n;
	if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || in->bytes < sizeof(header))
		return -EBADMSG;
	memcpy(&header, in->data, sizeof(header));
	return header.bytes == in->bytes ? 0 : -EBADMSG;
}

/* Exact lengths: of the fixed part, or of it and what its counts say. */
static bool length_is_right(const struct incoming *in, uint32_t type)
{
	const struct message_model_open *model = (const void *)in->data;
	const struct message_pool_add *pool = (const void *)in->data;
	const size_t n = in->bytes;

	switch (type) {
	case MESSAGE_HELLO:
		return n == sizeof(struct message_hello);
	case MESSAGE_MODEL_OPEN:
		return n >= sizeof(*model) && n == sizeof(*model) + (size_t)model->description_bytes;
	case MESSAGE_REGION_ADD:
		return n == sizeof(struct message_region_add);
	case MESSAGE_REGION_ADD_CUDA:
		return n == sizeof(struct message_region_add_cuda);
	case MESSAGE_REGION_DROP:
	case MESSAGE_POOL_DROP:
		return n == sizeof(struct message_drop);
	case MESSAGE_POOL_ADD:
		return n >= sizeof(*pool) && pool->n_planes <= MESSAGE_PLANES_MAX &&
		       n == sizeof(*pool) + pool->n_planes * sizeof(struct message_plane);
	case MESSAGE_RESET:
		return n == sizeof(struct message_reset);
	case MESSAGE_ADMIN:
		return n == sizeof(struct message_admin);
	default:
		return false;
	}
}

static void attached_dispatch(struct session *session, struct incoming *in, uint32_t type)
{
	switch (type) {
	case MESSAGE_MODEL_OPEN:
		describe_open(session, in);
		break;
	case MESSAGE_REGION_ADD:
		register_region(session, in);
		break;
	case MESSAGE_REGION_ADD_CUDA:
		register_gpu_region(session, in);
		break;
	case MESSAGE_REGION_DROP:
		register_region_drop(session, in);
		break;
	case MESSAGE_POOL_ADD:
		register_pool(session, in);
		break;
	case MESSAGE_POOL_DROP:
		register_pool_drop(session, in);
		break;
	case MESSAGE_RESET:
		describe_reset(session, in);
		break;
	case MESSAGE_ADMIN:
		admin_verb(session, in);
		break;
	default:
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it sent a message of a type that has no place here");
	}
}

static bool takes_descriptors(uint32_t type)
{
	return type == MESSAGE_REGION_ADD || type == MESSAGE_REGION_ADD_CUDA;
}

static void dispatch(struct session *session, struct incoming *in)
{
	struct message_header header;

	memcpy(&header, in->data, sizeof(header));
	if (!length_is_right(in, header.type) || (in->n_fds > 0 && !takes_descriptors(header.type))) {
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it sent a message whose type, length or descriptors are impossible");
	} else if (session->parts && header.type != MESSAGE_REGION_ADD_CUDA) {
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it began to register memory of a GPU and went on with something else");
	} else if (session->state == SESSION_NEW && header.type == MESSAGE_HELLO) {
		attach_hello(session, in);
	} else if (session->state == SESSION_ADMIN && header.type == MESSAGE_ADMIN) {
		admin_verb(session, in);
	} else if (session->state == SESSION_ATTACHED && header.type != MESSAGE_HELLO) {
		attached_dispatch(session, in, header.type);
	} else {
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it sent a message out of turn");
	}
}

/* What comes is left where it is until control.c goes on with it. */
static void hold_back(struct session *session)
{
	struct epoll_event none = { .data.ptr = &session->socket_source };

	session->held_back = true;
	epoll_ctl(session->broker->epoll, EPOLL_CTL_MOD, session->fd, &none);
}

/*
 * May it go on? Where so many of its uid's files are being closed that each message could bring too many, it waits for
 * them; where one of them hangs it is let go.
 */
static bool may_bring_files(struct session *session, bool hung_up)
{
	const enum closer_room room = closer_room(session->peer.uid);

	if (room == CLOSER_ROOM)
		return true;
	if (room == CLOSER_HANGS) {
		session_close(session, "files that its uid handed over cannot be closed");
	} else if (hung_up) {
		session_close(session, NULL);
	} else {
		hold_back(session);
		/* No later for those that wait already, or who sends all the time would keep everybody waiting. */
		if (session->broker->held_until_ns == 0)
			session->broker->held_until_ns = clock_kernel_ns() + HOLD_NS;
	}
	return false;
}

/* One message an event: level triggered, so that nobody's flood holds up the others. */
void session_event(struct session *session, bool hung_up)
{
	static _Thread_local struct incoming in;
	struct broker *broker = session->broker;
	const uid_t uid = session->peer.uid;

	if (session->state == SESSION_ATTACHED && broker->phase < PHASE_RUNNING) {
		/* This cannot be held back, and would be told again and again. Nobody waits for what it asked. */
		if (hung_up) {
			session_close(session, NULL);
			return;
		}
		/* Models and pools need what is not open yet: read on when it is. */
		hold_back(session);
		return;
	}
	if (session->state == SESSION_NEW && hung_up) {
		/* Nobody is there to be let in: to make a channel for it would keep those who wait. */
		session_close(session, NULL);
		return;
	}
	if (!may_bring_files(session, hung_up))
		return;
	const int r = receive(session->fd, &in);
	if (r == -EAGAIN)
		return;
	if (r == -EPIPE) {
		session_close(session, NULL);
	} else if (r == -EBADMSG) {
		broker_count(broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it sent a message whose length is impossible");
	} else {
		dispatch(session, &in);
	}
	fds_close(uid, &in);	/* those that nobody took */
}
