/*
 * roundtrip --broker NAME [--library FILE] [--memory plain|segments] [--seed N]: what workers do on a GPU, against
 * a broker that runs: every layout of a paged cache there and back, layers one by one, blocks left out, copies
 * that wait for a stream and streams that wait for copies. A line for each, "ok" or "failed" with the reason;
 * each in a process of its own, so that one that loses its context or hangs costs itself alone.
 *
 * Exit 0 if all were ok.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/gpu/worker.h"

#define LIMIT_S 30u

static const char *broker, *library;
static enum trial_memory memory = TRIAL_PLAIN;
static uint64_t seed = 1;

static const struct layout layouts[] = {
	{ "K and V of each layer", 4, 2, 16, 1, 16384, false, 64 },
	{ "layers packed into a page", 6, 2, 16, 1, 4096, true, 64 },
	{ "one latent plane (MLA)", 3, 1, 32, 1, 36864, false, 64 },
	{ "a range of heads", 2, 2, 16, 16, 256, false, 64 },
	{ "tokens one by one", 2, 2, 1, 1, 512, false, 2048 },
	{ "sizes of no power of two", 3, 2, 8, 3, 1048, true, 128 },
	{ "large blocks", 2, 1, 64, 1, 2u << 20, false, 16 },
};
#define N_LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))

static void must_be_right(struct gpu_worker *w, const char *when)
{
	const uint64_t wrong = worker_wrong(w);

	if (wrong)
		give_up("%llu bytes are wrong %s", (unsigned long long)wrong, when);
}

static void there_and_back(const struct layout *layout)
{
	struct gpu_worker w;

	worker_open(&w, broker, library, memory, layout);
	for (uint64_t i = 0; i < 6; i++) {
		const uint64_t wrong = worker_round_trip(&w, seed * 1000 + i, 1 + (uint32_t)i);

		if (wrong)
			give_up("%llu bytes were wrong in round %llu", (unsigned long long)wrong, (unsigned long long)i);
	}
	worker_close(&w);
}

/* ---- the rest of what RETRIEVE and STORE can do, in the first layout ------------------------------------ */

static void finish_well(struct gpu_worker *w, struct stoker_job job, const char *what)
{
	const uint32_t status = worker_finish(w, job, NULL);

	if (status != STOKER_STATUS_OK)
		give_up("%s ended with \"%s\"", what, stoker_status_name(status));
}

/* A chain of @chunks stored from the blocks of set 0; memory is wiped then. */
static struct stoker_lease stored(struct gpu_worker *w, uint64_t name, uint32_t chunks)
{
	uint32_t ids[WORKER_IDS_MAX];
	struct stoker_job job;

	worker_choose(w, name, 0, chunks, ids);
	for (uint32_t i = 0; i < chunks; i++)
		worker_expect(w, name, i, ids + i * w->per_object, 0, w->layout.layers);
	worker_upload(w);
	worker_store(w, name, chunks, ids, NULL, &job);
	finish_well(w, job, "a store");
	worker_wipe(w);
	worker_upload(w);
	return worker_look_up(w, name, chunks);
}

static void layer_by_layer(struct gpu_worker *w)
{
	const struct stoker_lease lease = stored(w, 11, 3);
	uint32_t ids[WORKER_IDS_MAX];
	struct stoker_job job;

	worker_choose(w, 11, 1, 3, ids);
	for (uint32_t layer = 0; layer < w->layout.layers; layer++) {
		const struct stoker_retrieve_options options = { .size = sizeof(options), .layer_first = layer,
								 .layer_count = 1 };

		worker_retrieve(w, &lease, 3, ids, &options, &job);
		finish_well(w, job, "a retrieve of one layer");
		for (uint32_t i = 0; i < 3; i++)
			worker_expect(w, 11, i, ids + i * w->per_object, layer, layer + 1);
		must_be_right(w, "after the retrieve of a layer");
	}
}

static void blocks_left_out(struct gpu_worker *w)
{
	const struct stoker_lease lease = stored(w, 12, 2);
	uint32_t ids[WORKER_IDS_MAX], left[WORKER_IDS_MAX];
	const uint32_t n = 2 * w->per_object;
	struct stoker_job job;

	worker_choose(w, 12, 1, 2, ids);
	memcpy(left, ids, sizeof(left));
	for (uint32_t i = 0; i < n; i += 2)
		left[i] = STOKER_NO_BLOCK;
	worker_retrieve(w, &lease, 2, left, NULL, &job);
	finish_well(w, job, "a retrieve that leaves blocks out");
	for (uint32_t i = 0; i < 2; i++)
		worker_expect(w, 12, i, ids + i * w->per_object, 0, w->layout.layers);
	/* Those that were left out still hold what they held. */
	for (uint32_t p = 0; p < w->n_planes; p++) {
		for (uint32_t i = 0; i < n; i += 2)
			memset(w->expected + w->plane_at[p] + ids[i] * w->block_stride, 0xdb, w->layout.row_bytes);
	}
	must_be_right(w, "after a retrieve that leaves blocks out");
}

/* A store that is asked for before its blocks are written begins when the stream says so. */
static void a_store_waits_for_the_stream(struct gpu_worker *w)
{
	const struct stoker_store_options options = { .size = sizeof(options), .flags = STOKER_STORE_READY,
						      .ready_index = 7, .ready_value = 3, .deadline_ms = 20000 };
	const struct stoker_store_options *given = &options;
	uint32_t ids[WORKER_IDS_MAX];
	struct stoker_job job;

	worker_choose(w, 13, 0, 2, ids);
	worker_store(w, 13, 2, ids, given, &job);
	usleep(50 * 1000);
	if (stoker_poll(w->c, job) == STOKER_STAGE_DONE)
		give_up("the store did not wait for its ready word");
	for (uint32_t i = 0; i < 2; i++)
		worker_expect(w, 13, i, ids + i * w->per_object, 0, w->layout.layers);
	if (trial_pin(w->expected, w->bytes) < 0 ||
	    trial_enqueue(&(struct trial_copy){ .device = w->device, .host = w->expected, .bytes = w->bytes }, w->stream) < 0)
		give_up("could not write the blocks on a stream: %s", trial_why());
	if (stoker_cuda_ready(w->c, 7, 3, w->stream) < 0)
		give_up("could not raise the ready word: %s", stoker_error(w->c));
	finish_well(w, job, "a store that waits for a stream");
	if (trial_synchronize(w->stream) < 0)
		give_up("the stream failed: %s", trial_why());
	const struct stoker_lease lease = worker_look_up(w, 13, 2);

	worker_wipe(w);
	worker_upload(w);
	worker_retrieve(w, &lease, 2, ids, NULL, &job);
	finish_well(w, job, "a retrieve");
	for (uint32_t i = 0; i < 2; i++)
		worker_expect(w, 13, i, ids + i * w->per_object, 0, w->layout.layers);
	must_be_right(w, "that a stream wrote before its ready word");
}

/* What is enqueued after a wait sees what the retrieve brought. Returns whether the device can wait. */
static void a_stream_waits_for_a_retrieve(struct gpu_worker *w)
{
	const struct stoker_lease lease = stored(w, 14, 3);
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_READY,
							 .ready_index = 8, .ready_value = 1, .deadline_ms = 20000 };
	uint32_t ids[WORKER_IDS_MAX];
	struct stoker_job job;
	int r;

	worker_choose(w, 14, 1, 3, ids);
	memset(w->got, 0, w->bytes);
	/* Before anything waits: pinning memory may wait for all that the device has been given. */
	if (trial_pin(w->got, w->bytes) < 0)
		give_up("could not pin memory: %s", trial_why());
	worker_retrieve(w, &lease, 3, ids, &options, &job);
	r = stoker_cuda_wait(w->c, job, w->stream);
	if (r == -EOPNOTSUPP) {
		printf("(%s) ", stoker_error(w->c));
		stoker_ready_set(w->c, 8, 1);
		finish_well(w, job, "a retrieve");
		return;
	}
	if (r < 0 ||
	    trial_enqueue(&(struct trial_copy){ .device = w->device, .host = w->got, .bytes = w->bytes, .to_host = true },
			  w->stream) < 0)
		give_up("could not make a stream wait: %s; %s", stoker_error(w->c), trial_why());
	usleep(50 * 1000);
	if (!trial_is_busy(w->stream))
		give_up("the stream did not wait for the retrieve");
	stoker_ready_set(w->c, 8, 1);
	if (trial_synchronize(w->stream) < 0)
		give_up("the stream failed: %s", trial_why());
	for (uint32_t i = 0; i < 3; i++)
		worker_expect(w, 14, i, ids + i * w->per_object, 0, w->layout.layers);
	if (memcmp(w->got, w->expected, w->bytes) != 0)
		give_up("the stream went on before the retrieve was done, or its bytes are wrong");
	finish_well(w, job, "a retrieve");
}

static void many_at_once(struct gpu_worker *w)
{
	enum { N = 4 };
	uint32_t ids[N][WORKER_IDS_MAX];
	struct stoker_lease lease[N];
	struct stoker_job job[N];

	for (uint32_t i = 0; i < N; i++)
		lease[i] = stored(w, 20 + i, 2);
	for (uint32_t i = 0; i < N; i++) {
		worker_choose(w, 3, i, 2, ids[i]);
		worker_retrieve(w, &lease[i], 2, ids[i], NULL, &job[i]);
	}
	for (uint32_t i = 0; i < N; i++) {
		finish_well(w, job[i], "one of several retrieves");
		for (uint32_t k = 0; k < 2; k++)
			worker_expect(w, 20 + i, k, ids[i] + k * w->per_object, 0, w->layout.layers);
	}
	must_be_right(w, "after several retrieves at once");
}

static const struct {
	const char *name;
	void (*run)(struct gpu_worker *w);
} cases[] = {
	{ "layers one by one", layer_by_layer },
	{ "blocks left out", blocks_left_out },
	{ "a store waits for the stream", a_store_waits_for_the_stream },
	{ "a stream waits for a retrieve", a_stream_waits_for_a_retrieve },
	{ "many at once", many_at_once },
};
#define N_CASES (sizeof(cases) / sizeof(cases[0]))

static void run_one(size_t i)
{
	struct gpu_worker w;

	if (i < N_LAYOUTS) {
		there_and_back(&layouts[i]);
		return;
	}
	worker_open(&w, broker, library, memory, &layouts[0]);
	cases[i - N_LAYOUTS].run(&w);
	worker_close(&w);
}

/* Its stderr is its reason. */
static bool run_alone(size_t i)
{
	const char *name = i < N_LAYOUTS ? layouts[i].name : cases[i - N_LAYOUTS].name;
	char text[1024] = "";
	size_t n = 0;
	int ends[2], status = 0;
	pid_t pid;

	fflush(stdout);
	if (pipe(ends) < 0 || (pid = fork()) < 0)
		give_up("could not start a process: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		dup2(ends[1], STDERR_FILENO);
		dup2(ends[1], STDOUT_FILENO);
		alarm(LIMIT_S);
		run_one(i);
		exit(0);
	}
	close(ends[1]);
	for (ssize_t got; n < sizeof(text) - 1 && (got = read(ends[0], text + n, sizeof(text) - 1 - n)) > 0;)
		n += (size_t)got;
	close(ends[0]);
	waitpid(pid, &status, 0);
	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n] = '\0';
	if (WIFSIGNALED(status))
		snprintf(text + n, sizeof(text) - n, " (ended by signal %d)", WTERMSIG(status));
	printf("%-7s roundtrip %s: %s %s\n", status == 0 ? "ok" : "failed", memory == TRIAL_PLAIN ? "plain" : "segments",
	       name, text);
	fflush(stdout);
	return status == 0;
}

int main(int argc, char **argv)
{
	bool ok = true;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--broker") == 0)
			broker = argv[i + 1];
		else if (strcmp(argv[i], "--library") == 0)
			library = argv[i + 1];
		else if (strcmp(argv[i], "--memory") == 0)
			memory = strcmp(argv[i + 1], "segments") == 0 ? TRIAL_SEGMENTS : TRIAL_PLAIN;
		else if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 10);
	}
	if (!broker || argc % 2 == 0) {
		fprintf(stderr, "usage: roundtrip --broker NAME [--library FILE] [--memory plain|segments] [--seed N]\n");
		return 2;
	}
	for (size_t i = 0; i < N_LAYOUTS + N_CASES; i++)
		ok = run_alone(i) && ok;
	return ok ? 0 : 1;
}
