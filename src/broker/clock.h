/*
 * The core thread's clock: nanoseconds of CLOCK_MONOTONIC, told from the processor's cycle counter
 * so that looking costs a few nanoseconds and never enters the kernel. It never goes back, and is set
 * anew from the kernel's clock at every clock_anchor(), which also measures the counter's rate. Where
 * there is no counter that runs evenly, it is the kernel's clock itself.
 */
#ifndef STOKER_BROKER_CLOCK_H
#define STOKER_BROKER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

struct tick_clock {
	uint64_t base_cycles, base_ns;
	uint64_t scale;		/* ns a cycle, 32 bits after the point; 0: not known yet */
	uint64_t last_ns;
	uint64_t first_cycles, first_ns;
	bool even;		/* the counter runs evenly */
};

static inline uint64_t clock_kernel_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t clock_cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t cycles;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(cycles));
	return cycles;
#else
	return 0;
#endif
}

/* For a loop that waits for another processor. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static inline bool clock_counter_is_even(void)
{
#if defined(__x86_64__)
	unsigned a, b, c, d = 0;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1u << 8);
#elif defined(__aarch64__)
	return true;
#else
	return false;
#endif
}

static inline void clock_init(struct tick_clock *clock)
{
	*clock = (struct tick_clock){ .even = clock_counter_is_even() };
	clock->first_cycles = clock->base_cycles = clock_cycles();
	clock->first_ns = clock->base_ns = clock->last_ns = clock_kernel_ns();
}

static inline uint64_t clock_now(struct tick_clock *clock)
{
	uint64_t now;

	if (clock->scale == 0)
		now = clock_kernel_ns();
	else	/* anchored at least every few seconds: 2^32 x that fits 128 bits with ease */
		now = clock->base_ns + (uint64_t)((unsigned __int128)(clock_cycles() - clock->base_cycles) *
						  clock->scale >> 32);
	if (now > clock->last_ns)
		clock->last_ns = now;
	return clock->last_ns;
}

/* Set it by the kernel's clock. The rate is known once 10 ms have been seen. */
static inline void clock_anchor(struct tick_clock *clock)
{
	const uint64_t cycles = clock_cycles(), ns = clock_kernel_ns();

	if (!clock->even)
		return;
	if (cycles <= clock->first_cycles || ns < clock->first_ns) {
		clock->scale = 0;	/* it does not run evenly after all */
		clock->even = false;
		return;
	}
	if (ns - clock->first_ns > 10000000u)
		clock->scale = (uint64_t)(((unsigned __int128)(ns - clock->first_ns) << 32) /
					  (cycles - clock->first_cycles));
	clock->base_cycles = cycles;
	clock->base_ns = ns;
}

#endif
