/*
 * Timer wheel: deadlines of jobs and leases. Hierarchical, 5 levels of 64 places, 1 ms resolution: a
 * timer fires in the turn after its millisecond has passed, never before. Embedded nodes by number;
 * add and remove are O(1), advance is O(fired + passed places).
 */
#ifndef STOKER_ENGINE_TIMER_H
#define STOKER_ENGINE_TIMER_H

#include <stddef.h>
#include <stdint.h>

struct timers;

size_t timers_bytes(uint32_t n);
struct timers *timers_init(void *memory, uint32_t n, uint64_t now_ns);	/* timers are numbered 0 to n - 1 */
void timers_set(struct timers *timers, uint32_t timer, uint64_t at_ns);	/* moves it if it is set */
void timers_clear(struct timers *timers, uint32_t timer);		/* not set: nothing happens */
/* The next timer that has fired at @now_ns (it is cleared), or 0xffffffff. Call until then. */
uint32_t timers_advance(struct timers *timers, uint64_t now_ns);
uint64_t timers_next(const struct timers *timers);	/* not later than the first; UINT64_MAX: none set */

#endif
