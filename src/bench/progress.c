#include "config.h"

#include "src/bench/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/bench/machine.h"

#define WIDTH 32

static void draw(const struct progress *progress, uint64_t done, const char *beside, char end)
{
	const double share = progress->total ? (double)done / (double)progress->total : 1;
	const double seconds = (double)(now_ns() - progress->started_ns) / 1e9;
	char bar[WIDTH + 1];

	memset(bar, '.', WIDTH);
	memset(bar, '#', (size_t)(share * WIDTH));
	bar[WIDTH] = '\0';
	fprintf(stderr, "%s%-10s [%s] %3.0f %%  %5.1f s  %s%c", progress->terminal ? "\r" : "", progress->title, bar,
		100 * share, seconds, beside, end);
	fflush(stderr);
}

void progress_begin(struct progress *progress, const char *title, uint64_t total, bool always)
{
	const bool terminal = isatty(STDERR_FILENO);

	*progress = (struct progress){
		.title = title,
		.total = total,
		.shown = terminal || always,
		.terminal = terminal,
		.started_ns = now_ns(),
	};
}

void progress_show(struct progress *progress, uint64_t done, const char *beside)
{
	const uint64_t now = now_ns();

	if (!progress->shown || now - progress->last_ns < (progress->terminal ? 100 : 1000) * 1000000ull)
		return;
	progress->last_ns = now;
	draw(progress, done, beside, progress->terminal ? ' ' : '\n');
}

void progress_end(struct progress *progress, uint64_t done, const char *beside)
{
	if (progress->shown)
		draw(progress, done, beside, '\n');
}
