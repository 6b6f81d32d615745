#!/bin/sh
# The engine in simulated worlds: fixed seeds, each run twice and the same bit for bit; planted bugs, each
# of which must be found; and fresh seeds for as long as there is time (STOKER_SIM_SECONDS, default 15).
set -eu
sim=${top_builddir:-.}/tests/sim

"$sim" --twice --seed 1 --steps 20000
for seed in 2 3 4 5 8 12; do
	"$sim" --seed "$seed" --steps 20000
done
for bug in blind-verify late-copy lost-done; do
	"$sim" --seed 7 --steps 30000 --plant "$bug"
done
"$sim" --seconds "${STOKER_SIM_SECONDS:-15}" --steps 20000
