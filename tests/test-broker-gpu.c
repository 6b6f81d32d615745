/*
 * REGION_ADD_CUDA on the socket: what is impossible costs the attachment, what is wrong is refused with a reason,
 * and whoever leaves in the middle leaves nothing. The driver is absent here; test-cuda-whole.c has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/control-rig.h"

static void setup_gpu(void)
{
	setup();
	whole.options[1] = "--set=gpu.library=/nowhere/libcuda.so.1";
}

static struct message_region_add_cuda ipc_message(void)
{
	return (struct message_region_add_cuda){ .header = { .type = MESSAGE_REGION_ADD_CUDA, .request = 99,
							     .bytes = sizeof(struct message_region_add_cuda) },
						 .uuid = { 1 }, .kind = MESSAGE_CUDA_IPC, .bytes = 4096, .handle = { 7 } };
}

static struct message_region_add_cuda vmm_message(uint32_t n_fds)
{
	struct message_region_add_cuda message = ipc_message();

	message.kind = MESSAGE_CUDA_VMM;
	message.n_fds = n_fds;
	message.handle[0] = 0;
	for (uint32_t i = 0; i < n_fds; i++)
		message.fd_bytes[i] = 4096;
	return message;
}

static void memories(int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		fds[i] = memfd_create("allocation", MFD_CLOEXEC);
		ck_assert_int_ge(fds[i], 0);
	}
}

static void close_all(const int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		close(fds[i]);
}

static void tell(struct raw *raw, const struct message_region_add_cuda *message, const int *fds, uint32_t n)
{
	ck_assert_int_eq(raw_send(raw->socket, message, sizeof(*message), fds, n), 0);
}

/* The one answer to what was told. */
static struct message_answer answer_of(struct raw *raw)
{
	struct message_answer answer;
	ssize_t n;
	int left = 20;		/* a copier may be slow to start here */

	do
		n = raw_receive(raw->socket, &answer, sizeof(answer), NULL, NULL);
	while (n == -ETIMEDOUT && left-- > 0);
	ck_assert_int_eq(n, sizeof(answer));
	ck_assert_uint_eq(answer.header.type, MESSAGE_ANSWER);
	ck_assert_uint_eq(answer.header.request, 99);
	return answer;
}

static void refused(const struct message_region_add_cuda *message, const int *fds, uint32_t n, const char *text)
{
	struct raw raw = attach();

	tell(&raw, message, fds, n);
	const struct message_answer answer = answer_of(&raw);
	ck_assert_uint_ne(answer.status, STOKER_STATUS_OK);
	ck_assert_msg(strstr(answer.reason, text) != NULL, "\"%s\" does not say \"%s\"", answer.reason, text);
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
}

static void expelled(const struct message_region_add_cuda *message, const int *fds, uint32_t n)
{
	struct raw raw = attach();

	tell(&raw, message, fds, n);
	ck_assert(raw_is_expelled(&raw));
	raw_close(&raw);
}

/* ---- tests ------------------------------------------------------------------------------------- */

START_TEST(where_gpus_are_switched_off_their_memory_is_refused_with_the_remedy)
{
	const struct message_region_add_cuda message = ipc_message();

	whole.options[2] = "--set=gpu.enabled=no";
	whole_launch();
	refused(&message, NULL, 0, "this broker has no GPU support");
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_driver_that_is_absent_is_said_to_be)
{
	const struct message_region_add_cuda message = ipc_message();

	whole.options[2] = _i ? "--set=gpu.enabled=yes" : "--set=gpu.enabled=auto";
	whole_launch();
	refused(&message, NULL, 0, "/nowhere/libcuda.so.1");
	whole_await_state(_i ? STOKER_STATE_DEGRADED : STOKER_STATE_SERVING);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(what_no_library_sends_costs_the_attachment)
{
	struct message_region_add_cuda message;
	int fds[2];

	whole_launch();
	memories(fds, 2);
	message = ipc_message();
	message.reserved = 1;
	expelled(&message, NULL, 0);
	message = ipc_message();
	message.more = 2;
	expelled(&message, NULL, 0);
	message = ipc_message();
	message.kind = 0;
	expelled(&message, NULL, 0);
	message.kind = 3;
	expelled(&message, NULL, 0);
	message = ipc_message();
	message.more = 1;
	expelled(&message, NULL, 0);
	message = ipc_message();
	message.n_fds = 1;
	expelled(&message, fds, 1);
	message = vmm_message(0);
	expelled(&message, NULL, 0);
	message = vmm_message(2);
	expelled(&message, fds, 1);
	message = vmm_message(1);
	expelled(&message, fds, 2);
	message = vmm_message(1);
	message.n_fds = 0xffffffffu;
	expelled(&message, fds, 1);
	message = ipc_message();
	message.header.bytes--;
	expelled(&message, NULL, 0);
	close_all(fds, 2);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_BAD_MESSAGES), 11);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(what_is_out_of_range_is_refused_with_the_reason)
{
	struct message_region_add_cuda message;
	int fds[2], pair[2];

	whole_launch();
	memories(fds, 2);
	message = ipc_message();
	message.bytes = 0;
	refused(&message, NULL, 0, "out of range");
	message.bytes = UINT64_MAX;
	refused(&message, NULL, 0, "out of range");
	message = ipc_message();
	message.offset = UINT64_MAX - 4096;
	refused(&message, NULL, 0, "out of range");
	message = vmm_message(2);
	message.fd_bytes[1] = 0;
	refused(&message, fds, 2, "descriptor 1");
	message.fd_bytes[1] = 4097;
	refused(&message, fds, 2, "descriptor 1");
	message.fd_bytes[1] = UINT64_MAX - 4095;
	refused(&message, fds, 2, "descriptor 1");
	message = vmm_message(2);
	message.bytes = 8193;
	refused(&message, fds, 2, "beyond the allocations");
	message.bytes = 4096;
	message.offset = 4097;
	refused(&message, fds, 2, "beyond the allocations");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	message = vmm_message(2);
	refused(&message, pair, 2, "no exported allocation");
	close_all(pair, 2);
	ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
	refused(&message, pair, 2, "no exported allocation");
	close_all(pair, 2);
	close_all(fds, 2);
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_BAD_MESSAGES), 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_region_of_many_allocations_is_told_in_parts_and_answered_once)
{
	struct message_region_add_cuda message = vmm_message(MESSAGE_CUDA_FDS_MAX);
	int fds[MESSAGE_CUDA_FDS_MAX];

	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const uint32_t before = whole_descriptors();
	struct raw raw = attach();
	memories(fds, MESSAGE_CUDA_FDS_MAX);
	message.bytes = 3 * MESSAGE_CUDA_FDS_MAX * 4096ull;
	message.more = 1;
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	message.more = 0;
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	/* All of it was there: what is refused is the driver's absence. */
	const struct message_answer answer = answer_of(&raw);
	ck_assert_ptr_nonnull(strstr(answer.reason, "/nowhere"));
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	/* What is wrong with an earlier part is said at the end. */
	message.more = 1;
	message.fd_bytes[3] = 1;
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	message.fd_bytes[3] = 4096;
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	message.more = 0;
	tell(&raw, &message, fds, MESSAGE_CUDA_FDS_MAX);
	ck_assert_ptr_nonnull(strstr(answer_of(&raw).reason, "descriptor 3"));
	raw_close(&raw);
	close_all(fds, MESSAGE_CUDA_FDS_MAX);
	await(whole_descriptors() == before);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* Another region, or another message, between two parts. */
START_TEST(parts_are_not_mixed_with_anything_else)
{
	static const struct message_drop drop = { .header = { .type = MESSAGE_REGION_DROP, .bytes = sizeof(drop) } };
	struct message_region_add_cuda first = vmm_message(1), second;
	int fd;

	first.more = 1;
	second = first;
	memories(&fd, 1);
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const uint32_t before = whole_descriptors();
	struct raw raw = attach();
	switch (_i) {
	case 0: second.uuid[3] ^= 1; break;
	case 1: second.kind = MESSAGE_CUDA_IPC; break;
	case 2: second.offset++; break;
	case 3: second.bytes++; break;
	case 4: second.header.request++; break;
	default: break;
	}
	tell(&raw, &first, &fd, 1);
	if (_i < 5)
		tell(&raw, &second, &fd, 1);
	else if (_i == 5)
		ck_assert_int_eq(raw_send(raw.socket, &drop, sizeof(drop), NULL, 0), 0);
	else
		shutdown(raw.socket, SHUT_RDWR);	/* it leaves in the middle */
	ck_assert(raw_is_expelled(&raw));
	raw_close(&raw);
	close(fd);
	await(whole_descriptors() == before);
	await(whole_gauge(STOKER_GAUGE_CLIENTS) == 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(clients_that_are_killed_while_they_wait_leave_nothing)
{
	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const uint32_t before = whole_descriptors();
	for (uint64_t i = 1; i <= 12; i++) {
		const pid_t child = whole_fork();

		if (child == 0) {
			struct message_region_add_cuda message = vmm_message(8);
			struct raw raw;
			int fds[8];

			if (raw_attach(whole.name, &raw) < 0)
				_exit(1);
			memories(fds, 8);
			message.bytes = 8 * 4096;
			tell(&raw, &message, fds, 8);
			usleep((useconds_t)i * 300);
			raise(SIGKILL);
		}
		waitpid(child, NULL, 0);
		await(whole_counter(STOKER_COUNTER_CLIENTS_GONE) == i);
	}
	await(whole_descriptors() == before);
	await(whole_gauge(STOKER_GAUGE_CLIENTS) == 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* Each names a device that nobody has: some are refused out of hand if they come fast, and all of them are forgotten. */
START_TEST(devices_that_are_not_there_do_not_use_up_the_places)
{
	struct message_region_add_cuda message = ipc_message();

	whole_launch();
	whole_await_state(STOKER_STATE_SERVING);
	const uint32_t before = whole_descriptors();
	struct raw raw = attach();
	for (uint8_t i = 0; i < 60; i++) {
		message.uuid[5] = i;
		tell(&raw, &message, NULL, 0);
	}
	for (uint32_t i = 0; i < 60; i++) {
		const struct message_answer answer = answer_of(&raw);

		ck_assert_uint_ne(answer.status, STOKER_STATUS_OK);
		ck_assert_msg(strstr(answer.reason, "/nowhere") || strstr(answer.reason, "too many"), "%s", answer.reason);
	}
	await(whole_descriptors() <= before + 5);
	tell(&raw, &message, NULL, 0);
	ck_assert_ptr_nonnull(strstr(answer_of(&raw).reason, "/nowhere"));
	ck_assert_int_eq(ping(&raw), STOKER_STATUS_OK);
	raw_close(&raw);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-gpu");
	TCase *tests = tcase_create("broker-gpu");

	tcase_add_checked_fixture(tests, setup_gpu, whole_clean);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, where_gpus_are_switched_off_their_memory_is_refused_with_the_remedy);
	tcase_add_loop_test(tests, a_driver_that_is_absent_is_said_to_be, 0, 2);
	tcase_add_test(tests, what_no_library_sends_costs_the_attachment);
	tcase_add_test(tests, what_is_out_of_range_is_refused_with_the_reason);
	tcase_add_test(tests, a_region_of_many_allocations_is_told_in_parts_and_answered_once);
	tcase_add_loop_test(tests, parts_are_not_mixed_with_anything_else, 0, 7);
	tcase_add_test(tests, clients_that_are_killed_while_they_wait_leave_nothing);
	tcase_add_test(tests, devices_that_are_not_there_do_not_use_up_the_places);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
