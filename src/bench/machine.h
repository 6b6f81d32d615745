/* The clock, cores, and files of this machine, as the commands need them. */
#ifndef STOKER_BENCH_MACHINE_H
#define STOKER_BENCH_MACHINE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* The @i-th core that this process may use, counted round; -1: unknown. */
int machine_core(uint32_t i);
uint32_t machine_cores(void);
/* Pin a thread (0: the caller) to a core. Returns 0 or -errno. */
int machine_pin(pid_t thread, int core);
/* The same for a while: what it might use before is kept, and given back also by a signal handler. */
struct machine_lent {
	pid_t thread;		/* 0: none */
	cpu_set_t before;
};
int machine_lend(pid_t thread, int core, struct machine_lent *ret);
void machine_give_back(const struct machine_lent *lent);
/* The thread of process @pid that bears @name, or -ESRCH. */
pid_t machine_thread(pid_t pid, const char *name);
/* CPU time that the process has used, all threads, in ns; 0: unknown. */
uint64_t machine_cpu_ns(pid_t pid);

/* Memory that other processes can map: zeroed, populated lazily; NULL: none. Never freed: commands exit. */
void *machine_shared(size_t bytes);

/* Remove a directory and all that is in it. */
void machine_remove_tree(const char *path);

#endif
