#!/usr/bin/env bash
# The engine needs nothing: joined into one object, all that stays undefined are the functions that a compiler takes for
# granted (memcpy and its kin) and XXH*. So it can make no system call, take no lock, read no clock, allocate nothing.
set -euo pipefail

archive=${top_builddir:?}/.libs/libstoker-engine.a
for tool in ld nm; do
	if ! command -v "$tool" >/dev/null; then
		echo "$tool is not installed"
		exit 77
	fi
done
if ! test -e "$archive"; then
	echo "$archive does not exist: this build makes no archive of the engine"
	exit 77
fi

joined=$(mktemp)
trap 'rm -f "$joined"' EXIT
ld -r --whole-archive -o "$joined" "$archive"
defined=$(nm --defined-only "$joined" | wc -l)
((defined > 0))
undefined=$(nm --undefined-only "$joined" | awk '{ print $NF }' | sort -u)

if grep -qE '^__(asan|tsan|ubsan)_' <<<"$undefined"; then
	echo "this build has a sanitizer, which puts calls of its own everywhere"
	exit 77
fi
# A compiler that hardens by default adds its own trap as well.
other=$(grep -vE '^(mem(cpy|move|set|cmp|chr)|XXH[A-Za-z0-9_]*|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_)$' <<<"$undefined" || true)
if test -n "$other"; then
	echo "the engine needs what it must not:"
	echo "$other"
	exit 1
fi
