#!/bin/sh
# stokerctl: what it answers without a broker, and what it makes of a control page that nobody serves.
set -u
top_builddir=${top_builddir:-.}

ctl=$top_builddir/stokerctl
page=$top_builddir/tests/make-page
name=/stoker-test-ctl-$$
out=$(mktemp)
err=$(mktemp)
failed=0
socket=$out.socket
server=
trap 'end_server; rm -f "$out" "$err"' EXIT

end_server()
{
	if [ -n "$server" ]; then kill "$server"; wait "$server"; fi 2>/dev/null
	server=
	rm -f "$socket" "/dev/shm$name"
}

# start_server HOW: a page, and somebody who listens on its socket
start_server()
{
	: >"$out.said"
	"$page" "$name" "$1" "$socket" >"$out.said" &
	server=$!
	for _ in $(seq 200); do
		if grep -q listens "$out.said"; then break; fi
		sleep 0.05
	done
	rm -f "$out.said"
}

# expect CODE TEXT ARGUMENT...: exit code, and a text in what is printed (of stderr if the code is not 0)
expect()
{
	code=$1 text=$2
	shift 2
	"$ctl" "$@" >"$out" 2>"$err"
	got=$?
	if [ "$code" = 0 ]; then where=$out; else where=$err; fi
	if [ $got != "$code" ] || ! grep -qF -- "$text" "$where"; then
		echo "stokerctl $*: exit $got instead of $code, or no \"$text\" in:"
		cat "$out" "$err"
		failed=1
	fi
	if [ "$code" != 0 ] && [ -s "$out" ]; then
		echo "stokerctl $*: an error wrote to stdout:"
		cat "$out"
		failed=1
	fi
}

expect 0 'usage: stokerctl' --help
expect 0 'stokerctl ' --version
expect 2 'a command is missing'
expect 2 'there is no command "frobnicate"' frobnicate
expect 2 'wrong number of arguments' status please
expect 2 'wrong number of arguments; usage: stokerctl evict SIZE' evict
expect 2 'unrecognized option' --frobnicate status
expect 2 'is no broker' --name stoker status
expect 2 'is no broker' --name /sto/ker status
for bad in /.. /. '' / /a/ "/$(printf '%065d' 0)"; do
	expect 2 "\"$bad\" is no broker's name: that is / and 1 to 64 of [A-Za-z0-9._-], but not /. and /.." --name "$bad" status
done
expect 2 'is no size' --name "$name" evict lots
for command in status clients stat ping accounts clear drain stop 'evict 1G'; do
	# shellcheck disable=SC2086
	expect 3 'there is no broker' --name "$name" $command
	# shellcheck disable=SC2086
	expect 3 'there is no broker' --json --name "$name" $command
done

"$page" "$name" || exit 1
expect 0 'degraded' --name "$name" status
expect 0 '512 MiB populated' --name "$name" status
expect 0 'disk0' --name "$name" status
expect 0 'gpu           GPU-00000000-0000-0000-0000-0123456789ab, ending, 27 regions, 28 pools' --name "$name" status
expect 0 'last fault: it fell off the bus' --name "$name" status
expect 0 '84.0 % hit' --name "$name" status
expect 0 'worker 0' --name "$name" clients
expect 0 'hits_l1                                42' --name "$name" stat
expect 2 "is not between 1 byte and the arena's" --name "$name" evict 2G
for field in '"schema": 1' "\"name\": \"$name\"" '"version": "1.2.3"' '"abi": 2' \
	'"boot_id": "ab000000000000000000000000000000"' '"pid": 4242' '"state": "degraded"' '"uptime_ns": ' \
	'"bytes": 1073741824' '"populated_bytes": 536870912' '"used_bytes": 1048576' '"pinned_bytes": 4096' \
	'"objects": 17' '"path": "/var/tmp/tier"' '"state": "serving"' '"read_errors": 1' '"write_errors": 2' \
	'"checksum_errors": 3' '"name": "GPU-00000000-0000-0000-0000-0123456789ab"' '"state": "ending"' \
	'"restarts": 21' '"registered_bytes": 22' '"imported_bytes": 23' '"bounced_bytes": 24' '"load_bytes": 25' \
	'"store_bytes": 26' '"regions": 27' '"pools": 28' '"why": "it fell off the bus"' '"clients": 1' '"models": 0' '"pools": 0' '"jobs": 0' '"leases": 2' \
	'"hits_l1": 42' '"hits_disk": 0' '"misses": 8' '"counters": {' '"recovery_dropped": 0'; do
	expect 0 "$field" --json --name "$name" status
done
expect 0 '"pid": 4711' --json --name "$name" clients
expect 0 '"pools": 4' --json --name "$name" clients
expect 0 '"arena_objects": 17' --json --name "$name" stat
expect 0 '"n": 100' --json --name "$name" stat
if command -v python3 >/dev/null; then
	for command in status clients stat; do
		"$ctl" --json --name "$name" $command | python3 -c 'import json, sys; json.load(sys.stdin)' || failed=1
	done
fi

# What was printed and did not arrive is a failure: the disk is full, the reader has gone, there is no stdout.
# fails CODE WHERE ARGUMENT...
fails()
{
	[ "$1" = 1 ] && grep -q 'could not write to standard output' "$err" && return
	echo "stokerctl $*: exit $1, not 1, or nothing said:"
	cat "$err"
	failed=1
}
for command in status clients stat '--json status' '--json clients' '--json stat' --help --version; do
	# shellcheck disable=SC2086
	"$ctl" --name "$name" $command >/dev/full 2>"$err"
	fails $? full "$command"
	# shellcheck disable=SC2086
	"$ctl" --name "$name" $command >&- 2>"$err"
	fails $? closed "$command"
	# shellcheck disable=SC2086
	{ sleep 0.1; "$ctl" --name "$name" $command 2>"$err"; echo $? >"$out"; } | :
	fails "$(cat "$out")" pipe "$command"
done

rm -f "/dev/shm$name"
"$page" "$name" dead || exit 1
expect 3 'there is no broker' --name "$name" status

# Texts of a page are nothing that a terminal obeys, and what is no control character stays.
rm -f "/dev/shm$name"
"$page" "$name" rude || exit 1
expect 0 'version ?[2J1.2.3' --name "$name" status
expect 0 'tier ?[2Jdisk' --name "$name" status
expect 0 "in /??2J?$(printf '\303\244')" --name "$name" status
expect 0 '"path": "/??2J?' --json --name "$name" status
expect 0 'gpu           GPU?c, unknown' --name "$name" status
expect 0 'last fault: ?[2Jgone?' --name "$name" status
expect 0 '??2J?]0;worker?' --name "$name" clients
expect 0 '"name": "??2J?]0;worker?"' --json --name "$name" clients

# A page of another uid is not believed unless a broker of that uid listens; root is no exception.
if [ "$(id -u)" = 0 ]; then
	chown 64103 "/dev/shm$name"
	for command in status clients stat 'evict 1M' ping accounts clear drain stop; do
		# shellcheck disable=SC2086
		expect 4 "the control page of \"$name\" belongs to uid 64103" --name "$name" $command
		# shellcheck disable=SC2086
		expect 4 'no broker of that uid' --json --name "$name" $command
	done
	chown 0 "/dev/shm$name"
fi

# One that is cut short is no page, however far it goes; nor is a fifo, which nobody waits for.
for bytes in 0 8 4096 20000; do
	truncate -s "$bytes" "/dev/shm$name"
	for command in status clients stat ping accounts clear drain stop; do
		expect 1 "is not a broker's control page" --name "$name" $command
	done
done
rm -f "/dev/shm$name"
mkfifo "/dev/shm$name"
for command in status ping accounts clear drain stop 'evict 1M'; do
	# shellcheck disable=SC2086
	expect 1 "is not a broker's control page" --name "$name" $command
done
rm -f "/dev/shm$name"

# Verbs go to the broker whose page status shows. Nobody at its socket, or one that is not to be seen, is no broker.
"$page" "$name" names "$socket" || exit 1
expect 3 "there is no broker's socket $socket here" --name "$name" ping
rm -f "/dev/shm$name"
# With no stdout nothing that is opened gets its number, and a verb's socket nothing that is printed.
start_server answers
"$ctl" --name "$name" ping >&- 2>"$err"
if [ $? != 1 ] || ! grep -qF 'refused: ?[2Jnot' "$err"; then
	echo "stokerctl ping without stdout:"
	cat "$err"
	failed=1
fi
kill "$server"
wait "$server" 2>/dev/null
server=
expect 3 'leftover of one that is gone' --name "$name" ping
expect 3 'leftover of one that is gone' --name "$name" status
end_server

# What a broker says of its refusal is nothing that a terminal obeys either.
start_server answers
for command in ping accounts clear drain stop 'evict 1M'; do
	# shellcheck disable=SC2086
	expect 1 'refused: ?[2Jnot ??now?' --name "$name" $command
done
if [ "$(id -u)" = 0 ]; then
	chown 64103 "/dev/shm$name"	# and a broker of root listens, of whom that page is not
	expect 4 "the control page of \"$name\" belongs to uid 64103" --name "$name" ping
	expect 4 "the control page of \"$name\" belongs to uid 64103" --name "$name" status
fi
end_server
start_server greets
expect 4 'refused: ?[2Jnot ??now?' --name "$name" ping
end_server

head -c 1000000 /dev/zero >"/dev/shm$name"
expect 1 "is not a broker's control page" --name "$name" status
exit $failed
