/* A progress bar on stderr: if that is a terminal, or --progress says so (then a line every second). */
#ifndef STOKER_BENCH_PROGRESS_H
#define STOKER_BENCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *title;
	uint64_t total;
	bool shown, terminal;
	uint64_t started_ns, last_ns;
};

void progress_begin(struct progress *progress, const char *title, uint64_t total, bool always);
void progress_show(struct progress *progress, uint64_t done, const char *beside);
void progress_end(struct progress *progress, uint64_t done, const char *beside);

#endif
