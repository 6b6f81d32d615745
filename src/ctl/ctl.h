/*
 * stokerctl: one file a command, one table of commands (main.c).
 *
 * Two ways lead to a broker. Its control page is read, never written, and needs no answer: status,
 * stat and clients work on a broker that hangs. Everything else is a verb on the socket, answered by
 * the broker's own threads. Results go to stdout, errors to stderr, both say what they are about.
 */
#ifndef STOKER_CTL_CTL_H
#define STOKER_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "shm/control.h"
#include "shm/message.h"

#define CTL_SCHEMA 1	/* of the JSON that commands print; raised when a field changes its meaning */

enum ctl_exit {
	CTL_DONE = 0,
	CTL_FAILED = 1,		/* or no such object */
	CTL_USAGE = 2,
	CTL_NO_BROKER = 3,
	CTL_NOT_PERMITTED = 4,
};

struct ctl {
	const char *name;	/* of the broker */
	bool json;
};

struct ctl_command {
	const char *name, *arguments, *meaning;
	int n_arguments;
	enum ctl_exit (*run)(const struct ctl *ctl, char **arguments);
};

enum ctl_exit ctl_status(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_clients(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_ping(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_stat(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_accounts(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_evict(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_clear(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_drain(const struct ctl *ctl, char **arguments);
enum ctl_exit ctl_stop(const struct ctl *ctl, char **arguments);

/* "stokerctl: TEXT" on stderr; returns @code. */
__attribute__((format(printf, 2, 3))) enum ctl_exit ctl_fail(enum ctl_exit code, const char *format, ...);

/* ---- page.c: the control page ------------------------------------------------------------------- */

/* A private copy of the page of a broker that is alive as far as the kernel knows, with clean texts;
 * control_unmap() frees it. Errors are said. */
enum ctl_exit ctl_page(const struct ctl *ctl, const struct control_page **ret);
/* Connect to the broker: to the page's owner and nobody else. *ret_sock is the caller's; errors are said. */
enum ctl_exit ctl_connect(const struct ctl *ctl, int *ret_sock);
uint64_t ctl_gauge(const struct control_page *page, enum stoker_gauge gauge);
uint64_t ctl_uptime_ns(uint64_t since_ns);	/* CLOCK_BOOTTIME */

/* ---- ask.c: verbs on the socket ----------------------------------------------------------------- */

/* Ask and wait for the answer, @timeout_ms at most (0: as long as the broker lives); errors are said.
 * *@ret_ns, unless NULL: from sending the verb to its answer, without the connecting before. */
enum ctl_exit ctl_ask(const struct ctl *ctl, enum admin_verb verb, uint64_t argument, uint32_t timeout_ms,
		      struct message_answer *ret, uint64_t *ret_ns);
/* In two steps, for whoever has more to ask or to hear: connect and greet; *ret_sock is the caller's on CTL_DONE. */
enum ctl_exit ctl_open(const struct ctl *ctl, int *ret_sock);
/* @room: bytes behind @ret; what follows the answer is there, and header.bytes says how much it is. */
enum ctl_exit ctl_question(const struct ctl *ctl, int sock, enum admin_verb verb, uint64_t argument,
			   uint32_t timeout_ms, struct message_answer *ret, size_t room);

/* ---- print.c ------------------------------------------------------------------------------------- */

json_t *ctl_object(const struct ctl *ctl);	/* {schema, name}: what every command's JSON begins with */
void ctl_set(json_t *object, const char *field, uint64_t value);
void ctl_set_text(json_t *object, const char *field, const char *value);	/* UTF-8: see ctl_clean() */
/* Text of another process, in room of @bytes: what is no UTF-8, and every control character (C1 too), becomes "?". */
void ctl_clean(char *text, size_t bytes);
enum ctl_exit ctl_print(json_t *object);	/* prints and frees it; NULL, for want of memory: CTL_FAILED */
char *ctl_duration(uint64_t ns, char ret[32]);

#endif
