/* See cuda-whole-rig.h. */
#include "tests/cuda-whole-rig.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/suite.h"

#define GRAIN	(2u << 20)

const struct cuda_driver *cuda;
static char library_option[4200];
const char *gpu_further_option, *gpu_forbidden;

/* The broker is started before this process opens the driver. */
void gpu_setup(void)
{
	setenv("TMPDIR", "/dev/shm", 1);	/* what the fake exports is a file there: memory, as it would be */
	rig_setup();
	setenv("STOKER_CUDA_LIBRARY", rig_library(), 1);
	whole_make();
	snprintf(library_option, sizeof(library_option), "--set=gpu.library=%s", rig_library());
	whole.options[0] = "--set=arena.extent=1M";
	whole.options[1] = library_option;
	whole.options[2] = "--set=gpu.hang_ms=2000";
	whole.options[3] = "--set=gpu.idle_ms=1000";
	whole.options[4] = gpu_further_option;
	whole.forbidden = gpu_forbidden;
	whole_start();
}

void gpu_setup_with_driver(void)
{
	gpu_setup();
	cuda = rig_open();
}

void gpu_teardown(void)
{
	if (whole.broker)
		whole_end(SIGTERM);
	whole_clean();
	rig_teardown();
}

/* ---- workers ----------------------------------------------------------------------------------- */

/* Allocations one behind the other, as PyTorch's expandable segments. */
static void memory_virtual(struct gpu_worker *g, uint32_t n)
{
	const struct cuda_allocation properties = { .type = CUDA_MEM_ALLOCATION_TYPE_PINNED,
						    .handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
						    .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE } };
	const struct cuda_access access = { .location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE },
					    .flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE };
	cuda_handle handle;

	g->bytes = n * (uint64_t)GRAIN;
	must(mem_reserve(&g->address, g->bytes, 0, 0, 0));
	for (uint32_t i = 0; i < n; i++) {
		must(mem_create(&handle, GRAIN, &properties, 0));
		must(mem_map(g->address + i * (uint64_t)GRAIN, GRAIN, 0, handle, 0));
		must(mem_release(handle));
	}
	must(mem_set_access(g->address, g->bytes, &access, 1));
}

static void memory_make(struct gpu_worker *g, uint32_t parts)
{
	g->virtual = parts > 0;
	if (parts) {
		memory_virtual(g, parts);
	} else {
		g->bytes = WORKER_POOL + 4096;
		must(mem_alloc(&g->address, g->bytes));
	}
}

/* Where the pool begins: not where the memory does. */
cuda_address gpu_base(const struct gpu_worker *g)
{
	return g->address + 4096;
}

static void pool_make(struct gpu_worker *g)
{
	struct stoker_plane planes[WORKER_ROWS];

	g->w.memory = calloc(1, WORKER_POOL);
	g->w.expected = calloc(1, WORKER_POOL);
	expect_msg(stoker_cuda_region_add(g->w.c, gpu_base(g), WORKER_POOL, &g->w.region) == 0, "%s",
		   stoker_error(g->w.c));
	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		planes[i] = (struct stoker_plane){ .region = g->w.region, .layer = i / 2, .plane = i % 2,
						   .bytes = WORKER_BYTES, .offset = i * WORKER_PLANE,
						   .block_stride = WORKER_BYTES };
	expect_msg(stoker_pool_add(g->w.model, 0, 0, WORKER_POOL_BLOCKS, planes, WORKER_ROWS, &g->w.pool) == 0, "%s",
		   stoker_error(g->w.c));
}

void gpu_start_parts(struct gpu_worker *g, uint32_t parts)
{
	memset(g, 0, sizeof(*g));
	worker_attach(&g->w);
	memory_make(g, parts);
	pool_make(g);
}

void gpu_start(struct gpu_worker *g, bool virtual)
{
	gpu_start_parts(g, virtual ? 2 : 0);
}

void gpu_close(struct gpu_worker *g)
{
	stoker_close(g->w.c);
	if (!g->virtual)
		must(mem_free(g->address));
	free(g->w.memory);
	free(g->w.expected);
}

void gpu_end(struct gpu_worker *g)
{
	stoker_pool_drop(g->w.pool);
	stoker_region_drop(g->w.region);
	gpu_close(g);
}

void gpu_upload(struct gpu_worker *g, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		worker_fill(g->w.memory, i, first + i);
	must(copy_to_device(gpu_base(g), g->w.memory, WORKER_POOL));
}

struct stoker_result gpu_store_uploaded(struct gpu_worker *g, uint32_t first, uint32_t n)
{
	struct stoker_job job;

	expect_msg(worker_store(&g->w, first, n, 0, 1, &job) == 0, "%s", stoker_error(g->w.c));
	return worker_finish(&g->w, job);
}

struct stoker_result gpu_store(struct gpu_worker *g, uint32_t first, uint32_t n)
{
	gpu_upload(g, first, n);
	return gpu_store_uploaded(g, first, n);
}

/* Look up @n chunks, wipe the device's memory, retrieve, compare all of it. */
void gpu_gets(struct gpu_worker *g, uint32_t first, uint32_t n)
{
	const struct stoker_result found = worker_looks_up(&g->w, first, n);
	struct stoker_result retrieved;
	struct stoker_job job;

	expect_eq(found.n, n);
	worker_wipe(&g->w, 0xa5);
	must(copy_to_device(gpu_base(g), g->w.memory, WORKER_POOL));
	for (uint32_t i = 0; i < n; i++)
		worker_fill(g->w.expected, i + 3, first + i);
	expect_msg(worker_retrieve(&g->w, &found.lease, n, 3, 1, NULL, &job) == 0, "%s", stoker_error(g->w.c));
	retrieved = worker_finish(&g->w, job);
	expect_eq(retrieved.status, STOKER_STATUS_OK);
	expect_eq(retrieved.n, n);
	must(copy_to_host(g->w.memory, gpu_base(g), WORKER_POOL));
	worker_check(&g->w);
	expect_eq(stoker_release(g->w.c, &found.lease, 0), 0);
}

void gpu_stores(struct gpu_worker *g, uint32_t first, uint32_t n)
{
	const struct stoker_result result = gpu_store(g, first, n);

	expect_eq(result.status, STOKER_STATUS_OK);
	expect_eq(result.n, n);
}

/* ---- the copier's process ---------------------------------------------------------------------- */

/* A child of the broker's; 0: there is none. */
pid_t gpu_copier(void)
{
	DIR *processes = opendir("/proc");
	const struct dirent *entry;
	pid_t found = 0;

	while ((entry = readdir(processes))) {
		char path[300], text[256] = "";
		int parent = 0;
		FILE *file;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(text, sizeof(text), file) && strrchr(text, ')') &&
		    sscanf(strrchr(text, ')'), ") %*c %d", &parent) == 1 && parent == whole.broker &&
		    !strstr(text, ") Z"))
			found = atoi(entry->d_name);
		fclose(file);
	}
	closedir(processes);
	return found;
}

/* A copier after a fault is there when a store is well again. */
void gpu_until_well(struct gpu_worker *g, uint32_t first)
{
	int left = 3000;

	while (gpu_store(g, first, 1).status != STOKER_STATUS_OK) {
		expect(left-- > 0);
		usleep(10000);
	}
}
