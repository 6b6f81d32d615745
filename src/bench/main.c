/*
 * stoker-bench: reads the command line by the tables, runs one command, prints its report.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "shm/control.h"
#include "src/bench/bench.h"
#include "src/bench/own-broker.h"
#include "src/common/output.h"

static const struct bench_command *const commands[] = {
	&bench_replay, &bench_rtt,   &bench_lookup,  &bench_index, &bench_disk, &bench_copy,
	&bench_policy, &bench_start, &bench_restart, &bench_idle,  &bench_kill, &bench_gpu,
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

struct bench_common bench_common = { .format = "text" };

static const struct option_row general_options[] = {
	{ "format", OPTION_TEXT, &bench_common.format, 0, 0, "json|text", "one JSON object, or a table to read" },
	{ 0 },
};

const struct option_row bench_broker_options[] = {
	{ "attach", OPTION_TEXT, &bench_common.attach, 0, 0, "NAME",
	  "use this broker instead of starting one (sizes and settings of the broker are its own then)" },
	{ "broker-uid", OPTION_COUNT, &bench_common.broker_uid, 0, UINT32_MAX - 1, "UID",
	  "attach to a broker of this uid too; 0: of root's and one's own only" },
	{ "stokerd", OPTION_TEXT, &bench_common.stokerd, 0, 0, "PATH",
	  "the daemon to start; else the one beside stoker-bench, else that in PATH" },
	{ "directory", OPTION_TEXT, &bench_common.directory, 0, 0, "DIR",
	  "make the tier in a directory of its own in DIR, removed afterwards; else in $TMPDIR or /tmp" },
	{ "set", OPTION_LIST, &bench_common.set, 0, 0, "SECTION.KEY=VALUE", "a setting of the broker that is started" },
	{ 0 },
};

static const struct option_row no_options[] = { { 0 } };

static void usage(FILE *out)
{
	fprintf(out, "usage: stoker-bench COMMAND [OPTION]...\n"
		     "       stoker-bench COMMAND --help\n\n"
		     "Commands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->meaning);
	fprintf(out, "\nExit status: 0 done; 1 something failed, or a byte was wrong; 2 usage.\n");
}

static void command_help(const struct bench_command *command)
{
	printf("usage: stoker-bench %s [OPTION]...\n\n%s\n\n", command->name, command->meaning);
	options_help(command->options);
	if (command->broker)
		options_help(bench_broker_options);
	options_help(general_options);
}

/* What options of all commands say. */
static int check_common(void)
{
	if (strcmp(bench_common.format, "json") != 0 && strcmp(bench_common.format, "text") != 0) {
		bench_say("--format takes json or text, not \"%s\"", bench_common.format);
		return BENCH_USAGE;
	}
	if (bench_common.attach && control_name_check(bench_common.attach) < 0) {
		bench_say("--attach: \"%s\" is no broker's name: that is / and 1 to 64 of [A-Za-z0-9._-], but not /. and /..",
			  bench_common.attach);
		return BENCH_USAGE;
	}
	return BENCH_OK;
}

static int run(const struct bench_command *command, int argc, char **argv)
{
	const struct option_row *const tables[] = {
		command->options,
		general_options,
		command->broker ? bench_broker_options : no_options,
	};
	json_t *parameters = json_object();
	struct report *report;
	int status;

	if (options_parse(tables, 3, argc, argv) < 0 || check_common() != BENCH_OK) {
		json_decref(parameters);
		return BENCH_USAGE;
	}
	options_json(command->options, parameters);
	if (command->broker)
		options_json(bench_broker_options, parameters);
	report = report_new(command->name, parameters);
	if (!report) {
		bench_say("no memory for a report");
		return BENCH_FAILED;
	}
	status = command->run(report);
	if (own_broker_refused())
		status = BENCH_USAGE;
	if (status != BENCH_USAGE && report_print(report, strcmp(bench_common.format, "json") == 0) < 0) {
		bench_say("could not write the report to stdout");
		status = BENCH_FAILED;
	}
	report_free(report);
	return status;
}

/* What was printed did arrive. */
static int leave(void)
{
	if (output_end() == 0)
		return BENCH_OK;
	bench_say("could not write to stdout");
	return BENCH_FAILED;
}

int main(int argc, char **argv)
{
	output_begin();
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		usage(stdout);
		return leave();
	}
	if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
		printf("stoker-bench %s\n", PACKAGE_VERSION);
		return leave();
	}
	for (size_t i = 0; argc >= 2 && i < N_COMMANDS; i++) {
		if (strcmp(argv[1], commands[i]->name) != 0)
			continue;
		for (int a = 2; a < argc; a++) {
			if (strcmp(argv[a], "--help") == 0) {
				command_help(commands[i]);
				return leave();
			}
		}
		return run(commands[i], argc - 2, argv + 2);
	}
	if (argc >= 2)
		bench_say("there is no command \"%s\"", argv[1]);
	usage(stderr);
	return BENCH_USAGE;
}
