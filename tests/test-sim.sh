#!/bin/sh
# The engine in simulated worlds: fixed seeds, one of them twice and the same bit for bit, which come to all corners
# that have an oracle; planted bugs, each of which must be found, and none where none is planted; and fresh seeds for
# as long as there is time (STOKER_SIM_SECONDS, default 15).
set -eu
sim=${top_builddir:-.}/tests/sim

"$sim" --twice --seed 1 --steps 20000
"$sim" --seed 2 --worlds 40 --steps 15000 --cover
for bug in blind-verify late-copy lost-done stray-read trust-header short-copy hasty-progress lost-read kept-promise \
	ready-ignored early-reap kept-import forgotten-copies failed-store failed-load done-twice wrong-gpu; do
	"$sim" --seed 7 --steps 10000 --plant "$bug"
done
if "$sim" --seed 7 --steps 1500 --plant nothing; then
	echo "the planted bugs are found where none is planted" >&2
	exit 1
fi
"$sim" --seconds "${STOKER_SIM_SECONDS:-15}" --steps 20000
