/*
 * A real broker (control thread, core thread, engine, channels, sockets) over a backend of no bytes: an
 * arena that is reserved and never populated, copies, seals and verifies that complete at once. So an
 * index of any size can be looked up on a machine that has no memory for what it names.
 */
#ifndef STOKER_BENCH_NULL_BROKER_H
#define STOKER_BENCH_NULL_BROKER_H

#include <stdint.h>

/* As struct own_broker_config's run. */
int null_broker_run(const char *const *settings, uint32_t n, int ready_fd);

#endif
