/*
 * The fake's directory: every piece of device memory and every open import is a file there.
 *
 * Whether it is still held is what the kernel says: its owner locks byte 0 of the file, whoever else can
 * reach it (an exported descriptor, an import) locks byte 1, both by locks of the open file description,
 * which last as long as any descriptor, mapping or message on a socket refers to that description. So a
 * process that is killed gives all back, as with a real driver. Files that nobody holds are swept by
 * whoever looks.
 *
 *	memory-DEVICE-PID-N	device memory; its size is the file's
 *	import-PID-N		an import, open in process PID
 *	abort-PID		the message of an abort
 *	control			struct fake_cuda_control
 *	new-*			being made: left alone
 */
#ifndef TESTS_FAKE_CUDA_REGISTRY_H
#define TESTS_FAKE_CUDA_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGISTRY_NAME	40u		/* bytes of a file's name, its end included */

enum registry_lock { REGISTRY_OWNER, REGISTRY_GUEST };	/* byte 0, exclusive; byte 1, shared */

/* Make a locked file of @bytes bytes; @name is its name then. Returns its descriptor or -errno. */
int registry_create(const char *directory, const char *kind, unsigned device, uint64_t bytes, char *name);
/* Open a file that is there as a guest of it. Returns a descriptor or -errno. */
int registry_join(const char *directory, const char *name);
/* The same file once more, with a lock of its own: what is exported, or made of what was imported. */
int registry_reopen(int fd);
bool registry_is_held(int fd, enum registry_lock lock);	/* by another description than @fd's */
void registry_unlink(const char *directory, const char *name);
void registry_abort(const char *directory, const char *message);

#endif
