#!/bin/sh
# The program in libstoker(3), as a reader would take it from the page: compiled against the public header and the shared
# library alone, and run against a broker.
set -eu
top_builddir=${top_builddir:-.} top_srcdir=${top_srcdir:-.}
if grep -q '^SANITIZER_CFLAGS = .*-f' "$top_builddir/Makefile"; then
	echo "the library is built with a sanitizer, which a reader's program would not have"
	exit 77
fi
directory=$(mktemp -d)
name=/stoker-example-$$
broker=
clean_up() {
	if test -n "$broker"; then kill "$broker" 2>/dev/null || :; wait "$broker" 2>/dev/null || :; fi
	rm -rf "$directory" "/dev/shm$name" "/dev/shm$name.arena" "/dev/shm$name.table"
}
trap clean_up EXIT

sed -n '/^\.Bd -literal$/,/^\.Ed$/p' "$top_builddir/man/libstoker.3" | sed '1d;$d;s/\\e/\\/g' >"$directory/example.c"
sed -i "s|\"/stoker\"|\"$name\"|" "$directory/example.c"
cc -Wall -Wextra -Werror -I "$top_srcdir/include" "$directory/example.c" \
	-L "$top_builddir/.libs" -lstoker -o "$directory/example"

"$top_builddir/stokerd" --name "$name" --memory 64M --set "broker.runtime_directory=$directory/run" \
	--set "broker.state_directory=$directory/state" --log-level warning >"$directory/ready" &
broker=$!
tries=0
until grep -q ready "$directory/ready"; do
	tries=$((tries + 1))
	test $tries -lt 100
	sleep 0.1
done
LD_LIBRARY_PATH=$top_builddir/.libs "$directory/example" >"$directory/output"
cat "$directory/output"
cat >"$directory/expected" <<'TEXT'
stored 2 chunks
2 chunks are usable
retrieved 2 chunks
TEXT
cmp "$directory/expected" "$directory/output"
