/*
 * The control thread by itself: the test is the core, and the clients. So what comes first of two things that
 * happen at once is the test's choice, as here where an answer of the core's comes before a client's end of file.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/closer.h"
#include "src/broker/session.h"
#include "src/broker/state.h"
#include "tests/model-build.h"
#include "tests/suite.h"

#define MODELS	8u

static struct broker_options options;
static struct broker *broker;
static struct link core;
static struct bell bell;
static char directory[] = "/tmp/stoker-test-control-XXXXXX";
static struct session *sessions[2];
static int peers[2];

/* ---- a broker without a core ----------------------------------------------------------------------- */

static void setup(void)
{
	char why[BROKER_WHY];

	strcpy(directory + sizeof(directory) - 7, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(state_open(directory, why), 0);
	broker = calloc(1, sizeof(*broker));
	ck_assert(broker && posix_memalign((void **)&broker->block, 64, sizeof(*broker->block)) == 0);
	memset(broker->block, 0, sizeof(*broker->block));
	options = (struct broker_options){ .ready_fd = -1 };
	broker->options = &options;
	config_init(&broker->config);
	broker->config.n_tenants = 1;
	snprintf(broker->config.tenants[0].name, sizeof(broker->config.tenants[0].name), "default");
	snprintf(broker->config.broker.state_directory, sizeof(broker->config.broker.state_directory), "%s", directory);
	broker->arena_reader_fd = broker->listen_fd = broker->signal_fd = broker->epoll = -1;
	broker->phase = PHASE_RUNNING;
	ck_assert_int_eq(bell_init(&bell), 0);
	ck_assert_int_eq(link_init(&core, &bell), 0);
	broker->link = &core;
	models_init(&broker->models, MODELS);
}

static void teardown(void)
{
	char command[64];

	models_fini(&broker->models);
	link_fini(&core);
	bell_fini(&bell);
	free(broker->block);
	free(broker);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	ck_assert_int_eq(system(command), 0);
}

/* ---- models that are forgotten ------------------------------------------------------------------------ */

/* An attached client, whose other end is peers[@number]. */
static struct session *client(uint32_t number)
{
	const struct channel_geometry geometry = { .slots_small = 1, .slots_large = 1, .ready_words = 1024 };
	struct session *session = calloc(1, sizeof(*session));
	struct channel_ends ends;
	int pair[2];

	ck_assert(session && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	*session = (struct session){ .broker = broker, .state = SESSION_ATTACHED, .fd = pair[0], .pidfd = -1,
				     .peer.uid = geteuid(), .number = number, .next = broker->sessions,
				     .link = &broker->sessions };
	ck_assert_int_eq(channel_new(&geometry, number, &ends, &session->channel), 0);
	channel_ends_close(&ends);
	session->channel->session = session;
	if (session->next)
		session->next->link = &session->next;
	broker->sessions = broker->clients[number] = session;
	broker->n_clients++;
	peers[number] = pair[1];
	return session;
}

static struct model_layout *described(const char *name)
{
	struct model_build *build = model_build_new(name, 256);
	struct model_layout *layout = NULL;
	char why[MESSAGE_REASON];
	uint8_t *bytes;
	size_t n;

	model_build_group(build, MODEL_GROUP_FULL, 0, 16, 16);
	model_build_row(build, 0, 0, 0, 0, 4096);
	bytes = model_build_bytes(build, &n);
	ck_assert_int_eq(model_layout_make(bytes, n, why, &layout), 0);
	free(bytes);
	free(build);
	return layout;
}

/* Every place is taken by a model that nobody has open. */
static void models_fill(void)
{
	for (uint32_t i = 0; i < MODELS; i++) {
		const char name[] = { (char)('a' + i), '\0' };
		struct model_layout *layout = described(name);
		char why[MESSAGE_REASON];
		enum models_lack lack;
		struct model *model = models_get(&broker->models, &broker->config, 0, layout->digest, true, &lack, why);

		ck_assert_ptr_nonnull(model);
		model_describe(model, layout);
		model->state = MODEL_OPEN;
		model->used_ns = i + 1;
	}
}

static void opens_by_digest(struct session *session, uint8_t digest)
{
	const struct opening opening = { .session = session, .request = digest, .digest = { digest } };

	describe_open_go(&opening);
}

static void opens(struct session *session, const char *name)
{
	struct opening opening = { .session = session, .request = 1, .layout = described(name) };

	memcpy(opening.digest, opening.layout->digest, sizeof(opening.digest));
	describe_open_go(&opening);
}

/* The next order for the core is of this type. */
static struct order *asked(enum order_type type)
{
	struct order *order = link_take(&core);

	ck_assert_ptr_nonnull(order);
	ck_assert_int_eq(order->type, type);
	return order;
}

static void forgotten(struct order *close)
{
	close->status = STOKER_STATUS_OK;
	forget_answer(broker, close);
}

/* The core has nothing of it any more; its memory goes at the end of a round. */
static void client_ends(struct session *session)
{
	ck_assert_ptr_eq(asked(ORDER_CLIENT_OUT), &session->out_order);
	session_core_gone(session);
	session_release(session);
	ck_assert_ptr_eq(broker->dead, session);
	broker->dead = session->next;
	free(session);
}

/*
 * Two clients wait for places, one of them for two. It has died when the core's answer comes, which is found when it
 * is told of its first place: the second thing that it waits for goes with it.
 */
START_TEST(who_dies_while_it_waits_for_places_keeps_nobody_else_waiting)
{
	sessions[0] = client(0);
	sessions[1] = client(1);
	models_fill();
	opens_by_digest(sessions[0], 1);
	opens(sessions[1], "wanted");
	opens_by_digest(sessions[0], 2);
	struct order *close_first = asked(ORDER_MODEL_CLOSE);
	ck_assert_ptr_null(link_take(&core));
	ck_assert_int_eq(close(peers[0]), 0);
	forgotten(close_first);
	/* Its first place it has got, so the other client waits for one more. */
	client_ends(sessions[0]);
	forgotten(asked(ORDER_MODEL_CLOSE));
	struct order *open = asked(ORDER_MODEL_OPEN);
	ck_assert_ptr_eq(open->owner, sessions[1]);
	ck_assert_ptr_null(broker->openings);
	open->result = 0;
	models_answer(broker, open);
	session_close(sessions[1], NULL);
	client_ends(sessions[1]);
	close(peers[1]);
}
END_TEST

/* ---- files that are being closed ------------------------------------------------------------------------- */

#define NO_FILES	1000000		/* these numbers and those above are none: to close them takes as long as is said here */

static _Atomic bool held;

int close(int fd)
{
	if (fd < NO_FILES)
		return (int)syscall(SYS_close, fd);
	while (atomic_load(&held))
		usleep(1000);
	return 0;
}

static _Atomic uint64_t stopped_ns;	/* where the clock stands; 0: it goes on */

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	const uint64_t ns = atomic_load(&stopped_ns);

	if (ns == 0 || clock != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, clock, ret);
	*ret = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
	return 0;
}

/* None of them hangs yet, however long this takes. */
static void many_files_are_being_closed(void)
{
	atomic_store(&stopped_ns, clock_kernel_ns());
	atomic_store(&held, true);
	for (int i = 0; i < 5000; i++)
		closer_take(geteuid(), NO_FILES + i);
	ck_assert_int_eq(closer_room(geteuid()), CLOSER_BUSY);
}

static void all_are_closed(void)
{
	atomic_store(&held, false);
	atomic_store(&stopped_ns, 0);
	while (closer_room(geteuid()) != CLOSER_ROOM)
		usleep(1000);
}

START_TEST(a_client_of_whose_uid_many_files_are_being_closed_waits_and_stays)
{
	struct message_drop drop = { .header = { .type = MESSAGE_REGION_DROP, .bytes = sizeof(drop), .request = 1 },
				     .number = 7 };
	struct message_answer answer;
	struct session *session = client(0);

	many_files_are_being_closed();
	ck_assert_int_eq(send(peers[0], &drop, sizeof(drop), 0), sizeof(drop));
	session_event(session, false);
	ck_assert_int_eq(session->state, SESSION_ATTACHED);
	ck_assert_int_lt(recv(peers[0], &answer, sizeof(answer), MSG_DONTWAIT), 0);
	all_are_closed();
	session_event(session, false);
	ck_assert_int_eq(recv(peers[0], &answer, sizeof(answer), MSG_DONTWAIT), sizeof(answer));
	ck_assert_int_eq(answer.status, STOKER_STATUS_NOT_FOUND);
	session_close(session, NULL);
	client_ends(session);
	close(peers[0]);
}
END_TEST

/* Or who sends all the time would keep others waiting, of another uid too. */
START_TEST(who_is_held_back_is_looked_at_again_no_later_because_of_others)
{
	struct message_drop drop = { .header = { .type = MESSAGE_REGION_DROP, .bytes = sizeof(drop), .request = 1 } };
	uint64_t until;

	sessions[0] = client(0);
	sessions[1] = client(1);
	many_files_are_being_closed();
	session_event(sessions[0], false);
	until = broker->held_until_ns;
	ck_assert_uint_gt(until, atomic_load(&stopped_ns));
	atomic_fetch_add(&stopped_ns, 5000000);
	ck_assert_int_eq(send(peers[1], &drop, sizeof(drop), 0), sizeof(drop));
	session_event(sessions[1], false);
	ck_assert(sessions[0]->held_back && sessions[1]->held_back);
	ck_assert_uint_eq(broker->held_until_ns, until);
	all_are_closed();
	for (int i = 0; i < 2; i++) {
		session_close(sessions[i], NULL);
		client_ends(sessions[i]);
		close(peers[i]);
	}
}
END_TEST

/* ---- HUP ---------------------------------------------------------------------------------------------- */

static uint32_t times_read;

/* A configuration that has changed once more, and whoever changed it says so while it is being read. */
static int read_again(void *arg, struct config *ret, char *why)
{
	(void)arg;
	(void)why;
	memcpy(ret, &broker->config, sizeof(*ret));
	ret->tenants[0].leases = ++times_read;
	if (times_read < 3)
		kill(getpid(), SIGHUP);
	return 0;
}

static void *control(void *arg)
{
	char why[BROKER_WHY];

	if (control_open(broker, why) < 0)
		return arg;
	kill(getpid(), SIGHUP);
	control_run(broker);
	control_close(broker);
	return NULL;
}

/* The next order for the core: the control thread is still at it. */
static struct order *awaited(enum order_type type)
{
	struct order *order = NULL;

	for (int i = 0; i < 10000 && !order; i++) {
		order = link_take(&core);
		usleep(order ? 0 : 1000);
	}
	ck_assert_ptr_nonnull(order);
	ck_assert_int_eq(order->type, type);
	return order;
}

START_TEST(quotas_that_change_while_the_core_is_being_told_of_the_last_ones_reach_it_too)
{
	sigset_t set;
	pthread_t thread;
	void *failed;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	options.reload = read_again;
	times_read = 0;
	snprintf(broker->socket, sizeof(broker->socket), "%s/socket", directory);
	ck_assert_int_eq(pthread_create(&thread, NULL, control, broker), 0);
	struct order *tenant = awaited(ORDER_TENANT);
	ck_assert_uint_eq(tenant->tenant.quota.leases, 1);
	usleep(100000);	/* while it has been read three times */
	link_tell(&core, tenant);
	tenant = awaited(ORDER_TENANT);
	ck_assert_uint_eq(tenant->tenant.quota.leases, 3);
	link_tell(&core, tenant);
	kill(getpid(), SIGTERM);
	link_tell(&core, awaited(ORDER_DRAIN));
	ck_assert_int_eq(pthread_join(thread, &failed), 0);
	ck_assert_ptr_null(failed);
	ck_assert_uint_eq(times_read, 3);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-control");
	TCase *forget = tcase_create("forget");

	tcase_add_checked_fixture(forget, setup, teardown);
	tcase_set_timeout(forget, 20);
	tcase_add_test(forget, who_dies_while_it_waits_for_places_keeps_nobody_else_waiting);
	suite_add_tcase(suite, forget);
	TCase *hup = tcase_create("hup");
	tcase_add_checked_fixture(hup, setup, teardown);
	tcase_set_timeout(hup, 20);
	tcase_add_test(hup, quotas_that_change_while_the_core_is_being_told_of_the_last_ones_reach_it_too);
	suite_add_tcase(suite, hup);
	TCase *closing = tcase_create("closing");
	tcase_add_checked_fixture(closing, setup, teardown);
	tcase_set_timeout(closing, 60);
	tcase_add_test(closing, a_client_of_whose_uid_many_files_are_being_closed_waits_and_stays);
	tcase_add_test(closing, who_is_held_back_is_looked_at_again_no_later_because_of_others);
	suite_add_tcase(suite, closing);
	return suite_run(suite);
}
