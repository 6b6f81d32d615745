/* Reading and writing sizes. Every step is checked before it is made: nothing wraps. */
#include "src/common/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

/* Power of two that a suffix stands for, or -1. */
static int suffix_shift(char suffix)
{
	switch (suffix) {
	case '\0':
		return 0;
	case 'K':
	case 'k':
		return 10;
	case 'M':
	case 'm':
		return 20;
	case 'G':
	case 'g':
		return 30;
	case 'T':
	case 't':
		return 40;
	default:
		return -1;
	}
}

/* Digits at the start of *text, which moves behind them. All digits are read even when they are */
/* too many, so that "99999999999999999999x" is no size rather than one out of range. */
static int digits_parse(const char **text, uint64_t *ret)
{
	const char *p = *text;
	uint64_t value = 0;
	bool too_large = false;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++) {
		const uint64_t digit = (uint64_t)(*p - '0');

		if (value > (UINT64_MAX - digit) / 10)
			too_large = true;
		else
			value = value * 10 + digit;
	}
	*text = p;
	*ret = too_large ? UINT64_MAX : value;
	return too_large ? -ERANGE : 0;
}

int size_parse(const char *text, uint64_t whole, uint64_t *ret)
{
	uint64_t value;
	int r, shift;

	if (!text)
		return -EINVAL;
	r = digits_parse(&text, &value);
	if (r == -EINVAL)
		return r;
	if (text[0] == '%' && text[1] == '\0' && whole > 0) {
		if (r < 0 || value > 100)
			return -ERANGE;
		*ret = (uint64_t)((unsigned __int128)whole * value / 100);
		return 0;
	}
	shift = suffix_shift(text[0]);
	if (shift < 0 || (text[0] != '\0' && text[1] != '\0'))
		return -EINVAL;
	if (r < 0 || value > UINT64_MAX >> shift)
		return -ERANGE;
	*ret = value << shift;
	return 0;
}

char *size_text(uint64_t bytes, char ret[16])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int unit = 0, shift;
	uint64_t tenths;

	while (unit < 6 && bytes >> (10 * unit) >= 1024)
		unit++;
	shift = 10 * unit;
	tenths = unit == 0 ? bytes * 10 :
			     (uint64_t)(((unsigned __int128)bytes * 10 + (1ull << (shift - 1))) >> shift);
	if (tenths >= 10240 && unit < 6) {	/* 1023.96 of one unit are 1.0 of the next */
		tenths = 10;
		unit++;
	}
	if (tenths % 10 == 0)
		snprintf(ret, 16, "%u %s", (unsigned int)(tenths / 10), units[unit]);
	else
		snprintf(ret, 16, "%u.%u %s", (unsigned int)(tenths / 10), (unsigned int)(tenths % 10), units[unit]);
	return ret;
}
