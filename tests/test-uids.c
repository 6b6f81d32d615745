/*
 * Broker and clients of different uids, through what users run: libstoker and stokerctl. Whose broker is
 * believed, who may attach, and who may give orders. What hostile clients get is in test-hostile.c.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stoker/stoker.h>

#include "tests/hostile-rig.h"

/* ---- whose broker is believed, and who may attach --------------------------------------------------- */

static struct {
	uint32_t broker_uid;		/* whom the client believes besides root and itself; 0: nobody */
	bool by_socket;			/* not by name */
	int result;
	const char *text;		/* that the error has */
} attempt;

static int attach_once(void)
{
	struct stoker_options options = { .size = sizeof(options), .broker_uid = attempt.broker_uid };
	char socket[160];
	struct stoker *c = NULL;
	int r;

	snprintf(socket, sizeof(socket), "%s", rig_name);
	if (attempt.by_socket)
		snprintf(socket, sizeof(socket), "%s/run/%s.sock", rig_directory, rig_name + 1);
	r = stoker_attach(socket, &options, &c);
	if (r != attempt.result || (r < 0 && (c || !strstr(stoker_attach_error(), attempt.text)))) {
		fprintf(stderr, "attach: %d, \"%s\"\n", r, r < 0 ? stoker_attach_error() : "");
		return 1;
	}
	stoker_close(c);
	return 0;
}

static void attach_as(uid_t uid, uint32_t believed, int result, const char *text)
{
	attempt.broker_uid = believed;
	attempt.result = result;
	attempt.text = text;
	for (int i = 0; i < 2; i++) {
		attempt.by_socket = i == 1;
		ck_assert_msg(rig_run_as(uid, attach_once) == 0, "uid %d, by %s, believes %u", (int)uid,
			      i ? "socket" : "name", believed);
	}
}

START_TEST(a_broker_of_another_uid_is_believed_only_if_the_client_names_it)
{
	attach_as(HONEST_UID, BROKER_UID, 0, NULL);
	attach_as(HONEST_UID, 0, -EACCES, "belongs to uid 64101");
	attach_as(HONEST_UID, HOSTILE_UID, -EACCES, "belongs to uid 64101");
	attach_as(0, 0, -EACCES, "belongs to uid 64101");
	rig_newcomer_is_served();
}
END_TEST

START_TEST(a_client_without_a_tenant_is_refused_and_told_why)
{
	attach_as(STRANGER_UID, BROKER_UID, -EACCES, "tenant.uids");
	/* Not even the broker's own uid: the configuration names two tenants, and it is in neither. */
	attach_as(BROKER_UID, 0, -EACCES, "tenant.uids");
	ck_assert(rig_gauge_becomes(STOKER_GAUGE_CLIENTS, 1));	/* the honest one */
}
END_TEST

/* ---- who may give orders ---------------------------------------------------------------------------- */

static struct {
	const char *program, *how;	/* the option that names the broker */
	int binary, err;
	const char *const *arguments;
} order;

static int program(void)
{
	const char *arguments[12] = { order.program };
	int n = 1;

	for (const char *const *more = order.arguments; *more && n < 9; more++)
		arguments[n++] = *more;
	arguments[n++] = order.how;
	arguments[n++] = rig_name;
	dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
	dup2(order.err, STDERR_FILENO);
	fexecve(order.binary, (char *const *)(uintptr_t)arguments, environ);
	return 127;
}

/* A program as @uid: its exit status; what it said is in @said. */
static int run_as(uid_t uid, const char *name, const char *how, const char *const *arguments, char said[512])
{
	const char *build = getenv("top_builddir") ? getenv("top_builddir") : ".";
	int err[2], status;
	char path[512];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", build, name);
	ck_assert_int_eq(pipe2(err, O_CLOEXEC), 0);
	/* Opened as root: the build tree may lie where another uid cannot go. */
	order.binary = open(path, O_RDONLY | O_CLOEXEC);
	order.program = name;
	order.how = how;
	order.err = err[1];
	order.arguments = arguments;
	ck_assert_int_ge(order.binary, 0);
	status = rig_run_as(uid, program);
	close(order.binary);
	close(err[1]);
	n = read(err[0], said, 511);
	said[n > 0 ? n : 0] = '\0';
	close(err[0]);
	return status;
}

static int order_as(uid_t uid, const char *const *arguments, char said[512])
{
	return run_as(uid, "stokerctl", "--name", arguments, said);
}

#define ARGUMENTS(...) ((const char *const[]){ __VA_ARGS__, NULL })

START_TEST(who_is_no_admin_may_look_and_not_give_orders)
{
	static const uid_t others[] = { STRANGER_UID, HONEST_UID, HOSTILE_UID };
	const char *const *const orders[] = {
		ARGUMENTS("ping"), ARGUMENTS("evict", "1M"), ARGUMENTS("clear"), ARGUMENTS("drain"), ARGUMENTS("stop"),
		ARGUMENTS("--json", "stop"),
	};
	const char *const *const looks[] = { ARGUMENTS("status"), ARGUMENTS("--json", "status"), ARGUMENTS("stat"),
					     ARGUMENTS("clients") };
	const uid_t uid = others[_i];
	char said[512], who[64];

	snprintf(who, sizeof(who), "uid %d is no admin", (int)uid);
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		ck_assert_msg(order_as(uid, orders[i], said) == 4, "%s: %s", orders[i][0], said);
		ck_assert_msg(strstr(said, who), "%s: %s", orders[i][0], said);
	}
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
		ck_assert_msg(order_as(uid, looks[i], said) == 0, "%s: %s", looks[i][0], said);
}
END_TEST

START_TEST(the_brokers_own_uid_and_root_give_orders)
{
	char said[512];

	ck_assert_msg(order_as(BROKER_UID, ARGUMENTS("ping"), said) == 0, "%s", said);
	ck_assert_msg(order_as(0, ARGUMENTS("evict", "1M"), said) == 0, "%s", said);
	ck_assert_msg(order_as(BROKER_UID, ARGUMENTS("clear"), said) == 0, "%s", said);
}
END_TEST

START_TEST(a_broker_of_another_uid_can_be_measured_by_whoever_names_it)
{
	char said[512];

	ck_assert_int_eq(run_as(HONEST_UID, "stoker-bench", "--attach",
				ARGUMENTS("idle", "--clients", "1", "--seconds", "1"), said), 1);
	ck_assert_msg(strstr(said, "belongs to uid 64101"), "%s", said);
	ck_assert_msg(run_as(HONEST_UID, "stoker-bench", "--attach", ARGUMENTS("idle", "--clients", "1", "--seconds", "1",
			     "--broker-uid", "64101"), said) == 0, "%s", said);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("uids");
	TCase *tests = tcase_create("uids");

	if (geteuid() != 0) {
		puts("1..0 # SKIP broker and clients need several uids, and only root can become them");
		return 0;
	}
	tcase_add_checked_fixture(tests, rig_setup, rig_teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_broker_of_another_uid_is_believed_only_if_the_client_names_it);
	tcase_add_test(tests, a_client_without_a_tenant_is_refused_and_told_why);
	tcase_add_loop_test(tests, who_is_no_admin_may_look_and_not_give_orders, 0, 3);
	tcase_add_test(tests, the_brokers_own_uid_and_root_give_orders);
	tcase_add_test(tests, a_broker_of_another_uid_can_be_measured_by_whoever_names_it);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
