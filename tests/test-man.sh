#!/bin/sh
# Every manual page passes mandoc's lint; every function of the public header has a page, and every page's function is in
# the header.
set -eu
if ! command -v mandoc >/dev/null; then
	echo "mandoc is not installed"
	exit 77
fi
failed=0
top_builddir=${top_builddir:-.}
top_srcdir=${top_srcdir:-.}
for page in "$top_builddir"/man/*.[13578]; do
	if ! mandoc -T lint -W warning "$page"; then failed=1; fi
done
headers() { cat "$top_srcdir/include/stoker/stoker.h" "$top_srcdir/include/stoker/cuda.h"; }
# shellcheck disable=SC2013 # names have no blanks
for f in $(headers | sed -n 's/^STOKER_API.*[ *]\(stoker_[a-z_0-9]*\)(.*/\1/p'); do
	if ! grep -q "^\.Fn $f " "$top_builddir"/man/*.3; then
		echo "$f() of the public headers has no page"
		failed=1
	fi
done
# shellcheck disable=SC2013
for f in $(sed -n 's/^\.Fn \(stoker_[a-z_0-9]*\) .*/\1/p' "$top_builddir"/man/*.3 | sort -u); do
	if ! headers | grep -q "[ *]$f("; then
		echo "$f() has a page, but is in no public header"
		failed=1
	fi
done
exit $failed
