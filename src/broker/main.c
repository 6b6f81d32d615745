/*
 * stokerd: the command line. Options are a table, from which getopt_long() and --help are fed. The
 * command line goes before the file, wherever --config stands in it.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#include "src/broker/broker.h"
#include "src/common/log.h"
#include "src/common/output.h"
#include "src/device/cuda/copier.h"
#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0.1.0"
#endif

/* OPTION(letter, name, argument or NULL, meaning): the letter is a number for this file alone. */
#define STOKERD_OPTIONS(OPTION) \
	OPTION('n', "name",         "/NAME",              "name of this broker (default /stoker)") \
	OPTION('c', "config",       "FILE",               "read settings from FILE") \
	OPTION('m', "memory",       "SIZE",               "arena.size: DRAM for objects, as 2G or 10%") \
	OPTION('t', "tier",         "PATH:SIZE",          "a disk tier in directory PATH or on block device PATH; may be given several times") \
	OPTION('s', "set",          "SECTION.KEY=VALUE",  "any setting of the list below; may be given several times") \
	OPTION('l', "log-level",    "LEVEL",              "error, warning, info or debug") \
	OPTION('k', "check-config", NULL,                 "read and check everything, print what would be used, and exit") \
	OPTION('h', "help",         NULL,                 "print this") \
	OPTION('V', "version",      NULL,                 "print the version")

#define AS_LONG(letter, name, argument, meaning) \
	{ name, (argument) ? required_argument : no_argument, NULL, letter },
#define AS_HELP(letter, name, argument, meaning) { name, argument, meaning },

static const struct option long_options[] = { STOKERD_OPTIONS(AS_LONG) { NULL, 0, NULL, 0 } };
static const struct { const char *name, *argument, *meaning; } help_rows[] = { STOKERD_OPTIONS(AS_HELP) };

/** struct command - where to read the configuration from, again at HUP. */
struct command {
	int argc;
	char **argv;
	const char *config_file;
	bool check, help, version;
};

static void help(FILE *out)
{
	char option[64];

	fprintf(out, "usage: stokerd [OPTION]...\nbroker of attention KV caches: runs in the foreground, logs on standard "
		"error\n\n");
	for (size_t i = 0; i < sizeof(help_rows) / sizeof(help_rows[0]); i++) {
		snprintf(option, sizeof(option), "--%s%s%s", help_rows[i].name, help_rows[i].argument ? " " : "",
			 help_rows[i].argument ? help_rows[i].argument : "");
		fprintf(out, "  %-26s %s\n", option, help_rows[i].meaning);
	}
	fprintf(out, "\nSettings, in a file as KEY = VALUE under [SECTION], or with --set; [HUP]: taken over at HUP\n");
	config_help(out);
	fprintf(out, "\nExit status: 0 after TERM, INT or stop; 1 failure; 2 usage or configuration; 3 name in use\n");
}

/* Apply one option to @config. 0 or -1 with the reason in @why. */
static int option_take(struct config *config, struct command *command, int letter, const char *value, char *why)
{
	switch (letter) {
	case 'n':
		return config_set(config, "--name", "broker", "name", value, why);
	case 'm':
		return config_set(config, "--memory", "arena", "size", value, why);
	case 't':
		return config_add_tier(config, value, why);
	case 's':
		return config_set_argument(config, value, why);
	case 'l':
		return config_set(config, "--log-level", "broker", "log_level", value, why);
	case 'k':
		command->check = true;
		return 0;
	case 'h':
		command->help = true;
		return 0;
	case 'V':
		command->version = true;
		return 0;
	default:	/* 'c' was looked at before */
		return 0;
	}
}

/* Walk the command line: with @config NULL only --config is looked for. 0, or -1 (usage). */
static int options_walk(struct command *command, struct config *config, char *why)
{
	int letter;

	optind = 0;	/* from the start, every time */
	opterr = config != NULL;
	why[0] = '\0';
	while ((letter = getopt_long(command->argc, command->argv, "", long_options, NULL)) != -1) {
		if (letter == '?' && config) {	/* getopt_long() has said what */
			snprintf(why, CONFIG_WHY, "the command line is not understood: see stokerd --help");
			return -1;
		}
		if (letter == 'c' && !config)
			command->config_file = optarg;
		if (config && option_take(config, command, letter, optarg, why) < 0)
			return -1;
	}
	if (config && optind < command->argc) {
		snprintf(why, CONFIG_WHY, "argument \"%.128s\" is not understood: see --help", command->argv[optind]);
		return -1;
	}
	return 0;
}

/* Default, file, command line. Also called at HUP. */
static int config_load(void *arg, struct config *ret, char *why)
{
	struct command *command = arg;

	config_init(ret);
	options_walk(command, NULL, why);
	if (command->config_file && config_read_file(ret, command->config_file, why) < 0)
		return -1;
	if (options_walk(command, ret, why) < 0)
		return -1;
	if (command->help || command->version)
		return 0;
	return config_finish(ret, why) < 0 ? -1 : config_fits_machine(ret, why);
}

/* What was asked for has been printed, or has not arrived. */
static int said(void)
{
	const int r = output_end();

	if (r < 0)
		log_error("could not write to standard output: %s", strerror(-r));
	return r < 0 ? BROKER_FAILED : BROKER_OK;
}

int main(int argc, char **argv)
{
	static struct broker_options options;
	static struct command command;
	char why[CONFIG_WHY];

	/* Not for people: the broker runs itself so for each GPU, with the other end of a pair. */
	if (argc == 3 && strcmp(argv[1], "--copier") == 0) {
		log_init("stokerd-copier", LOG_LEVEL_WARNING);
		return copier_main(atoi(argv[2]));
	}
	output_begin();
	log_init("stokerd", LOG_LEVEL_INFO);
	command.argc = argc;
	command.argv = argv;
	if (config_load(&command, &options.config, why) < 0) {
		if (why[0])
			log_error("%s", why);
		return BROKER_USAGE;
	}
	if (command.help || command.version) {
		if (command.help)
			help(stdout);
		else
			printf("stokerd %s\n", PACKAGE_VERSION);
		return said();
	}
	if (command.check) {
		config_print(&options.config, stdout);
		return said();
	}
	log_set_level((enum log_level)options.config.broker.log_level);
	options.reload = config_load;
	options.reload_arg = &command;
	options.ready_fd = STDOUT_FILENO;
	return (int)broker_run(&options);
}
