#!/usr/bin/env bash
# Every command of stoker-bench on a small scale: its fields are there, and nothing is left behind.
set -euo pipefail

# shellcheck disable=SC2154 # the harness says where the trees are
bench=$top_builddir/stoker-bench
# shellcheck disable=SC2154
trace=$top_srcdir/data/mooncake_conversation_2000.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	printf 'FAIL %s\n' "$*"
	[[ ! -s $work/error ]] || sed 's/^/    /' "$work/error"
	exit 1
}

# A value of the last report, and whether it has one: null only with a reason.
field() { sed -n "s/^  \"$1\": \([^,]*\),*$/\1/p" "$work/report"; }
check_field() {
	local value
	value=$(field "$1")
	[[ -n $value ]] || fail "$command: there is no field $1"
	if [[ $value == null ]]; then
		grep -q "\"skipped\": \".*$1: " "$work/report" || fail "$command: $1 is null without a reason"
	fi
}

# run COMMAND "FIELDS" OPTION...
run() {
	command=$1
	local fields="schema version commit cpu cores kernel date_utc $2" name
	shift 2
	TMPDIR=$work "$bench" "$command" --format json "$@" >"$work/report" 2>"$work/error" ||
		fail "$command: exit status $?"
	grep -q "^  \"command\": \"$command\"" "$work/report" || fail "$command: the report is not its own"
	grep -q '^  "parameters": {' "$work/report" || fail "$command: the report has no parameters"
	for name in $fields; do
		check_field "$name"
	done
	[[ -z $(find "$work" -mindepth 1 -name 'stoker-bench*') ]] || fail "$command: it left something behind"
}

positive() { [[ $(field "$1") != null && $(field "$1") != 0 && $(field "$1") != 0.0 ]] || fail "$command: $1 is $(field "$1")"; }

run rtt "floor_ns_p50 floor_ns_p99 noop_ns_p50 noop_ns_p99 poll_ns_p50 pipe_ns_p50 wake_ns_p50" --rounds 2

run lookup "lookup_ns_p50 lookup_ns_p99 lookups_per_s bare_probe_ns_p50 floor_ns_p50 fairness" \
	--objects 4000 --keys 4 --clients 3 --shards 2 --seconds 1
positive lookups_per_s
positive fairness
run lookup "lookup_ns_p50 lookup_ns_p99" --objects 4000 --keys 100 --seconds 1 --hit-share 0.5

run index keys_per_s --objects 10000 --seconds 1
positive keys_per_s

run disk "read_bytes_per_s fio_bytes_per_s wrong_bytes" --object-size 256K --data 32M --set arena.extent=8M
positive read_bytes_per_s
[[ $(field found_objects) == "$(field objects)" ]] ||
	fail "disk: $(field found_objects) of $(field objects) objects were found again"
(($(field disk_reads) >= $(field objects))) || fail "disk: not all objects came from disk"

run copy "retrieve_bytes_per_s store_bytes_per_s memcpy_bytes_per_s wrong_bytes" \
	--object-size 64K --rounds 3 --transfer 2M --set arena.extent=8M
positive retrieve_bytes_per_s
positive store_bytes_per_s

# Without a driver every figure is null, with the reason; with one, see test-gpu-check.
run gpu "device driver_version ways latency_4k_ns_p50 bare_4k_ns_p50 latency_16m_ns_p50 bare_16m_ns_p50 points
	two_workers_load_bytes_per_s two_workers_store_bytes_per_s bounced_bytes wrong_bytes" \
	--library /nowhere/libcuda.so --transfer 1M --arena 64M --set arena.extent=8M
[[ $(field device) == null ]] || fail "gpu: it found a device where there is no driver"
[[ $(field wrong_bytes) == null ]] || fail "gpu: it says how many bytes were wrong where none was compared"

# Every reason is there, however long, and text that is no UTF-8 is told as far as it goes.
library=/nowhere/$(printf 'x%.0s' {1..170})$'\xff'
run gpu "wrong_bytes two_workers_store_bytes_per_s" --library "$library" --transfer 1M --arena 64M --set arena.extent=8M
grep -q '"skipped": ".*two_workers_store_bytes_per_s: .*bounced_bytes: ' "$work/report" || fail "gpu: not all reasons are told"
grep -q '"library": "/nowhere/xx*[?]"' "$work/report" || fail "gpu: the library is not told"
status=0
"$bench" gpu --progress /nowhere/progress >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "gpu: exit status $status for a file of progress that cannot be"

run start "first_answer_ns populate_bytes_per_s lookup_ns_p99_during lookup_ns_p99_after" --memory 192M
positive first_answer_ns

run restart "warm_answer_ns cold_answer_ns cold_entries_per_s wrong_bytes" --objects 20000 --rounds 1
positive warm_answer_ns
positive cold_answer_ns
for name in warm_objects cold_objects; do
	[[ $(field $name) == 20000 ]] || fail "restart: $name is $(field $name) of 20000"
done
# A table of few entries is read too soon for a rate.
run restart cold_entries_per_s --objects 300 --object-size 64 --rounds 1
[[ $(field cold_entries_per_s) == null && $(field warm_objects) == 300 && $(field cold_objects) == 300 ]] ||
	fail "restart: 300 objects have a rate, or were not all found"

# What does not come back is told: here a part of the slab table is gone by the third start, the cold one.
cat >"$work/forgetful" <<END
#!/bin/sh
echo start >>"$work/starts"
if [ "\$(wc -l <"$work/starts")" -eq 3 ]; then
	tier=\${1#--tier=}
	truncate -s \$((4096 + 128 * 3700)) "\${tier%:*}/stoker-slabs"
fi
exec "$(realpath "$top_builddir/stokerd")" "\$@"
END
chmod +x "$work/forgetful"
status=0
TMPDIR=$work "$bench" restart --format json --objects 4000 --stokerd "$work/forgetful" >"$work/report" 2>"$work/error" || status=$?
((status == 1)) || fail "restart: exit status $status for objects that were lost"
[[ $(field lost_objects) == 300 && $(field warm_objects) == 4000 && $(field cold_objects) == 3700 ]] ||
	fail "restart: $(field lost_objects) objects are called lost instead of 300"
grep -q '300 objects were not found again' "$work/error" || fail "restart: a loss is not told in words"
status=0
TMPDIR=$work "$bench" restart --objects 20000 --set arena.size=64M >"$work/report" 2>"$work/error" || status=$?
((status == 1)) || fail "restart: exit status $status without room for all objects"
grep -q 'take fewer --objects' "$work/error" || fail "restart: it does not say what to do without room"

run idle cpu_share --clients 5 --seconds 1
[[ $(field attached_clients) == 5 ]] || fail "idle: $(field attached_clients) clients were attached"

# A broker that was there before: it stores in every run, and is left as it was.
mkdir -m 700 "$work/own"
name=/stoker-test-bench-$$
"$top_builddir/stokerd" --name "$name" --memory 192M --set arena.extent=8M --set "broker.runtime_directory=$work/own" \
	--set "broker.state_directory=$work/own" >"$work/said" 2>&1 &
broker=$!
trap 'kill -KILL $broker 2>/dev/null; rm -rf "$work" /dev/shm"$name" /dev/shm"$name".*' EXIT
for _ in $(seq 600); do
	grep -q ready "$work/said" && break
	sleep 0.05
done
cores() { grep -h Cpus_allowed_list /proc/$broker/task/*/status | sort -u; }
before=$(cores)
run rtt noop_ns_p50 --rounds 1 --attach "$name"
[[ $(cores) == "$before" ]] || fail "rtt: the broker that it attached to stays pinned"
for copies in 4 8; do
	run copy store_bytes_per_s --object-size 64K --transfer 64K --rounds 3 --attach "$name"
	stored=$("$top_builddir/stokerctl" --name "$name" --json stat | sed -n 's/.*"chunks_stored": \([0-9]*\).*/\1/p')
	((stored == copies + 1)) || fail "copy: $stored chunks were stored at the end of a run, not $((copies + 1))"
done
run idle cpu_share --clients 2 --seconds 1 --attach "$name"
# A page of another uid is believed by every command that is told so: then it is the socket that does not fit.
if [[ $(id -u) == 0 ]]; then
	chown 4321 /dev/shm"$name"
	for command in "idle --seconds 1" "copy --rounds 1" "rtt --rounds 1" \
		"gpu --library $top_builddir/tests/fake-cuda/.libs/libcuda-fake.so --transfer 1M --arena 64M"; do
		read -ra words <<<"$command"
		FAKE_CUDA_DIR=$work "$bench" "${words[@]}" --attach "$name" --broker-uid 4321 >"$work/report" 2>"$work/error" || :
		grep -q 'belongs to uid 4321 and its socket to uid 0' "$work/error" || fail "$command: --broker-uid is not heard"
	done
	chown 0 /dev/shm"$name"
fi
# One that dies is no quiet one.
(
	for _ in $(seq 600); do
		"$top_builddir/stokerctl" --name "$name" status | grep -q ' 2 clients' && break
		sleep 0.05
	done
	sleep 1
	kill -KILL $broker
) &
status=0
"$bench" idle --clients 2 --seconds 6 --attach "$name" --format json >"$work/report" 2>"$work/error" || status=$?
((status == 1)) || fail "idle: exit status $status though the broker died"
[[ $(field cpu_share) == null ]] || fail "idle: a broker that died has a share of $(field cpu_share)"
rm -f /dev/shm"$name" /dev/shm"$name".*
trap 'rm -rf "$work"' EXIT

# Of killed workers nothing is left; and where something is, that is told.
left="left_descriptors left_mapped_bytes left_files left_clients left_pools left_jobs left_leases left_pinned_bytes"
run kill "kills killed_attaching killed_looking_up killed_retrieving killed_storing reclaim_ns_p50 reclaim_ns_p99
	reclaims_above_1s $left grown_private_bytes verified_bytes wrong_bytes" --kills 30 --clients 2 --object-size 64K
[[ $(field kills) == 30 ]] || fail "kill: $(field kills) workers were killed"
(($(field killed_attaching) + $(field killed_looking_up) + $(field killed_retrieving) + $(field killed_storing) == 30)) ||
	fail "kill: not every worker was killed at something"
positive killed_attaching
positive reclaim_ns_p50
positive verified_bytes
for name in $left wrong_bytes; do
	[[ $(field "$name") == 0 ]] || fail "kill: $name is $(field "$name")"
done

# A broker with a file more than it had before several clients were there.
cat >"$work/stokerd" <<-TEXT
	#!/usr/bin/env bash
	for word; do
		[[ \$word != --set=broker.runtime_directory=* ]] || runtime=\${word#*=*=}
	done
	while kill -0 \$\$ 2>/dev/null; do
		if ((\$(grep -o 'stoker-bench-pool-[0-9]*' /proc/\$\$/maps | sort -u | wc -l) > 1)); then
			: >"\$runtime/left"
			break
		fi
		sleep 0.01
	done >/dev/null 2>&1 &
	exec "$top_builddir/stokerd" "\$@"
TEXT
chmod +x "$work/stokerd"
status=0
TMPDIR=$work "$bench" kill --kills 30 --clients 2 --object-size 64K --stokerd "$work/stokerd" --format json \
	>"$work/report" 2>"$work/error" || status=$?
((status == 1)) || fail "kill: exit status $status though a file was left"
[[ $(field left_files) == 1 && $(field left_descriptors) == 0 ]] || fail "kill: $(field left_files) files are left"
grep -q 'left_files is 1' "$work/error" || fail "kill: nothing is said of the file that is left"
status=0
"$bench" kill --attach /nobody >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "kill: exit status $status with --attach"

# What a capacity above all unique blocks keeps is what an unbounded cache would.
run policy requests --trace "$trace" --requests 500 --capacity 5%,100% --policy lru,arc
lines=$(grep -c '"hit_ratio":' "$work/report") || :
((lines == 4)) || fail "policy: $lines results instead of 4"
whole=$(field hit_ratio_unbounded)
(($(grep -c "\"hit_ratio\": ${whole%0}" "$work/report") == 2)) ||
	fail "policy: with room for all the hit ratio is not $whole"

# What both keep under pressure is the same, object for object: policy decides as the broker does,
# also where an arena is smaller than an extent usually is.
for policy in lru arc; do
	run policy requests --trace "$trace" --requests 500 --object-size 12K --capacity 30M --policy "$policy"
	hits=$(sed -n 's/^ *"hits": \([0-9]*\).*/\1/p' "$work/report")
	run replay hits_l1 --trace "$trace" --requests 500 --object-size 12K --l1 30M \
		--set "arena.policy=$policy" --set arena.refill_permille=0
	((hits > 0 && ($(field hits_l1) - hits) ** 2 <= 4)) ||
		fail "$policy: policy hits $hits, replay $(field hits_l1)"
done

# The table to read, and the way to it.
"$bench" index --objects 1000 --seconds 1 >"$work/report" 2>"$work/error" || fail "index: exit status $?"
grep -q '^  keys_per_s  *[0-9]' "$work/report" || fail "the table has no keys_per_s"
"$bench" --help >"$work/report"
for command in replay rtt lookup index disk copy policy start restart idle kill gpu; do
	grep -q "^  $command " "$work/report" || fail "--help does not name $command"
	"$bench" "$command" --help | grep -q '^  --format' || fail "$command --help does not list its options"
done
# What was printed and did not arrive is a failure.
printf '{"timestamp": 1, "hash_ids": [1, 2, 3, 4]}\n' >"$work/trace"
for command in "policy --trace $work/trace --capacity 100%" "policy --trace $work/trace --capacity 100% --format json" \
	--help --version "index --help"; do
	read -ra words <<<"$command"
	for how in full closed pipe; do
		status=0
		case $how in
		full) "$bench" "${words[@]}" >/dev/full 2>"$work/error" || status=$? ;;
		closed) "$bench" "${words[@]}" >&- 2>"$work/error" || status=$? ;;
		pipe)
			{
				sleep 0.1
				"$bench" "${words[@]}" 2>"$work/error" || status=$?
				echo $status >"$work/status"
			} | :
			status=$(cat "$work/status")
			;;
		esac
		((status == 1)) || fail "$command: exit status $status with its stdout $how"
		grep -q 'could not write' "$work/error" || fail "$command: nothing is said with its stdout $how"
	done
done
status=0
"$bench" nothing >"$work/report" 2>"$work/error" || status=$?
((status == 2)) || fail "exit status $status for a command that does not exist"
