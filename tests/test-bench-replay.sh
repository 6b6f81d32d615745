#!/usr/bin/env bash
# replay end to end: exact hits, right bytes, damage that is seen, a broker that dies, and nothing left behind.
set -euo pipefail

# shellcheck disable=SC2154 # the harness says where the trees are
bench=$top_builddir/stoker-bench
# shellcheck disable=SC2154
trace=$top_srcdir/data/mooncake_conversation_2000.jsonl
work=$(mktemp -d)
under=()	# a program that runs it
pid=
clean_up() {
	[[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || :
	rm -rf "$work"
}
trap clean_up EXIT

fail() {
	printf 'FAIL %s\n' "$*"
	[[ ! -s $work/error ]] || sed 's/^/    /' "$work/error"
	exit 1
}

# field NAME: of the last report; nothing if it is not there.
field() { sed -n "s/^  \"$1\": \(.*[^,]\),*$/\1/p" "$work/report"; }
expect() { [[ $(field "$1") == "$2" ]] || fail "$test: $1 is $(field "$1"), not $2"; }

# replay STATUS OPTION...: run it, with that exit status and with nothing left behind.
replay() {
	local expected=$1 status=0
	shift
	TMPDIR=$work "${under[@]}" "$bench" replay --format json --trace "$trace" --l1 192M --set arena.extent=8M "$@" \
		>"$work/report" 2>"$work/error" &
	pid=$!
	wait "$pid" || status=$?
	((status == expected)) || fail "$test: exit status $status, not $expected"
	expect_nothing_left "$pid"
	pid=
}

# broker_of PID: the broker that a bench has started; nothing if there is none (yet).
broker_of() {
	local child children=()
	read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || :
	for child in "${children[@]}"; do
		[[ $(cat "/proc/$child/comm" 2>/dev/null) != stokerd ]] || printf '%s' "$child"
	done
}

expect_nothing_left() {
	local left
	left=$(find "$work" -mindepth 1 -name 'stoker-bench*'; find /dev/shm -maxdepth 1 -name "stoker-bench-$1*")
	[[ -z $left ]] || fail "$test: left behind: $left"
}

test="room for all gives the trace's strict-prefix hits exactly"
replay 0 --requests 300 --object-size 8K
expect requests 300
expect hits_l1 "$(field blocks | awk -v unique="$(field unique_blocks)" '{ print $1 - unique }')"
expect hits_disk 0
expect wrong_bytes 0
expect refused_blocks 0
expect verified_bytes "$(($(field hits_l1) * 8192))"
expect prefetch_bytes_per_s null
[[ -n $(field skipped) ]] || fail "$test: what is null has no reason"

test="several blocks an object, and long requests in rounds"
replay 0 --requests 150 --object-size 16K --blocks 4 --pool 256K
expect hits_l1 "$(field blocks | awk -v unique="$(field unique_blocks)" '{ print $1 - unique }')"
expect wrong_bytes 0

test="an object that has one plane only"
replay 0 --requests 60 --object-size 704
expect wrong_bytes 0
expect hits_l1 "$(field blocks | awk -v unique="$(field unique_blocks)" '{ print $1 - unique }')"

test="a kernel that has no epoll_pwait2"
under=("$top_builddir/tests/forbid" epoll_pwait2)
replay 0 --requests 60 --object-size 8K --workers 2
expect wrong_bytes 0
under=()

test="the disk serves what the arena has no room for, to four workers"
replay 0 --requests 300 --object-size 64K --l1 64M --disk 1G --workers 4
expect requests 300
expect wrong_bytes 0
expect checksum_errors 0
(($(field hits_disk) > 0)) || fail "$test: nothing came from disk"

test="an arena and a tier that are smaller than extents usually are"
TMPDIR=$work "$bench" replay --format json --trace "$trace" --requests 100 --object-size 64K --l1 10M --disk 40M \
	>"$work/report" 2>"$work/error" || fail "$test: exit status $?"
expect wrong_bytes 0
expect refused_blocks 0

test="a tier survives a crash and the loss of shared memory"
replay 0 --requests 200 --object-size 32K --disk 1G --then-restart 50 --cold
expect restart_requests 50
expect wrong_bytes 0
(($(field restart_hits_disk) > 0)) || fail "$test: nothing came from disk"

test="an arena survives a crash"
replay 0 --requests 100 --object-size 32K --then-restart 20
expect wrong_bytes 0
(($(field restart_hits_l1) + $(field restart_hits_disk) == $(field restart_blocks))) ||
	fail "$test: $(field restart_hits_l1) + $(field restart_hits_disk) of $(field restart_blocks) blocks were served"

test="a byte flipped in the arena is seen"
replay 1 --requests 50 --object-size 32K --flip arena
expect wrong_bytes 1
(($(field flipped_copies) > 0)) || fail "$test: nothing was flipped"

test="a byte flipped on disk is never served"
replay 0 --requests 50 --object-size 32K --disk 256M --flip disk
expect wrong_bytes 0
(($(field flipped_copies) > 0)) || fail "$test: nothing was flipped"
(($(field checksum_errors) > 0)) || fail "$test: no checksum was found wrong"
expect restart_hits_disk 0

test="a broker that dies is told, with exit status 1"
TMPDIR=$work "$bench" replay --format json --trace "$trace" --l1 192M --set arena.extent=8M --object-size 64K \
	>"$work/report" 2>"$work/error" &
pid=$!
for ((i = 0; i < 200; i++)); do
	broker=$(broker_of "$pid")
	[[ -z $broker ]] || break
	sleep 0.05
done
[[ -n $broker ]] || fail "$test: no broker was started"
sleep 0.3
kill -KILL "$broker"
status=0
wait "$pid" || status=$?
((status == 1)) || fail "$test: exit status $status"
grep -q 'broker' "$work/error" || fail "$test: it does not say so"
expect_nothing_left "$pid"
pid=

test="interrupted, it leaves nothing behind"
TMPDIR=$work "$bench" replay --trace "$trace" --l1 192M --set arena.extent=8M --object-size 64K --disk 1G \
	>"$work/report" 2>"$work/error" &
pid=$!
for ((i = 0; i < 200; i++)); do
	[[ -z $(broker_of "$pid") ]] || break
	sleep 0.05
done
sleep 0.3
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
((status == 143)) || fail "$test: exit status $status"
expect_nothing_left "$pid"
pid=

test="what is wrong is named, with exit status 2"
head -c 1000 "$trace" >"$work/cut.jsonl"
status=0
"$bench" replay --trace "$work/cut.jsonl" >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "$test: exit status $status for a cut-off trace"
grep -q 'cut.jsonl", line 8: .*cut off' "$work/error" || fail "$test: the cut-off line is not named"
for options in "" "--trace $trace --workers 0" "--trace $trace --object-size 100" "--trace $trace --l1 0" \
	"--trace $trace --flip disk" "--trace /nowhere" "--trace $trace --format xml" "--trace $trace --nothing"; do
	status=0
	# shellcheck disable=SC2086 # they are several
	"$bench" replay $options >"$work/report" 2>"$work/error" || status=$?
	((status == 2)) || fail "$test: exit status $status for: replay $options"
	[[ -s $work/error && ! -s $work/report ]] || fail "$test: nothing is said of: replay $options"
done

test="what is wrong with a trace is named by its line, before a broker is started"
# bad_trace TEXT LINE...: a trace of these lines is refused with TEXT, by replay and by policy
bad_trace() {
	local said=$1 command
	shift
	printf '%s\n' "$@" >"$work/bad.jsonl"
	(($#)) || : >"$work/bad.jsonl"
	for command in replay policy; do
		status=0
		"$bench" "$command" --trace "$work/bad.jsonl" >"$work/report" 2>"$work/error" || status=$?
		((status == 2)) || fail "$test: exit status $status of $command, not 2 with: $said"
		[[ $(wc -l <"$work/error") == 1 ]] || fail "$test: $command says more than a line"
		grep -qF "$said" "$work/error" || fail "$test: $command does not say: $said"
	done
}
good='{"timestamp": 1, "hash_ids": [1, 2]}'
bad_trace 'bad.jsonl": the file has no requests'
bad_trace 'line 2: "timestamp" is negative' "$good" '{"timestamp": -5, "hash_ids": [3]}'
ids='whole numbers from 0 to 18446744073709551615'
for id in 1e300 -1 1.0 '"7"' null '[1]' true 18446744073709551616; do
	bad_trace "line 2: \"hash_ids\" holds something else than $ids" "$good" "{\"timestamp\": 5, \"hash_ids\": [3, $id]}"
done
bad_trace "line 1: it has a number that is too large: \"hash_ids\" are $ids" \
	'{"timestamp": 5, "hash_ids": [184467440737095516160]}'
bad_trace 'line 3: the request has 16385 blocks; a lookup' "$good" "" \
	"{\"timestamp\": 5, \"hash_ids\": [$(seq -s, 16385)]}" "$good"

status=0
"$bench" policy --trace /dev/zero >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "$test: exit status $status for a line without end"
grep -q 'line 1: it is longer than 16 MiB' "$work/error" || fail "$test: nothing is said of a line without end"

test="requests without blocks: what cannot be measured of them is null, with the reason"
printf '%s\n' '{"timestamp": 1, "hash_ids": []}' '{"timestamp": 2, "hash_ids": []}' >"$work/empty.jsonl"
for capacity in 5%,10% 64M; do
	"$bench" policy --format json --trace "$work/empty.jsonl" --capacity "$capacity" >"$work/report" 2>"$work/error" ||
		fail "$test: exit status $? of policy"
	for field in requests=2 blocks=0 results=null hit_ratio_unbounded=null; do
		expect "${field%=*}" "${field#*=}"
	done
	grep -q '"skipped": ".*hit_ratio_unbounded: .*results: ' "$work/report" || fail "$test: policy says no reason"
done
status=0
"$bench" policy --trace "$work/empty.jsonl" --capacity 200% >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "$test: exit status $status for 200%"
replay 0 --trace "$work/empty.jsonl" --workers 2
for field in requests=2 blocks=0 verified_bytes=0 wrong_bytes=0 hit_ratio=null hit_ratio_unbounded=null \
	lookup_ns_p50=null lookup_ns_p99=null poll_ns_p50=null retrieve_bytes_per_s=null prefetch_bytes_per_s=null; do
	expect "${field%=*}" "${field#*=}"
	[[ ${field#*=} != null ]] || grep -q "\"skipped\": \".*${field%=*}: " "$work/report" ||
		fail "$test: replay says no reason for ${field%=*}"
done
replay 0 --trace "$work/empty.jsonl" --then-restart 1
expect restart_requests 1
for options in "--flip arena" "--flip disk --disk 256M"; do
	# shellcheck disable=SC2086 # they are several
	replay 2 --trace "$work/empty.jsonl" $options
	grep -q 'its last request has no blocks' "$work/error" || fail "$test: nothing is said of $options"
done

test="a share that is none, and a comma too many, are refused"
printf '%s\n' "$good" >"$work/good.jsonl"
for capacity in 200% 0% -1% "5%," ",5%" ""; do
	status=0
	"$bench" policy --trace "$work/good.jsonl" --capacity "$capacity" >"$work/report" 2>"$work/error" || status=$?
	((status == 2)) || fail "$test: exit status $status for --capacity $capacity"
	[[ -s $work/error ]] || fail "$test: nothing is said of --capacity $capacity"
done

printf '%s\n' '{"timestamp": 1, "hash_ids": [1, 2, 3, 4, 5]}' >"$work/five.jsonl"
for options in "--capacity 60%" "--capacity 64M --object-size 17M" "--capacity 64M --object-size 1G"; do
	status=0
	# shellcheck disable=SC2086 # they are several
	"$bench" policy --trace "$work/five.jsonl" $options >"$work/report" 2>"$work/error" || status=$?
	((status == 2)) || fail "$test: exit status $status for $options"
	grep -q 'it must hold at least 4' "$work/error" || fail "$test: nothing is said of $options"
done
# 262145T is a number of extents whose lowest 32 bits are no more than a TiB.
for capacity in 262145T 1K; do
	status=0
	"$bench" policy --trace "$work/five.jsonl" --capacity "$capacity" >"$work/report" 2>"$work/error" || status=$?
	((status == 2)) || fail "$test: exit status $status for $capacity"
	grep -q 'sizes from 64 KiB to 16777216 extents' "$work/error" || fail "$test: nothing is said of $capacity"
done
for options in "--extent 65537" "--extent 1M --capacity 80M --object-size 16M"; do
	status=0
	# shellcheck disable=SC2086 # they are several
	"$bench" policy --trace "$work/five.jsonl" $options >"$work/report" 2>"$work/error" || status=$?
	((status == 2)) || fail "$test: exit status $status for $options"
	grep -q -e '--extent' "$work/error" || fail "$test: nothing is said of $options"
done
status=0
"$bench" replay --trace "$work/five.jsonl" --object-size 1G --l1 4G >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "$test: exit status $status for objects of 1 GiB and a header"
"$bench" policy --trace "$work/five.jsonl" --capacity 80% >"$work/report" || fail "$test: 4 objects are too few"

test="a broker that is not there, and a name that is none"
status=0
"$bench" replay --trace "$work/good.jsonl" --attach nope >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "$test: exit status $status for a name without /"
grep -qF '"nope" is no broker'"'"'s name: that is / and 1 to 64' "$work/error" || fail "$test: the rule is not said"
status=0
"$bench" replay --trace "$work/good.jsonl" --attach "/nope-$$" >"$work/report" 2>"$work/error" || status=$?
((status == 1)) || fail "$test: exit status $status for a broker that is not there"
grep -qF "start stokerd --name /nope-$$" "$work/error" || fail "$test: it does not say what to do"

test="sizes that the broker refuses are wrong usage"
for options in "--l1 1K" "--l1 900T" "--disk 900T"; do
	# shellcheck disable=SC2086 # they are several
	replay 2 --requests 1 $options
	[[ ! -s $work/report ]] || fail "$test: $options has a report"
	grep -q 'cannot be' "$work/error" || fail "$test: nothing is said of $options"
done

test="a setting that the broker refuses ends the bench"
replay 2 --requests 1 --set arena.policy=best
