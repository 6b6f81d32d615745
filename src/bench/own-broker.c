#include "config.h"

#include "src/bench/own-broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"

#define READY_TIMEOUT_MS 20000
#define STOP_TIMEOUT_MS	 20000
#define SETTLE_MS	 2000
#define STOKERD_USAGE	 2		/* its exit status: wrong options or configuration */
#define EXTENT		 (64ull << 20)	/* the daemon's default */
#define EXTENT_MIN	 65536ull	/* the least that it takes */
#define ARGUMENTS_MAX	 (16 + 2 * (OWN_BROKER_SETTINGS + OPTION_LIST_MAX))

/* All of the one broker; the signal handler reads it. */
static struct {
	struct own_broker_config config;
	char executable[4096];
	char name[72];
	char home[200];			/* runtime and state directories, short enough for a socket's path */
	char tier[256];
	volatile pid_t broker;
	volatile pid_t guardian;
	volatile int guardian_pipe;	/* its end tells the guardian that we are gone */
	bool said_dead;
	bool refused;			/* it ended with STOKERD_USAGE before it was ready */
} own = { .guardian_pipe = -1 };

void own_broker_set(struct own_broker_config *config, const char *format, ...)
{
	va_list arguments;

	if (config->n == OWN_BROKER_SETTINGS)
		return;
	va_start(arguments, format);
	vsnprintf(config->set[config->n++], sizeof(config->set[0]), format, arguments);
	va_end(arguments);
}

/* ---- leaving no trace -------------------------------------------------------------------------- */

static void unlink_shared_memory(void)
{
	char name[96];

	snprintf(name, sizeof(name), "%s.arena", own.name);
	shm_unlink(name);
	snprintf(name, sizeof(name), "%s.table", own.name);
	shm_unlink(name);
}

static void remove_all(void)
{
	unlink_shared_memory();
	shm_unlink(own.name);
	machine_remove_tree(own.home);
	if (own.tier[0])
		machine_remove_tree(own.tier);
}

/*
 * The guardian sleeps until the pipe ends, which the kernel sees to whatever becomes of the bench.
 * After an orderly end ('q') the broker is known to be dead. Else it dies with the bench
 * (PR_SET_PDEATHSIG), at about the same time: what it may have made meanwhile goes in a second round.
 */
static void guardian_run(int pipe_end)
{
	char byte = 0;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_NAME, "bench-guardian");
	while (read(pipe_end, &byte, 1) < 0 && errno == EINTR)
		;
	remove_all();
	if (byte != 'q') {
		usleep(200 * 1000);
		remove_all();
	}
	_exit(0);
}

static int guardian_start(void)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		close(ends[0]);
		close(ends[1]);
		return -EAGAIN;
	}
	if (pid == 0) {
		close(ends[1]);
		close(STDOUT_FILENO);
		guardian_run(ends[0]);
	}
	close(ends[0]);
	own.guardian = pid;
	own.guardian_pipe = ends[1];
	return 0;
}

static void guardian_end(char word)
{
	if (own.guardian <= 0)
		return;
	if (write(own.guardian_pipe, &word, 1) < 0) {
		/* It looks for the end of the pipe as well. */
	}
	close(own.guardian_pipe);
	while (waitpid(own.guardian, NULL, 0) < 0 && errno == EINTR)
		;
	own.guardian = 0;
}

static void on_signal(int number)
{
	if (own.broker > 0) {
		kill(own.broker, SIGKILL);
		waitpid(own.broker, NULL, 0);
	}
	guardian_end('q');
	signal(number, SIG_DFL);
	raise(number);
}

static void catch_signals(void)
{
	const struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* ---- starting ---------------------------------------------------------------------------------- */

static void find_executable(void)
{
	ssize_t n;
	char *slash;

	if (bench_common.stokerd) {
		snprintf(own.executable, sizeof(own.executable), "%s", bench_common.stokerd);
	} else {
		n = readlink("/proc/self/exe", own.executable, sizeof(own.executable) - 16);
		if (n < 0)
			n = 0;
		own.executable[n] = '\0';
		slash = strrchr(own.executable, '/');
		strcpy(slash ? slash + 1 : own.executable, "stokerd");
		if (access(own.executable, X_OK) < 0)
			strcpy(own.executable, "stokerd");	/* in PATH */
	}
}

static const char *temporary_directory(void)
{
	const char *directory = getenv("TMPDIR");

	return directory && directory[0] == '/' ? directory : "/tmp";
}

static int make_directories(bool tier)
{
	const char *where = temporary_directory();
	char path[256];

	/* The socket lies in it, and the path of a socket has 107 characters. */
	snprintf(own.home, sizeof(own.home), "%s/stoker-bench-XXXXXX", strlen(where) < 48 ? where : "/tmp");
	if (!mkdtemp(own.home)) {
		bench_say("could not make a directory in \"%s\": %s", where, strerror(errno));
		own.home[0] = '\0';
		return -ENOENT;
	}
	snprintf(path, sizeof(path), "%s/runtime", own.home);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/state", own.home);
	mkdir(path, 0700);
	if (!tier)
		return 0;
	if (bench_common.directory)
		where = bench_common.directory;
	if ((size_t)snprintf(own.tier, sizeof(own.tier), "%s/stoker-bench-tier-XXXXXX", where) >= sizeof(own.tier) ||
	    !mkdtemp(own.tier)) {
		bench_say("could not make a directory for the tier in \"%s\": %s", where, strerror(errno));
		own.tier[0] = '\0';
		return -ENOENT;
	}
	return 0;
}

struct arguments {
	uint32_t n;
	char *list[ARGUMENTS_MAX + 1];
};

__attribute__((format(printf, 2, 3))) static void argument(struct arguments *to, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	if (to->n < ARGUMENTS_MAX && vasprintf(&to->list[to->n], format, values) >= 0)
		to->n++;
	va_end(values);
}

uint64_t own_broker_extent(uint64_t bytes)
{
	uint64_t extent = EXTENT;

	/* An object may fill a quarter of the arena, and what is no whole extent is lost. */
	if (bytes < EXTENT)
		while (extent > EXTENT_MIN && extent > bytes / 8)
			extent /= 2;
	return extent;
}

/* Everything as settings: stokerd takes them by --set, a broker in our own process as they are. */
static void make_settings(struct arguments *to, const char *before)
{
	const uint64_t memory = own.config.memory, disk = own.config.disk;
	const uint64_t least = disk && (disk < memory || !memory) ? disk : memory;

	argument(to, "%sbroker.name=%s", before, own.name);
	argument(to, "%sbroker.log_level=warning", before);
	if (memory)
		argument(to, "%sarena.size=%llu", before, (unsigned long long)memory);
	if (least && least < EXTENT)
		argument(to, "%sarena.extent=%llu", before, (unsigned long long)own_broker_extent(least));
	argument(to, "%sbroker.runtime_directory=%s/runtime", before, own.home);
	argument(to, "%sbroker.state_directory=%s/state", before, own.home);
	for (uint32_t i = 0; i < own.config.n; i++)
		argument(to, "%s%s", before, own.config.set[i]);
	for (uint32_t i = 0; i < bench_common.set.n; i++)
		argument(to, "%s%s", before, bench_common.set.text[i]);
}

static void make_arguments(struct arguments *to)
{
	argument(to, "%s", own.executable);
	if (own.config.disk)
		argument(to, "--tier=%s:%llu", own.tier, (unsigned long long)own.config.disk);
	make_settings(to, "--set=");
}

/* In the child: become the broker, which dies with us. */
static void become_broker(pid_t parent, int output)
{
	struct arguments arguments = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	setpgid(0, 0);		/* an interrupt from the terminal is for the bench, which sees to the rest */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	if (own.config.run) {
		make_settings(&arguments, "");
		_exit(own.config.run((const char *const *)arguments.list, arguments.n, output));
	}
	make_arguments(&arguments);
	dup2(output, STDOUT_FILENO);
	execvp(own.executable, arguments.list);
	bench_say("could not run \"%s\": %s", own.executable, strerror(errno));
	_exit(127);
}

/* Read stdout of the broker until "ready NAME". Returns 0, -ETIMEDOUT, or -EPIPE if it ended instead. */
static int wait_ready(int output)
{
	const uint64_t until = now_ns() + READY_TIMEOUT_MS * 1000000ull;
	struct pollfd wait = { .fd = output, .events = POLLIN };
	char text[512], line[96];
	size_t n = 0;

	snprintf(line, sizeof(line), "ready %s\n", own.name);
	while (now_ns() < until) {
		ssize_t got;

		if (poll(&wait, 1, 100) <= 0)
			continue;
		got = read(output, text + n, sizeof(text) - 1 - n);
		if (got <= 0)
			return -EPIPE;
		n += (size_t)got;
		text[n] = '\0';
		if (strstr(text, line))
			return 0;
		if (n == sizeof(text) - 1)
			return -EPIPE;
	}
	return -ETIMEDOUT;
}

static void say_not_ready(int r, pid_t pid)
{
	int status = 0;

	if (r == -ETIMEDOUT) {
		bench_say("\"%s\" was not ready within %d s", own.executable, READY_TIMEOUT_MS / 1000);
		kill(pid, SIGKILL);
	}
	waitpid(pid, &status, 0);
	own.refused = r != -ETIMEDOUT && WIFEXITED(status) && WEXITSTATUS(status) == STOKERD_USAGE;
	if (r != -ETIMEDOUT && WIFEXITED(status))
		bench_say("\"%s\" ended with status %d before it was ready", own.executable, WEXITSTATUS(status));
	else if (r != -ETIMEDOUT)
		bench_say("\"%s\" was ended by signal %d before it was ready", own.executable, WTERMSIG(status));
}

static int run_broker(struct own_broker *broker)
{
	const pid_t parent = getpid();
	int ends[2], r;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	broker->started_ns = now_ns();
	pid = fork();
	if (pid == 0)
		become_broker(parent, ends[1]);
	close(ends[1]);
	r = pid < 0 ? -EAGAIN : wait_ready(ends[0]);
	broker->ready_ns = now_ns();
	close(ends[0]);		/* it prints nothing more */
	if (pid > 0 && r < 0)
		say_not_ready(r, pid);
	if (r < 0)
		return r;
	own.broker = broker->pid = pid;
	own.said_dead = false;
	r = control_map(broker->name, &broker->page);
	if (r < 0)
		bench_say("could not map the control page of \"%s\": %s", broker->name, strerror(-r));
	return r;
}

static int attach(struct own_broker *broker)
{
	int r;

	snprintf(broker->name, sizeof(broker->name), "%s", bench_common.attach);
	r = control_map(broker->name, &broker->page);
	if (r == -ENOENT)
		bench_say("there is no broker \"%s\"; start stokerd --name %s, or leave --attach away to measure a broker "
			  "of the bench's own", broker->name, broker->name);
	else if (r < 0)
		bench_say("could not use the broker \"%s\": %s; stokerctl --name %s status says more", broker->name,
			  strerror(-r), broker->name);
	return r;
}

bool own_broker_refused(void)
{
	return own.refused;
}

int own_broker_start(const struct own_broker_config *config, struct own_broker *ret)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	if (bench_common.attach)
		return attach(ret);
	own.config = *config;
	snprintf(own.name, sizeof(own.name), "/stoker-bench-%d", (int)getpid());
	snprintf(ret->name, sizeof(ret->name), "%s", own.name);
	find_executable();
	r = make_directories(config->disk > 0);
	if (r >= 0)
		r = guardian_start();
	if (r < 0) {
		remove_all();
		return r;
	}
	catch_signals();
	snprintf(ret->tier, sizeof(ret->tier), "%s", own.tier);
	r = run_broker(ret);
	if (r < 0)
		own_broker_stop(ret);
	return r;
}

/* ---- ending ------------------------------------------------------------------------------------ */

void own_broker_kill(struct own_broker *broker, bool reboot)
{
	if (broker->pid <= 0)
		return;
	kill(broker->pid, SIGKILL);
	waitpid(broker->pid, NULL, 0);
	own.broker = broker->pid = 0;
	control_unmap(broker->page);
	broker->page = NULL;
	if (reboot)
		unlink_shared_memory();
}

int own_broker_again(struct own_broker *broker)
{
	return run_broker(broker);
}

bool own_broker_died(struct own_broker *broker)
{
	siginfo_t info = { 0 };

	if (broker->pid <= 0)
		return own.said_dead;
	if (waitid(P_PID, (id_t)broker->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
		return false;
	if (!own.said_dead)
		bench_say("the broker died: %s %d", info.si_code == CLD_EXITED ? "exit status" : "signal", info.si_status);
	own.said_dead = true;
	return true;
}

bool own_broker_stop(struct own_broker *broker)
{
	const uint64_t until = now_ns() + STOP_TIMEOUT_MS * 1000000ull;
	bool in_order = !own_broker_died(broker);
	int status = 0;

	if (broker->page)
		control_unmap(broker->page);
	broker->page = NULL;
	if (broker->pid > 0) {
		kill(broker->pid, SIGTERM);
		while (waitpid(broker->pid, &status, WNOHANG) == 0) {
			if (now_ns() > until) {
				bench_say("the broker did not stop within %d s after TERM", STOP_TIMEOUT_MS / 1000);
				kill(broker->pid, SIGKILL);
				waitpid(broker->pid, &status, 0);
				break;
			}
			usleep(1000);
		}
		if (in_order && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
			bench_say("the broker did not end in order (wait status %d)", status);
			in_order = false;
		}
	}
	own.broker = broker->pid = 0;
	guardian_end('q');
	return in_order;
}

/* ---- figures ----------------------------------------------------------------------------------- */

uint64_t own_broker_counter(const struct own_broker *broker, enum stoker_counter counter)
{
	return control_counter(broker->page, counter);
}

uint64_t own_broker_gauge(const struct own_broker *broker, enum stoker_gauge gauge)
{
	return atomic_load_explicit(&broker->page->gauges[gauge], memory_order_relaxed);
}

bool own_broker_settled(const struct own_broker *broker, uint32_t timeout_ms)
{
	const uint64_t until = now_ns() + timeout_ms * 1000000ull;
	uint32_t quiet = 0;

	/* Gauges are published every so often: believe them when they have said it for a while. */
	while (quiet < 30) {
		const bool left = own_broker_gauge(broker, STOKER_GAUGE_WRITEBACK) ||
				  own_broker_gauge(broker, STOKER_GAUGE_CHECKS) ||
				  (broker->tier[0] && own_broker_gauge(broker, STOKER_GAUGE_ARENA_DIRTY));

		if (now_ns() > until)
			return false;
		quiet = left ? 0 : quiet + 1;
		usleep(10 * 1000);
	}
	return true;
}

static bool is_starting(const struct own_broker *broker)
{
	struct control_tier tier;

	if (atomic_load_explicit(&broker->page->state, memory_order_acquire) == STOKER_STATE_STARTING)
		return true;
	for (uint32_t i = 0; i < CONTROL_TIERS; i++) {
		if (!control_read_tier(broker->page, i, &tier) || tier.state == STOKER_TIER_STARTING ||
		    tier.state == STOKER_TIER_RECOVERING)
			return true;
	}
	return false;
}

bool own_broker_serving(const struct own_broker *broker)
{
	uint64_t populated = 0, since = now_ns();

	/* A degraded broker never populates all: what has not grown for a while is what it has. */
	for (;;) {
		const uint64_t now = own_broker_gauge(broker, STOKER_GAUGE_ARENA_POPULATED);
		const bool starting = is_starting(broker);

		if (now != populated)
			since = now_ns();
		populated = now;
		if (!starting && populated > 0 && populated == own_broker_gauge(broker, STOKER_GAUGE_ARENA_BYTES))
			return true;
		if (!starting && populated > 0 && now_ns() - since > SETTLE_MS * 1000000ull)
			return true;
		if (now_ns() - since > READY_TIMEOUT_MS * 1000000ull) {
			bench_say("the broker \"%s\" does not come to serve (%s)", broker->name,
				  starting ? "it is starting still" : "its arena is empty");
			return false;
		}
		usleep(1000);
	}
}
