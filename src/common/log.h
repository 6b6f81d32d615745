/*
 * Logging of the programs, on stderr: one line an event, "stokerd: LEVEL: text". What happened, to
 * which object, why, what to do; lower case, no full stop. Libraries return, programs log once.
 * Any thread may log; the hot paths of the core thread count instead.
 */
#ifndef STOKER_COMMON_LOG_H
#define STOKER_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_init(const char *program, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_level(void);
int log_level_parse(const char *text, enum log_level *ret);	/* 0 or -EINVAL */

__attribute__((format(printf, 2, 3))) void log_at(enum log_level level, const char *format, ...);
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/*
 * struct log_limit - of a line that a peer can cause as often as it likes, which would be a weapon: the
 * first LOG_LIMIT_LINES of every LOG_LIMIT_NS are said. All zero at first; one thread's.
 */
#define LOG_LIMIT_LINES	10u
#define LOG_LIMIT_NS	5000000000u
struct log_limit {
	uint64_t window_ns;
	uint32_t said, unsaid;
};
/* May it be said at @now_ns? *ret_unsaid: how many were not since the last that was; 0: none, or no new window. */
bool log_may(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_unsaid);

#endif
