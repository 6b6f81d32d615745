/* Queues and bells between threads, sizes and log lines as people read and write them. */
#include "src/common/log.h"
#include "src/common/queue.h"
#include "src/common/size.h"
#include "tests/suite.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- queue ------------------------------------------------------------------------------- */

START_TEST(a_queue_takes_at_least_its_capacity_and_gives_it_back_in_order)
{
	static const uint32_t capacities[] = { 0, 1, 2, 3, 4, 7, 8, 9, 1000, 1024 };
	static char messages[4096];

	for (size_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++) {
		struct queue *queue = queue_new(capacities[i]);
		uint32_t in = 0;

		ck_assert_ptr_nonnull(queue);
		for (int round = 0; round < 3; round++) {
			ck_assert(queue_is_empty(queue));
			ck_assert_ptr_null(queue_get(queue));
			for (in = 0; queue_put(queue, &messages[in]); in++)
				expect(in < 2 * capacities[i] + 2);
			ck_assert_uint_ge(in, capacities[i]);
			ck_assert(!queue_is_empty(queue));
			for (uint32_t out = 0; out < in; out++)
				expect(queue_get(queue) == &messages[out]);
		}
		queue_free(queue);
	}
	queue_free(NULL);
	ck_assert_ptr_null(queue_new(UINT32_MAX));
}
END_TEST

#define MESSAGES 100000u

struct message {
	uint64_t number, text[4];
};

struct talk {
	struct queue *queue, *back;	/* messages come back to be used again */
};

static void *produce(void *arg)
{
	struct talk *talk = arg;

	for (uint64_t n = 1; n <= MESSAGES; n++) {
		struct message *message = queue_get(talk->back);

		if (!message)
			message = calloc(1, sizeof(*message));
		message->number = n;
		for (int i = 0; i < 4; i++)
			message->text[i] = n * 7919;
		while (!queue_put(talk->queue, message))
			sched_yield();
	}
	return NULL;
}

static void assert_message(const struct message *message, uint64_t n)
{
	expect(message->number == n);
	for (int i = 0; i < 4; i++)
		expect(message->text[i] == n * 7919);
}

START_TEST(what_was_written_before_a_put_is_seen_after_the_get)
{
	struct talk talk = { .queue = queue_new(15), .back = queue_new(63) };
	pthread_t thread;
	void *message;

	ck_assert_int_eq(pthread_create(&thread, NULL, produce, &talk), 0);
	for (uint64_t n = 1; n <= MESSAGES;) {
		message = queue_get(talk.queue);
		if (!message) {
			sched_yield();
			continue;
		}
		assert_message(message, n++);
		if (!queue_put(talk.back, message))
			free(message);
	}
	pthread_join(thread, NULL);
	while ((message = queue_get(talk.back)))
		free(message);
	queue_free(talk.queue);
	queue_free(talk.back);
}
END_TEST

/* ---- bell -------------------------------------------------------------------------------- */

static bool is_ringing(const struct bell *bell)
{
	struct pollfd pollfd = { .fd = bell->fd, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 1;
}

START_TEST(a_bell_rings_only_while_it_is_armed_and_once_an_arming)
{
	struct bell bell;

	ck_assert_int_eq(bell_init(&bell), 0);
	bell_ring(&bell);
	ck_assert(!is_ringing(&bell));
	bell_arm(&bell);
	ck_assert(!is_ringing(&bell));
	bell_ring(&bell);
	bell_ring(&bell);
	ck_assert(is_ringing(&bell));
	bell_disarm(&bell);
	ck_assert(!is_ringing(&bell));
	bell_ring(&bell);
	ck_assert(!is_ringing(&bell));
	bell_arm(&bell);
	bell_disarm(&bell);	/* nobody rang */
	ck_assert(!is_ringing(&bell));
	bell_fini(&bell);
}
END_TEST

START_TEST(a_late_ring_is_drained_by_the_next_disarming)
{
	const uint64_t one = 1;
	struct bell bell;

	ck_assert_int_eq(bell_init(&bell), 0);
	bell_arm(&bell);
	bell_disarm(&bell);
	/* A producer that found it armed writes only now, as one that lost its core would. */
	ck_assert_int_eq(write(bell.fd, &one, sizeof(one)), sizeof(one));
	bell_arm(&bell);
	ck_assert(is_ringing(&bell));	/* the consumer wakes for nothing, once */
	bell_disarm(&bell);
	ck_assert(!is_ringing(&bell));
	bell_fini(&bell);
}
END_TEST

#define PRODUCERS 2

struct producer {
	struct queue *queue;
	struct bell *bell;
};

/* With pauses of ever other lengths, so that the consumer falls asleep at every point of them. */
static void *produce_slowly(void *arg)
{
	struct producer *producer = arg;
	uint64_t x = 88172645463325252ull;

	for (uint32_t n = 1; n <= MESSAGES; n++) {
		while (!queue_put(producer->queue, producer))
			sched_yield();
		bell_ring(producer->bell);
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		for (volatile uint64_t i = x % 2048; i > 0; i--)
			;
	}
	return NULL;
}

static uint32_t take_all(struct producer *producers)
{
	uint32_t n = 0;

	for (int i = 0; i < PRODUCERS; i++) {
		while (queue_get(producers[i].queue))
			n++;
	}
	return n;
}

START_TEST(a_consumer_that_sleeps_on_its_bell_misses_no_message_of_two_producers)
{
	struct producer producers[PRODUCERS];
	struct bell bell;
	pthread_t threads[PRODUCERS];
	uint32_t taken = 0, slept = 0;

	ck_assert_int_eq(bell_init(&bell), 0);
	for (int i = 0; i < PRODUCERS; i++) {
		producers[i] = (struct producer){ queue_new(1), &bell };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, produce_slowly, &producers[i]), 0);
	}
	while (taken < PRODUCERS * MESSAGES) {
		struct pollfd pollfd = { .fd = bell.fd, .events = POLLIN };
		uint32_t n = take_all(producers);

		taken += n;
		if (n > 0)
			continue;
		bell_arm(&bell);
		n = take_all(producers);
		taken += n;
		/* Without a time-out: a lost ring ends in Check's limit. */
		if (n == 0 && taken < PRODUCERS * MESSAGES) {
			expect(poll(&pollfd, 1, -1) == 1);
			slept++;
		}
		bell_disarm(&bell);
	}
	for (int i = 0; i < PRODUCERS; i++) {
		pthread_join(threads[i], NULL);
		queue_free(producers[i].queue);
	}
	ck_assert_uint_gt(slept, 0);	/* else nothing was tested */
	bell_fini(&bell);
}
END_TEST

/* ---- between processes ------------------------------------------------------------------------ */

#define SHARED_ENTRIES 50000u

struct entry {
	uint64_t number, check;
	uint64_t rest[6];
};

struct shared {
	struct shared_bell bell;
	alignas(64) uint8_t queue[];
};

/* A producer that is not awaited: it yields where the queue is full. */
static void put_all(struct shared_queue *queue, struct shared_bell *bell, int fd)
{
	for (uint64_t i = 0; i < SHARED_ENTRIES; i++) {
		const struct entry entry = { i, ~i, { i } };

		while (!shared_queue_put(queue, &entry))
			sched_yield();
		shared_bell_ring(bell, fd);
		if (i % 1000 == 0)
			usleep(100);	/* so that the consumer comes to sleep */
	}
}

START_TEST(entries_reach_another_process_whole_and_in_order_and_its_sleep_misses_none)
{
	const size_t bytes = sizeof(struct shared) + shared_queue_bytes(64);
	struct shared *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const int fd = eventfd(0, EFD_NONBLOCK);
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	struct shared_queue *queue;
	struct entry entry;
	uint64_t n = 0;

	ck_assert_ptr_ne(shared, MAP_FAILED);
	queue = shared_queue_make(shared->queue, 64);
	const pid_t child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		put_all(shared_queue_of(shared->queue), &shared->bell, fd);
		_exit(0);
	}
	while (n < SHARED_ENTRIES) {
		if (shared_queue_get(queue, &entry)) {
			expect(entry.number == n && entry.check == ~n && entry.rest[0] == n);
			n++;
			continue;
		}
		shared_bell_arm(&shared->bell);
		if (shared_queue_is_empty(queue))
			ck_assert_int_eq(poll(&pollfd, 1, 20000), 1);
		shared_bell_disarm(&shared->bell, fd);
	}
	ck_assert(shared_queue_is_empty(queue));
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(fd);
	munmap(shared, bytes);
}
END_TEST

/* ---- sizes ------------------------------------------------------------------------------- */

START_TEST(sizes_are_read_as_people_write_them)
{
	static const struct { const char *text; uint64_t whole, bytes; } sizes[] = {
		{ "0", 0, 0 }, { "1", 0, 1 }, { "4096", 0, 4096 }, { "64K", 0, 65536 }, { "64k", 0, 65536 },
		{ "2G", 0, 2ull << 30 }, { "512M", 0, 512ull << 20 }, { "1T", 0, 1ull << 40 },
		{ "007", 0, 7 }, { "18446744073709551615", 0, UINT64_MAX }, { "16777215T", 0, 16777215ull << 40 },
		{ "10%", 1000, 100 }, { "0%", 1000, 0 }, { "100%", UINT64_MAX, UINT64_MAX },
		{ "33%", 100, 33 }, { "50%", UINT64_MAX, UINT64_MAX / 2 }, { "2G", 1000, 2ull << 30 },
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t bytes = 4711;

		ck_assert_msg(size_parse(sizes[i].text, sizes[i].whole, &bytes) == 0, "\"%s\" was refused", sizes[i].text);
		ck_assert_uint_eq(bytes, sizes[i].bytes);
	}
}
END_TEST

START_TEST(what_is_no_size_or_too_large_is_refused_and_nothing_is_written)
{
	static const struct { const char *text; uint64_t whole; int error; } sizes[] = {
		{ NULL, 0, -EINVAL }, { "", 0, -EINVAL }, { " 1", 0, -EINVAL }, { "1 ", 0, -EINVAL },
		{ "-1", 0, -EINVAL }, { "+1", 0, -EINVAL }, { "K", 0, -EINVAL }, { "1KK", 0, -EINVAL },
		{ "1KB", 0, -EINVAL }, { "1.5G", 0, -EINVAL }, { "0x10", 0, -EINVAL }, { "1e9", 0, -EINVAL },
		{ "64X", 0, -EINVAL }, { "1K1", 0, -EINVAL }, { "%", 100, -EINVAL }, { "10%%", 100, -EINVAL },
		{ "10%", 0, -EINVAL }, { "-10%", 100, -EINVAL }, { "10K%", 100, -EINVAL }, { "\xff", 0, -EINVAL },
		{ "99999999999999999999x", 0, -EINVAL }, { "18446744073709551616", 0, -ERANGE },
		{ "99999999999999999999", 0, -ERANGE }, { "16777216T", 0, -ERANGE },
		{ "18446744073709551615K", 0, -ERANGE }, { "101%", 100, -ERANGE },
		{ "18446744073709551616%", 100, -ERANGE },
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t bytes = 4711;
		const int r = size_parse(sizes[i].text, sizes[i].whole, &bytes);

		ck_assert_msg(r == sizes[i].error, "\"%s\" gave %d", sizes[i].text ? sizes[i].text : "NULL", r);
		ck_assert_uint_eq(bytes, 4711);
	}
}
END_TEST

START_TEST(sizes_are_written_with_a_unit_and_one_digit_behind_the_point)
{
	static const struct { uint64_t bytes; const char *text; } sizes[] = {
		{ 0, "0 B" }, { 1, "1 B" }, { 1023, "1023 B" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" },
		{ 64 << 20, "64 MiB" }, { 3ull << 29, "1.5 GiB" }, { 1048575, "1 MiB" }, { 1047000, "1022.5 KiB" },
		{ 1ull << 40, "1 TiB" }, { 1ull << 50, "1 PiB" }, { 1ull << 60, "1 EiB" }, { UINT64_MAX, "16 EiB" },
	};
	char text[16];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		ck_assert_str_eq(size_text(sizes[i].bytes, text), sizes[i].text);
}
END_TEST

/* ---- log --------------------------------------------------------------------------------- */

static char captured[65536];
static int capture_fds[2], real_stderr;

static void capture_begin(void)
{
	fflush(stderr);
	ck_assert_int_eq(pipe(capture_fds), 0);
	real_stderr = dup(STDERR_FILENO);
	dup2(capture_fds[1], STDERR_FILENO);
	close(capture_fds[1]);
}

/* What has been written to stderr since; at most what a pipe holds. */
static const char *capture_end(void)
{
	size_t length = 0;
	ssize_t n;

	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	while ((n = read(capture_fds[0], captured + length, sizeof(captured) - 1 - length)) > 0)
		length += (size_t)n;
	captured[length] = '\0';
	close(capture_fds[0]);
	return captured;
}

START_TEST(a_log_line_names_program_and_level_and_lower_levels_are_left_out)
{
	capture_begin();
	log_init("stokerd", LOG_LEVEL_WARNING);
	log_error("could not open \"%s\"", "/tmp/x");
	log_warning("two");
	log_info("three");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("four");
	ck_assert_str_eq(capture_end(), "stokerd: error: could not open \"/tmp/x\"\n"
					"stokerd: warning: two\nstokerd: debug: four\n");
}
END_TEST

START_TEST(nobody_can_forge_a_line_or_send_a_terminal_commands)
{
	capture_begin();
	log_error("client \"%s\" came", "a\nstokerd: error: b\x1b[2J\x7f\t\xc3\xa9");
	ck_assert_str_eq(capture_end(), "stoker: error: client \"a?stokerd: error: b?[2J??\xc3\xa9\" came\n");
}
END_TEST

START_TEST(a_long_line_is_cut_and_still_ends)
{
	char *text = malloc(100001);
	const char *line;

	memset(text, 'x', 100000);
	text[100000] = '\0';
	capture_begin();
	log_error("%s", text);
	log_error("next");
	line = capture_end();
	ck_assert_ptr_nonnull(strstr(line, "xxx\nstoker: error: next\n"));
	ck_assert_uint_lt(strlen(line), 2000);
	free(text);
}
END_TEST

START_TEST(logging_keeps_errno)
{
	capture_begin();
	errno = EDOM;
	log_error("x");
	ck_assert_int_eq(errno, EDOM);
	capture_end();
}
END_TEST

static void *log_much(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_error("%s", (const char *)arg);
	return NULL;
}

START_TEST(lines_of_several_threads_do_not_mix)
{
	static const char a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	static const char b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
	char line_a[64], line_b[64], *save, *line;
	pthread_t thread;
	int lines = 0;

	snprintf(line_a, sizeof(line_a), "stoker: error: %s", a);
	snprintf(line_b, sizeof(line_b), "stoker: error: %s", b);
	capture_begin();
	ck_assert_int_eq(pthread_create(&thread, NULL, log_much, (void *)a), 0);
	log_much((void *)b);
	pthread_join(thread, NULL);
	capture_end();
	for (line = strtok_r(captured, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++)
		expect(strcmp(line, line_a) == 0 || strcmp(line, line_b) == 0);
	ck_assert_int_eq(lines, 400);
}
END_TEST

START_TEST(of_a_line_that_a_peer_can_cause_a_few_are_said_at_a_time_and_the_rest_is_counted)
{
	const uint64_t start = 1000;
	struct log_limit limit = { 0 };
	uint32_t unsaid = 77;

	for (uint32_t i = 0; i < 1000; i++)
		ck_assert_int_eq(log_may(&limit, start + i, &unsaid), i < LOG_LIMIT_LINES);
	ck_assert_uint_eq(unsaid, 0);
	ck_assert(!log_may(&limit, start + LOG_LIMIT_NS, &unsaid));
	ck_assert(log_may(&limit, start + LOG_LIMIT_NS + 1, &unsaid));
	ck_assert_uint_eq(unsaid, 1001 - LOG_LIMIT_LINES);
	ck_assert(log_may(&limit, start + LOG_LIMIT_NS + 2, &unsaid));
	ck_assert_uint_eq(unsaid, 0);
}
END_TEST

START_TEST(levels_are_read_by_name)
{
	enum log_level level = LOG_LEVEL_INFO;

	ck_assert_int_eq(log_level_parse("debug", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_level_parse("error", &level), 0);
	ck_assert_int_eq(level, LOG_LEVEL_ERROR);
	ck_assert_int_eq(log_level_parse("", &level), -EINVAL);
	ck_assert_int_eq(log_level_parse("Debug", &level), -EINVAL);
	ck_assert_int_eq(level, LOG_LEVEL_ERROR);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("common");
	TCase *queues = tcase_create("queues");
	TCase *sizes = tcase_create("sizes");
	TCase *logs = tcase_create("logs");

	tcase_set_timeout(queues, 60);
	tcase_add_test(queues, a_queue_takes_at_least_its_capacity_and_gives_it_back_in_order);
	tcase_add_test(queues, what_was_written_before_a_put_is_seen_after_the_get);
	tcase_add_test(queues, a_bell_rings_only_while_it_is_armed_and_once_an_arming);
	tcase_add_test(queues, a_late_ring_is_drained_by_the_next_disarming);
	tcase_add_test(queues, a_consumer_that_sleeps_on_its_bell_misses_no_message_of_two_producers);
	tcase_add_test(queues, entries_reach_another_process_whole_and_in_order_and_its_sleep_misses_none);
	tcase_add_test(sizes, sizes_are_read_as_people_write_them);
	tcase_add_test(sizes, what_is_no_size_or_too_large_is_refused_and_nothing_is_written);
	tcase_add_test(sizes, sizes_are_written_with_a_unit_and_one_digit_behind_the_point);
	tcase_add_test(logs, a_log_line_names_program_and_level_and_lower_levels_are_left_out);
	tcase_add_test(logs, nobody_can_forge_a_line_or_send_a_terminal_commands);
	tcase_add_test(logs, a_long_line_is_cut_and_still_ends);
	tcase_add_test(logs, logging_keeps_errno);
	tcase_add_test(logs, lines_of_several_threads_do_not_mix);
	tcase_add_test(logs, of_a_line_that_a_peer_can_cause_a_few_are_said_at_a_time_and_the_rest_is_counted);
	tcase_add_test(logs, levels_are_read_by_name);
	suite_add_tcase(s, queues);
	suite_add_tcase(s, sizes);
	suite_add_tcase(s, logs);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
