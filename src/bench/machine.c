#include "config.h"

#include "src/bench/machine.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The cores of the process as they were at the first call: pinning must not narrow the choice. */
static const cpu_set_t *allowed(void)
{
	static cpu_set_t set;
	static bool known;

	if (!known && sched_getaffinity(getpid(), sizeof(set), &set) < 0)
		CPU_SET(0, &set);
	known = true;
	return &set;
}

uint32_t machine_cores(void)
{
	return (uint32_t)CPU_COUNT(allowed());
}

int machine_core(uint32_t i)
{
	const cpu_set_t *set = allowed();

	i %= machine_cores();
	for (int core = 0; core < CPU_SETSIZE; core++) {
		if (CPU_ISSET(core, set) && i-- == 0)
			return core;
	}
	return -1;
}

int machine_pin(pid_t thread, int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return sched_setaffinity(thread, sizeof(set), &set) < 0 ? -errno : 0;
}

int machine_lend(pid_t thread, int core, struct machine_lent *ret)
{
	if (sched_getaffinity(thread, sizeof(ret->before), &ret->before) < 0)
		return -errno;
	ret->thread = thread;
	return machine_pin(thread, core);
}

void machine_give_back(const struct machine_lent *lent)
{
	if (lent->thread > 0)
		sched_setaffinity(lent->thread, sizeof(lent->before), &lent->before);
}

static bool thread_is(const char *directory, const char *tid, const char *name)
{
	char path[384], comm[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s/comm", directory, tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fgets(comm, sizeof(comm), file))
		comm[strcspn(comm, "\n")] = '\0';
	fclose(file);
	return strcmp(comm, name) == 0;
}

pid_t machine_thread(pid_t pid, const char *name)
{
	char path[64];
	struct dirent *entry;
	pid_t found = -ESRCH;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	directory = opendir(path);
	while (directory && found < 0 && (entry = readdir(directory))) {
		if (entry->d_name[0] != '.' && thread_is(path, entry->d_name, name))
			found = (pid_t)atoi(entry->d_name);
	}
	if (directory)
		closedir(directory);
	return found;
}

/* By the clock of the process: it goes on for threads that have ended, and is not as old as the last tick. */
uint64_t machine_cpu_ns(pid_t pid)
{
	struct timespec used;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
		return 0;
	return (uint64_t)used.tv_sec * 1000000000ull + (uint64_t)used.tv_nsec;
}

void *machine_shared(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)status;
	(void)type;
	(void)where;
	remove(path);
	return 0;
}

void machine_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}
