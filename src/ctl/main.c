/*
 * stokerctl: options, and the table of commands. A new command is a row here, a file of its own, and
 * its name in ctl.h.
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/common/output.h"
#include "src/ctl/ctl.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

static const struct ctl_command commands[] = {
	{ "status", "", "state, space, tiers and what the broker has served (works on a broker that hangs)", 0, ctl_status },
	{ "clients", "", "attached clients and what they hold", 0, ctl_clients },
	{ "ping", "", "ask the core thread for an answer, and say how long it took", 0, ctl_ping },
	{ "stat", "", "all counters, gauges and latencies", 0, ctl_stat },
	{ "accounts", "", "what accounts have in the arena and on disk, with their quotas", 0, ctl_accounts },
	{ "evict", "SIZE", "free at least SIZE (64K, 2G, 10%) of the arena", 1, ctl_evict },
	{ "clear", "", "forget all objects that nobody uses, in every tier", 0, ctl_clear },
	{ "drain", "", "take no more stores, write back to disk, and return when done", 0, ctl_drain },
	{ "stop", "", "drain, stop the broker, and return when it is gone", 0, ctl_stop },
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

enum ctl_exit ctl_fail(enum ctl_exit code, const char *format, ...)
{
	va_list arguments;

	fputs("stokerctl: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return code;
}

static void help(FILE *to)
{
	fputs("usage: stokerctl [--name /stoker] [--json] COMMAND\n\n", to);
	for (int i = 0; i < N_COMMANDS; i++) {
		char left[32];

		snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].arguments);
		fprintf(to, "  %-14s %s\n", left, commands[i].meaning);
	}
	fputs("\n  --name NAME    of the broker; default /stoker\n"
	      "  --json         print one JSON object\n"
	      "  --help, --version\n"
	      "\nexit: 0 done, 1 failed, 2 usage, 3 no broker of that name, 4 not permitted\n", to);
}

static const struct ctl_command *command_find(const char *name)
{
	for (int i = 0; i < N_COMMANDS; i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

static enum ctl_exit command_run(const struct ctl *ctl, int argc, char **argv)
{
	const struct ctl_command *command;

	if (argc == 0)
		return ctl_fail(CTL_USAGE, "a command is missing; stokerctl --help lists them");
	command = command_find(argv[0]);
	if (!command)
		return ctl_fail(CTL_USAGE, "there is no command \"%s\"; stokerctl --help lists them", argv[0]);
	if (argc - 1 != command->n_arguments)
		return ctl_fail(CTL_USAGE, "wrong number of arguments; usage: stokerctl %s%s%s", command->name,
				command->n_arguments ? " " : "", command->arguments);
	if (control_name_check(ctl->name) < 0)
		return ctl_fail(CTL_USAGE, "\"%s\" is no broker's name: that is / and 1 to 64 of [A-Za-z0-9._-], but not /. and "
				"/..", ctl->name);
	return command->run(ctl, argv + 1);
}

/* What was printed and did not arrive was not done, whatever the broker did. */
static enum ctl_exit leave(enum ctl_exit e)
{
	const int r = e == CTL_DONE ? output_end() : 0;

	return r < 0 ? ctl_fail(CTL_FAILED, "could not write to standard output: %s", strerror(-r)) : e;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	struct ctl ctl = { .name = "/stoker" };
	int option;

	output_begin();
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			ctl.name = optarg;
			break;
		case 'j':
			ctl.json = true;
			break;
		case 'h':
			help(stdout);
			return (int)leave(CTL_DONE);
		case 'v':
			printf("stokerctl %s\n", PACKAGE_VERSION);
			return (int)leave(CTL_DONE);
		default:	/* getopt has said which option is wrong */
			help(stderr);
			return CTL_USAGE;
		}
	}
	return (int)leave(command_run(&ctl, argc - optind, argv + optind));
}
