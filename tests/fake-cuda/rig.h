/*
 * The fake driver in a test: a directory of its own, the library opened through driver.c, a context.
 *
 * The driver does not survive fork(), and the fake reads its environment once: setenv() and fork what is
 * to be forked first, then open.
 */
#ifndef TESTS_FAKE_CUDA_RIG_H
#define TESTS_FAKE_CUDA_RIG_H

#include "tests/fake-cuda/fake-cuda.h"

extern char rig_directory[256];
extern struct fake_cuda_control *rig_control;

/* For checked fixtures: a fresh directory, named in the environment; gone at the end, with no abort in it. */
void rig_setup(void);
void rig_teardown(void);
/* The library's path, or NULL: this build has none (--disable-shared). */
const char *rig_library(void);

/* Open, and make a context of device 0 current; fails the test if that fails. */
const struct cuda_driver *rig_open(void);
void rig_must(const struct cuda_driver *cuda, enum cuda_result result, const char *what);
#define must(call) rig_must(cuda, cuda->call, #call)

/* Runs @deed in a process of its own, which must end by an abort whose message holds @text. */
void rig_expect_abort(void (*deed)(const struct cuda_driver *cuda), const char *text);

/* Device memory with @bytes bytes of @byte; host memory that is registered, with the same. */
cuda_address rig_device_memory(const struct cuda_driver *cuda, size_t bytes, uint8_t byte);
uint8_t *rig_host_memory(const struct cuda_driver *cuda, size_t bytes, uint8_t byte);
/* Does memory of a device hold @byte alone? */
void rig_expect_bytes(const struct cuda_driver *cuda, cuda_address address, size_t bytes, uint8_t byte);

#endif
