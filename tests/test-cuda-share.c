/*
 * Device memory of the fake driver between processes: legacy IPC handles, VMM descriptors over sockets,
 * and what stays when a process is killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fake-cuda/rig.h"
#include "tests/suite.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define GRANULE (2 * MIB)

static const struct cuda_driver *cuda;

/* --- a worker: a process with device memory --------------------------------------------------------------------- */

/** struct worker - its process and our end of a socket to it. */
struct worker {
	pid_t pid;
	int socket;
};

static void send_message(int socket, const void *bytes, size_t n, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		*header = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	if (sendmsg(socket, &message, MSG_NOSIGNAL) != (ssize_t)n)
		_exit(5);
}

/* The descriptor that came along, or -1. */
static int take_message(int socket, void *bytes, size_t n)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec part = { .iov_base = bytes, .iov_len = n };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
	};
	const struct cmsghdr *header;
	int fd = -1;

	ck_assert_int_eq(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), (ssize_t)n);
	header = CMSG_FIRSTHDR(&message);
	if (header)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* Starts a process that opens the driver and does @work with its end of a socket; it ends with that. */
static struct worker worker_start(void (*work)(int socket))
{
	struct worker worker;
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	worker.pid = fork();
	ck_assert_int_ge(worker.pid, 0);
	if (worker.pid == 0) {
		close(ends[0]);
		cuda = rig_open();
		work(ends[1]);
		_exit(0);
	}
	close(ends[1]);
	worker.socket = ends[0];
	return worker;
}

static void worker_tell(const struct worker *worker, char word)
{
	send_message(worker->socket, &word, 1, -1);
}

static void worker_end(const struct worker *worker, int signal)
{
	int status;

	if (signal)
		kill(worker->pid, signal);
	ck_assert_int_eq(waitpid(worker->pid, &status, 0), worker->pid);
	ck_assert_msg(signal ? WIFSIGNALED(status) && WTERMSIG(status) == signal : status == 0,
		      "the worker ended with status %#x", (unsigned)status);
	close(worker->socket);
}

static char hear(int socket)
{
	char word = 0;

	return recv(socket, &word, 1, 0) == 1 ? word : 0;
}

/* --- legacy IPC ------------------------------------------------------------------------------------------------- */

/* 3 MiB of 7s; sends their handle; then as told: 'f' frees, 'w' writes 8s and answers; end of file ends it. */
static void share_by_handle(int socket)
{
	const cuda_address address = rig_device_memory(cuda, 3 * MIB, 7);
	struct cuda_ipc_handle handle;
	char word;

	must(ipc_get_handle(&handle, address));
	send_message(socket, &handle, sizeof(handle), -1);
	while ((word = hear(socket)) != 0) {
		if (word == 'f') {
			must(mem_free(address));
		} else {
			uint8_t eights[KIB];

			memset(eights, 8, sizeof(eights));
			must(copy_to_device(address, eights, sizeof(eights)));
		}
		send_message(socket, &word, 1, -1);
	}
}

static struct cuda_ipc_handle handle_of(const struct worker *worker)
{
	struct cuda_ipc_handle handle;

	take_message(worker->socket, &handle, sizeof(handle));
	return handle;
}

static enum cuda_result open_handle(struct cuda_ipc_handle handle, cuda_address *ret)
{
	return cuda->ipc_open(ret, handle, CUDA_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
}

START_TEST(memory_of_another_process_is_opened_by_handle_and_is_the_same_memory)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	cuda_address mine, again, base;
	size_t bytes;

	cuda = rig_open();
	ck_assert_int_eq(open_handle(handle, &mine), CUDA_OK);
	ck_assert_int_eq(open_handle(handle, &again), CUDA_OK);
	ck_assert_uint_eq(mine, again);
	must(mem_get_address_range(&base, &bytes, mine + MIB));
	ck_assert(base == mine && bytes == 3 * MIB);
	rig_expect_bytes(cuda, mine, 3 * MIB, 7);
	worker_tell(&worker, 'w');
	ck_assert_int_eq(hear(worker.socket), 'w');
	rig_expect_bytes(cuda, mine, KIB, 8);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 1);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, getpid()), 1);
	must(ipc_close(mine));
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 1);	/* opened twice, closed once */
	must(ipc_close(mine));
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	ck_assert_int_eq(cuda->ipc_close(mine), CUDA_RESULT_INVALID_VALUE);
	shutdown(worker.socket, SHUT_WR);
	worker_end(&worker, 0);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(an_import_keeps_the_memory_of_a_killed_process_until_it_is_closed)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	cuda_address mine, later;

	cuda = rig_open();
	ck_assert_int_eq(open_handle(handle, &mine), CUDA_OK);
	worker_end(&worker, SIGKILL);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 3 * MIB);
	rig_expect_bytes(cuda, mine, 3 * MIB, 7);
	must(ipc_close(mine));
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
	ck_assert_int_eq(open_handle(handle, &later), CUDA_RESULT_INVALID_HANDLE);
}
END_TEST

START_TEST(a_killed_process_has_no_imports_and_no_memory)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	const pid_t importer = fork();
	int status;

	if (importer == 0) {
		cuda_address mine;

		cuda = rig_open();
		if (open_handle(handle, &mine) == CUDA_OK)
			for (;;)
				pause();
		_exit(6);
	}
	while (fake_cuda_imports(rig_directory, importer) == 0 && waitpid(importer, &status, WNOHANG) == 0)
		usleep(1000);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, importer), 1);
	kill(importer, SIGKILL);
	ck_assert_int_eq(waitpid(importer, &status, 0), importer);
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 3 * MIB);
	worker_end(&worker, SIGKILL);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(what_others_have_imported_is_not_freed)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	char text[512] = "", path[512];
	cuda_address mine;
	int status;

	cuda = rig_open();
	ck_assert_int_eq(open_handle(handle, &mine), CUDA_OK);
	worker_tell(&worker, 'f');
	ck_assert_int_eq(waitpid(worker.pid, &status, 0), worker.pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	ck_assert_uint_eq(fake_cuda_aborts(rig_directory, text, sizeof(text)), 1);
	ck_assert_ptr_nonnull(strstr(text, "freed while another process has them imported"));
	snprintf(path, sizeof(path), "%s/abort-%d", rig_directory, (int)worker.pid);
	unlink(path);
	must(ipc_close(mine));
}
END_TEST

START_TEST(a_handle_of_freed_memory_or_of_garbage_or_of_our_own_is_refused)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	struct cuda_ipc_handle own, garbage;
	cuda_address mine;

	worker_tell(&worker, 'f');
	ck_assert_int_eq(hear(worker.socket), 'f');
	cuda = rig_open();
	ck_assert_int_eq(open_handle(handle, &mine), CUDA_RESULT_INVALID_HANDLE);
	memset(&garbage, 0x77, sizeof(garbage));
	ck_assert_int_eq(open_handle(garbage, &mine), CUDA_RESULT_INVALID_HANDLE);
	must(ipc_get_handle(&own, rig_device_memory(cuda, MIB, 0)));
	ck_assert_int_eq(open_handle(own, &mine), CUDA_RESULT_INVALID_CONTEXT);
	ck_assert_int_eq(cuda->ipc_open(&mine, handle, 0), CUDA_RESULT_INVALID_VALUE);
	shutdown(worker.socket, SHUT_WR);
	worker_end(&worker, 0);
}
END_TEST

START_TEST(processes_number_devices_as_they_see_them_and_uuids_stay)
{
	struct cuda_uuid here, first;
	cuda_address address;
	cuda_device device;
	int count, can;

	setenv("FAKE_CUDA_DEVICES", "3", 1);
	setenv("CUDA_VISIBLE_DEVICES", "2,GPU-66616b65-2d63-7564-612d-6770752d0001", 1);
	cuda = rig_open();
	must(device_get_count(&count));
	must(device_get(&device, 1));
	must(device_get_uuid(&here, device));
	must(device_can_access_peer(&can, 0, 1));
	fake_cuda_uuid(0, &first);
	ck_assert(count == 2 && can == 1);
	ck_assert_mem_eq(&here, &first, sizeof(here));
	must(mem_alloc(&address, MIB));		/* on device 0 here */
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 2), MIB);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(memory_of_a_device_that_is_not_seen_or_not_reached_is_refused)
{
	const struct worker worker = worker_start(share_by_handle);
	const struct cuda_ipc_handle handle = handle_of(&worker);
	cuda_address mine;

	setenv("FAKE_CUDA_DEVICES", "2", 1);
	setenv("FAKE_CUDA_LACKS", "peer", 1);
	setenv("CUDA_VISIBLE_DEVICES", _i == 0 ? "1" : "1,0", 1);
	cuda = rig_open();
	ck_assert_int_eq(open_handle(handle, &mine),
			 _i == 0 ? CUDA_RESULT_INVALID_DEVICE : CUDA_RESULT_PEER_ACCESS_UNSUPPORTED);
	shutdown(worker.socket, SHUT_WR);
	worker_end(&worker, 0);
}
END_TEST

START_TEST(a_machine_may_lack_ipc_and_descriptors)
{
	struct cuda_allocation properties = {
		.type = CUDA_MEM_ALLOCATION_TYPE_PINNED, .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE },
		.handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
	};
	struct cuda_ipc_handle legacy;
	cuda_handle handle;
	int can;

	setenv("FAKE_CUDA_LACKS", "ipc,posix-handles", 1);
	cuda = rig_open();
	must(device_get_attribute(&can, CUDA_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0));
	ck_assert_int_eq(can, 0);
	ck_assert_int_eq(cuda->mem_create(&handle, 2 * MIB, &properties, 0), CUDA_RESULT_NOT_SUPPORTED);
	ck_assert_int_eq(cuda->ipc_get_handle(&legacy, rig_device_memory(cuda, MIB, 0)), CUDA_RESULT_INVALID_VALUE);
}
END_TEST

/* --- VMM -------------------------------------------------------------------------------------------------------- */

static const struct cuda_allocation shareable = {
	.type = CUDA_MEM_ALLOCATION_TYPE_PINNED,
	.handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
	.location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE, .id = 0 },
};

/* Maps @handle at @address, readable and writable for device 0. */
static void map_at(cuda_address address, cuda_handle handle)
{
	const struct cuda_access access = {
		.location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE, .id = 0 },
		.flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE,
	};

	must(mem_map(address, GRANULE, 0, handle, 0));
	must(mem_set_access(address, GRANULE, &access, 1));
}

/* Two granules in one reserved range, as expandable segments are: 1s and 2s; sends a descriptor of each. */
static void share_by_descriptors(int socket)
{
	uint8_t *bytes = malloc(GRANULE);
	cuda_address address;

	must(mem_reserve(&address, 2 * GRANULE, 0, 0, 0));
	for (uint8_t i = 0; i < 2; i++) {
		cuda_handle handle;
		int fd;

		must(mem_create(&handle, GRANULE, &shareable, 0));
		map_at(address + i * GRANULE, handle);
		must(mem_release(handle));	/* the mapping keeps it */
		must(mem_retain(&handle, (void *)(uintptr_t)(address + i * GRANULE + 5)));
		must(mem_export(&fd, handle, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
		must(mem_release(handle));
		memset(bytes, i + 1, GRANULE);
		must(copy_to_device(address + i * GRANULE, bytes, GRANULE));
		send_message(socket, &i, 1, fd);
		close(fd);
	}
	free(bytes);
	hear(socket);
}

START_TEST(descriptors_are_mapped_in_order_into_one_range)
{
	const struct worker worker = worker_start(share_by_descriptors);
	cuda_address range;
	uint8_t number;

	cuda = rig_open();
	must(mem_reserve(&range, 2 * GRANULE, 0, 0, 0));
	for (unsigned i = 0; i < 2; i++) {
		const int fd = take_message(worker.socket, &number, 1);
		struct cuda_allocation properties;
		cuda_handle handle;

		must(mem_import(&handle, (void *)(intptr_t)fd, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
		must(mem_get_properties(&properties, handle));
		ck_assert_int_eq(properties.location.id, 0);
		map_at(range + i * GRANULE, handle);
		must(mem_release(handle));
		close(fd);
	}
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, getpid()), 2);
	rig_expect_bytes(cuda, range, GRANULE, 1);
	rig_expect_bytes(cuda, range + GRANULE, GRANULE, 2);
	must(copy_to_device(range + GRANULE - 4, "acrosst", 8));	/* one copy over both */
	rig_expect_bytes(cuda, range + GRANULE + 4, GRANULE - 4, 2);
	ck_assert_int_eq(cuda->mem_address_free(range, 2 * GRANULE), CUDA_RESULT_INVALID_VALUE);
	worker_end(&worker, SIGKILL);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 2 * GRANULE);	/* our mappings keep it */
	ck_assert_int_eq(cuda->mem_unmap(range, GRANULE / 2), CUDA_RESULT_INVALID_VALUE);
	must(mem_unmap(range, GRANULE));
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 1);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), GRANULE);
	must(mem_unmap(range + GRANULE, GRANULE));
	must(mem_address_free(range, 2 * GRANULE));
	ck_assert_uint_eq(fake_cuda_imports(rig_directory, 0), 0);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(a_descriptor_on_its_way_keeps_memory_in_use)
{
	const struct worker worker = worker_start(share_by_descriptors);
	struct worker left = worker;
	uint8_t number;

	close(take_message(worker.socket, &number, 1));
	while (recv(worker.socket, &number, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN)
		usleep(1000);		/* until the second is in the socket */
	left.socket = dup(worker.socket);
	worker_end(&left, SIGKILL);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), GRANULE);
	close(worker.socket);
	ck_assert_uint_eq(fake_cuda_memory(rig_directory, 0), 0);
}
END_TEST

START_TEST(memory_that_was_not_made_to_be_shared_is_not_exported)
{
	struct cuda_allocation properties = shareable;
	cuda_handle handle;
	uint64_t types = 9;
	uint32_t legacy = 9;
	cuda_address at;
	int fd, ends[2];

	cuda = rig_open();
	properties.handle_types = CUDA_MEM_HANDLE_TYPE_NONE;
	must(mem_create(&handle, GRANULE, &properties, 0));
	must(mem_reserve(&at, GRANULE, 0, 0, 0));
	map_at(at, handle);
	ck_assert_int_eq(cuda->mem_export(&fd, handle, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
			 CUDA_RESULT_INVALID_VALUE);
	must(pointer_get_attribute(&types, CUDA_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, at));
	must(pointer_get_attribute(&legacy, CUDA_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE, at));
	ck_assert(types == 0 && legacy == 0);
	ck_assert_int_eq(cuda->ipc_get_handle(&(struct cuda_ipc_handle){ 0 }, at), CUDA_RESULT_INVALID_VALUE);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(cuda->mem_import(&handle, (void *)(intptr_t)ends[0],
					  CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR), CUDA_RESULT_INVALID_VALUE);
}
END_TEST

static void copy_without_access(const struct cuda_driver *driver)
{
	cuda_handle handle;
	cuda_address at;

	cuda = driver;
	must(mem_create(&handle, GRANULE, &shareable, 0));
	must(mem_reserve(&at, GRANULE, 0, 0, 0));
	must(mem_map(at, GRANULE, 0, handle, 0));
	cuda->copy_to_device(at, "x", 1);
}

static void release_twice(const struct cuda_driver *driver)
{
	cuda_handle handle;

	cuda = driver;
	must(mem_create(&handle, GRANULE, &shareable, 0));
	must(mem_release(handle));
	cuda->mem_release(handle);
}

static void unmap_under_a_copy(const struct cuda_driver *driver)
{
	struct cuda_stream *stream;
	cuda_handle handle;
	cuda_address at;

	cuda = driver;
	must(mem_create(&handle, GRANULE, &shareable, 0));
	must(mem_reserve(&at, GRANULE, 0, 0, 0));
	map_at(at, handle);
	must(stream_create(&stream, CUDA_STREAM_NON_BLOCKING, 0));
	atomic_store(&rig_control->hold, 1);
	must(copy_to_device_async(at, rig_host_memory(cuda, KIB, 0), KIB, stream));
	cuda->mem_unmap(at, GRANULE);
}

static const struct {
	void (*deed)(const struct cuda_driver *driver);
	const char *text;
} undefined[] = {
	{ copy_without_access, "mapped without access" },
	{ release_twice, "has been released" },
	{ unmap_under_a_copy, "unmapped under 1 queued copies" },
};

START_TEST(what_vmm_leaves_undefined_is_an_abort_that_says_what)
{
	rig_expect_abort(undefined[_i].deed, undefined[_i].text);
}
END_TEST

START_TEST(after_fork_the_child_has_no_driver)
{
	cuda_address address;
	pid_t child;
	int status;

	cuda = rig_open();
	child = fork();
	if (child == 0)
		_exit(cuda->mem_alloc(&address, MIB) == CUDA_RESULT_NOT_INITIALIZED &&
		      cuda->init(0) == CUDA_RESULT_NOT_INITIALIZED ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fake cuda, between processes");
	TCase *ipc = tcase_create("ipc"), *vmm = tcase_create("vmm");

	if (!rig_library()) {
		printf("1..0 # SKIP this build has no shared libraries (--disable-shared), so no fake driver\n");
		return 0;
	}
	tcase_add_checked_fixture(ipc, rig_setup, rig_teardown);
	tcase_add_test(ipc, memory_of_another_process_is_opened_by_handle_and_is_the_same_memory);
	tcase_add_test(ipc, an_import_keeps_the_memory_of_a_killed_process_until_it_is_closed);
	tcase_add_test(ipc, a_killed_process_has_no_imports_and_no_memory);
	tcase_add_test(ipc, what_others_have_imported_is_not_freed);
	tcase_add_test(ipc, a_handle_of_freed_memory_or_of_garbage_or_of_our_own_is_refused);
	tcase_add_test(ipc, processes_number_devices_as_they_see_them_and_uuids_stay);
	tcase_add_loop_test(ipc, memory_of_a_device_that_is_not_seen_or_not_reached_is_refused, 0, 2);
	tcase_add_test(ipc, a_machine_may_lack_ipc_and_descriptors);
	tcase_add_test(ipc, after_fork_the_child_has_no_driver);
	tcase_add_checked_fixture(vmm, rig_setup, rig_teardown);
	tcase_add_test(vmm, descriptors_are_mapped_in_order_into_one_range);
	tcase_add_test(vmm, a_descriptor_on_its_way_keeps_memory_in_use);
	tcase_add_test(vmm, memory_that_was_not_made_to_be_shared_is_not_exported);
	tcase_add_loop_test(vmm, what_vmm_leaves_undefined_is_an_abort_that_says_what, 0,
			    (int)(sizeof(undefined) / sizeof(undefined[0])));
	suite_add_tcase(suite, ipc);
	suite_add_tcase(suite, vmm);
	return suite_run(suite);
}
