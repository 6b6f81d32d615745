/*
 * Logging: each event is formatted on the stack and written by one write(), so that lines of
 * several threads never mix. Bytes that are no printable text (a client may have chosen them) come
 * out as '?': nobody can forge a line or play with the reader's terminal.
 */
#include "src/common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 1024

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static char program_name[32] = "stoker";	/* written once, before there are threads */
static _Atomic int highest_level = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level level)
{
	snprintf(program_name, sizeof(program_name), "%s", program);
	log_set_level(level);
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&highest_level, level, memory_order_relaxed);
}

enum log_level log_level(void)
{
	return (enum log_level)atomic_load_explicit(&highest_level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool log_may(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_unsaid)
{
	*ret_unsaid = 0;
	if (limit->window_ns == 0 || now_ns - limit->window_ns > LOG_LIMIT_NS) {
		*ret_unsaid = limit->unsaid;
		*limit = (struct log_limit){ .window_ns = now_ns };
	}
	if (limit->said == LOG_LIMIT_LINES) {
		limit->unsaid++;
		return false;
	}
	limit->said++;
	return true;
}

/* Bytes of UTF-8 beyond ASCII stay: paths may hold them. */
static void make_printable(char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		const unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7f)
			text[i] = '?';
	}
}

static void write_all(const char *text, size_t bytes)
{
	while (bytes > 0) {
		const ssize_t n = write(STDERR_FILENO, text, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;	/* stderr is gone or full: there is nobody to tell */
		text += n;
		bytes -= (size_t)n;
	}
}

void log_at(enum log_level level, const char *format, ...)
{
	const int saved_errno = errno;
	char line[LINE_BYTES];
	size_t length;
	va_list args;
	int n;

	if ((int)level > atomic_load_explicit(&highest_level, memory_order_relaxed))
		return;
	n = snprintf(line, sizeof(line), "%s: %s: ", program_name, level_names[level]);
	length = (size_t)n;
	va_start(args, format);
	n = vsnprintf(line + length, sizeof(line) - length, format, args);
	va_end(args);
	if (n > 0)
		length += (size_t)n;
	if (length > sizeof(line) - 2)
		length = sizeof(line) - 2;	/* a long text is cut, its newline is not */
	make_printable(line, length);
	line[length++] = '\n';
	write_all(line, length);
	errno = saved_errno;
}
