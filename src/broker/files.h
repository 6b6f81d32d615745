/*
 * Files that the broker keeps for itself: opened so that nobody can slip another file under their
 * name, written whole, made durable. What lies there and is not ours is never opened for writing.
 */
#ifndef STOKER_BROKER_FILES_H
#define STOKER_BROKER_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILES_WHY 256	/* bytes of a reason */

/*
 * Open the directory @path, made with mode 0700 if it is not there. It must belong to this uid and
 * be writable by nobody else. Returns a descriptor, or -errno with the reason in @why.
 */
int files_directory(const char *path, char *why);

/*
 * Open the regular file @name of the directory @dir (@path, for the reason). It must belong to this
 * uid; new ones are 0600. Returns a descriptor, or -errno; -ENOENT leaves @why alone.
 */
int files_open(int dir, const char *path, const char *name, int flags, char *why);

/* Whole transfers: 0, or -errno; -EIO for a write that came short, -ENODATA for a read at the end. */
int files_write(int fd, const void *bytes, size_t n, uint64_t offset);
int files_read(int fd, void *bytes, size_t n, uint64_t offset);

/* Give the file @from its final name @to, durable on return. */
int files_rename(int dir, const char *from, const char *to);

/* A reason of the form "what: strerror; remedy" and -error. */
__attribute__((format(printf, 3, 4))) int files_why(int error, char *why, const char *format, ...);

#endif
