/*
 * Texts: what went wrong with a handle, in words, and the names of stages, statuses and chunks, which
 * come from the tables that broker and manual use too.
 */
#include <stdarg.h>
#include <stdio.h>

#include "src/client/client.h"

#define TEXT(n) #n
#define VERSION(major, minor) TEXT(major) "." TEXT(minor)

int client_fail(struct stoker *c, int r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(c->error, sizeof(c->error), format, arguments);
	va_end(arguments);
	return r;
}

/* How the end of a question on the socket looks as a return value. */
int client_status_errno(uint32_t status)
{
	switch (status) {
	case STOKER_STATUS_OK:
		return 0;
	case STOKER_STATUS_NO_MEMORY:
		return -ENOMEM;
	case STOKER_STATUS_NOT_PERMITTED:
	case STOKER_STATUS_REFUSED:
		return -EACCES;
	case STOKER_STATUS_NOT_FOUND:
	case STOKER_STATUS_EXPIRED:
		return -ENOENT;
	case STOKER_STATUS_STARTING:
		return -EAGAIN;
	case STOKER_STATUS_TOO_LARGE:
		return -E2BIG;
	case STOKER_STATUS_IO:
		return -EIO;
	case STOKER_STATUS_FAULT:
		return -EFAULT;
	case STOKER_STATUS_DEADLINE:
		return -ETIMEDOUT;
	case STOKER_STATUS_CANCELLED:
	case STOKER_STATUS_RESET:
		return -ECANCELED;
	case STOKER_STATUS_BROKER_GONE:
		return -EPIPE;
	default:
		return -EINVAL;
	}
}

const char *stoker_error(const struct stoker *c)
{
	return c ? c->error : "there is no handle";
}

static const char *row_name(const struct stoker_row *row)
{
	return row ? row->name : "?";
}

const char *stoker_stage_name(uint32_t stage)
{
	return row_name(stoker_stage_row((int)stage));
}

const char *stoker_status_name(uint32_t status)
{
	return row_name(stoker_status_row((int)status));
}

const char *stoker_status_meaning(uint32_t status)
{
	const struct stoker_row *row = stoker_status_row((int)status);

	return row ? row->meaning : "?";
}

const char *stoker_chunk_name(uint32_t chunk)
{
	return row_name(stoker_chunk_row((int)chunk));
}

const char *stoker_version(void)
{
	return VERSION(STOKER_VERSION_MAJOR, STOKER_VERSION_MINOR);
}
