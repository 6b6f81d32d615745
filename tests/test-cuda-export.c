/*
 * The calls of stoker/cuda.h on the fake driver, with a broker of the tests' own: what memory is given away
 * and how, ready words that streams raise, streams that wait for jobs, and what of it outlives a broker.
 */
#include <dirent.h>
#include <stdatomic.h>
#include <time.h>

#include <stoker/cuda.h>

#include "tests/client-rig.h"
#include "tests/fake-cuda/rig.h"

#define MIB	(1ull << 20)
#define GRAIN	(2 * MIB)

static struct rig rig;
static const struct cuda_driver *cuda;
static struct cuda_stream *stream;

static void begin(void)
{
	rig_setup();
	setenv("STOKER_CUDA_LIBRARY", rig_library(), 1);
	cuda = rig_open();
	must(stream_create(&stream, CUDA_STREAM_NON_BLOCKING, 0));
	rig_attach(&rig, "cuda", &(struct fake_options){ 0 }, NULL);
}

/* A test that looks at other ways sets the environment before anything reads it. */
static void begin_without(const char *what)
{
	setenv("FAKE_CUDA_LACKS", what, 1);
	begin();
}

static void end(void)
{
	rig_end(&rig);
	rig_teardown();
}

static void refused(uint64_t address, uint64_t bytes, int with, const char *text)
{
	struct stoker_region *region = NULL;

	ck_assert_int_eq(stoker_cuda_region_add(rig.c, address, bytes, &region), with);
	ck_assert_ptr_null(region);
	ck_assert_msg(strstr(stoker_error(rig.c), text) != NULL, "\"%s\" does not say \"%s\"", stoker_error(rig.c), text);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD_CUDA), 0);
}

static void registered(uint64_t address, uint64_t bytes)
{
	struct stoker_region *region;

	ck_assert_msg(stoker_cuda_region_add(rig.c, address, bytes, &region) == 0, "%s", stoker_error(rig.c));
}

static uint32_t descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	uint32_t n = 0;

	while (readdir(directory))
		n++;
	closedir(directory);
	return n;
}

/* @n allocations of @each bytes one behind the other, that may be exported as @types. */
static cuda_address virtual_memory(uint32_t n, size_t each, uint32_t types)
{
	const struct cuda_allocation properties = { .type = CUDA_MEM_ALLOCATION_TYPE_PINNED, .handle_types = types,
						    .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE } };
	const struct cuda_access access = { .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE },
					    .flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE };
	cuda_address address;
	cuda_handle handle;

	must(mem_reserve(&address, (n + 1) * each, 0, 0, 0));
	for (uint32_t i = 0; i < n; i++) {
		must(mem_create(&handle, each, &properties, 0));
		must(mem_map(address + i * each, each, 0, handle, 0));
		must(mem_release(handle));
	}
	must(mem_set_access(address, n * each, &access, 1));
	return address;
}

/* ---- regions ------------------------------------------------------------------------------------- */

START_TEST(an_allocation_is_given_by_its_handle_and_the_place_in_it)
{
	const cuda_address memory = rig_device_memory(cuda, MIB, 1);
	const struct message_region_add_cuda *message = &fake_gpu_message(rig.fake, 0)->message;
	struct cuda_ipc_handle handle;
	struct cuda_uuid uuid;

	must(ipc_get_handle(&handle, memory));
	fake_cuda_uuid(0, &uuid);
	registered(memory + 4096, 65536);
	ck_assert_uint_eq(message->kind, MESSAGE_CUDA_IPC);
	ck_assert_mem_eq(message->uuid, uuid.bytes, 16);
	ck_assert_mem_eq(message->handle, handle.reserved, 64);
	ck_assert_uint_eq(message->offset, 4096);
	ck_assert_uint_eq(message->bytes, 65536);
	ck_assert_uint_eq(message->n_fds, 0);
}
END_TEST

START_TEST(what_is_not_all_device_memory_is_refused)
{
	const cuda_address memory = rig_device_memory(cuda, MIB, 1);
	uint8_t *host = rig_host_memory(cuda, 4096, 1);

	refused(memory + 4096, MIB, -EINVAL, "register each allocation of cudaMalloc by itself");
	refused((uint64_t)(uintptr_t)host, 4096, -EINVAL, "stoker_region_add()");
	refused(12345, 4096, -EINVAL, "no device memory");
	refused(memory, 0, -EINVAL, "no range of memory");
	refused(memory, UINT64_MAX - memory + 2, -EINVAL, "no range of memory");
}
END_TEST

START_TEST(virtual_memory_is_given_by_descriptors_of_all_its_allocations)
{
	const cuda_address memory = virtual_memory(4, GRAIN, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	const struct fake_gpu_message *got = fake_gpu_message(rig.fake, 0);
	const uint32_t open_before = descriptors();

	/* From the middle of the second to the middle of the fourth. */
	registered(memory + GRAIN + 4096, 2 * GRAIN);
	ck_assert_uint_eq(got->message.kind, MESSAGE_CUDA_VMM);
	ck_assert_uint_eq(got->message.offset, 4096);
	ck_assert_uint_eq(got->message.bytes, 2 * GRAIN);
	ck_assert_uint_eq(got->message.n_fds, 3);
	ck_assert_uint_eq(got->n_fds, 3);
	ck_assert_uint_eq(got->message.more, 0);
	for (uint32_t i = 0; i < MESSAGE_CUDA_FDS_MAX; i++)
		ck_assert_uint_eq(got->message.fd_bytes[i], i < 3 ? GRAIN : 0);
	ck_assert_uint_le(descriptors(), open_before);	/* the fake broker may have had its own of the welcome still */
}
END_TEST

START_TEST(more_allocations_than_fit_a_message_travel_in_several)
{
	const cuda_address memory = virtual_memory(300, GRAIN, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	const uint32_t expected[3] = { 128, 128, 44 };

	registered(memory, 300 * GRAIN);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD_CUDA), 3);
	for (uint32_t i = 0; i < 3; i++) {
		const struct fake_gpu_message *got = fake_gpu_message(rig.fake, i);

		ck_assert_uint_eq(got->n_fds, expected[i]);
		ck_assert_uint_eq(got->message.n_fds, expected[i]);
		ck_assert_uint_eq(got->message.more, i < 2);
		ck_assert_uint_eq(got->message.bytes, 300 * GRAIN);
		ck_assert_uint_eq(got->message.header.request, fake_gpu_message(rig.fake, 0)->message.header.request);
	}
}
END_TEST

START_TEST(virtual_memory_that_cannot_be_exported_or_has_a_hole_is_refused)
{
	const cuda_address secret = virtual_memory(2, GRAIN, CUDA_MEM_HANDLE_TYPE_NONE);
	const cuda_address memory = virtual_memory(2, GRAIN, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);

	refused(secret, GRAIN, -EOPNOTSUPP, "requestedHandleTypes");
	refused(memory, 3 * GRAIN, -EOPNOTSUPP, "not mapped");
}
END_TEST

START_TEST(memory_that_no_way_gives_away_is_refused_with_what_to_set)
{
	begin_without("ipc");
	refused(rig_device_memory(cuda, MIB, 1), MIB, -EOPNOTSUPP, "PYTORCH_CUDA_ALLOC_CONF");
	end();
}
END_TEST

START_TEST(the_next_broker_is_given_the_region_too)
{
	const cuda_address memory = virtual_memory(2, GRAIN, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);

	registered(memory, 2 * GRAIN);
	fake_free(rig.fake);
	rig.fake = fake_start(rig.name, &(struct fake_options){ 0 });
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD_CUDA), 1);
	ck_assert_uint_eq(fake_gpu_message(rig.fake, 0)->n_fds, 2);
}
END_TEST

START_TEST(the_workers_context_stays_as_it_was)
{
	const cuda_address memory = virtual_memory(1, GRAIN, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	const cuda_address legacy = rig_device_memory(cuda, MIB, 1);
	struct cuda_context *before, *after;
	struct stoker_region *region;

	must(ctx_get_current(&before));
	registered(memory, GRAIN);
	registered(legacy, MIB);
	must(ctx_get_current(&after));
	ck_assert_ptr_eq(before, after);
	must(ctx_set_current(NULL));
	ck_assert_int_eq(stoker_cuda_region_add(rig.c, legacy, MIB, &region), -EINVAL);
	ck_assert_ptr_nonnull(strstr(stoker_error(rig.c), "cudaSetDevice"));
	fake_free(rig.fake);
	rig.fake = fake_start(rig.name, &(struct fake_options){ 0 });
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	ck_assert_uint_eq(fake_messages(rig.fake, MESSAGE_REGION_ADD_CUDA), 2);
	must(ctx_get_current(&after));
	ck_assert_ptr_null(after);
}
END_TEST

START_TEST(without_a_driver_the_calls_say_so)
{
	struct stoker_region *region;

	rig_setup();
	setenv("STOKER_CUDA_LIBRARY", "/nowhere/libcuda.so", 1);
	rig_attach(&rig, "cuda", &(struct fake_options){ 0 }, NULL);
	ck_assert_int_eq(stoker_cuda_region_add(rig.c, 1 << 20, 4096, &region), -ENOENT);
	ck_assert_int_eq(stoker_cuda_ready(rig.c, 0, 1, NULL), -ENOENT);
	ck_assert_ptr_nonnull(strstr(stoker_cuda_how(rig.c), "not been used"));
	end();
}
END_TEST

/* ---- ready words --------------------------------------------------------------------------------- */

static void raised(uint32_t index, uint32_t value)
{
	ck_assert_msg(stoker_cuda_ready(rig.c, index, value, stream) == 0, "%s", stoker_error(rig.c));
}

START_TEST(a_ready_word_is_raised_when_the_stream_comes_to_it)
{
	atomic_store(&rig_control->hold, 1);
	raised(3, 41);
	raised(1023, 7);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 3), 0);
	atomic_store(&rig_control->hold, 0);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 3), 41);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 1023), 7);
	ck_assert_uint_eq(stoker_ready_words(rig.c, NULL)[3], 41);
	ck_assert_ptr_nonnull(strstr(stoker_cuda_how(rig.c), "ready words by the device; waits by the device"));
	ck_assert_int_eq(stoker_cuda_ready(rig.c, 1024, 1, stream), -EINVAL);
	must(ctx_set_current(NULL));
	ck_assert_int_eq(stoker_cuda_ready(rig.c, 3, 1, stream), -EINVAL);
	ck_assert_ptr_nonnull(strstr(stoker_error(rig.c), "cudaSetDevice"));
}
END_TEST

/* The driver's ways, one by one missing: what raises the words then, and that it is said. */
static void raises_by_callbacks(const char *why)
{
	atomic_store(&rig_control->hold, 1);
	for (uint32_t i = 0; i < 1024; i++)
		raised(5, i + 1);
	ck_assert_int_eq(stoker_cuda_ready(rig.c, 5, 2000, stream), -EAGAIN);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 5), 0);
	atomic_store(&rig_control->hold, 0);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 5), 1024);
	raised(5, 2000);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 5), 2000);
	ck_assert_msg(strstr(stoker_cuda_how(rig.c), "host callbacks, because") && strstr(stoker_cuda_how(rig.c), why),
		      "%s", stoker_cuda_how(rig.c));
}

static struct stoker_job ping(void)
{
	struct stoker_job job;

	ck_assert_int_eq(stoker_ping(rig.c, &job), 0);
	return job;
}

START_TEST(a_device_without_stream_values_raises_words_by_callbacks_and_cannot_wait)
{
	struct stoker_job job;

	begin_without("stream-values");
	raises_by_callbacks("NOT_SUPPORTED");
	job = ping();
	ck_assert_int_eq(stoker_cuda_wait(rig.c, job, stream), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(stoker_error(rig.c), "poll the job"));
	end();
}
END_TEST

START_TEST(a_driver_of_old_raises_words_by_callbacks_and_cannot_wait)
{
	setenv("FAKE_CUDA_VERSION", "11040", 1);
	begin();
	raises_by_callbacks("older than CUDA 11.7");
	ck_assert_int_eq(stoker_cuda_wait(rig.c, ping(), stream), -EOPNOTSUPP);
	end();
}
END_TEST

START_TEST(where_memory_cannot_be_registered_callbacks_raise_the_words)
{
	fake_cuda_fail(rig_control, FAKE_CALL_host_register, 1, CUDA_RESULT_NOT_PERMITTED);
	raises_by_callbacks("NOT_PERMITTED");
}
END_TEST

START_TEST(more_streams_than_are_remembered_do_no_harm)
{
	struct cuda_stream *streams[200];

	for (uint32_t i = 0; i < 200; i++) {
		must(stream_create(&streams[i], CUDA_STREAM_NON_BLOCKING, 0));
		ck_assert_int_eq(stoker_cuda_ready(rig.c, i, i + 1, streams[i]), 0);
	}
	for (uint32_t i = 0; i < 200; i++) {
		must(stream_synchronize(streams[i]));
		must(stream_destroy(streams[i]));
		ck_assert_uint_eq(fake_ready_word(rig.fake, i), i + 1);
	}
}
END_TEST

/* ---- waits --------------------------------------------------------------------------------------- */

static void waits_for(struct stoker_job job)
{
	ck_assert_msg(stoker_cuda_wait(rig.c, job, stream) == 0, "%s", stoker_error(rig.c));
}

/* Give a stream that does not wait the time to show it. */
static bool stream_waits(void)
{
	usleep(30 * 1000);
	return cuda->stream_query(stream) == CUDA_RESULT_NOT_READY;
}

static void publish(const struct fake_request *request, uint32_t stage)
{
	fake_publish(rig.fake, request->head.slot, request->head.generation, &(struct fake_answer){ .stage = stage });
}

START_TEST(a_stream_goes_on_when_the_job_is_done_and_not_before)
{
	const struct stoker_job job = ping();
	const struct fake_request request = rig_take(&rig, STOKER_OP_PING);

	waits_for(job);
	raised(1, 9);
	expect(stream_waits());
	publish(&request, STOKER_STAGE_LOADING);
	publish(&request, STOKER_STAGE_ENDING);
	expect(stream_waits());
	ck_assert_uint_eq(fake_ready_word(rig.fake, 1), 0);
	publish(&request, STOKER_STAGE_DONE);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 1), 9);
}
END_TEST

START_TEST(a_job_that_is_over_is_not_waited_for)
{
	const struct stoker_job job = ping();
	const struct fake_request request = rig_take(&rig, STOKER_OP_PING);

	publish(&request, STOKER_STAGE_DONE);
	waits_for(job);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(atomic_load(&rig_control->calls[FAKE_CALL_stream_wait_value32]), 0);
	rig_finish(&rig, job);
	ck_assert_int_eq(stoker_cuda_wait(rig.c, job, stream), -ENOENT);
}
END_TEST

START_TEST(a_stream_that_comes_late_does_not_wait_for_the_slots_next_job)
{
	const struct stoker_job first = ping();
	struct fake_request request = rig_take(&rig, STOKER_OP_PING);
	struct stoker_job second;

	atomic_store(&rig_control->hold, 1);
	waits_for(first);
	waits_for(first);
	publish(&request, STOKER_STAGE_DONE);
	rig_finish(&rig, first);
	second = ping();
	request = rig_take(&rig, STOKER_OP_PING);
	ck_assert_uint_eq(second.slot, first.slot);
	atomic_store(&rig_control->hold, 0);
	must(stream_synchronize(stream));
	waits_for(second);
	expect(stream_waits());
	publish(&request, STOKER_STAGE_DONE);
	must(stream_synchronize(stream));
}
END_TEST

START_TEST(a_stream_that_waits_for_a_broker_that_died_goes_on_when_the_fence_falls)
{
	const struct stoker_job job = ping();

	waits_for(job);
	expect(stream_waits());
	fake_die(rig.fake);
	expect(stream_waits());
	/* Nobody is in the library: the worker's thread waits for its stream. */
	fake_fence_falls(rig.fake);
	must(stream_synchronize(stream));
	ck_assert_int_eq(stoker_wait(rig.c, job, UINT64_MAX), 0);
	ck_assert_uint_eq(rig_finish(&rig, job).status, STOKER_STATUS_BROKER_GONE);
}
END_TEST

START_TEST(a_job_that_is_asked_of_a_broker_that_died_is_not_waited_for_for_ever)
{
	struct stoker_job job;

	waits_for(ping());
	fake_die(rig.fake);
	fake_fence_falls(rig.fake);
	must(stream_synchronize(stream));
	job = ping();	/* the library may not have noticed */
	stoker_cuda_wait(rig.c, job, stream);
	must(stream_synchronize(stream));
}
END_TEST

START_TEST(closing_the_handle_lets_streams_through)
{
	waits_for(ping());
	expect(stream_waits());
	stoker_close(rig.c);
	rig.c = NULL;
	must(stream_synchronize(stream));
}
END_TEST

START_TEST(a_handle_may_be_closed_where_no_context_is_current)
{
	struct cuda_context *context;

	atomic_store(&rig_control->hold, 1);
	raised(2, 77);
	must(ctx_get_current(&context));
	must(ctx_set_current(NULL));
	stoker_close(rig.c);			/* the stream writes the word later: it must be there */
	rig.c = NULL;
	ck_assert_uint_eq(atomic_load(&rig_control->calls[FAKE_CALL_host_unregister]), 0);
	atomic_store(&rig_control->hold, 0);
	must(ctx_set_current(context));
	must(stream_synchronize(stream));
	must(ctx_set_current(NULL));
	fake_free(rig.fake);
	rig_attach(&rig, "cuda", &(struct fake_options){ 0 }, NULL);
	ck_assert_int_eq(stoker_cuda_ready(rig.c, 0, 1, stream), -EINVAL);	/* no context, but what is left is tidied */
	ck_assert_uint_eq(atomic_load(&rig_control->calls[FAKE_CALL_host_unregister]), 1);
	must(ctx_set_current(context));
}
END_TEST

START_TEST(what_was_enqueued_for_one_broker_does_no_harm_to_the_next)
{
	struct stoker_job job;

	atomic_store(&rig_control->hold, 1);
	waits_for(ping());
	raised(2, 77);
	fake_die(rig.fake);
	fake_fence_falls(rig.fake);
	fake_free(rig.fake);
	rig.fake = fake_start(rig.name, &(struct fake_options){ 0 });
	ck_assert_int_eq(stoker_reattach(rig.c), 0);
	raised(3, 78);
	atomic_store(&rig_control->hold, 0);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(fake_ready_word(rig.fake, 2), 0);
	ck_assert_uint_eq(fake_ready_word(rig.fake, 3), 78);
	job = ping();
	waits_for(job);		/* and what is over is tidied up meanwhile */
	raised(4, 79);
	expect(stream_waits());
	ck_assert_uint_eq(atomic_load(&rig_control->calls[FAKE_CALL_host_register]), 2);
	ck_assert_uint_ge(atomic_load(&rig_control->calls[FAKE_CALL_host_unregister]), 1);
}
END_TEST

static Suite *cuda_suite(void)
{
	Suite *suite = suite_create("cuda-export");
	TCase *tests = tcase_create("calls"), *own = tcase_create("ways");

	tcase_set_timeout(tests, 60);
	tcase_set_timeout(own, 60);
	tcase_add_checked_fixture(tests, begin, end);
	tcase_add_test(tests, an_allocation_is_given_by_its_handle_and_the_place_in_it);
	tcase_add_test(tests, what_is_not_all_device_memory_is_refused);
	tcase_add_test(tests, virtual_memory_is_given_by_descriptors_of_all_its_allocations);
	tcase_add_test(tests, more_allocations_than_fit_a_message_travel_in_several);
	tcase_add_test(tests, virtual_memory_that_cannot_be_exported_or_has_a_hole_is_refused);
	tcase_add_test(tests, the_next_broker_is_given_the_region_too);
	tcase_add_test(tests, the_workers_context_stays_as_it_was);
	tcase_add_test(tests, a_ready_word_is_raised_when_the_stream_comes_to_it);
	tcase_add_test(tests, where_memory_cannot_be_registered_callbacks_raise_the_words);
	tcase_add_test(tests, more_streams_than_are_remembered_do_no_harm);
	tcase_add_test(tests, a_stream_goes_on_when_the_job_is_done_and_not_before);
	tcase_add_test(tests, a_job_that_is_over_is_not_waited_for);
	tcase_add_test(tests, a_stream_that_comes_late_does_not_wait_for_the_slots_next_job);
	tcase_add_test(tests, a_stream_that_waits_for_a_broker_that_died_goes_on_when_the_fence_falls);
	tcase_add_test(tests, a_job_that_is_asked_of_a_broker_that_died_is_not_waited_for_for_ever);
	tcase_add_test(tests, closing_the_handle_lets_streams_through);
	tcase_add_test(tests, a_handle_may_be_closed_where_no_context_is_current);
	tcase_add_test(tests, what_was_enqueued_for_one_broker_does_no_harm_to_the_next);
	suite_add_tcase(suite, tests);
	tcase_add_test(own, memory_that_no_way_gives_away_is_refused_with_what_to_set);
	tcase_add_test(own, without_a_driver_the_calls_say_so);
	tcase_add_test(own, a_device_without_stream_values_raises_words_by_callbacks_and_cannot_wait);
	tcase_add_test(own, a_driver_of_old_raises_words_by_callbacks_and_cannot_wait);
	suite_add_tcase(suite, own);
	return suite;
}

int main(void)
{
	if (!rig_library()) {
		printf("1..0 # SKIP there is no library of the fake driver (--disable-shared)\n");
		return 0;
	}
	return suite_run(cuda_suite());
}
