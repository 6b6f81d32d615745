/* Attaching: whom the library believes, what it checks, and what it says when it does not attach. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/client-rig.h"

/* Attach to @name, which must fail with @r and a text that has @text in it. */
static void refused(const char *name, const struct stoker_options *options, int r, const char *text)
{
	struct stoker *c = (struct stoker *)1;

	ck_assert_int_eq(stoker_attach(name, options, &c), r);
	ck_assert_msg(strstr(stoker_attach_error(), text) != NULL, "\"%s\" lacks \"%s\"", stoker_attach_error(), text);
	ck_assert_ptr_eq(c, (struct stoker *)1);
}

static void refused_by(const struct fake_options *fake_options, int r, const char *text)
{
	/* Patience, but where patience is what is tried. */
	const struct stoker_options options = { .size = sizeof(options),
						.attach_timeout_ms = fake_options->silent ? 100 : 20000 };
	struct rig rig = { 0 };

	rig_name(&rig, "refused");
	rig.fake = fake_start(rig.name, fake_options);
	refused(rig.name, &options, r, text);
	fake_free(rig.fake);
}

START_TEST(a_name_without_a_broker_is_said_to_have_none)
{
	refused("/stoker-test-nobody", NULL, -ENOENT, "there is no broker of that name");
	refused("/tmp/stoker-test-nobody.socket", NULL, -ENOENT, "nobody listens");
}
END_TEST

START_TEST(a_name_that_is_neither_name_nor_path_is_refused)
{
	refused("stoker", NULL, -EINVAL, "a name is / and 1 to 64");
	refused("", NULL, -EINVAL, "a name is / and 1 to 64");
	ck_assert_int_eq(stoker_attach(NULL, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(a_page_whose_broker_is_gone_is_no_broker)
{
	struct rig rig = { 0 };

	rig_name(&rig, "leftover");
	rig.fake = fake_start(rig.name, NULL);
	fake_die(rig.fake);
	refused(rig.name, NULL, -ENOENT, "the broker is gone");
	atomic_store(&fake_page(rig.fake)->dead, 1);
	refused(rig.name, NULL, -ENOENT, "there is no broker of that name");
	fake_free(rig.fake);
}
END_TEST

START_TEST(another_layout_version_is_named)
{
	refused_by(&(struct fake_options){ .abi = STOKER_ABI + 1 }, -EPROTONOSUPPORT, "layout version");
}
END_TEST

START_TEST(a_foreign_object_under_the_name_is_no_control_page)
{
	const char name[] = "/stoker-test-foreign";
	const int fd = shm_open(name, O_RDWR | O_CREAT, 0644);

	expect(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	close(fd);
	refused(name, NULL, -EPROTO, "not a broker's control page");
	shm_unlink(name);
}
END_TEST

/* Anybody may make one in /dev/shm, and opening it to read waits for a writer. */
START_TEST(a_fifo_under_the_name_holds_nobody_up)
{
	const struct control_page *page;
	struct rig rig = { 0 };
	char path[128];

	rig_name(&rig, "fifo");
	snprintf(path, sizeof(path), "/dev/shm%s", rig.name);
	ck_assert_int_eq(mkfifo(path, 0644), 0);
	refused(rig.name, NULL, -EPROTO, "not a broker's control page");
	ck_assert_int_eq(control_map(rig.name, &page), -EPROTO);
	unlink(path);
}
END_TEST

START_TEST(a_refusal_carries_the_brokers_reason)
{
	refused_by(&(struct fake_options){ .refuse = STOKER_STATUS_REFUSED }, -EACCES, "there are too many of you");
	refused_by(&(struct fake_options){ .refuse = STOKER_STATUS_NO_MEMORY }, -ENOMEM, "there are too many of you");
}
END_TEST

START_TEST(a_channel_that_could_shrink_is_not_mapped)
{
	refused_by(&(struct fake_options){ .unsealed = true }, -EPROTO, "not sealed");
}
END_TEST

START_TEST(a_broker_that_does_not_answer_is_given_up)
{
	refused_by(&(struct fake_options){ .silent = true }, -ETIMEDOUT, "did not answer");
}
END_TEST

/* A socket on which nobody is let in yet, with as many waiting as there is room for. */
struct queue_of_waiters {
	struct sockaddr_un address;
	int listener, waiter[64];
	uint32_t n;
};

static void waiters_queue(struct queue_of_waiters *queue)
{
	queue->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(queue->address.sun_path, sizeof(queue->address.sun_path), "/tmp/stoker-test-queue-%d", getpid());
	queue->listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	expect(bind(queue->listener, (struct sockaddr *)&queue->address, sizeof(queue->address)) == 0);
	expect(listen(queue->listener, 1) == 0);
	for (queue->n = 0; queue->n < 64; queue->n++) {
		queue->waiter[queue->n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
		if (connect(queue->waiter[queue->n], (struct sockaddr *)&queue->address, sizeof(queue->address)) < 0)
			break;
	}
	expect(queue->n < 64 && errno == EAGAIN);
	close(queue->waiter[queue->n]);
}

/* A while later all who wait are let in, and whoever comes behind them; and are not spoken to. */
static void *waiters_let_in(void *arg)
{
	const struct queue_of_waiters *queue = arg;

	usleep(50000);
	for (uint32_t i = 0; i <= queue->n; i++)
		accept(queue->listener, NULL, NULL);
	return NULL;
}

START_TEST(where_too_many_wait_to_be_let_in_one_waits_with_them)
{
	const struct stoker_options patient = { .size = sizeof(patient), .attach_timeout_ms = 3000 };
	const struct stoker_options hasty = { .size = sizeof(hasty), .attach_timeout_ms = 50 };
	struct queue_of_waiters queue;
	pthread_t thread;

	waiters_queue(&queue);
	refused(queue.address.sun_path, &hasty, -ETIMEDOUT, "too many clients are waiting");
	ck_assert_int_eq(pthread_create(&thread, NULL, waiters_let_in, &queue), 0);
	refused(queue.address.sun_path, &patient, -ETIMEDOUT, "it did not answer");
	pthread_join(thread, NULL);
	for (uint32_t i = 0; i < queue.n; i++)
		close(queue.waiter[i]);
	close(queue.listener);
	unlink(queue.address.sun_path);
}
END_TEST

START_TEST(options_that_this_library_does_not_know_are_refused)
{
	struct { struct stoker_options options; uint32_t later; } newer = { .options.size = sizeof(newer) };
	struct stoker_options options = { .size = sizeof(options), .flags = 1u << 31 };
	struct rig rig = { 0 };

	rig_name(&rig, "options");
	rig.fake = fake_start(rig.name, NULL);
	refused(rig.name, &options, -EINVAL, "does not know");
	options = (struct stoker_options){ .size = 2 };
	refused(rig.name, &options, -EINVAL, "size");
	newer.later = 1;
	refused(rig.name, &newer.options, -E2BIG, "does not know");
	newer.later = 0;	/* its default: as if it were not there */
	ck_assert_int_eq(stoker_attach(rig.name, &newer.options, &rig.c), 0);
	rig_end(&rig);
}
END_TEST

START_TEST(a_shorter_options_struct_has_defaults_beyond_its_end)
{
	struct stoker_options options = { .flags = 0, .slots_large = 77 };
	struct rig rig = { 0 };

	rig_name(&rig, "short");
	rig.fake = fake_start(rig.name, NULL);
	options.size = offsetof(struct stoker_options, slots_large);
	ck_assert_int_eq(stoker_attach(rig.name, &options, &rig.c), 0);
	ck_assert_uint_eq(stoker_keys_max(rig.c), 4 * 4096);
	rig_end(&rig);
}
END_TEST

START_TEST(the_path_of_the_socket_serves_as_well)
{
	struct rig rig = { 0 };

	rig_name(&rig, "path");
	rig.fake = fake_start(rig.name, NULL);
	ck_assert_int_eq(stoker_attach(fake_socket(rig.fake), NULL, &rig.c), 0);
	expect(stoker_is_attached(rig.c));
	ck_assert_uint_eq(stoker_attachments(rig.c), 1);
	ck_assert_str_eq(stoker_error(rig.c), "");
	rig_end(&rig);
}
END_TEST

START_TEST(a_broker_may_give_fewer_slots_than_were_wished)
{
	struct rig rig;
	struct stoker_job job;
	uint32_t n = 0;

	rig_attach(&rig, "fewer", &(struct fake_options){ .slots_small_max = 4 }, NULL);
	while (stoker_ping(rig.c, &job) == 0)
		n++;
	/* Half of the four, and the four large ones, which serve as well. */
	ck_assert_uint_eq(n, 2 + 4);
	rig_end(&rig);
}
END_TEST

START_TEST(no_handle_is_an_answer_too)
{
	ck_assert_int_eq(stoker_wait(NULL, (struct stoker_job){ 0, 1 }, 0), -EINVAL);
	ck_assert_int_eq(stoker_poll(NULL, (struct stoker_job){ 0, 1 }), STOKER_STAGE_NONE);
	stoker_close(NULL);
	stoker_hasher_free(NULL);
	stoker_model_close(NULL);
}
END_TEST

START_TEST(attaching_and_closing_leaves_no_descriptor)
{
	struct rig rig = { 0 };
	int before, after;

	rig_name(&rig, "fds");
	rig.fake = fake_start(rig.name, NULL);
	before = dup(0);
	close(before);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(stoker_attach(rig.name, NULL, &rig.c), 0);
		stoker_close(rig.c);
	}
	rig.c = NULL;
	fake_free(rig.fake);
	after = dup(0);
	close(after);
	ck_assert_int_le(after, before);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-attach");
	TCase *tests = tcase_create("attach");

	tcase_add_test(tests, a_name_without_a_broker_is_said_to_have_none);
	tcase_add_test(tests, a_name_that_is_neither_name_nor_path_is_refused);
	tcase_add_test(tests, a_page_whose_broker_is_gone_is_no_broker);
	tcase_add_test(tests, another_layout_version_is_named);
	tcase_add_test(tests, a_foreign_object_under_the_name_is_no_control_page);
	tcase_add_test(tests, a_fifo_under_the_name_holds_nobody_up);
	tcase_add_test(tests, a_refusal_carries_the_brokers_reason);
	tcase_add_test(tests, a_channel_that_could_shrink_is_not_mapped);
	tcase_add_test(tests, a_broker_that_does_not_answer_is_given_up);
	tcase_add_test(tests, where_too_many_wait_to_be_let_in_one_waits_with_them);
	tcase_add_test(tests, options_that_this_library_does_not_know_are_refused);
	tcase_add_test(tests, a_shorter_options_struct_has_defaults_beyond_its_end);
	tcase_add_test(tests, the_path_of_the_socket_serves_as_well);
	tcase_add_test(tests, a_broker_may_give_fewer_slots_than_were_wished);
	tcase_add_test(tests, no_handle_is_an_answer_too);
	tcase_add_test(tests, attaching_and_closing_leaves_no_descriptor);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
