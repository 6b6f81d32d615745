#!/bin/sh
# The public headers are taken by C11, by C++11, together and twice, without a warning.
set -eu
top_srcdir=${top_srcdir:-.}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/user.c" <<'END'
#include <stoker/cuda.h>
#include <stoker/cuda.h>
#include <stoker/stoker.h>
#include <stoker/status.h>

int use(struct stoker *c, struct stoker_model *model, const struct stoker_key *key);
int use(struct stoker *c, struct stoker_model *model, const struct stoker_key *key)
{
	struct stoker_lookup_options options = { sizeof(options) };
	struct stoker_result result = { sizeof(result) };
	struct stoker_job job;

	if (stoker_lookup(c, model, key, 1, &options, &job) < 0)
		return -1;
	while (stoker_poll(c, job) != STOKER_STAGE_DONE)
		;
	return stoker_finish(c, job, &result, 0, 0, 0, 0) == 0 && result.status == STOKER_STATUS_OK;
}
END
cp "$dir/user.c" "$dir/user.cc"
${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Wno-missing-field-initializers -Werror -fsyntax-only \
	-I"$top_srcdir/include" "$dir/user.c"
cxx=${CXX:-c++}
if ! command -v "$cxx" >/dev/null; then
	echo "there is no C++ compiler ($cxx): the header was tried with C alone"
	exit 77
fi
"$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Wno-missing-field-initializers -Werror -fsyntax-only \
	-I"$top_srcdir/include" "$dir/user.cc"
