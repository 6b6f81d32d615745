/*
 * The copier process on the fake driver: what it imports is given back, also after its worker's death and its own, and
 * whatever fails costs what it must, and no more. The fake aborts where CUDA leaves a thing undefined, and a test fails
 * on that (rig_teardown).
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/device/cuda/keep.h"
#include "tests/copier-plain.h"
#include "tests/fake-cuda/rig.h"
#include "tests/suite.h"

/* ---- imports ------------------------------------------------------------------------------------- */

START_TEST(regions_of_one_allocation_share_an_import_that_ends_with_the_last)
{
	struct copier_rig c;
	struct worker worker = worker_start(PLAIN_REGION_BYTES, false);
	struct wire_region half = copier_region_message(&worker, 1);

	copier_open(&c);
	ck_assert_int_eq(copier_region(&c, &worker, 0), 0);
	half.offset = half.bytes = PLAIN_REGION_BYTES / 2;
	ck_assert_int_eq(wire_send(c.control, true, &half, NULL, 0), 0);
	ck_assert_int_eq(copier_answer(&c, WIRE_REGION, 1).result, 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c.pid), 1);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 0), 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c.pid), 1);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 1), 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c.pid), 0);
	worker_free(&worker);
	copier_free(&c);
}
END_TEST

START_TEST(descriptors_may_come_in_several_messages)
{
	struct copier_rig c;
	struct worker worker = worker_start(8u << 20, true);	/* four parts */
	struct wire_region message = copier_region_message(&worker, 5);

	copier_open(&c);
	for (uint32_t i = 0; i < 4; i++) {
		message.n_fds = 1;
		message.more = i < 3;
		ck_assert_int_eq(wire_send(c.control, true, &message, &worker.fds[i], 1), 0);
	}
	ck_assert_int_eq(copier_answer(&c, WIRE_REGION, 5).result, 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c.pid), 4);
	/* The parts lie in their order: what is stored is what the worker sees. */
	ck_assert_int_eq(plain_pool(&c, 0, 5), 0);
	for (uint64_t k = 0; k < worker.bytes; k++)
		worker.window[k] = (uint8_t)(k >> 12);
	worker_upload(&worker);
	plain_copy(&c, 0, true, 0, 1);
	copier_wait(&c, 0);
	for (uint64_t b = 0; b < PLAIN_LAYERS * PLAIN_BLOCKS; b++) {
		const uint64_t at = (b / 8 * 16 + plain_ids[b % 8]) * PLAIN_BYTES;

		ck_assert(memcmp(c.arena + b * PLAIN_BYTES, worker.window + at, PLAIN_BYTES) == 0);
	}
	ck_assert_int_eq(copier_number(&c, WIRE_POOL_CLOSE, 0), 0);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 5), 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c.pid), 0);
	worker_free(&worker);
	copier_free(&c);
}
END_TEST

/* Ask for a region that cannot be; nothing may be left of it, and its number is free. */
static void expect_refusal(struct copier_rig *c, const struct wire_region *message, const int *fds, int result)
{
	struct wire_answer answer;

	ck_assert_int_eq(wire_send(c->control, true, message, fds, message->n_fds), 0);
	answer = copier_answer(c, WIRE_REGION, message->region);
	ck_assert_int_eq(answer.result, result);
	ck_assert_uint_gt(strlen(answer.why), 20);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, c->pid), 0);
}

START_TEST(an_import_that_fails_is_refused_with_a_reason_and_leaves_nothing)
{
	struct copier_rig c;
	struct worker ipc = worker_start(PLAIN_REGION_BYTES, false), vmm = worker_start(2 * PLAIN_REGION_BYTES, true);
	struct wire_region message;

	copier_open(&c);
	message = copier_region_message(&ipc, 3);
	message.handle[0] ^= 1;
	expect_refusal(&c, &message, NULL, -EINVAL);
	message = copier_region_message(&ipc, 3);
	message.offset = 4096;
	expect_refusal(&c, &message, NULL, -ERANGE);
	message.offset = UINT64_MAX;
	expect_refusal(&c, &message, NULL, -ERANGE);
	message.offset = 0;
	message.bytes++;
	expect_refusal(&c, &message, NULL, -ERANGE);
	message = copier_region_message(&vmm, 3);
	message.bytes++;
	expect_refusal(&c, &message, vmm.fds, -ERANGE);
	message = copier_region_message(&vmm, 3);
	message.fd_bytes[0] = message.fd_bytes[1] = UINT64_MAX / 2 + 1;
	expect_refusal(&c, &message, vmm.fds, -ERANGE);
	message = copier_region_message(&vmm, 3);
	expect_refusal(&c, &message, (int[]){ vmm.fds[0], c.arena_fd }, -EINVAL);
	fake_cuda_fail(rig_control, FAKE_CALL_mem_import, 2, CUDA_RESULT_OUT_OF_MEMORY);
	message = copier_region_message(&vmm, 3);
	expect_refusal(&c, &message, vmm.fds, -ENOMEM);
	fake_cuda_fail(rig_control, FAKE_CALL_mem_map, 2, CUDA_RESULT_INVALID_VALUE);
	expect_refusal(&c, &message, vmm.fds, -EINVAL);
	fake_cuda_fail(rig_control, FAKE_CALL_mem_set_access, 1, CUDA_RESULT_INVALID_VALUE);
	expect_refusal(&c, &message, vmm.fds, -EINVAL);
	fake_cuda_fail(rig_control, FAKE_CALL_ipc_open, 1, CUDA_RESULT_OUT_OF_MEMORY);
	message = copier_region_message(&ipc, 3);
	expect_refusal(&c, &message, NULL, -ENOMEM);
	ck_assert_int_eq(copier_region(&c, &ipc, 3), 0);
	ck_assert_int_eq(copier_region(&c, &vmm, 4), 0);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 3), 0);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 4), 0);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	worker_free(&ipc);
	worker_free(&vmm);
	copier_free(&c);
}
END_TEST

START_TEST(memory_of_another_gpu_than_was_said_is_refused)
{
	struct copier_rig c;
	struct worker workers[2];
	struct wire_region message;
	struct cuda_uuid uuid;

	setenv("FAKE_CUDA_DEVICES", "2", 1);
	workers[0] = worker_start(PLAIN_REGION_BYTES, false);	/* on the first one */
	workers[1] = worker_start(2 * PLAIN_REGION_BYTES, true);
	copier_make(&c);
	fake_cuda_uuid(1, &uuid);
	memcpy(c.start.uuid, uuid.bytes, sizeof(uuid.bytes));
	copier_start(&c);
	ck_assert_msg(c.up.result == 0, "%s", c.up.why);
	for (uint32_t i = 0; i < 2; i++) {
		message = copier_region_message(&workers[i], i);
		expect_refusal(&c, &message, workers[i].fds, -EXDEV);
		worker_free(&workers[i]);
	}
	copier_free(&c);
}
END_TEST

START_TEST(a_pool_beyond_its_region_is_refused)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, false);
	ck_assert_int_eq(plain_pool(&c, 1, 7), -ENOENT);
	struct worker small = worker_start(PLAIN_PAYLOAD, false);

	ck_assert_int_eq(copier_region(&c, &small, 7), 0);
	ck_assert_int_eq(plain_pool(&c, 1, 7), -ERANGE);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 7), 0);
	worker_free(&small);
	plain_close(&c, &worker);
}
END_TEST

START_TEST(memory_of_a_killed_worker_is_free_when_its_region_is_closed)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, _i);
	atomic_store(&rig_control->hold, 1);
	plain_copy(&c, 0, false, 0, 2);
	plain_wait_for_batches(1);
	worker_kill(&worker);
	atomic_store(&rig_control->hold, 0);
	copier_wait(&c, 0);
	ck_assert_uint_eq(c.copies[0].result, ENGINE_OK);	/* the import has kept the memory */
	ck_assert_uint_gt(fake_cuda_memory(rig_directory, 0), 0);
	ck_assert_int_eq(copier_number(&c, WIRE_POOL_CLOSE, 0), 0);
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 0), 0);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
	worker_free(&worker);
	copier_free(&c);
}
END_TEST

static bool has_ended(int pipe)
{
	struct pollfd wait = { .fd = pipe };

	return poll(&wait, 1, 0) == 1 && wait.revents & POLLHUP;
}

START_TEST(a_fence_is_held_until_its_region_is_closed_and_the_lock_until_the_end)
{
	struct copier_rig c;
	struct worker worker = worker_start(2 * PLAIN_REGION_BYTES, true);
	struct wire_region message = copier_region_message(&worker, 0);
	int fence[2], fds[3] = { worker.fds[0], worker.fds[1] };

	copier_open(&c);
	ck_assert_int_eq(pipe(fence), 0);
	message.fence = 1;
	fds[2] = fence[1];
	ck_assert_int_eq(wire_send(c.control, true, &message, fds, 3), 0);
	close(fence[1]);
	ck_assert_int_eq(copier_answer(&c, WIRE_REGION, 0).result, 0);
	ck_assert(!has_ended(fence[0]));
	ck_assert_int_eq(copier_number(&c, WIRE_REGION_CLOSE, 0), 0);
	ck_assert(has_ended(fence[0]));
	close(fence[0]);

	ck_assert_int_eq(pipe(fence), 0);		/* and not when the import fails */
	message.bytes++;
	fds[2] = fence[1];
	ck_assert_int_eq(wire_send(c.control, true, &message, fds, 3), 0);
	close(fence[1]);
	ck_assert_int_eq(copier_answer(&c, WIRE_REGION, 0).result, -ERANGE);
	ck_assert(has_ended(fence[0]));
	close(fence[0]);

	ck_assert(!has_ended(c.lock_fd));
	close(c.control);
	c.control = -1;
	ck_assert_int_eq(copier_exit(&c), 0);
	ck_assert(has_ended(c.lock_fd));
	worker_free(&worker);
	copier_free(&c);
}
END_TEST

/* A process that keeps some descriptors, opens others, and dies. It holds the write ends of all pipes. */
static pid_t keeper(int ends[][2], uint32_t n, uint32_t kept)
{
	int ready[2];
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		keep_open();
		for (uint32_t i = 0; i < n; i++) {	/* what is opened later comes after the numbers that were taken */
			const int fd = fcntl(ends[i][1], F_DUPFD_CLOEXEC, 2 * KEEP_MAX);

			close(ends[i][1]);
			if (i >= n - kept)
				keep_put(fd);
		}
		keep_close(keep_put(open("/dev/null", O_RDONLY | O_CLOEXEC)));
		if (write(ready[1], "!", 1) == 1)
			pause();
		_exit(1);
	}
	for (uint32_t i = 0; i < n; i++)
		close(ends[i][1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	return pid;
}

START_TEST(what_a_copier_keeps_is_given_back_after_all_that_its_driver_has)
{
	enum { ALL = 24, KEPT = 4 };
	const int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[ALL];
	int ends[ALL][2], status;
	pid_t pid;

	for (uint32_t i = 0; i < ALL; i++) {
		struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u32 = i };

		ck_assert_int_eq(pipe(ends[i]), 0);
		ck_assert_int_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[i][0], &event), 0);
	}
	pid = keeper(ends, ALL, KEPT);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(epoll_wait(epoll, events, ALL, 0), ALL);	/* in the order in which they have ended */
	for (uint32_t i = 0; i < ALL; i++)
		ck_assert_msg((events[i].data.u32 >= ALL - KEPT) == (i >= ALL - KEPT), "the %u-th that ended is pipe %u", i,
			      events[i].data.u32);
}
END_TEST

START_TEST(the_last_words_of_a_copier_are_heard_though_it_left_something_unread)
{
	struct wire_fatal fatal = { .header = { WIRE_FATAL, sizeof(fatal) }, .why = "the device has fallen off the bus" };
	const struct wire_number unread = { .header = { WIRE_EXTENT, sizeof(unread) } };
	struct wire_fatal heard = { 0 };
	int pair[2], fds[WIRE_FDS_MAX];
	uint32_t n_fds;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(wire_send(pair[0], false, &unread, NULL, 0), 0);
	ck_assert_int_eq(wire_send(pair[1], false, &fatal, NULL, 0), 0);
	close(pair[1]);
	ck_assert_int_eq(wire_receive(pair[0], &heard, sizeof(heard), fds, &n_fds), sizeof(heard));
	ck_assert_str_eq(heard.why, fatal.why);
	ck_assert_int_eq(wire_receive(pair[0], &heard, sizeof(heard), fds, &n_fds), -EPIPE);
	close(pair[0]);
}
END_TEST

START_TEST(a_message_with_more_descriptors_than_any_has_is_none)
{
	struct { struct wire_header header; } message = { { WIRE_REGION, sizeof(message) } };
	union { struct cmsghdr header; char bytes[CMSG_SPACE((WIRE_FDS_MAX + 1) * sizeof(int))]; } room = { 0 };
	struct iovec part = { .iov_base = &message, .iov_len = sizeof(message) };
	struct msghdr out = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room.bytes,
			      .msg_controllen = sizeof(room.bytes) };
	struct { int fds[WIRE_FDS_MAX], behind; } taken = { .behind = -7 };
	uint32_t n_fds = 0;
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	room.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					.cmsg_len = CMSG_LEN((WIRE_FDS_MAX + 1) * sizeof(int)) };
	for (uint32_t i = 0; i <= WIRE_FDS_MAX; i++)
		memcpy(CMSG_DATA(&room.header) + i * sizeof(int), &pair[0], sizeof(int));
	ck_assert_int_eq(sendmsg(pair[1], &out, 0), sizeof(message));
	ck_assert_int_eq(wire_receive(pair[0], &message, sizeof(message), taken.fds, &n_fds), -EBADMSG);
	ck_assert_uint_eq(n_fds, 0);
	ck_assert_int_eq(taken.behind, -7);
	close(pair[0]);
	close(pair[1]);
}
END_TEST

/* ---- failure ------------------------------------------------------------------------------------- */

START_TEST(an_error_that_leaves_the_context_alive_costs_one_copy)
{
	static const enum fake_call moves[] = { FAKE_CALL_copy_batch_13, FAKE_CALL_copy_to_host_async };
	struct copier_rig c;
	struct worker worker;

	setenv("FAKE_CUDA_VERSION", _i ? "12000" : "13000", 1);
	copier_make(&c);
	worker = plain_open(&c, false);
	fake_cuda_fail(rig_control, moves[_i], 3, CUDA_RESULT_OUT_OF_MEMORY);
	plain_copy(&c, 0, true, 0, 2);
	copier_wait(&c, 0);
	ck_assert_uint_eq(c.copies[0].result, ENGINE_FAILED);
	plain_copy(&c, 1, true, 0, 2);
	copier_wait(&c, 1);
	ck_assert_uint_eq(c.copies[1].result, ENGINE_OK);
	plain_close(&c, &worker);
}
END_TEST

/* A dead context ends the process, with the driver's words; nothing of it stays. */
static void expect_fatal(struct copier_rig *c, struct worker *worker, const char *text)
{
	while (!c->gone)
		copier_hear(c);
	ck_assert_msg(strstr(c->fatal.why, text) != NULL, "%s", c->fatal.why);
	ck_assert_int_eq(copier_exit(c), 1);
	plain_close(c, worker);
}

START_TEST(a_sticky_error_is_told_and_ends_the_copier)
{
	static const enum fake_call where[] = { FAKE_CALL_execute, FAKE_CALL_copy_batch_13, FAKE_CALL_stream_write_value32,
						FAKE_CALL_execute, FAKE_CALL_event_record, FAKE_CALL_event_query };
	struct copier_rig c;
	struct worker worker;

	if (_i >= 3)
		setenv("FAKE_CUDA_LACKS", "stream-values", 1);
	copier_make(&c);
	worker = plain_open(&c, _i % 2);
	fake_cuda_fail(rig_control, where[_i], 2, CUDA_RESULT_ILLEGAL_ADDRESS);
	for (uint32_t i = 0; i < 6; i++)
		plain_copy(&c, i, i % 2, i, 2);
	expect_fatal(&c, &worker, "ILLEGAL_ADDRESS");
}
END_TEST

START_TEST(an_extent_that_was_refused_is_tried_again)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = worker_start(PLAIN_REGION_BYTES, false);
	copier_start(&c);
	fake_cuda_fail(rig_control, FAKE_CALL_host_register, 3, CUDA_RESULT_OUT_OF_MEMORY);
	copier_extents(&c, RIG_EXTENTS);	/* waits until all are registered */
	ck_assert_uint_eq(plain_calls(FAKE_CALL_host_register), 2 + RIG_EXTENTS + 1);	/* bounce buffer, words */
	while (c.figures.refusals == 0)
		copier_hear(&c);
	ck_assert_uint_eq(c.figures.refusals, 1);
	ck_assert_int_eq(copier_region(&c, &worker, 0), 0);
	ck_assert_int_eq(plain_pool(&c, 0, 0), 0);
	plain_copy(&c, 0, true, 0, 8);
	copier_wait(&c, 0);
	ck_assert_uint_eq(c.copies[0].result, ENGINE_OK);
	ck_assert_uint_eq(c.figures.bounced_bytes, 0);
	plain_close(&c, &worker);
}
END_TEST

START_TEST(a_device_that_hangs_ends_the_copier)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	c.start.hang_ms = 200;
	worker = plain_open(&c, false);
	plain_copy(&c, 0, true, 0, 8);
	copier_wait(&c, 0);
	atomic_store(&rig_control->hang_in, 3);
	plain_copy(&c, 1, false, 0, 2);
	expect_fatal(&c, &worker, "hangs");
	ck_assert(!c.copies[1].done);
}
END_TEST

START_TEST(imports_of_a_killed_copier_are_gone_and_another_one_begins)
{
	struct copier_rig c, next;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, _i % 2);
	for (uint32_t i = 0; i < 6; i++)
		plain_copy(&c, i, i % 2, i, 2);
	for (int i = 0; i < _i; i++)
		copier_hear(&c);
	kill(c.pid, SIGKILL);
	ck_assert_int_eq(copier_exit(&c), -SIGKILL);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	copier_free(&c);
	copier_open(&next);
	ck_assert_int_eq(copier_region(&next, &worker, 0), 0);
	ck_assert_int_eq(plain_pool(&next, 0, 0), 0);
	plain_copy(&next, 0, true, 0, 1);
	copier_wait(&next, 0);
	ck_assert_uint_eq(next.copies[0].result, ENGINE_OK);
	plain_close(&next, &worker);
}
END_TEST

START_TEST(a_copier_whose_broker_is_gone_ends_when_its_streams_have)
{
	struct copier_rig c;
	struct worker worker;

	copier_make(&c);
	worker = plain_open(&c, false);
	memset(worker.window, 's', worker.bytes);
	worker_upload(&worker);
	atomic_store(&rig_control->hold, 1);
	plain_copy(&c, 0, true, 0, 1);
	plain_wait_for_batches(4);
	close(c.control);
	c.control = -1;
	poll(NULL, 0, 50);
	ck_assert(!has_ended(c.lock_fd));	/* it waits for what still writes into the arena */
	atomic_store(&rig_control->hold, 0);
	ck_assert_int_eq(copier_exit(&c), 0);
	ck_assert(has_ended(c.lock_fd));
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	worker_free(&worker);
	copier_free(&c);
}
END_TEST

START_TEST(a_copier_whose_broker_was_gone_before_it_began_does_not_begin)
{
	struct copier_rig c;

	copier_make(&c);
	c.orphan = true;
	atomic_store(&rig_control->hold, 1);	/* a driver that hangs, and with it the I/O lock */
	copier_start(&c);
	ck_assert_int_eq(copier_exit(&c), 1);
	ck_assert_uint_eq(plain_calls(FAKE_CALL_init), 0);
	ck_assert(has_ended(c.lock_fd));
	atomic_store(&rig_control->hold, 0);
	copier_free(&c);
}
END_TEST

START_TEST(what_keeps_a_copier_from_beginning_is_told)
{
	static const char *const whys[] = { "CUDA_VISIBLE_DEVICES", "could not open", "bounce buffer", "context", "streams" };
	struct copier_rig c;

	copier_make(&c);
	if (_i == 0)
		c.start.uuid[15] ^= 0x55;
	if (_i == 1)
		snprintf(c.start.library, sizeof(c.start.library), "/nowhere/libcuda.so");
	if (_i == 2)
		setenv("FAKE_CUDA_FAIL", "cuMemHostRegister:1:2", 1);
	if (_i == 3)
		setenv("FAKE_CUDA_FAIL", "cuDevicePrimaryCtxRetain:1:2", 1);
	if (_i == 4)
		setenv("FAKE_CUDA_FAIL", "cuStreamCreateWithPriority:2:2", 1);
	copier_start(&c);
	ck_assert_int_lt(c.up.result, 0);
	ck_assert_msg(strstr(c.up.why, whys[_i]) != NULL, "%s", c.up.why);
	ck_assert_int_eq(copier_exit(&c), 1);
	copier_free(&c);
}
END_TEST

/* All that a copier does, as far as it gets; whether a region could not be given back. */
static bool use_in_every_way(struct copier_rig *c, const struct worker *workers)
{
	bool open[2] = { false, false }, failed = false;
	uint32_t pools = 0;

	for (uint32_t k = 0; k < RIG_EXTENTS && !c->gone; k++)
		(void)wire_send(c->control, true, &(struct wire_number){
			.header = { WIRE_EXTENT, sizeof(struct wire_number) }, .number = k }, NULL, 0);
	for (uint32_t k = 0; k < 2 && !c->gone && c->up.result == 0; k++)
		open[k] = copier_region(c, &workers[k], k) == 0;
	for (uint32_t k = 0; k < 2; k++)
		if (!c->gone && open[k] && plain_pool(c, pools, k) == 0)
			pools++;
	for (uint32_t k = 0; k < 8 && pools && !c->gone; k++)
		plain_copy(c, k, k % 2, k, 2);
	for (uint32_t k = 0; k < 8 && pools; k++)
		copier_wait(c, k);		/* DONE, or the copier is gone */
	for (uint32_t k = 0; k < pools && !c->gone; k++)
		(void)copier_number(c, WIRE_POOL_CLOSE, k);
	for (uint32_t k = 0; k < 2; k++)
		failed |= open[k] && !c->gone && copier_number(c, WIRE_REGION_CLOSE, k) != 0;
	return failed;
}

/* The @n-th call fails. Returns whether it is made at all. */
static bool try_failure(enum fake_call call, int32_t n, enum cuda_result result)
{
	struct worker workers[2] = { worker_start(PLAIN_REGION_BYTES, false), worker_start(PLAIN_REGION_BYTES, true) };
	const uint64_t before = plain_calls(call);
	struct copier_rig c;
	bool made;

	copier_make(&c);
	fake_cuda_fail(rig_control, call, n, result);
	copier_start(&c);
	/* What the driver would not take back stays until the process ends, and that is told. */
	if (!use_in_every_way(&c, workers))
		ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	fake_cuda_fail(rig_control, call, 0, CUDA_OK);
	made = plain_calls(call) > before;
	copier_free(&c);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	for (uint32_t k = 0; k < 2; k++)
		worker_free(&workers[k]);
	return made;
}

/* Whatever call fails, and however: all copies end or the copier does, and nothing is left. */
START_TEST(any_call_may_fail)
{
	const enum fake_call call = (enum fake_call)_i;

	for (int32_t n = 1; n <= 5; n += 2)
		if (!try_failure(call, n, CUDA_RESULT_OUT_OF_MEMORY) || !try_failure(call, n, CUDA_RESULT_LAUNCH_FAILED))
			break;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda-copier-faults");
	TCase *imports = tcase_create("imports"), *failure = tcase_create("failure");

	if (!rig_library()) {
		printf("1..0 # SKIP this build has no fake driver (--disable-shared)\n");
		return 0;
	}
	for (TCase **t = (TCase *[]){ imports, failure, NULL }; *t; t++) {
		tcase_add_checked_fixture(*t, rig_setup, rig_teardown);
		tcase_set_timeout(*t, 120);
		suite_add_tcase(suite, *t);
	}
	tcase_add_test(imports, regions_of_one_allocation_share_an_import_that_ends_with_the_last);
	tcase_add_test(imports, descriptors_may_come_in_several_messages);
	tcase_add_test(imports, an_import_that_fails_is_refused_with_a_reason_and_leaves_nothing);
	tcase_add_test(imports, memory_of_another_gpu_than_was_said_is_refused);
	tcase_add_test(imports, a_pool_beyond_its_region_is_refused);
	tcase_add_loop_test(imports, memory_of_a_killed_worker_is_free_when_its_region_is_closed, 0, 2);
	tcase_add_test(imports, a_fence_is_held_until_its_region_is_closed_and_the_lock_until_the_end);
	tcase_add_test(imports, what_a_copier_keeps_is_given_back_after_all_that_its_driver_has);
	tcase_add_test(failure, the_last_words_of_a_copier_are_heard_though_it_left_something_unread);
	tcase_add_test(failure, a_message_with_more_descriptors_than_any_has_is_none);
	tcase_add_loop_test(failure, an_error_that_leaves_the_context_alive_costs_one_copy, 0, 2);
	tcase_add_loop_test(failure, a_sticky_error_is_told_and_ends_the_copier, 0, 6);
	tcase_add_test(failure, an_extent_that_was_refused_is_tried_again);
	tcase_add_test(failure, a_device_that_hangs_ends_the_copier);
	tcase_add_loop_test(failure, imports_of_a_killed_copier_are_gone_and_another_one_begins, 0, 4);
	tcase_add_test(failure, a_copier_whose_broker_is_gone_ends_when_its_streams_have);
	tcase_add_test(failure, a_copier_whose_broker_was_gone_before_it_began_does_not_begin);
	tcase_add_loop_test(failure, what_keeps_a_copier_from_beginning_is_told, 0, 5);
	tcase_add_loop_test(failure, any_call_may_fail, 0, FAKE_CALLS);
	return suite_run(suite);
}
