#!/usr/bin/env bash
# Every script of the tree is free of what shellcheck knows to be wrong.
set -euo pipefail

if ! command -v shellcheck >/dev/null; then
	echo "shellcheck is not installed"
	exit 77
fi
cd "${top_srcdir:?}"
mapfile -t scripts < <(grep -lE '^#!.*(bash|/bin/sh)' -r .ci scripts tests)
((${#scripts[@]}))
shellcheck "${scripts[@]}"
