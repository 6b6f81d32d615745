#!/bin/sh
# scripts/gpu-check from its first line to its last, on the fake driver: what it would do on a machine with a GPU. The
# figures that come of it are the fake's, and nobody's.
set -eu
top_builddir=${top_builddir:-.}
top_srcdir=${top_srcdir:-.}
fake=$top_builddir/tests/fake-cuda/.libs/libcuda-fake.so
if ! test -e "$fake"; then
	echo "there is no library of the fake driver (--disable-shared)"
	exit 77
fi
if ! command -v timeout >/dev/null; then
	echo "timeout is not installed"
	exit 77
fi
if grep -q '^#define STOKER_SANITIZE_THREAD 1' "$top_builddir/config.h" 2>/dev/null; then
	echo "it takes some ten minutes under ThreadSanitizer, which sees its parts in test-cuda-*"
	exit 77
fi
work=$(mktemp -d)
FAKE_CUDA_DIR=$(mktemp -d /dev/shm/stoker-gpu-check-XXXXXX)
export FAKE_CUDA_DIR
trap 'rm -rf "$work" "$FAKE_CUDA_DIR"' EXIT

fail() {
	echo "$*"
	cat "$work/said" "$work/out/errors.txt" "$work/out/stokerd.log" 2>/dev/null || :
	exit 1
}

check() {
	TMPDIR=$work "$top_srcdir/scripts/gpu-check" --programs "$top_builddir" --out "$work/out" --library "$fake" \
		--seconds 120 "$@" >"$work/said" 2>&1
}

check --quick --kills 8 || fail "gpu-check failed on the fake driver"
for line in 'works    legacy-ipc' 'works    batch-copy' 'ok      roundtrip plain: a stream waits for a retrieve' \
	'ok      roundtrip segments: many at once' 'ok      faults: 8 workers killed' 'ok      faults: 1 copiers killed' \
	'ok      bench, memory plain'; do
	grep -q "^$line" "$work/out/report.txt" || fail "the report lacks \"$line\""
done
grep -q ' 0 failed, 0 skipped,' "$work/out/report.txt" || fail "the report does not say that all was ok"
grep -q '"direction": "both"' "$work/out/bench-plain.progress" || fail "the bench's progress was not written"
grep -q '"device": "Fake GPU 0"' "$work/out/bench-plain.json" || fail "the bench does not say whose its figures are"
# What goals are about is measured first, and no point uses up the time of the others.
"$top_builddir/stoker-bench" gpu --library "$fake" --transfer 4M --arena 128M --set arena.extent=8M --round-ms 60000 \
	--budget 1 --progress "$work/progress" --format json >"$work/json" 2>"$work/said" || fail "stoker-bench gpu failed"
first=$(grep -m 1 '"block_bytes"' "$work/progress")
case $first in
*'"block_bytes": 262144,'*'"rounds": '[0-9],* | *'"block_bytes": 262144,'*'"rounds": '[0-9][0-9],*) ;;
*) fail "the first point of a bench without time is $first" ;;
esac
if grep -q '"two_workers_load_bytes_per_s": null' "$work/json"; then fail "two workers were not measured"; fi

if ls "$FAKE_CUDA_DIR"/abort-* 2>/dev/null; then fail "the fake driver aborted: $(cat "$FAKE_CUDA_DIR"/abort-*)"; fi

# What a sandbox refuses skips what stands on it, and that is seen. A container's /dev/shm is small.
FAKE_CUDA_LACKS=ipc,stream-values,batch check --quick --kills 4 --shm 64 || fail "gpu-check failed where much is refused"
grep -q '^refused  legacy-ipc' "$work/out/report.txt" || fail "legacy IPC was not refused"
grep -q '^skipped all of memory "plain": legacy-ipc' "$work/out/report.txt" || fail "plain memory was not skipped"
grep -q '^ok      roundtrip segments: K and V' "$work/out/report.txt" || fail "segments were not tried"

# No memory to try anything in is a skip, and so is no GPU.
status=0
check --quick --shm 40 || status=$?
test $status -eq 77 || fail "exit status $status where /dev/shm has no room for an arena"
grep -q '^skipped everything else: /dev/shm has 40 MiB' "$work/out/report.txt" || fail "a /dev/shm without room is not told"
status=0
FAKE_CUDA_DEVICES=0 check --quick || status=$?
test $status -eq 77 || fail "exit status $status where there is no GPU"
