/*
 * Logging of the programs, on stderr: one line an event, "stokerd: LEVEL: text". What happened, to
 * which object, why, what to do; lower case, no full stop. Libraries return, programs log once.
 * Any thread may log; the hot paths of the core thread count instead.
 */
#ifndef STOKER_COMMON_LOG_H
#define STOKER_COMMON_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_init(const char *program, enum log_level level);
void log_set_level(enum log_level level);
int log_level_parse(const char *text, enum log_level *ret);	/* 0 or -EINVAL */

__attribute__((format(printf, 2, 3))) void log_at(enum log_level level, const char *format, ...);
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
