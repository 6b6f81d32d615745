/* Reasons of refusals: a text of at most MESSAGE_REASON bytes for the client, and an errno value. */
#ifndef STOKER_DEVICE_REFUSE_H
#define STOKER_DEVICE_REFUSE_H

#include <stdarg.h>
#include <stdio.h>

#include "shm/message.h"

/* Returns @error, so that a check can end with it. */
__attribute__((format(printf, 3, 4)))
static inline int refuse(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, MESSAGE_REASON, format, args);
	va_end(args);
	return error;
}

#endif
