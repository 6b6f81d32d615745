/* A broker that goes away, and one that comes: what becomes of jobs, objects and forked children. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/client-rig.h"

static struct rig rig;

static void begin(void)
{
	rig_full(&rig, "gone", &(struct fake_options){ .arena_bytes = 1 << 20 }, NULL);
}

static void end(void)
{
	rig_end(&rig);
}

static struct stoker_job lookup_submitted(void)
{
	struct stoker_key keys[4];
	struct stoker_job job;

	rig_keys(keys, 4, 1);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, keys, 4, NULL, &job), 0);
	return job;
}

static struct stoker_job retrieve_submitted(void)
{
	static const uint32_t ids[RIG_BLOCKS] = { 1, 2, 3, 4 };
	const struct stoker_blocks blocks = { .pool = rig.pool, .chunks = 1, .ids = ids };
	const struct stoker_lease lease = { { 1, 2 } };
	struct stoker_job job;

	ck_assert_int_eq(stoker_retrieve(rig.c, rig.model, &lease, &blocks, 1, NULL, &job), 0);
	return job;
}

/* Poll as a scheduler does until @job is at @stage; a minute is for ever. */
static void poll_until(struct stoker_job job, enum stoker_stage stage)
{
	const time_t end_at = time(NULL) + 60;

	while (stoker_poll(rig.c, job) != stage)
		ck_assert_msg(time(NULL) < end_at, "the job stays at %s", stoker_stage_name(stoker_poll(rig.c, job)));
}

/* The broker dies and another takes its name; nobody has called the library meanwhile. */
static void broker_again(void)
{
	fake_free(rig.fake);
	rig.fake = fake_start(rig.name, &(struct fake_options){ .arena_bytes = 1 << 20 });
}

START_TEST(a_lookup_ends_at_once_and_a_retrieve_when_the_fence_falls)
{
	const struct stoker_job lookup = lookup_submitted(), retrieve = retrieve_submitted();
	struct stoker_progress progress = { .size = sizeof(progress) };
	uint8_t chunk = 0;

	fake_die(rig.fake);
	poll_until(lookup, STOKER_STAGE_DONE);
	ck_assert_uint_eq(rig_finish(&rig, lookup).status, STOKER_STATUS_BROKER_GONE);
	expect(!stoker_is_attached(rig.c));

	/* Somebody may still write into its blocks. */
	ck_assert_int_eq(stoker_poll(rig.c, retrieve), STOKER_STAGE_ENDING);
	ck_assert_int_eq(stoker_progress(rig.c, retrieve, &progress), 0);
	ck_assert_uint_eq(progress.status, STOKER_STATUS_BROKER_GONE);
	ck_assert_int_eq(stoker_wait(rig.c, retrieve, 20000), -ETIMEDOUT);
	ck_assert_int_eq(stoker_finish(rig.c, retrieve, NULL, NULL, 0, NULL, 0), -EAGAIN);
	fake_fence_falls(rig.fake);
	ck_assert_int_eq(stoker_wait(rig.c, retrieve, UINT64_MAX), 0);
	ck_assert_int_eq(stoker_finish(rig.c, retrieve, NULL, NULL, 0, &chunk, 1), 0);
	ck_assert_uint_eq(chunk, STOKER_CHUNK_FAILED);
}
END_TEST

START_TEST(what_was_done_before_the_end_keeps_its_answer)
{
	const struct stoker_job retrieve = retrieve_submitted(), waiting = lookup_submitted();
	const uint8_t became = STOKER_CHUNK_RETRIEVED;
	const struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .n = 1, .chunks = &became, .n_chunks = 1 };
	struct stoker_result result = { .size = sizeof(result) };
	uint8_t chunk = 0;

	fake_publish(rig.fake, retrieve.slot, retrieve.generation, &answer);
	fake_die(rig.fake);
	poll_until(waiting, STOKER_STAGE_DONE);
	broker_again();
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	ck_assert_int_eq(stoker_poll(rig.c, retrieve), STOKER_STAGE_DONE);
	ck_assert_int_eq(stoker_finish(rig.c, retrieve, &result, NULL, 0, &chunk, 1), 0);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(chunk, STOKER_CHUNK_RETRIEVED);
}
END_TEST

static void *die_late(void *arg)
{
	usleep(5000);		/* the test sleeps by then */
	fake_die(arg);
	return NULL;
}

START_TEST(a_sleeper_wakes_when_the_broker_dies)
{
	const struct stoker_job job = lookup_submitted();
	pthread_t killer;

	ck_assert_int_eq(pthread_create(&killer, NULL, die_late, rig.fake), 0);
	ck_assert_int_eq(stoker_wait(rig.c, job, UINT64_MAX), 0);
	ck_assert_uint_eq(rig_finish(&rig, job).status, STOKER_STATUS_BROKER_GONE);
	pthread_join(killer, NULL);
}
END_TEST

START_TEST(an_armed_descriptor_is_ready_when_the_broker_dies)
{
	struct pollfd set = { .fd = stoker_fd(rig.c), .events = POLLIN };
	const struct stoker_job job = lookup_submitted();
	struct stoker_job done[2];

	ck_assert_int_eq(stoker_arm(rig.c), 0);
	fake_die(rig.fake);
	ck_assert_int_eq(poll(&set, 1, 10000), 1);
	ck_assert_int_eq(stoker_arm(rig.c), -EAGAIN);
	ck_assert_uint_eq(stoker_done(rig.c, done, 2), 1);
	ck_assert_uint_eq(done[0].slot, job.slot);
	rig_finish(&rig, job);
	ck_assert_int_eq(stoker_arm(rig.c), 0);		/* nothing is left that could make it spin */
	ck_assert_int_eq(poll(&set, 1, 0), 0);
}
END_TEST

START_TEST(a_page_that_is_marked_dead_is_believed)
{
	const struct stoker_job job = lookup_submitted();

	atomic_store(&fake_page(rig.fake)->dead, 1);
	poll_until(job, STOKER_STAGE_DONE);
	ck_assert_uint_eq(rig_finish(&rig, job).status, STOKER_STATUS_BROKER_GONE);
}
END_TEST

START_TEST(calls_go_on_without_a_broker_and_find_the_next_by_themselves)
{
	const struct stoker_job job = lookup_submitted();
	struct stoker_key key = { { 1 } };
	struct stoker_job other;
	int r;

	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	rig_finish(&rig, job);
	ck_assert_int_eq(stoker_lookup(rig.c, rig.model, &key, 1, NULL, &other), -EPIPE);
	ck_assert_uint_eq(stoker_attachments(rig.c), 0);
	broker_again();
	while ((r = stoker_lookup(rig.c, rig.model, &key, 1, NULL, &other)) == -EPIPE)
		usleep(1000);
	ck_assert_int_eq(r, 0);
	ck_assert_uint_eq(stoker_attachments(rig.c), 2);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_MODEL_OPEN), 1);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD), 1);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_POOL_ADD), 1);
	rig_take(&rig, STOKER_OP_LOOKUP);
	retrieve_submitted();
	rig_take(&rig, STOKER_OP_RETRIEVE);
}
END_TEST

START_TEST(without_leave_it_does_not_attach_again)
{
	struct stoker_options options = { .flags = STOKER_OPTION_NO_REATTACH };
	struct stoker_job job;
	struct rig own;

	rig_attach(&own, "stay", NULL, &options);
	ck_assert_int_eq(stoker_ping(own.c, &job), 0);
	fake_die(own.fake);
	ck_assert_int_eq(stoker_wait(own.c, job, UINT64_MAX), 0);
	ck_assert_int_eq(stoker_reattach(own.c), -ENOENT);
	fake_free(own.fake);
	own.fake = fake_start(own.name, NULL);
	for (int i = 0; i < 300; i++) {
		ck_assert_int_eq(stoker_ping(own.c, &job), -EPIPE);
		usleep(1000);
	}
	ck_assert_int_eq(stoker_reattach(own.c), 0);
	ck_assert_int_eq(stoker_ping(own.c, &job), 0);
	rig_end(&own);
}
END_TEST

START_TEST(who_rings_at_a_dead_broker_without_polling_is_told_at_the_next_call)
{
	const struct stoker_lease lease = { { 1, 2 } };

	fake_need_wake(rig.fake, 1);
	fake_die(rig.fake);
	ck_assert_int_eq(stoker_release(rig.c, &lease, 0), 0);
	ck_assert_int_eq(stoker_release(rig.c, &lease, 0), -EPIPE);
	ck_assert(!stoker_is_attached(rig.c));
}
END_TEST

/* It was awake when it died: nobody is asked to ring, and who waits for no answer does not poll. */
START_TEST(who_only_gives_back_is_told_all_the_same)
{
	const struct stoker_lease lease = { { 1, 2 } };
	int r = 0;

	fake_die(rig.fake);
	for (int i = 0; i < 2000 && (r == 0 || r == -EAGAIN); i++)
		r = stoker_release(rig.c, &lease, 0);
	ck_assert_int_eq(r, -EPIPE);
	ck_assert(!stoker_is_attached(rig.c));
}
END_TEST

START_TEST(ready_words_stay_where_they_are_with_their_values)
{
	volatile uint32_t *words = stoker_ready_words(rig.c, NULL);
	const struct stoker_job job = lookup_submitted();

	stoker_ready_set(rig.c, 5, 1234);
	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	words[6] = 5678;		/* a device does not stop because a broker did */
	broker_again();
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	expect(words == stoker_ready_words(rig.c, NULL));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 5), 1234);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 6), 5678);
	words[7] = 9;
	ck_assert_uint_eq(fake_ready_word(rig.fake, 7), 9);
}
END_TEST

START_TEST(a_drop_waits_for_the_fence_of_a_dead_broker)
{
	const struct stoker_job job = retrieve_submitted();
	pid_t helper;

	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_ENDING);
	/* The write end of the fence is closed by and by: a child holds it a moment longer than we do. */
	helper = fork();
	ck_assert_int_ge(helper, 0);
	if (helper == 0) {
		usleep(50000);
		_exit(0);
	}
	fake_fence_falls(rig.fake);
	ck_assert_int_eq(stoker_pool_drop(rig.pool), 0);
	ck_assert_int_eq(waitpid(helper, NULL, WNOHANG) == 0 ? waitpid(helper, NULL, 0) : helper, helper);
	ck_assert_int_eq(stoker_poll(rig.c, job), STOKER_STAGE_DONE);
	ck_assert_int_eq(stoker_region_drop(rig.region), 0);
}
END_TEST

/* The way to the next broker is made by calls that ask something; call until it has heard of @type. */
static void call_until(enum message_type type)
{
	struct stoker_key key = { { 1 } };
	struct stoker_job job;

	while (fake_messages(rig.fake, type) == 0) {
		ck_assert_int_eq(stoker_lookup(rig.c, rig.model, &key, 1, NULL, &job), -EPIPE);
		usleep(1000);
	}
}

static void call_until_attached(void)
{
	struct stoker_key key = { { 1 } };
	struct stoker_job job;

	while (stoker_lookup(rig.c, rig.model, &key, 1, NULL, &job) == -EPIPE)
		usleep(1000);
	rig_take(&rig, STOKER_OP_LOOKUP);
	rig_done(&rig, &(struct fake_request){ .head = { .slot = (uint16_t)job.slot, .generation = job.generation } },
		 STOKER_STATUS_OK);
	rig_finish(&rig, job);
}

START_TEST(a_broker_that_is_being_attached_to_keeps_no_event_loop_awake)
{
	struct pollfd set = { .fd = stoker_fd(rig.c), .events = POLLIN };
	const struct stoker_job job = lookup_submitted();

	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	rig_finish(&rig, job);
	broker_again();
	call_until(MESSAGE_MODEL_OPEN);
	ck_assert_int_eq(stoker_arm(rig.c), 0);
	ck_assert_int_eq(poll(&set, 1, 200), 0);	/* though its answer has come */
	call_until_attached();
	ck_assert_int_eq(stoker_arm(rig.c), 0);
	ck_assert_int_eq(poll(&set, 1, 0), 0);
	fake_die(rig.fake);
	ck_assert_int_eq(poll(&set, 1, 10000), 1);
}
END_TEST

START_TEST(what_is_dropped_while_the_next_broker_is_attached_to_is_not_left_there)
{
	const struct stoker_job job = lookup_submitted();

	fake_die(rig.fake);
	fake_fence_falls(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	rig_finish(&rig, job);
	broker_again();
	call_until(MESSAGE_POOL_ADD);
	ck_assert_int_eq(stoker_pool_drop(rig.pool), 0);
	call_until_attached();
	/* That broker has the pool at no attachment: it was asked for at one that was given up. */
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_HELLO), 2);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD), 2);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_POOL_ADD), 1);
	ck_assert_int_eq(stoker_region_drop(rig.region), 0);
}
END_TEST

/* ---- mapping -------------------------------------------------------------------------------------- */

static _Atomic uint64_t map_offset, map_held;

static void serve_maps(struct fake *fake, const struct fake_request *request)
{
	const struct stoker_mapped mapped = { .offset = map_offset, .bytes = 4096, .held = map_held };
	const struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .lease = { 51, 52 }, .output = &mapped,
					    .output_bytes = sizeof(mapped) };

	fake_publish(fake, request->head.slot, request->head.generation, &answer);
}

START_TEST(an_object_is_read_where_it_lies_and_the_end_says_whether_it_held)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	const struct stoker_lease lease = { { 1, 2 } };

	map_offset = 8192;
	map_held = 1;
	fake_arena(rig.fake)[8192] = 77;
	fake_serve(rig.fake, serve_maps);
	ck_assert_int_eq(stoker_map(rig.c, &lease, 0, 0, 0, &mapping), 0);
	ck_assert_uint_eq(mapping.bytes, 4096);
	ck_assert_uint_eq(*(const uint8_t *)mapping.data, 77);
	ck_assert_int_eq(stoker_unmap(rig.c, &mapping), 0);
	ck_assert_int_eq(stoker_unmap(rig.c, &mapping), -EINVAL);
	map_held = 0;
	ck_assert_int_eq(stoker_map(rig.c, &lease, 0, 0, 0, &mapping), 0);
	ck_assert_int_eq(stoker_unmap(rig.c, &mapping), -ESTALE);
	map_offset = (1 << 20) - 4095;		/* a byte beyond the arena */
	ck_assert_int_eq(stoker_map(rig.c, &lease, 0, 0, 0, &mapping), -EPROTO);
	fake_serve_end(rig.fake);
}
END_TEST

START_TEST(a_mapping_outlives_its_broker_but_is_not_vouched_for)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	const struct stoker_lease lease = { { 1, 2 } };
	struct stoker_job job;

	map_offset = 4096;
	map_held = 1;
	fake_arena(rig.fake)[4096] = 78;
	fake_serve(rig.fake, serve_maps);
	ck_assert_int_eq(stoker_map(rig.c, &lease, 0, 0, 0, &mapping), 0);
	fake_serve_end(rig.fake);
	job = lookup_submitted();
	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	broker_again();
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	ck_assert_uint_eq(*(const volatile uint8_t *)mapping.data, 78);
	ck_assert_int_eq(stoker_unmap(rig.c, &mapping), -ESTALE);
}
END_TEST

/* The second broker leaves a mapping behind, and the first one a copy that has not ended. */
START_TEST(the_fence_of_a_broker_that_copied_nothing_keeps_nobody_awake)
{
	struct pollfd set = { .fd = stoker_fd(rig.c), .events = POLLIN };
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	const struct stoker_job retrieve = retrieve_submitted();
	const struct stoker_lease lease = { { 1, 2 } };
	struct fake *first = rig.fake;
	struct stoker_job job;

	fake_die(first);
	poll_until(retrieve, STOKER_STAGE_ENDING);
	rig.fake = fake_start(rig.name, &(struct fake_options){ .arena_bytes = 1 << 20 });
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	map_offset = 4096;
	map_held = 1;
	fake_serve(rig.fake, serve_maps);
	ck_assert_int_eq(stoker_map(rig.c, &lease, 0, 0, 0, &mapping), 0);
	fake_serve_end(rig.fake);
	job = lookup_submitted();
	fake_die(rig.fake);
	poll_until(job, STOKER_STAGE_DONE);
	rig_finish(&rig, job);
	fake_fence_falls(rig.fake);
	ck_assert_int_eq(stoker_arm(rig.c), 0);
	ck_assert_int_eq(poll(&set, 1, 0), 0);
	fake_fence_falls(first);
	ck_assert_int_eq(poll(&set, 1, 10000), 1);
	ck_assert_int_eq(stoker_poll(rig.c, retrieve), STOKER_STAGE_DONE);
	rig_finish(&rig, retrieve);
	ck_assert_int_eq(stoker_unmap(rig.c, &mapping), -ESTALE);
	fake_free(first);
}
END_TEST

/* ---- fork ----------------------------------------------------------------------------------------- */

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static _Thread_local bool others_are_quick;	/* to open what this thread has closed, and to fork */
static uint32_t closed, taken_away;

/* As if other threads of the process opened a file and forked between this call and what follows it. */
int close(int fd)
{
	const int r = (int)syscall(SYS_close, fd);
	int status = 0, other;
	pid_t child;

	if (!others_are_quick)
		return r;
	others_are_quick = false;
	other = open("/dev/null", O_RDONLY | O_CLOEXEC);
	expect(other == fd || dup2(other, fd) == fd);
	child = fork();
	if (child == 0)
		_exit(fcntl(fd, F_GETFD) < 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	closed++;
	taken_away += status != 0;
	syscall(SYS_close, fd);
	if (other != fd)
		syscall(SYS_close, other);
	others_are_quick = true;
	return r;
}

START_TEST(a_forked_child_keeps_what_others_opened_under_a_number_of_ours)
{
	const struct stoker_job job = lookup_submitted();
	struct stoker_job other;

	fake_die(rig.fake);
	others_are_quick = true;
	poll_until(job, STOKER_STAGE_DONE);	/* socket, doorbell, completion pipe */
	others_are_quick = false;
	ck_assert_uint_ge(closed, 3);
	fake_free(rig.fake);
	rig.fake = fake_start(rig.name, &(struct fake_options){ .refuse = STOKER_STATUS_REFUSED });
	while (fake_messages(rig.fake, MESSAGE_HELLO) == 0)
		ck_assert_int_eq(stoker_ping(rig.c, &other), -EPIPE);
	closed = 0;
	others_are_quick = true;
	while (closed == 0)			/* the socket of a try that was refused */
		ck_assert_int_eq(stoker_ping(rig.c, &other), -EPIPE);
	others_are_quick = false;
	ck_assert_uint_eq(taken_away, 0);
	rig_finish(&rig, job);
}
END_TEST

START_TEST(a_forked_child_is_refused_and_disturbs_nobody)
{
	const struct stoker_job job = lookup_submitted();
	struct fake_request request;
	int status, before = open_descriptors();
	const pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		struct stoker_key key = { { 1 } };
		struct stoker_job other;
		int bad = 0;

		bad |= stoker_lookup(rig.c, rig.model, &key, 1, NULL, &other) != -EOWNERDEAD;
		bad |= (stoker_ping(rig.c, &other) != -EOWNERDEAD) << 1;
		bad |= (stoker_poll(rig.c, job) != STOKER_STAGE_NONE) << 2;
		bad |= (stoker_finish(rig.c, job, NULL, NULL, 0, NULL, 0) != -EOWNERDEAD) << 3;
		bad |= (stoker_fd(rig.c) != -EOWNERDEAD) << 4;
		bad |= (stoker_pool_drop(rig.pool) != -EOWNERDEAD) << 5;
		bad |= (stoker_ready_words(rig.c, NULL) != NULL) << 6;
		/* Epoll, socket, doorbell, completion, fence and the region's memory are closed. */
		bad |= (open_descriptors() != before - 6) << 7;
		stoker_close(rig.c);
		_exit(bad);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(WIFEXITED(status) ? WEXITSTATUS(status) : 1000, 0);
	request = rig_take(&rig, STOKER_OP_LOOKUP);
	rig_done(&rig, &request, STOKER_STATUS_OK);
	ck_assert_int_eq(stoker_wait(rig.c, job, UINT64_MAX), 0);
	rig_finish(&rig, job);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-gone");
	TCase *tests = tcase_create("gone");

	tcase_add_checked_fixture(tests, begin, end);
	tcase_set_timeout(tests, 90);
	tcase_add_test(tests, a_lookup_ends_at_once_and_a_retrieve_when_the_fence_falls);
	tcase_add_test(tests, what_was_done_before_the_end_keeps_its_answer);
	tcase_add_test(tests, a_sleeper_wakes_when_the_broker_dies);
	tcase_add_test(tests, an_armed_descriptor_is_ready_when_the_broker_dies);
	tcase_add_test(tests, a_page_that_is_marked_dead_is_believed);
	tcase_add_test(tests, calls_go_on_without_a_broker_and_find_the_next_by_themselves);
	tcase_add_test(tests, without_leave_it_does_not_attach_again);
	tcase_add_test(tests, who_rings_at_a_dead_broker_without_polling_is_told_at_the_next_call);
	tcase_add_test(tests, who_only_gives_back_is_told_all_the_same);
	tcase_add_test(tests, ready_words_stay_where_they_are_with_their_values);
	tcase_add_test(tests, a_drop_waits_for_the_fence_of_a_dead_broker);
	tcase_add_test(tests, a_broker_that_is_being_attached_to_keeps_no_event_loop_awake);
	tcase_add_test(tests, what_is_dropped_while_the_next_broker_is_attached_to_is_not_left_there);
	tcase_add_test(tests, the_fence_of_a_broker_that_copied_nothing_keeps_nobody_awake);
	tcase_add_test(tests, an_object_is_read_where_it_lies_and_the_end_says_whether_it_held);
	tcase_add_test(tests, a_mapping_outlives_its_broker_but_is_not_vouched_for);
	tcase_add_test(tests, a_forked_child_keeps_what_others_opened_under_a_number_of_ours);
	tcase_add_test(tests, a_forked_child_is_refused_and_disturbs_nobody);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
