/* What commands share in printing: the frame of their JSON, and durations. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/ctl/ctl.h"

json_t *ctl_object(const struct ctl *ctl)
{
	return json_pack("{s:i, s:s}", "schema", CTL_SCHEMA, "name", ctl->name);
}

void ctl_set(json_t *object, const char *field, uint64_t value)
{
	json_object_set_new(object, field, json_integer((json_int_t)value));
}

void ctl_set_text(json_t *object, const char *field, const char *value)
{
	json_object_set_new(object, field, json_string(value));
}

void ctl_clean(char *text, size_t bytes)
{
	json_t *good;

	text[bytes - 1] = '\0';
	good = json_string(text);
	for (unsigned char *at = (unsigned char *)text; *at; at++) {
		if (at[0] == 0xc2 && good && at[1] >= 0x80 && at[1] < 0xa0) {
			at[0] = at[1] = '?';
			at++;
		} else if (at[0] < 0x20 || at[0] == 0x7f || (at[0] >= 0x80 && !good)) {
			at[0] = '?';
		}
	}
	json_decref(good);
}

enum ctl_exit ctl_print(json_t *object)
{
	const bool made = object && (json_dumpf(object, stdout, JSON_INDENT(2)) == 0 || ferror(stdout));

	json_decref(object);
	putchar('\n');
	return made ? CTL_DONE : ctl_fail(CTL_FAILED, "could not print the result: out of memory");
}

char *ctl_duration(uint64_t ns, char ret[32])
{
	const uint64_t s = ns / 1000000000u;

	if (s >= 86400)
		snprintf(ret, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
	else if (s >= 3600)
		snprintf(ret, 32, "%" PRIu64 "h %" PRIu64 "min", s / 3600, s / 60 % 60);
	else if (s >= 60)
		snprintf(ret, 32, "%" PRIu64 "min %" PRIu64 "s", s / 60, s % 60);
	else if (ns >= 10000000u)
		snprintf(ret, 32, "%.2f s", (double)ns / 1e9);
	else if (ns >= 10000u)
		snprintf(ret, 32, "%.1f us", (double)ns / 1e3);
	else
		snprintf(ret, 32, "%" PRIu64 " ns", ns);
	return ret;
}
