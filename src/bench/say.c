#include "config.h"

#include <stdarg.h>
#include <stdio.h>

#include "src/bench/bench.h"

void bench_say(const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "stoker-bench: %s\n", text);
}
