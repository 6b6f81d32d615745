/*
 * The fake driver itself: that it does what CUDA promises and no more, and that it finds what CUDA leaves
 * undefined. Whatever is proved on it is worth as much as this.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fake-cuda/rig.h"
#include "tests/suite.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)

static const struct cuda_driver *cuda;

static struct cuda_stream *new_stream(void)
{
	struct cuda_stream *stream;

	must(stream_create(&stream, CUDA_STREAM_NON_BLOCKING, 0));
	return stream;
}

static const struct cuda_driver *open_seeded(int seed)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", seed);
	setenv("FAKE_CUDA_SEED", text, 1);
	return rig_open();
}

/* A word that streams write and hosts read: its two addresses. */
struct word {
	_Atomic uint32_t *host;
	cuda_address device;
};

static struct word new_word(void)
{
	struct word word = { .host = (_Atomic uint32_t *)(void *)rig_host_memory(cuda, 4096, 0) };

	must(host_get_device_pointer(&word.device, (void *)word.host, 0));
	return word;
}

static void wait_for(const struct word *word, uint32_t value)
{
	while (atomic_load(word->host) != value)
		usleep(100);
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

START_TEST(memory_that_is_allocated_is_in_use_until_it_is_freed)
{
	cuda_address a, b;
	size_t left, total;

	cuda = rig_open();
	must(mem_alloc(&a, 3 * MIB));
	must(mem_alloc(&b, 5 * MIB));
	must(mem_get_info(&left, &total));
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 8 * MIB);
	ck_assert_uint_eq(total - left, 8 * MIB);
	must(mem_free(a));
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 5 * MIB);
	must(mem_free(b));
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(a_device_that_is_full_is_out_of_memory_until_something_is_freed)
{
	cuda_address a, b;

	setenv("FAKE_CUDA_MEMORY", "8388608", 1);
	cuda = rig_open();
	must(mem_alloc(&a, 6 * MIB));
	ck_assert_int_eq(cuda->mem_alloc(&b, 3 * MIB), CUDA_RESULT_OUT_OF_MEMORY);
	must(mem_free(a));
	must(mem_alloc(&b, 3 * MIB));
}
END_TEST

START_TEST(an_address_tells_its_range_its_device_and_how_it_can_be_shared)
{
	cuda_address a, base, start;
	uint8_t *host;
	size_t bytes, size;
	uint64_t id, other, types;
	uint32_t capable, type;
	int ordinal;

	cuda = rig_open();
	must(mem_alloc(&a, 100 * KIB));
	host = rig_host_memory(cuda, 64 * KIB, 0);
	must(mem_get_address_range(&base, &bytes, a + 5000));
	must(pointer_get_attribute(&start, CUDA_POINTER_ATTRIBUTE_RANGE_START_ADDR, a + 5000));
	must(pointer_get_attribute(&size, CUDA_POINTER_ATTRIBUTE_RANGE_SIZE, a));
	must(pointer_get_attribute(&id, CUDA_POINTER_ATTRIBUTE_BUFFER_ID, a + 1));
	must(pointer_get_attribute(&other, CUDA_POINTER_ATTRIBUTE_BUFFER_ID, (uintptr_t)host));
	must(pointer_get_attribute(&capable, CUDA_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, a));
	must(pointer_get_attribute(&types, CUDA_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, a));
	must(pointer_get_attribute(&type, CUDA_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)host));
	must(pointer_get_attribute(&ordinal, CUDA_POINTER_ATTRIBUTE_DEVICE_ORDINAL, a));
	ck_assert(base == a && start == a && bytes == 100 * KIB && size == 100 * KIB);
	ck_assert(id != other && capable == 1 && types == 0 && type == CUDA_MEMORYTYPE_HOST && ordinal == 0);
	ck_assert_int_eq(cuda->pointer_get_attribute(&id, CUDA_POINTER_ATTRIBUTE_BUFFER_ID, (uintptr_t)&id),
			 CUDA_RESULT_INVALID_VALUE);
}
END_TEST

START_TEST(host_memory_is_registered_once_as_far_as_limits_go_and_only_if_it_is_there)
{
	uint8_t *memory = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *fixed = mmap(NULL, MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	setenv("FAKE_CUDA_PIN_MAX", "2097152", 1);
	cuda = rig_open();
	must(host_register(memory, MIB, CUDA_MEMHOSTREGISTER_PORTABLE));
	ck_assert_int_eq(cuda->host_register(memory + MIB - 1, 10, 0), CUDA_RESULT_HOST_MEMORY_ALREADY_REGISTERED);
	ck_assert_int_eq(cuda->host_register(memory + MIB, 3 * MIB, 0), CUDA_RESULT_OUT_OF_MEMORY);
	ck_assert_int_eq(cuda->host_register(fixed, MIB, 0), CUDA_RESULT_INVALID_VALUE);
	must(host_register(fixed, MIB, CUDA_MEMHOSTREGISTER_READ_ONLY));
	ck_assert_int_eq(cuda->host_unregister(memory + 4096), CUDA_RESULT_HOST_MEMORY_NOT_REGISTERED);
	must(host_unregister(memory));
	must(host_unregister(fixed));
	munmap(fixed, MIB);
	ck_assert_int_eq(cuda->host_register(fixed, MIB, CUDA_MEMHOSTREGISTER_READ_ONLY), CUDA_RESULT_INVALID_VALUE);
}
END_TEST

START_TEST(a_registration_above_the_limit_of_a_call_fails_for_good)
{
	uint8_t *memory = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cuda_address address;

	setenv("FAKE_CUDA_REGISTER_MAX", "1048576", 1);
	cuda = rig_open();
	must(host_register(memory, MIB, 0));
	ck_assert_int_eq(cuda->host_register(memory + MIB, 2 * MIB, 0), CUDA_RESULT_UNKNOWN);
	ck_assert_int_eq(cuda->mem_alloc(&address, MIB), CUDA_RESULT_UNKNOWN);
}
END_TEST

/* --- streams ---------------------------------------------------------------------------------------------------- */

START_TEST(bytes_go_to_the_device_and_back_in_the_order_of_their_stream)
{
	struct cuda_stream *stream;
	cuda_address device;
	uint8_t *one, *two, *back;

	cuda = open_seeded(_i);
	stream = new_stream();
	device = rig_device_memory(cuda, MIB, 0);
	one = rig_host_memory(cuda, MIB, 1);
	two = rig_host_memory(cuda, MIB, 2);
	back = rig_host_memory(cuda, MIB, 0);
	must(copy_to_device_async(device, one, MIB, stream));
	must(copy_to_host_async(back, device, 512 * KIB, stream));
	must(copy_to_device_async(device + 100, two, 512 * KIB, stream));
	must(copy_to_host_async(back + 512 * KIB, device, 512 * KIB, stream));
	must(stream_synchronize(stream));
	for (size_t i = 0; i < MIB; i++)
		expect(back[i] == (i < 512 * KIB + 100 ? 1 : 2));
	rig_expect_bytes(cuda, device + 100 + 512 * KIB, 512 * KIB - 100, 1);
}
END_TEST

static enum cuda_result put_batch(cuda_address *to, cuda_address *from, size_t *bytes, size_t n,
				  struct cuda_copy_attributes *attributes, size_t *first, size_t n_attributes,
				  struct cuda_stream *stream)
{
	size_t failed;

	return cuda->copy_batch_13 ?
		cuda->copy_batch_13(to, from, bytes, n, attributes, first, n_attributes, stream) :
		cuda->copy_batch_12(to, from, bytes, n, attributes, first, n_attributes, &failed, stream);
}

START_TEST(a_batch_copies_both_ways_by_either_signature)
{
	enum { N = 64 };
	struct cuda_copy_attributes attributes[2] = {
		{ .source_order = CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY },
		{ .source_order = CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM },
	};
	size_t first[2] = { 0, N / 2 }, bytes[N];
	cuda_address to[N], from[N], device, view;
	struct cuda_stream *stream;
	uint8_t *host;

	setenv("FAKE_CUDA_VERSION", _i == 0 ? "12080" : "13000", 1);
	cuda = rig_open();
	stream = new_stream();
	device = rig_device_memory(cuda, N * KIB, 7);
	host = rig_host_memory(cuda, N * KIB, 9);
	must(host_get_device_pointer(&view, host, 0));
	for (size_t i = 0; i < N; i++) {	/* the first half to the device, the second back: by either address */
		bytes[i] = KIB;
		to[i] = i < N / 2 ? device + i * KIB : (uintptr_t)host + i * KIB;
		from[i] = i < N / 2 ? view + i * KIB : device + i * KIB;
	}
	ck_assert_int_eq(put_batch(to, from, bytes, N, attributes, first, 2, stream), CUDA_OK);
	must(stream_synchronize(stream));
	rig_expect_bytes(cuda, device, N / 2 * KIB, 9);
	rig_expect_bytes(cuda, device + N / 2 * KIB, N / 2 * KIB, 7);
	for (size_t i = 0; i < N * KIB; i++)
		expect(host[i] == (i < N / 2 * KIB ? 9 : 7));
	ck_assert_uint_ge(atomic_load(&rig_control->copies), N);
}
END_TEST

START_TEST(a_batch_with_wrong_attributes_is_refused)
{
	struct cuda_copy_attributes order = { .source_order = CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM }, none = { 0 };
	size_t zero = 0, one = 1, bytes = KIB;
	cuda_address to, from;

	cuda = rig_open();
	to = rig_device_memory(cuda, KIB, 0);
	from = (uintptr_t)rig_host_memory(cuda, KIB, 1);
	ck_assert_int_eq(put_batch(&to, &from, &bytes, 1, &order, &zero, 0, new_stream()), CUDA_RESULT_INVALID_VALUE);
	ck_assert_int_eq(put_batch(&to, &from, &bytes, 1, &order, &one, 1, new_stream()), CUDA_RESULT_INVALID_VALUE);
	ck_assert_int_eq(put_batch(&to, &from, &bytes, 1, &none, &zero, 1, new_stream()), CUDA_RESULT_INVALID_VALUE);
	ck_assert_int_eq(put_batch(&to, &from, &zero, 1, &order, &zero, 1, new_stream()), CUDA_RESULT_INVALID_VALUE);
	ck_assert_int_eq(put_batch(&to, &from, &bytes, 1, &order, &zero, 1, NULL), CUDA_RESULT_INVALID_VALUE);
}
END_TEST

START_TEST(a_source_that_may_be_read_in_any_order_is_read_before_its_stream_is_there_too)
{
	struct cuda_copy_attributes any = { .source_order = CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY };
	size_t zero = 0, bytes = 64;
	unsigned early = 0, late = 0;

	cuda = rig_open();
	for (unsigned i = 0; i < 32; i++) {
		struct cuda_stream *stream = new_stream();
		cuda_address device = rig_device_memory(cuda, 64, 1);
		uint8_t *host = rig_host_memory(cuda, 64, 0), *fresh = rig_host_memory(cuda, 64, 2);
		cuda_address to = (uintptr_t)host;

		atomic_store(&rig_control->hold, 1);
		must(copy_to_device_async(device, fresh, 64, stream));
		ck_assert_int_eq(put_batch(&to, &device, &bytes, 1, &any, &zero, 1, stream), CUDA_OK);
		atomic_store(&rig_control->hold, 0);
		must(stream_synchronize(stream));
		early += host[0] == 1;
		late += host[0] == 2;
	}
	ck_assert_uint_gt(early, 0);
	ck_assert_uint_gt(late, 0);
	ck_assert_uint_eq(early + late, 32);
}
END_TEST

START_TEST(a_stream_waits_for_a_value_while_others_go_on)
{
	struct cuda_stream *waiting, *other;
	struct word go, seen, passed;

	cuda = open_seeded(_i);
	waiting = new_stream();
	other = new_stream();
	go = new_word();
	seen = new_word();
	passed = new_word();
	atomic_store(go.host, UINT32_MAX - 1);
	must(stream_wait_value32(waiting, go.device, 1, CUDA_STREAM_WAIT_VALUE_GEQ));
	must(stream_write_value32(waiting, passed.device, 5, 0));
	must(stream_write_value32(other, seen.device, 3, 0));
	wait_for(&seen, 3);
	must(stream_synchronize(other));
	ck_assert_int_eq(cuda->stream_query(waiting), CUDA_RESULT_NOT_READY);
	ck_assert_uint_eq(atomic_load(passed.host), 0);
	atomic_store(go.host, 2);	/* past the wrap: greater than 1 all the same */
	wait_for(&passed, 5);
	must(stream_synchronize(waiting));
}
END_TEST

START_TEST(what_a_stream_writes_after_a_copy_is_seen_after_the_copy)
{
	struct cuda_stream *stream;
	uint8_t *host;
	struct word done;
	cuda_address device;

	cuda = open_seeded(_i);
	stream = new_stream();
	done = new_word();
	device = rig_device_memory(cuda, MIB, 0x5a);
	host = rig_host_memory(cuda, MIB, 0);
	for (uint32_t turn = 1; turn <= 8; turn++) {
		memset(host, 0, MIB);
		must(copy_to_host_async(host, device, MIB, stream));
		must(stream_write_value32(stream, done.device, turn, 0));
		wait_for(&done, turn);
		expect(host[0] == 0x5a && host[MIB - 1] == 0x5a);
		expect(memcmp(host, host + 1, MIB - 1) == 0);
	}
}
END_TEST

static void note(void *data)
{
	uint8_t **at = data;

	*(*at)++ = 1;
}

START_TEST(an_event_orders_one_stream_behind_another)
{
	struct cuda_stream *first, *second;
	struct cuda_event *event;
	struct word go;
	uint8_t notes[2] = { 0 }, *at = notes;

	cuda = open_seeded(_i);
	first = new_stream();
	second = new_stream();
	go = new_word();
	must(event_create(&event, CUDA_EVENT_DISABLE_TIMING));
	ck_assert_int_eq(cuda->event_query(event), CUDA_OK);	/* never recorded: nothing to wait for */
	must(stream_wait_value32(first, go.device, 1, CUDA_STREAM_WAIT_VALUE_EQ));
	must(event_record(event, first));
	must(stream_wait_event(second, event, 0));
	must(launch_host_function(second, note, &at));
	ck_assert_int_eq(cuda->event_query(event), CUDA_RESULT_NOT_READY);
	usleep(2000);
	ck_assert_int_eq(cuda->stream_query(second), CUDA_RESULT_NOT_READY);
	atomic_store(go.host, 1);
	must(event_synchronize(event));
	must(stream_synchronize(second));
	ck_assert_ptr_eq(at, notes + 1);
	must(event_destroy(event));
}
END_TEST

START_TEST(the_null_stream_waits_for_blocking_streams_and_they_for_it)
{
	struct cuda_stream *blocking;
	struct word go, passed;

	cuda = open_seeded(_i);
	must(stream_create(&blocking, CUDA_STREAM_DEFAULT, -5));
	go = new_word();
	passed = new_word();
	must(stream_wait_value32(blocking, go.device, 1, CUDA_STREAM_WAIT_VALUE_EQ));
	must(stream_write_value32(NULL, passed.device, 1, 0));
	must(stream_write_value32(blocking, passed.device, 2, 0));
	usleep(2000);
	ck_assert_uint_eq(atomic_load(passed.host), 0);
	atomic_store(go.host, 1);
	must(stream_synchronize(blocking));
	ck_assert_uint_eq(atomic_load(passed.host), 2);
	must(stream_destroy(blocking));
}
END_TEST

/* --- failures --------------------------------------------------------------------------------------------------- */

START_TEST(the_nth_call_fails_as_the_environment_says)
{
	cuda_address address;

	setenv("FAKE_CUDA_FAIL", "cuMemAlloc:2:2,cuStreamCreateWithPriority:1:801", 1);
	cuda = rig_open();
	must(mem_alloc(&address, MIB));
	ck_assert_int_eq(cuda->mem_alloc(&address, MIB), CUDA_RESULT_OUT_OF_MEMORY);
	must(mem_alloc(&address, MIB));
	ck_assert_int_eq(cuda->stream_create(&(struct cuda_stream *){ NULL }, 0, 0), CUDA_RESULT_NOT_SUPPORTED);
	new_stream();
}
END_TEST

START_TEST(a_call_fails_when_the_test_says_so_and_a_fatal_error_stays)
{
	cuda_address address;

	cuda = rig_open();
	fake_cuda_fail(rig_control, FAKE_CALL_mem_alloc, 1, CUDA_RESULT_OUT_OF_MEMORY);
	ck_assert_int_eq(cuda->mem_alloc(&address, MIB), CUDA_RESULT_OUT_OF_MEMORY);
	must(mem_alloc(&address, MIB));
	fake_cuda_fail(rig_control, FAKE_CALL_mem_alloc, 1, CUDA_RESULT_ECC_UNCORRECTABLE);
	ck_assert_int_eq(cuda->mem_alloc(&address, MIB), CUDA_RESULT_ECC_UNCORRECTABLE);
	ck_assert_int_eq(cuda->mem_alloc(&address, MIB), CUDA_RESULT_ECC_UNCORRECTABLE);
	ck_assert_int_eq(cuda->mem_free(address), CUDA_RESULT_ECC_UNCORRECTABLE);
}
END_TEST

START_TEST(an_error_of_a_running_stream_is_found_by_later_calls)
{
	struct cuda_stream *stream;
	uint8_t *host;
	cuda_address device;

	cuda = rig_open();
	stream = new_stream();
	device = rig_device_memory(cuda, MIB, 0);
	host = rig_host_memory(cuda, MIB, 1);
	fake_cuda_fail(rig_control, FAKE_CALL_execute, 2, CUDA_RESULT_ILLEGAL_ADDRESS);
	for (unsigned i = 0; i < 2; i++)	/* the second may be refused already */
		(void)cuda->copy_to_device_async(device, host, MIB, stream);
	ck_assert_int_eq(cuda->stream_synchronize(stream), CUDA_RESULT_ILLEGAL_ADDRESS);
	ck_assert_int_eq(cuda->stream_query(stream), CUDA_RESULT_ILLEGAL_ADDRESS);
}
END_TEST

START_TEST(a_stream_that_hangs_is_never_ready_and_others_are)
{
	struct cuda_stream *hung, *other;
	struct word seen;

	cuda = rig_open();
	hung = new_stream();
	other = new_stream();
	seen = new_word();
	atomic_store(&rig_control->hang_in, 1);
	must(stream_write_value32(hung, seen.device, 1, 0));
	while (atomic_load(&rig_control->hang_in) != 0)
		usleep(100);
	must(stream_write_value32(other, seen.device, 2, 0));
	must(stream_synchronize(other));
	ck_assert_int_eq(cuda->stream_query(hung), CUDA_RESULT_NOT_READY);
	ck_assert_uint_eq(atomic_load(seen.host), 2);
}
END_TEST

START_TEST(a_hang_or_an_error_of_a_stream_can_be_asked_for_in_the_environment)
{
	struct cuda_stream *stream;
	struct word seen;

	setenv(_i == 0 ? "FAKE_CUDA_HANG" : "FAKE_CUDA_FAIL", _i == 0 ? "2" : "execute:2:719", 1);
	cuda = rig_open();
	stream = new_stream();
	seen = new_word();
	must(stream_write_value32(stream, seen.device, 1, 0));
	wait_for(&seen, 1);
	must(stream_write_value32(stream, seen.device, 2, 0));
	while (atomic_load(&rig_control->calls[FAKE_CALL_execute]) < 2)
		usleep(100);
	ck_assert_int_eq(cuda->stream_query(stream), _i == 0 ? CUDA_RESULT_NOT_READY : CUDA_RESULT_LAUNCH_FAILED);
	ck_assert_uint_eq(atomic_load(seen.host), 1);
}
END_TEST

START_TEST(nothing_is_executed_while_the_test_holds_streams)
{
	struct cuda_stream *stream;
	struct word seen;

	cuda = rig_open();
	stream = new_stream();
	seen = new_word();
	atomic_store(&rig_control->hold, 1);
	must(stream_write_value32(stream, seen.device, 1, 0));
	usleep(2000);
	ck_assert_int_eq(cuda->stream_query(stream), CUDA_RESULT_NOT_READY);
	ck_assert_uint_eq(atomic_load(seen.host), 0);
	atomic_store(&rig_control->hold, 0);
	must(stream_synchronize(stream));
	ck_assert_uint_eq(atomic_load(seen.host), 1);
}
END_TEST

START_TEST(values_can_be_lacking)
{
	setenv("FAKE_CUDA_LACKS", "vmm,stream-values", 1);
	cuda = rig_open();
	ck_assert_int_eq(cuda->stream_write_value32(new_stream(), new_word().device, 1, 0), CUDA_RESULT_NOT_SUPPORTED);
	ck_assert_int_eq(cuda->mem_release(1), CUDA_RESULT_NOT_SUPPORTED);
}
END_TEST

/* --- what CUDA leaves undefined --------------------------------------------------------------------------------- */

static void copy_pageable(const struct cuda_driver *driver)
{
	cuda_address device;

	cuda = driver;
	device = rig_device_memory(cuda, KIB, 0);
	cuda->copy_to_device_async(device, malloc(KIB), KIB, new_stream());
}

static void copy_past_the_end(const struct cuda_driver *driver)
{
	cuda = driver;
	cuda->copy_to_device_async(rig_device_memory(cuda, KIB, 0) + 1, rig_host_memory(cuda, KIB, 0), KIB, new_stream());
}

static void copy_across_registrations(const struct cuda_driver *driver)
{
	uint8_t *memory = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cuda = driver;
	must(host_register(memory, MIB, 0));
	must(host_register(memory + MIB, MIB, 0));
	cuda->copy_to_device_async(rig_device_memory(cuda, MIB, 0), memory + 4096, MIB, new_stream());
}

static void write_read_only(const struct cuda_driver *driver)
{
	uint8_t *memory = mmap(NULL, MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cuda = driver;
	must(host_register(memory, MIB, CUDA_MEMHOSTREGISTER_READ_ONLY));
	cuda->copy_to_host_async(memory, rig_device_memory(cuda, MIB, 0), MIB, new_stream());
}

static void free_under_a_copy(const struct cuda_driver *driver)
{
	cuda_address device;

	cuda = driver;
	device = rig_device_memory(cuda, MIB, 0);
	atomic_store(&rig_control->hold, 1);
	must(copy_to_device_async(device, rig_host_memory(cuda, MIB, 0), MIB, new_stream()));
	cuda->mem_free(device);
}

static void unregister_under_a_copy(const struct cuda_driver *driver)
{
	cuda_address device;
	uint8_t *host;

	cuda = driver;
	device = rig_device_memory(cuda, MIB, 0);
	host = rig_host_memory(cuda, MIB, 0);
	atomic_store(&rig_control->hold, 1);
	must(copy_to_device_async(device, host, MIB, new_stream()));
	cuda->host_unregister(host);
}

static void write_value_by_host_address(const struct cuda_driver *driver)
{
	cuda = driver;
	cuda->stream_write_value32(new_stream(), (uintptr_t)rig_host_memory(cuda, MIB, 0), 1, 0);
}

static void use_a_dead_stream(const struct cuda_driver *driver)
{
	struct cuda_stream *stream;

	cuda = driver;
	stream = new_stream();
	must(stream_destroy(stream));
	cuda->stream_query(stream);
}

static void call(void *data)
{
	(void)data;
	cuda->stream_query(NULL);
}

static void call_in_a_host_function(const struct cuda_driver *driver)
{
	cuda = driver;
	must(launch_host_function(NULL, call, NULL));
	cuda->stream_synchronize(NULL);
}

static void overlap_in_a_batch(const struct cuda_driver *driver)
{
	struct cuda_copy_attributes attributes = { .source_order = CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM };
	size_t zero = 0, bytes[2] = { KIB, KIB };
	cuda_address to[2], from[2];

	cuda = driver;
	to[0] = rig_device_memory(cuda, 2 * KIB, 0);
	to[1] = to[0] + KIB - 1;
	from[0] = from[1] = (uintptr_t)rig_host_memory(cuda, 2 * KIB, 0);
	put_batch(to, from, bytes, 2, &attributes, &zero, 1, new_stream());
}

static void handle_inside_an_allocation(const struct cuda_driver *driver)
{
	struct cuda_ipc_handle handle;

	cuda = driver;
	cuda->ipc_get_handle(&handle, rig_device_memory(cuda, MIB, 0) + 512);
}

static const struct {
	void (*deed)(const struct cuda_driver *driver);
	const char *text;
} undefined[] = {
	{ copy_pageable, "is not registered" },
	{ copy_past_the_end, "runs 1 bytes past the end of its allocation" },
	{ copy_across_registrations, "runs 4096 bytes past the end of its registered range" },
	{ write_read_only, "registered as read-only" },
	{ free_under_a_copy, "freed under 1 queued copies" },
	{ unregister_under_a_copy, "host memory is unregistered" },
	{ write_value_by_host_address, "a host's address" },
	{ use_a_dead_stream, "has been destroyed" },
	{ call_in_a_host_function, "must make no call" },
	{ overlap_in_a_batch, "write the same bytes" },
	{ handle_inside_an_allocation, "512 bytes into its allocation" },
};

START_TEST(what_cuda_leaves_undefined_is_an_abort_that_says_what)
{
	rig_expect_abort(undefined[_i].deed, undefined[_i].text);
}
END_TEST

START_TEST(the_address_of_device_memory_is_no_address_for_the_host)
{
	int ends[2];

	cuda = rig_open();
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], (void *)(uintptr_t)rig_device_memory(cuda, MIB, 0), 1), -1);
	ck_assert_int_eq(errno, EFAULT);
}
END_TEST

START_TEST(pageable_memory_is_staged_if_the_test_wants_it_like_cuda)
{
	uint8_t *memory = malloc(KIB);
	struct cuda_stream *stream;
	cuda_address device;

	setenv("FAKE_CUDA_PAGEABLE", "1", 1);
	cuda = rig_open();
	stream = new_stream();
	device = rig_device_memory(cuda, KIB, 0);
	memset(memory, 3, KIB);
	must(copy_to_device_async(device, memory, KIB, stream));
	memset(memory, 4, KIB);
	must(copy_to_host_async(memory, device, KIB, stream));
	expect(memory[0] == 3 && memory[KIB - 1] == 3);
	free(memory);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fake cuda");
	TCase *memory = tcase_create("memory"), *streams = tcase_create("streams"), *failures = tcase_create("failures");
	TCase *bad = tcase_create("undefined");

	if (!rig_library()) {
		printf("1..0 # SKIP this build has no shared libraries (--disable-shared), so no fake driver\n");
		return 0;
	}
	tcase_add_checked_fixture(memory, rig_setup, rig_teardown);
	tcase_add_test(memory, memory_that_is_allocated_is_in_use_until_it_is_freed);
	tcase_add_test(memory, a_device_that_is_full_is_out_of_memory_until_something_is_freed);
	tcase_add_test(memory, an_address_tells_its_range_its_device_and_how_it_can_be_shared);
	tcase_add_test(memory, host_memory_is_registered_once_as_far_as_limits_go_and_only_if_it_is_there);
	tcase_add_test(memory, a_registration_above_the_limit_of_a_call_fails_for_good);
	tcase_add_checked_fixture(streams, rig_setup, rig_teardown);
	tcase_add_loop_test(streams, bytes_go_to_the_device_and_back_in_the_order_of_their_stream, 0, 8);
	tcase_add_loop_test(streams, a_batch_copies_both_ways_by_either_signature, 0, 2);
	tcase_add_test(streams, a_batch_with_wrong_attributes_is_refused);
	tcase_add_test(streams, a_source_that_may_be_read_in_any_order_is_read_before_its_stream_is_there_too);
	tcase_add_loop_test(streams, a_stream_waits_for_a_value_while_others_go_on, 0, 4);
	tcase_add_loop_test(streams, what_a_stream_writes_after_a_copy_is_seen_after_the_copy, 0, 4);
	tcase_add_loop_test(streams, an_event_orders_one_stream_behind_another, 0, 4);
	tcase_add_loop_test(streams, the_null_stream_waits_for_blocking_streams_and_they_for_it, 0, 4);
	tcase_add_checked_fixture(failures, rig_setup, rig_teardown);
	tcase_add_test(failures, the_nth_call_fails_as_the_environment_says);
	tcase_add_test(failures, a_call_fails_when_the_test_says_so_and_a_fatal_error_stays);
	tcase_add_test(failures, an_error_of_a_running_stream_is_found_by_later_calls);
	tcase_add_test(failures, a_stream_that_hangs_is_never_ready_and_others_are);
	tcase_add_loop_test(failures, a_hang_or_an_error_of_a_stream_can_be_asked_for_in_the_environment, 0, 2);
	tcase_add_test(failures, nothing_is_executed_while_the_test_holds_streams);
	tcase_add_test(failures, values_can_be_lacking);
	tcase_add_checked_fixture(bad, rig_setup, rig_teardown);
	tcase_add_loop_test(bad, what_cuda_leaves_undefined_is_an_abort_that_says_what, 0,
			    (int)(sizeof(undefined) / sizeof(undefined[0])));
	tcase_add_test(bad, the_address_of_device_memory_is_no_address_for_the_host);
	tcase_add_test(bad, pageable_memory_is_staged_if_the_test_wants_it_like_cuda);
	suite_add_tcase(suite, memory);
	suite_add_tcase(suite, streams);
	suite_add_tcase(suite, failures);
	suite_add_tcase(suite, bad);
	return suite_run(suite);
}
