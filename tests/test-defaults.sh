#!/bin/sh
# What the manual says of a stokerd without any option or file, and the example of stoker.conf(5): both as a reader would
# take them. The defaults are a machine's own (/stoker, /run/stoker, /var/lib/stoker, a quarter of its memory), so they are
# tried in a namespace of mounts where these are empty and small.
set -u
top_builddir=${top_builddir:-.}
failed=0

complain()
{
	echo "$*"
	failed=1
}

# ---- inside: stokerd and stokerctl are in $1, and all else is empty

# broker COMMAND...: start it and wait until it says "ready /stoker"
broker()
{
	: >"$dir/out"
	"$@" >"$dir/out" 2>"$dir/err" &
	broker=$!
	tries=0
	until grep -qx 'ready /stoker' "$dir/out"; do
		tries=$((tries + 1))
		if [ $tries -gt 300 ] || ! kill -0 $broker; then
			cat "$dir/out" "$dir/err"
			complain "$*: it does not say \"ready /stoker\""
			exit 1
		fi
		sleep 0.1
	done
}

# serves UID RUNTIME STATE: what a default broker shows, and that it ends as it is told
serves()
{
	"$dir/stokerctl" ping >/dev/null || complain 'stokerctl without --name does not find it'
	tries=0
	until "$dir/stokerctl" --json status >"$dir/status" && grep -q '"state": "serving"\|"state": "degraded"' "$dir/status"; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || { complain 'it does not come to serve'; break; }
		sleep 0.1
	done
	grep -q '"name": "/stoker"' "$dir/status" || complain 'its name is not /stoker'
	grep -q '"tiers": \[ *\]' "$dir/status" || complain 'it has a tier'
	[ "$(stat -c '%u %a' "$2")" = "$1 755" ] || complain "$2 is $(stat -c '%u %a' "$2")"
	[ -S "$2/stoker.sock" ] || complain "$2 has no socket"
	[ -d "$3" ] || complain "there is no $3"
	[ "$(stat -c '%u %a' /dev/shm/stoker.arena)" = "$1 600" ] || complain 'the arena can be had by name'
	"$dir/stokerctl" stop >/dev/null || complain 'it could not be stopped'
	wait $broker
	got=$?
	[ $got = 0 ] || { complain "it ended with $got"; cat "$dir/err"; }
	rm -f /dev/shm/stoker*
}

inside()
{
	dir=$1
	cd / || exit 1
	broker env -i "$dir/stokerd"
	# A quarter of the memory, or what the small /dev/shm can hold: told, with the reason.
	grep -q 'arena' "$dir/err" || complain 'that the arena is cut is not told'
	serves 0 /run/stoker /var/lib/stoker

	# Somebody else than root has directories of his own.
	if setpriv --reuid=64101 --regid=64101 --clear-groups true 2>/dev/null; then
		mkdir -m 777 /run/home
		broker setpriv --reuid=64101 --regid=64101 --clear-groups env -i HOME=/run/home "$dir/stokerd"
		serves 64101 /tmp/stoker-64101 /run/home/.local/state/stoker
	fi
	exit $failed
}

[ "${1-}" != inside ] || inside "$2"

# ---- outside

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# The example, with names, sizes and a path that this machine has.
sed -n '/^\.Bd -literal/,/^\.Ed$/p' "$top_builddir/man/stoker.conf.5" | sed '1d;$d' >"$dir/example.conf"
grep -q '^\[tenant team-b\]$' "$dir/example.conf" || complain 'stoker.conf(5) has no example'
sed -e 's/= 64G/= 64M/' -e 's/= 40G/= 40M/' -e 's/= 1T/= 128M/' -e 's/= serving/= daemon/' -e 's/= operator/= root/' \
	-e "s|/mnt/nvme|$dir|" "$dir/example.conf" >"$dir/stoker.conf"
[ "$(diff "$dir/example.conf" "$dir/stoker.conf" | grep -c '^>')" = 6 ] || complain 'the example is another one than was expected'
if "$top_builddir/stokerd" --check-config --config "$dir/stoker.conf" >"$dir/printed" 2>"$dir/err"; then
	for line in 'name = /stoker' 'size = 67108864' '[tenant team-a]' 'arena_quota = 41943040' '[tenant team-b]' \
		'[tier disk0]' "path = $dir/stoker"; do
		grep -qxF -- "$line" "$dir/printed" || complain "--check-config of the example does not print \"$line\""
	done
	grep -q '^uids = 1001[, ]*1002$' "$dir/printed" || complain 'the uids of team-a are not those of the example'
else
	cat "$dir/err"
	complain 'the example of stoker.conf(5) is refused'
fi

case $(realpath "$top_builddir") in
/run/* | /dev/shm/* | /var/lib/*) hidden=yes ;;
*) hidden=no ;;
esac
# shellcheck disable=SC2016	# the inner shell expands these
enter='
	set -e
	script=$(realpath "$0") build=$(realpath "$1")
	mount -t tmpfs -o mode=755,size=64M tmpfs /run
	mkdir -m 777 /run/test
	cp "$script" /run/test/script
	cp "$build/stokerd" "$build/stokerctl" /run/test
	mount -t tmpfs -o mode=1777,size=320M tmpfs /dev/shm
	mount -t tmpfs tmpfs /var/lib
	mount -t tmpfs -o mode=1777 tmpfs /tmp
	exec sh /run/test/script inside /run/test'
if [ $hidden = no ] && unshare --mount --map-root-user true 2>/dev/null; then
	as=--map-root-user
	[ "$(id -u)" != 0 ] || as=--propagation=private
	unshare --mount $as sh -c "$enter" "$0" "$top_builddir" || failed=1
elif [ $failed = 0 ]; then
	echo 'the defaults are tried in a namespace of mounts, which is not to be had here'
	exit 77
fi
exit $failed
