/*
 * The control thread's loop: connections, messages, deaths, signals, and what the core has to tell.
 * It may take its time (a registration maps memory, an epoch is synced to disk) but never for a peer:
 * all its sockets are non-blocking, and whoever does not take an answer is let go.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/devices.h"
#include "src/broker/session.h"
#include "src/common/log.h"

#define EVENTS			64
#define LISTEN_BACKLOG		256
#define ACCEPT_BATCH		16
#define WAITING_POLL_MS		5	/* between two looks at a dead broker's I/O lock */
#define TIERS_POLL_MS		2	/* and at tiers that are being opened */
#define WAITING_NS		2000000000u
#define TIERS_NS		10000000000u
#define LEAVING_NS		5000000000u

/* ---- opening ----------------------------------------------------------------------------------- */

int control_watch(struct broker *broker, int fd, struct source *source)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = source };

	return epoll_ctl(broker->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void control_unwatch(struct broker *broker, int fd)
{
	epoll_ctl(broker->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static int listen_open(struct broker *broker, char *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r = 0;

	memcpy(address.sun_path, broker->socket, sizeof(address.sun_path));
	/* NAME.lock is ours: what lies there was left by a dead broker. */
	unlink(broker->socket);
	broker->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (broker->listen_fd < 0 ||
	    bind(broker->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    /* Who may attach is decided at HELLO, where a refusal has a reason. */
	    chmod(broker->socket, 0666) < 0 || listen(broker->listen_fd, LISTEN_BACKLOG) < 0)
		r = -errno;
	if (r < 0)
		snprintf(why, BROKER_WHY, "socket %s could not be opened: %s; name another broker.runtime_directory",
			 broker->socket, strerror(-r));
	return r;
}

static int signals_open(struct broker *broker)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* Threads that are made later inherit this, so that only the descriptor ever sees them. */
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return -EINVAL;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);	/* copiers are waited for, whatever our parent ignores */
	broker->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return broker->signal_fd < 0 ? -errno : 0;
}

int control_open(struct broker *broker, char *why)
{
	int r = listen_open(broker, why);

	if (r < 0)
		return r;
	broker->listen_source.type = SOURCE_LISTEN;
	broker->signal_source.type = SOURCE_SIGNAL;
	broker->bell_source.type = SOURCE_BELL;
	r = signals_open(broker);
	broker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r == 0 && broker->epoll < 0)
		r = -errno;
	if (r == 0)
		r = control_watch(broker, broker->listen_fd, &broker->listen_source);
	if (r == 0)
		r = control_watch(broker, broker->signal_fd, &broker->signal_source);
	if (r == 0)
		r = control_watch(broker, broker->link->bell.fd, &broker->bell_source);
	if (r < 0)
		snprintf(why, BROKER_WHY, "the control thread could not be set up: %s", strerror(-r));
	return r;
}

static void listen_close(struct broker *broker)
{
	if (broker->listen_fd < 0)
		return;
	unlink(broker->socket);
	control_unwatch(broker, broker->listen_fd);
	close(broker->listen_fd);
	broker->listen_fd = -1;
}

void control_close(struct broker *broker)
{
	listen_close(broker);
	if (broker->signal_fd >= 0)
		close(broker->signal_fd);
	if (broker->epoll >= 0)
		close(broker->epoll);
	broker->signal_fd = broker->epoll = -1;
}

/* ---- stopping ---------------------------------------------------------------------------------- */

static void leave(struct broker *broker)
{
	struct session *session, *next;

	broker->phase = PHASE_LEAVING;
	broker->deadline_ns = clock_kernel_ns() + LEAVING_NS;
	if (broker->stopper) {
		const struct message_answer answer = { .status = STOKER_STATUS_OK };

		session_answer(broker->stopper, broker->stopper_request, &answer);
		broker->stopper = NULL;
	}
	/* Clients look at the page when a wait takes long, and at the socket when they sleep. */
	page_mark_dead(&broker->page);
	listen_close(broker);
	for (session = broker->sessions; session; session = next) {
		next = session->next;
		session_close(session, NULL);
	}
}

void control_stop(struct broker *broker)
{
	if (broker->phase >= PHASE_LEAVING)
		return;
	if (broker->phase != PHASE_RUNNING) {	/* nothing to write back yet, or told twice */
		broker->phase = PHASE_LEAVING;
		broker->deadline_ns = 0;
		return;
	}
	broker->phase = PHASE_DRAINING;
	broker->deadline_ns = clock_kernel_ns() + broker->config.broker.drain_timeout_ms * 1000000u;
	broker->drain_order = (struct order){ .type = ORDER_DRAIN };
	link_order(broker->link, &broker->drain_order);
}

/* ---- HUP --------------------------------------------------------------------------------------- */

static void say_start_only(void *arg, const char *section, const char *key)
{
	(void)arg;
	log_warning("%s.%s cannot be changed while the broker runs: it is taken over at the next start", section, key);
}

static void tenant_send(struct broker *broker, uint32_t number)
{
	const uint32_t bit = 1u << number;

	if (broker->tenants_busy & bit) {
		broker->tenants_stale |= bit;	/* the order is with the core: it goes there once more */
		return;
	}
	broker->tenant_orders[number] = (struct order){ .type = ORDER_TENANT,
							.tenant = { number, core_quota(&broker->config.tenants[number]) } };
	broker->tenants_busy |= bit;
	broker->tenants_stale &= ~bit;
	link_order(broker->link, &broker->tenant_orders[number]);
}

static void tenant_answer(struct broker *broker, uint32_t number)
{
	const uint32_t bit = 1u << number;

	broker->tenants_busy &= ~bit;
	if (broker->tenants_stale & bit)
		tenant_send(broker, number);
}

static void reload(struct broker *broker)
{
	static struct config fresh;
	char why[CONFIG_WHY];

	if (!broker->options->reload) {
		log_info("there is no configuration file to read again");
		return;
	}
	if (broker->options->reload(broker->options->reload_arg, &fresh, why) < 0) {
		log_error("the configuration stays as it is: %s", why);
		return;
	}
	config_reload(&broker->config, &fresh, say_start_only, NULL);
	log_set_level((enum log_level)broker->config.broker.log_level);
	for (uint32_t i = 0; i < broker->config.n_tenants; i++)
		tenant_send(broker, i);
	log_info("the configuration was read again");
}

/* ---- events ------------------------------------------------------------------------------------ */

/* As long as files are lacking this is found again and again. */
static void say_not_accepted(void)
{
	static struct log_limit limit;
	uint32_t unsaid;

	if (log_may(&limit, clock_kernel_ns(), &unsaid))
		log_warning("a client could not be accepted: %m; raise the limit of open files");
}

static void on_listen(struct broker *broker)
{
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		const int fd = accept4(broker->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			session_accept(broker, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			say_not_accepted();
			usleep(1000);	/* the connection stays in the queue: not so fast again */
		}
		return;
	}
}

static void on_signal(struct broker *broker)
{
	struct signalfd_siginfo info;

	while (read(broker->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			reload(broker);
			continue;
		}
		log_info("%s: draining and stopping", info.ssi_signo == SIGTERM ? "TERM" : "INT");
		control_stop(broker);
	}
}

static void on_event(struct broker *broker, const struct source *source, uint32_t events)
{
	struct session *session = source->of;

	switch (source->type) {
	case SOURCE_LISTEN:
		if (broker->listen_fd >= 0)
			on_listen(broker);
		break;
	case SOURCE_SIGNAL:
		on_signal(broker);
		break;
	case SOURCE_BELL:
		break;	/* its message is taken in every round */
	case SOURCE_SOCKET:
		if (session->state != SESSION_LEAVING)
			session_event(session, events & (EPOLLHUP | EPOLLERR));
		break;
	case SOURCE_PIDFD:
		session_close(session, NULL);
		break;
	case SOURCE_DEVICE:
		devices_event(source->of);
		break;
	}
}

/* ---- what the core tells ----------------------------------------------------------------------- */

static void on_verb_done(struct broker *broker, struct order *order)
{
	if (order->owner)
		admin_answer(order->owner, order);
	else
		broker->drain_done = true;
}

static void on_answer(struct broker *broker, struct order *order)
{
	switch (order->type) {
	case ORDER_CLIENT_IN:
	case ORDER_CLIENT_OUT:
		session_release(order->owner);
		break;
	case ORDER_GONE:
		session_core_gone(order->channel->session);
		break;
	case ORDER_EXPELLED:
		session_expel(((struct channel *)order->owner)->session, order->why);
		break;
	case ORDER_POOL_ADD:
	case ORDER_POOL_DROP:
		register_answer(order->owner, order);
		break;
	case ORDER_PING:
		if (!order->model.model)
			on_verb_done(broker, order);
		else
			models_answer(broker, order);
		break;
	case ORDER_EVICT:
	case ORDER_CLEAR:
	case ORDER_ACCOUNTS:
	case ORDER_DRAIN:
		on_verb_done(broker, order);
		break;
	case ORDER_MODEL_OPEN:
		if (!order->owner)
			broker->models_awaited--;
		models_answer(broker, order);
		break;
	case ORDER_MODEL_CLOSE:
		forget_answer(broker, order);
		break;
	case ORDER_RESET:
	case ORDER_SAVE_EPOCH:
		models_answer(broker, order);
		break;
	case ORDER_TIER_CORRUPT:
		log_error("tier %s: out of service after %u objects in a row whose checksums were wrong; look at the "
			  "disk, then start the broker again", broker->config.tiers[order->tier.number].name, TIER_ERRORS_MAX);
		break;
	case ORDER_TENANT:
		tenant_answer(broker, order->tenant.number);
		break;
	default:
		break;	/* the others are this thread's own, and nobody waits for them */
	}
}

static bool answers_take(struct broker *broker)
{
	struct order *order;
	bool any = false;

	while ((order = link_answer(broker->link))) {
		on_answer(broker, order);
		any = true;
	}
	return any;
}

/* ---- time -------------------------------------------------------------------------------------- */

static void new_sessions_expire(struct broker *broker, uint64_t now)
{
	struct session *session, *next;

	for (session = broker->n_new ? broker->sessions : NULL; session; session = next) {
		next = session->next;
		if (session->state == SESSION_NEW && now >= session->deadline_ns)
			session_close(session, "it connected and did not say hello");
	}
}

static void held_back_go_on(struct broker *broker)
{
	for (struct session *session = broker->sessions; session; session = session->next) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &session->socket_source };

		if (session->held_back && session->state != SESSION_LEAVING)
			epoll_ctl(broker->epoll, EPOLL_CTL_MOD, session->fd, &event);
		session->held_back = false;
	}
}

static void fail(struct broker *broker)
{
	broker->exit = BROKER_FAILED;
	control_stop(broker);
}

/*
 * Models begin with the highest epoch that the state directory or a tier knows, so they wait for the
 * tiers; but not for ever for a disk that hangs.
 */
static void while_tiers_open(struct broker *broker, uint64_t now)
{
	if (broker->deadline_ns == 0)
		broker->deadline_ns = now + TIERS_NS;
	if (!broker_tiers_take(broker, now >= broker->deadline_ns))
		return;
	broker->deadline_ns = 0;
	models_remember(broker);
	broker->phase = PHASE_OPENING;
}

/* A dead broker's I/O is waited for, up to 2 s; then this boot makes files of its own. */
static void while_waiting(struct broker *broker, uint64_t now)
{
	char why[BROKER_WHY] = "";
	int r;

	if (broker->deadline_ns == 0)
		broker->deadline_ns = now + WAITING_NS;
	r = locks_take_io(&broker->locks, now >= broker->deadline_ns, why);
	if (r == -EAGAIN)
		return;
	if (r == 1)
		log_warning("I/O of a broker that is gone is still under way: this boot makes a fresh arena, and new files "
			    "for the tiers that it touches");
	broker->deadline_ns = 0;
	if (r < 0) {
		log_error("%s", why);
		fail(broker);
	} else if (broker_machine(broker) < 0) {
		fail(broker);
	} else {
		while_tiers_open(broker, now);
	}
}

/* Do what the phase asks for by itself. */
static void phase_step(struct broker *broker)
{
	const uint64_t now = clock_kernel_ns();

	new_sessions_expire(broker, now);
	if (broker->held_until_ns != 0 && now >= broker->held_until_ns) {
		broker->held_until_ns = 0;
		held_back_go_on(broker);
	}
	switch (broker->phase) {
	case PHASE_WAITING:
		while_waiting(broker, now);
		break;
	case PHASE_TIERS:
		while_tiers_open(broker, now);
		break;
	case PHASE_OPENING:
		if (broker->models_awaited > 0)
			break;
		if (broker_start_recovery(broker) < 0)
			fail(broker);
		else
			held_back_go_on(broker);
		break;
	case PHASE_DRAINING:
		if (!broker->drain_done && now < broker->deadline_ns)
			break;
		if (!broker->drain_done)
			log_warning("not everything could be written back within broker.drain_timeout_ms");
		leave(broker);
		break;
	case PHASE_LEAVING:
		if (broker->deadline_ns == 0)
			leave(broker);
		if (!broker->sessions || now >= broker->deadline_ns)
			broker->phase = PHASE_OVER;
		break;
	default:
		break;
	}
}

/* Until the phase, or a connection that says nothing, is to be looked at. -1: never. */
static int phase_timeout_ms(const struct broker *broker)
{
	if (broker->phase == PHASE_WAITING || broker->phase == PHASE_TIERS)
		return broker->phase == PHASE_WAITING ? WAITING_POLL_MS : TIERS_POLL_MS;
	if (broker->phase == PHASE_LEAVING || broker->link->waiting)
		return 1;
	if (broker->phase == PHASE_DRAINING || broker->held_until_ns != 0)
		return 10;
	return broker->n_new ? 1000 : -1;
}

static int timeout_ms(const struct broker *broker)
{
	const int phase = phase_timeout_ms(broker);
	const uint64_t due = devices_due(broker), now = due == UINT64_MAX ? 0 : clock_kernel_ns();
	const uint64_t left = due == UINT64_MAX ? UINT64_MAX : due > now ? (due - now + 999999) / 1000000 : 0;

	if (left > 60000)
		return phase >= 0 ? phase : left == UINT64_MAX ? -1 : 60000;
	return phase >= 0 && phase < (int)left ? phase : (int)left;
}

static void sessions_bury(struct broker *broker)
{
	while (broker->dead) {
		struct session *session = broker->dead;

		broker->dead = session->next;
		free(session);
	}
}

void control_run(struct broker *broker)
{
	struct epoll_event events[EVENTS];

	while (broker->phase != PHASE_OVER) {
		bell_arm(&broker->link->bell);
		const bool any = answers_take(broker);
		devices_tend(broker, clock_kernel_ns());
		phase_step(broker);
		const int n = broker->phase == PHASE_OVER ? 0 :
			      epoll_wait(broker->epoll, events, EVENTS, any ? 0 : timeout_ms(broker));
		bell_disarm(&broker->link->bell);
		for (int i = 0; i < n; i++)
			on_event(broker, events[i].data.ptr, events[i].events);
		/* Only now does no event name them any more. */
		sessions_bury(broker);
	}
}
