/* The fake driver in a test. See rig.h. */
#include "tests/fake-cuda/rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/suite.h"

char rig_directory[256];
struct fake_cuda_control *rig_control;

void rig_setup(void)
{
	const char *place = getenv("TMPDIR");

	snprintf(rig_directory, sizeof(rig_directory), "%s/fake-cuda-XXXXXX", place ? place : "/tmp");
	expect(mkdtemp(rig_directory));
	setenv("FAKE_CUDA_DIR", rig_directory, 1);
	rig_control = fake_cuda_open(rig_directory);
	expect(rig_control);
}

void rig_teardown(void)
{
	char text[512] = "";

	expect_msg(fake_cuda_aborts(rig_directory, text, sizeof(text)) == 0, "the fake aborted: %s", text);
	fake_cuda_close(rig_control);
	fake_cuda_remove(rig_directory);
}

const char *rig_library(void)
{
	static char path[4096];
	const char *top = getenv("top_builddir");

	snprintf(path, sizeof(path), "%s/%s", top ? top : ".", FAKE_CUDA_LIBRARY);
	return access(path, R_OK) == 0 ? path : NULL;
}

void rig_must(const struct cuda_driver *cuda, enum cuda_result result, const char *what)
{
	char text[CUDA_TEXT];

	expect_msg(result == CUDA_OK, "%s: %s", what, cuda_error_text(cuda, result, text));
}

const struct cuda_driver *rig_open(void)
{
	const struct cuda_driver *cuda = NULL;
	struct cuda_context *context;
	char why[CUDA_WHY];
	cuda_device device;

	expect_msg(cuda_driver_open(rig_library(), why, &cuda) == 0, "%s", why);
	must(device_get(&device, 0));
	must(primary_retain(&context, device));
	must(ctx_set_current(context));
	return cuda;
}

/* Check's messages do not come back from a child's child: what goes wrong there is an exit status. */
static void run_alone(void (*deed)(const struct cuda_driver *cuda))
{
	const struct cuda_driver *cuda;
	struct cuda_context *context;
	char why[CUDA_WHY];

	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	if (!freopen("/dev/null", "w", stderr) || cuda_driver_open(rig_library(), why, &cuda) < 0 ||
	    cuda->primary_retain(&context, 0) != CUDA_OK || cuda->ctx_set_current(context) != CUDA_OK)
		_exit(3);
	deed(cuda);
	_exit(4);
}

void rig_expect_abort(void (*deed)(const struct cuda_driver *cuda), const char *text)
{
	char said[512] = "", path[512];
	const pid_t pid = fork();
	int status;

	expect(pid >= 0);
	if (pid == 0)
		run_alone(deed);
	expect_eq(waitpid(pid, &status, 0), pid);
	expect_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "\"%s\": it ended with status %#x, not by an "
		   "abort", text, (unsigned)status);
	expect_eq(fake_cuda_aborts(rig_directory, said, sizeof(said)), 1);
	expect_msg(strstr(said, text) != NULL, "\"%s\" was expected, it said \"%s\"", text, said);
	snprintf(path, sizeof(path), "%s/abort-%d", rig_directory, (int)pid);
	unlink(path);
}

cuda_address rig_device_memory(const struct cuda_driver *cuda, size_t bytes, uint8_t byte)
{
	uint8_t *pattern = malloc(bytes);
	cuda_address address = 0;

	expect(pattern);
	memset(pattern, byte, bytes);
	must(mem_alloc(&address, bytes));
	must(copy_to_device(address, pattern, bytes));
	free(pattern);
	return address;
}

uint8_t *rig_host_memory(const struct cuda_driver *cuda, size_t bytes, uint8_t byte)
{
	uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	expect(memory != MAP_FAILED);
	memset(memory, byte, bytes);
	must(host_register(memory, bytes, CUDA_MEMHOSTREGISTER_PORTABLE | CUDA_MEMHOSTREGISTER_DEVICEMAP));
	return memory;
}

void rig_expect_bytes(const struct cuda_driver *cuda, cuda_address address, size_t bytes, uint8_t byte)
{
	uint8_t *seen = malloc(bytes);

	expect(seen);
	must(copy_to_host(seen, address, bytes));
	for (size_t i = 0; i < bytes; i++)
		if (seen[i] != byte)
			ck_abort_msg("byte %zu of %#llx is %#x, not %#x", i, address, seen[i], byte);
	free(seen);
}
