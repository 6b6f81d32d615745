/*
 * What a machine with a GPU lets us do: a line for each thing that Stoker's GPU half stands on, "works",
 * "refused" with the error, or "skipped" because of what it needs itself. scripts/gpu-check begins with it.
 *
 * Each check runs in a process of its own with a time limit: a driver that hangs or a context that is lost
 * costs that check alone, and a driver may only be used after the last fork. Checks of two processes fork
 * the second one before either opens the driver; the two talk over a socket pair.
 *
 *	preflight [--library FILE]	(or STOKER_CUDA_LIBRARY; else libcuda.so.1)
 *
 * Exit 0 when every check has been made, whatever it found; 1 if the program itself could not go on.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/device/cuda/driver.h"

#define LIMIT_MS	12000		/* of one check */
#define ALL_LIMIT_MS	58000		/* of all of them */
#define BYTES		(4u << 20)
#define TEXT		900u

static const char *library;
static const struct cuda_driver *cuda;	/* of a check's process */
static struct cuda_context *context;
static int report = -1;			/* where a check's process writes its verdict */

/* ---- verdicts ------------------------------------------------------------------------------------ */

/* The first byte says which: w(orks), r(efused). */
static _Noreturn void verdict(char which, const char *format, va_list arguments)
{
	char text[TEXT];

	text[0] = which;
	vsnprintf(text + 1, sizeof(text) - 1, format, arguments);
	if (write(report, text, strlen(text)) < 0)
		_exit(1);
	_exit(0);
}

__attribute__((format(printf, 1, 2))) static _Noreturn void works(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	verdict('w', format, arguments);
}

__attribute__((format(printf, 1, 2))) static _Noreturn void refused(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	verdict('r', format, arguments);
}

static void must(enum cuda_result result, const char *call)
{
	char text[CUDA_TEXT];

	if (result != CUDA_OK)
		refused("%s: %s", call, cuda_error_text(cuda, result, text));
}
#define MUST(call, symbol) must(cuda->call, symbol)

static void needs(bool there, const char *what)
{
	if (!there)
		refused("%s: %s", what, strerror(errno));
}

/* ---- a GPU in this process ----------------------------------------------------------------------- */

static void gpu_begin(void)
{
	char why[CUDA_WHY];
	cuda_device device;

	if (cuda_driver_open(library, why, &cuda) < 0)
		refused("%s", why);
	MUST(device_get(&device, 0), "cuDeviceGet");
	MUST(primary_retain(&context, device), "cuDevicePrimaryCtxRetain");
	MUST(ctx_set_current(context), "cuCtxSetCurrent");
}

static int attribute(enum cuda_device_attribute which)
{
	cuda_device device;
	int value = 0;

	MUST(device_get(&device, 0), "cuDeviceGet");
	return cuda->device_get_attribute(&value, which, device) == CUDA_OK ? value : 0;
}

static struct cuda_stream *new_stream(void)
{
	struct cuda_stream *stream;

	MUST(stream_create(&stream, CUDA_STREAM_NON_BLOCKING, 0), "cuStreamCreateWithPriority");
	return stream;
}

static void fill(uint8_t *bytes, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)((i * 2654435761u + seed * 97u) >> 13);
}

static bool holds(const uint8_t *bytes, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != (uint8_t)((i * 2654435761u + seed * 97u) >> 13))
			return false;
	}
	return true;
}

/* Of memory that is not pinned the last bytes are still on their way when the copy returns. */
static void put(cuda_address address, uint32_t seed)
{
	uint8_t *bytes = malloc(BYTES);

	needs(bytes, "malloc");
	fill(bytes, BYTES, seed);
	MUST(copy_to_device(address, bytes, BYTES), "cuMemcpyHtoD");
	MUST(stream_synchronize(NULL), "cuStreamSynchronize");
	free(bytes);
}

static void check_device_holds(cuda_address address, uint32_t seed, const char *what)
{
	uint8_t *bytes = calloc(1, BYTES);

	needs(bytes, "calloc");
	MUST(copy_to_host(bytes, address, BYTES), "cuMemcpyDtoH");
	if (!holds(bytes, BYTES, seed))
		refused("%s: the bytes that came are not those that were sent", what);
	free(bytes);
}

/* ---- two processes ------------------------------------------------------------------------------- */

static void send_message(int sock, const void *bytes, size_t n, int fd)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *rights;

		head.msg_control = control.room;
		head.msg_controllen = sizeof(control.room);
		rights = CMSG_FIRSTHDR(&head);
		*rights = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					    .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
	}
	needs(sendmsg(sock, &head, MSG_NOSIGNAL) == (ssize_t)n, "sendmsg");
}

/* Nothing comes from a peer that has given its verdict: then this one has nothing to add. */
static void receive_message(int sock, void *bytes, size_t n, int *ret_fd)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	struct iovec part = { .iov_base = bytes, .iov_len = n };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room,
			       .msg_controllen = sizeof(control.room) };
	const ssize_t got = recvmsg(sock, &head, MSG_CMSG_CLOEXEC);
	struct cmsghdr *rights = CMSG_FIRSTHDR(&head);

	if (got != (ssize_t)n)
		_exit(0);
	if (!ret_fd)
		return;
	if (!rights)
		refused("the descriptor did not come along on the socket");
	memcpy(ret_fd, CMSG_DATA(rights), sizeof(*ret_fd));
}

/* Fork: the parent exports (true), the child imports. @ret: this one's end of a socket pair. */
static bool is_exporter(int *ret)
{
	int ends[2];
	pid_t pid;

	needs(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	pid = fork();
	needs(pid >= 0, "fork");
	*ret = ends[pid == 0];
	close(ends[pid != 0]);
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid != 0;
}

/* The importer gives the verdict; the exporter's memory has to stay until then. */
static _Noreturn void exporter_end(int sock)
{
	char byte;

	if (read(sock, &byte, 1) < 0)
		_exit(1);
	_exit(0);
}

static void legacy_ipc(void)
{
	struct cuda_ipc_handle handle;
	cuda_address address;
	int sock;

	if (is_exporter(&sock)) {
		gpu_begin();
		MUST(mem_alloc(&address, BYTES), "cuMemAlloc");
		put(address, 1);
		MUST(ipc_get_handle(&handle, address), "cuIpcGetMemHandle");
		send_message(sock, &handle, sizeof(handle), -1);
		exporter_end(sock);
	}
	receive_message(sock, &handle, sizeof(handle), NULL);
	gpu_begin();
	MUST(ipc_open(&address, handle, CUDA_IPC_MEM_LAZY_ENABLE_PEER_ACCESS), "cuIpcOpenMemHandle");
	check_device_holds(address, 1, "legacy IPC");
	MUST(ipc_close(address), "cuIpcCloseMemHandle");
	works("a second process read what the first one had written");
}

static struct cuda_allocation shareable(void)
{
	return (struct cuda_allocation){ .type = CUDA_MEM_ALLOCATION_TYPE_PINNED,
					 .handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
					 .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE } };
}

static cuda_address map_handle(cuda_handle handle, size_t bytes)
{
	const struct cuda_access access = { .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE },
					    .flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE };
	cuda_address address;

	MUST(mem_reserve(&address, bytes, 0, 0, 0), "cuMemAddressReserve");
	MUST(mem_map(address, bytes, 0, handle, 0), "cuMemMap");
	MUST(mem_set_access(address, bytes, &access, 1), "cuMemSetAccess");
	return address;
}

static void vmm_descriptor(void)
{
	const struct cuda_allocation properties = shareable();
	size_t granularity = 0, bytes;
	cuda_handle handle;
	cuda_address address;
	int sock, fd = -1;

	if (is_exporter(&sock)) {
		gpu_begin();
		if (!attribute(CUDA_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED))
			refused("the device says that it exports no descriptors");
		MUST(mem_get_granularity(&granularity, &properties, CUDA_MEM_ALLOC_GRANULARITY_MINIMUM),
		     "cuMemGetAllocationGranularity");
		bytes = (BYTES + granularity - 1) / granularity * granularity;
		MUST(mem_create(&handle, bytes, &properties, 0), "cuMemCreate");
		address = map_handle(handle, bytes);
		put(address, 2);
		MUST(mem_export(&fd, handle, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
		     "cuMemExportToShareableHandle");
		send_message(sock, &bytes, sizeof(bytes), fd);
		exporter_end(sock);
	}
	receive_message(sock, &bytes, sizeof(bytes), &fd);
	gpu_begin();
	MUST(mem_import(&handle, (void *)(intptr_t)fd, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
	     "cuMemImportFromShareableHandle");
	address = map_handle(handle, bytes);
	check_device_holds(address, 2, "VMM");
	works("a second process mapped it and read what the first one had written");
}

/* ---- memory of the host -------------------------------------------------------------------------- */

static uint8_t *posix_shm(int protection)
{
	char name[64];
	uint8_t *map;
	int fd;

	snprintf(name, sizeof(name), "/stoker-preflight-%d", (int)getpid());
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	needs(fd >= 0, "shm_open");
	shm_unlink(name);
	errno = posix_fallocate(fd, 0, BYTES);
	needs(errno == 0, "posix_fallocate in /dev/shm");
	map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	needs(map != MAP_FAILED, "mmap");
	fill(map, BYTES, 3);
	map = mmap(NULL, BYTES, protection, MAP_SHARED, fd, 0);
	needs(map != MAP_FAILED, "mmap");
	return map;
}

static void register_writable(void)
{
	uint8_t *map = posix_shm(PROT_READ | PROT_WRITE);
	struct cuda_stream *stream;
	cuda_address address;

	gpu_begin();
	stream = new_stream();
	MUST(host_register(map, BYTES, CUDA_MEMHOSTREGISTER_PORTABLE), "cuMemHostRegister");
	MUST(mem_alloc(&address, BYTES), "cuMemAlloc");
	MUST(copy_to_device_async(address, map, BYTES, stream), "cuMemcpyHtoDAsync");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	check_device_holds(address, 3, "registered memory to device");
	memset(map, 0, BYTES);
	MUST(copy_to_host_async(map, address, BYTES, stream), "cuMemcpyDtoHAsync");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	if (!holds(map, BYTES, 3))
		refused("the bytes that came back from the device are not those that were sent");
	MUST(host_unregister(map), "cuMemHostUnregister");
	works("copies both ways");
}

static void register_read_only(void)
{
	uint8_t *map = posix_shm(PROT_READ);
	struct cuda_stream *stream;
	cuda_address address;

	gpu_begin();
	if (!attribute(CUDA_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED))
		refused("the device says that it registers no read-only memory");
	stream = new_stream();
	MUST(host_register(map, BYTES, CUDA_MEMHOSTREGISTER_PORTABLE | CUDA_MEMHOSTREGISTER_READ_ONLY),
	     "cuMemHostRegister");
	MUST(mem_alloc(&address, BYTES), "cuMemAlloc");
	MUST(copy_to_device_async(address, map, BYTES, stream), "cuMemcpyHtoDAsync");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	check_device_holds(address, 3, "read-only memory to device");
	works("copies to the device");
}

/* ---- streams ------------------------------------------------------------------------------------- */

static _Atomic uint32_t *registered_word(cuda_address *ret)
{
	const int fd = memfd_create("stoker-preflight", MFD_CLOEXEC);
	_Atomic uint32_t *map;

	needs(fd >= 0 && ftruncate(fd, 4096) == 0, "memfd_create");
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	needs(map != MAP_FAILED, "mmap");
	MUST(host_register(map, 4096, CUDA_MEMHOSTREGISTER_PORTABLE | CUDA_MEMHOSTREGISTER_DEVICEMAP),
	     "cuMemHostRegister of a memfd");
	MUST(host_get_device_pointer(ret, map, 0), "cuMemHostGetDevicePointer");
	return map;
}

static void stream_write_value(void)
{
	struct cuda_stream *stream;
	_Atomic uint32_t *word;
	cuda_address address;

	gpu_begin();
	if (!cuda->stream_write_value32)
		refused("the driver has no cuStreamWriteValue32 of CUDA 11.7");
	word = registered_word(&address);
	stream = new_stream();
	MUST(stream_write_value32(stream, address + 64, 77, CUDA_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	if (atomic_load(&word[16]) != 77)
		refused("the word is %u after the stream had written 77", atomic_load(&word[16]));
	works("the host saw the word that the stream wrote");
}

static void stream_wait_value(void)
{
	struct cuda_stream *stream;
	_Atomic uint32_t *word;
	cuda_address address;

	gpu_begin();
	if (!cuda->stream_wait_value32)
		refused("the driver has no cuStreamWaitValue32 of CUDA 11.7");
	word = registered_word(&address);
	stream = new_stream();
	MUST(stream_wait_value32(stream, address + 128, 5, CUDA_STREAM_WAIT_VALUE_GEQ), "cuStreamWaitValue32");
	usleep(20 * 1000);
	if (cuda->stream_query(stream) != CUDA_RESULT_NOT_READY)
		refused("the stream did not wait");
	atomic_store(&word[32], 6);
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	works("the stream went on when the host had raised the word");
}

static void callback(void *data)
{
	atomic_store((_Atomic uint32_t *)data, 9);
}

static void host_callback(void)
{
	static _Atomic uint32_t called;
	struct cuda_stream *stream;

	gpu_begin();
	stream = new_stream();
	MUST(launch_host_function(stream, callback, &called), "cuLaunchHostFunc");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
	if (atomic_load(&called) != 9)
		refused("the stream ended without having called");
	works("called in the order of the stream");
}

/* As the copier does it: a load's source is read in any order, a store's in its stream's. */
static void batch(cuda_address *to, cuda_address *from, size_t *bytes, size_t n, uint32_t source_order,
		  struct cuda_stream *stream)
{
	struct cuda_copy_attributes how = { .source_order = source_order,
					    .flags = CUDA_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE };
	size_t first = 0, failed = 0;

	if (cuda->copy_batch_13)
		MUST(copy_batch_13(to, from, bytes, n, &how, &first, 1, stream), "cuMemcpyBatchAsync");
	else
		MUST(copy_batch_12(to, from, bytes, n, &how, &first, 1, &failed, stream), "cuMemcpyBatchAsync");
	MUST(stream_synchronize(stream), "cuStreamSynchronize");
}

static void batch_copy(void)
{
	enum { N = 64, PIECE = BYTES / N };
	cuda_address to[N], from[N], address;
	size_t bytes[N];
	struct cuda_stream *stream;
	uint8_t *map = posix_shm(PROT_READ | PROT_WRITE);

	gpu_begin();
	if (!cuda->copy_batch_12 && !cuda->copy_batch_13)
		refused("the driver (CUDA %d.%d) has no cuMemcpyBatchAsync: it came with 12.8", cuda->version / 1000,
			cuda->version % 1000 / 10);
	stream = new_stream();
	MUST(host_register(map, BYTES, CUDA_MEMHOSTREGISTER_PORTABLE), "cuMemHostRegister");
	MUST(mem_alloc(&address, BYTES), "cuMemAlloc");
	for (size_t i = 0; i < N; i++) {
		to[i] = address + i * PIECE;
		from[i] = (cuda_address)(uintptr_t)(map + i * PIECE);
		bytes[i] = PIECE;
	}
	batch(to, from, bytes, N, CUDA_MEMCPY_SRC_ACCESS_ORDER_ANY, stream);
	check_device_holds(address, 3, "a batch");
	memset(map, 0, BYTES);
	batch(from, to, bytes, N, CUDA_MEMCPY_SRC_ACCESS_ORDER_STREAM, stream);
	if (!holds(map, BYTES, 3))
		refused("the bytes that came back from the device are not those that were sent");
	works("%d copies in one call each way, signature of CUDA %s", N, cuda->copy_batch_13 ? "13" : "12.8");
}

static void driver(void)
{
	size_t free_bytes = 0, total = 0;
	cuda_device device;
	char name[96] = "";
	int n = 0;

	gpu_begin();
	MUST(device_get_count(&n), "cuDeviceGetCount");
	MUST(device_get(&device, 0), "cuDeviceGet");
	MUST(device_get_name(name, sizeof(name), device), "cuDeviceGetName");
	MUST(mem_get_info(&free_bytes, &total), "cuMemGetInfo");
	works("CUDA %d.%d, %d device(s), the first: %s, compute capability %d.%d, %d copy engine(s), %zu of %zu MiB free",
	      cuda->version / 1000, cuda->version % 1000 / 10, n, name,
	      attribute(CUDA_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
	      attribute(CUDA_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
	      attribute(CUDA_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT), free_bytes >> 20, total >> 20);
}

/* ---- the kernel ---------------------------------------------------------------------------------- */

static void io_uring(void)
{
	uint32_t parameters[30] = { 0 };	/* struct io_uring_params, of which nothing is wanted but that it be taken */

	needs(syscall(SYS_io_uring_setup, 4, parameters) >= 0, "io_uring_setup");
	works("a ring can be made");
}

static void memlock(void)
{
	struct rlimit limit;

	needs(getrlimit(RLIMIT_MEMLOCK, &limit) == 0, "getrlimit");
	if (limit.rlim_cur == RLIM_INFINITY)
		works("unlimited");
	if (limit.rlim_cur < 64u << 20)
		refused("the limit is %llu bytes; disk tiers then read without registered buffers",
			(unsigned long long)limit.rlim_cur);
	works("the limit is %llu bytes", (unsigned long long)limit.rlim_cur);
}

static void dev_shm(void)
{
	struct statvfs fs;

	needs(statvfs("/dev/shm", &fs) == 0, "statvfs of /dev/shm");
	posix_shm(PROT_READ);
	if ((uint64_t)fs.f_bavail * fs.f_frsize < 256u << 20)
		refused("only %llu MiB are free", (unsigned long long)fs.f_bavail * fs.f_frsize >> 20);
	works("%llu MiB are free", (unsigned long long)fs.f_bavail * fs.f_frsize >> 20);
}

/* ---- the runner ---------------------------------------------------------------------------------- */

static const struct check {
	const char *name;
	void (*run)(void);
	bool gpu;
} checks[] = {
	{ "dev-shm", dev_shm, false },
	{ "memlock", memlock, false },
	{ "io-uring", io_uring, false },
	{ "driver", driver, true },
	{ "legacy-ipc", legacy_ipc, true },
	{ "vmm-descriptor", vmm_descriptor, true },
	{ "register-writable", register_writable, true },
	{ "register-read-only", register_read_only, true },
	{ "stream-write-value", stream_write_value, true },
	{ "stream-wait-value", stream_wait_value, true },
	{ "host-callback", host_callback, true },
	{ "batch-copy", batch_copy, true },
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Read a verdict until @until. "" if none came; then *@late says whether time ran out. */
static void await_verdict(int from, uint64_t until, char *text, bool *late)
{
	struct pollfd wait = { .fd = from, .events = POLLIN };
	const uint64_t now = now_ms();
	ssize_t n = 0;

	*late = poll(&wait, 1, until > now ? (int)(until - now) : 0) == 0;
	if (!*late)
		n = read(from, text, TEXT - 1);
	text[n > 0 ? n : 0] = '\0';
}

static char run_check(const struct check *check, uint64_t until, char *text)
{
	int ends[2], status = 0;
	bool late;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		snprintf(text, TEXT, "could not start it: %s", strerror(errno));
		return 'r';
	}
	if (pid == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		report = ends[1];
		check->run();
		_exit(1);
	}
	setpgid(pid, pid);
	close(ends[1]);
	await_verdict(ends[0], until, text, &late);
	close(ends[0]);
	/* A verdict that is slow to be followed by an end is one all the same: drivers take their time to close. */
	kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (text[0])
		return text[0];
	if (late)
		snprintf(text, TEXT, " no answer in time: the driver hangs");
	else
		snprintf(text, TEXT, " its process ended without a word (wait status %d)", status);
	return 'r';
}

int main(int argc, char **argv)
{
	const uint64_t end = now_ms() + ALL_LIMIT_MS;
	const char *missing = NULL;

	if (argc == 3 && strcmp(argv[1], "--library") == 0) {
		library = argv[2];
	} else if (argc > 1) {
		fprintf(stderr, "usage: preflight [--library FILE]\n");
		return 2;
	} else {
		library = getenv("STOKER_CUDA_LIBRARY");
	}
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		const uint64_t now = now_ms(), until = now + LIMIT_MS < end ? now + LIMIT_MS : end;
		char text[TEXT];
		char which = 's';

		if (checks[i].gpu && missing)
			snprintf(text, sizeof(text), " %s", missing);
		else if (now >= end)
			snprintf(text, sizeof(text), " the time for all checks is over");
		else
			which = run_check(&checks[i], until, text);
		printf("%-8s %-20s %s\n", which == 'w' ? "works" : which == 'r' ? "refused" : "skipped", checks[i].name,
		       text + 1);
		fflush(stdout);
		if (which != 'w' && strcmp(checks[i].name, "driver") == 0)
			missing = "there is no GPU to be used";
	}
	return 0;
}
