/*
 * idle: what a quiet broker costs whose clients have worked before and stay attached. CPU time of all
 * its threads, as the kernel counts it.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"

#include <stoker/stoker.h>

#define PINGS	  200u
#define SETTLE_US 500000u	/* from the last request until the broker counts as quiet */

static struct {
	uint64_t clients, seconds;
} options = { .clients = 64, .seconds = 5 };

static const struct option_row option_rows[] = {
	{ "clients", OPTION_COUNT, &options.clients, 0, 256, "N", "attached clients" },
	{ "seconds", OPTION_COUNT, &options.seconds, 1, 3600, "N", "how long to look" },
	{ 0 },
};

static bool work_a_little(struct stoker *client)
{
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_job job;

	for (uint32_t i = 0; i < PINGS; i++) {
		if (stoker_ping(client, &job) < 0 || stoker_wait(client, job, 10000000) < 0 ||
		    stoker_finish(client, job, &result, NULL, 0, NULL, 0) < 0 || result.status != STOKER_STATUS_OK) {
			bench_say("a ping failed: %s", stoker_error(client));
			return false;
		}
	}
	return true;
}

static bool attach_all(const char *name, struct stoker **clients)
{
	const struct stoker_options small = {
		.size = sizeof(small), .client_name = "stoker-bench", .broker_uid = (uint32_t)bench_common.broker_uid,
		.attach_timeout_ms = BENCH_ATTACH_MS,
	};

	for (uint64_t i = 0; i < options.clients; i++) {
		if (stoker_attach(name, &small, &clients[i]) < 0) {
			bench_say("client %llu could not attach: %s", (unsigned long long)i, stoker_attach_error());
			return false;
		}
	}
	for (uint64_t i = 0; i < options.clients; i++) {
		if (!work_a_little(clients[i]))
			return false;
	}
	return true;
}

/* Returns whether the broker was there to the end: the CPU time of a process that is gone is none. */
static bool measure(struct report *report, const struct own_broker *broker)
{
	const pid_t pid = (pid_t)broker->page->pid;
	uint64_t cpu, start, after;
	bool gone;

	usleep(SETTLE_US);
	cpu = machine_cpu_ns(pid);
	start = now_ns();
	sleep((unsigned int)options.seconds);
	after = machine_cpu_ns(pid);
	gone = after < cpu || (kill(pid, 0) < 0 && errno == ESRCH);
	report_rate(report, "cpu_share", (double)(after - cpu) / (double)(now_ns() - start), cpu > 0 && !gone,
		    gone ? "the broker went away meanwhile" : "the kernel does not tell the CPU time of the broker");
	report_count(report, "attached_clients", own_broker_gauge(broker, STOKER_GAUGE_CLIENTS));
	if (gone)
		bench_say("the broker went away meanwhile");
	return !gone;
}

static int run(struct report *report)
{
	const struct own_broker_config config = { .memory = 256u << 20 };
	struct stoker **clients = calloc(options.clients + 1, sizeof(*clients));
	struct own_broker broker;
	bool ok;

	if (!clients)
		return BENCH_FAILED;
	ok = own_broker_start(&config, &broker) == 0 && own_broker_serving(&broker) &&
	     attach_all(broker.name, clients);
	ok = ok && measure(report, &broker);
	for (uint64_t i = 0; i < options.clients; i++)
		stoker_close(clients[i]);
	free(clients);
	ok = own_broker_stop(&broker) && ok;
	return ok ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_idle = {
	.name = "idle",
	.meaning = "CPU share of a quiet broker whose clients have worked before",
	.options = option_rows,
	.broker = true,
	.run = run,
};
