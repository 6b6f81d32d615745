#!/bin/sh
# stokerd's command line and configuration file: what is refused, with which words, and that nothing is
# left behind by it. And what a start that fails at run time says.
set -u

stokerd=${top_builddir:?}/stokerd
name=/stoker-test-cli-$$
dir=$(mktemp -d)
failed=0
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null; rm -rf "$dir" "/dev/shm$name" "/dev/shm$name.arena" "/dev/shm$name.table"' EXIT

complain()
{
	echo "$*"
	cat "$dir/out" "$dir/err"
	failed=1
}

# run ARGUMENT...: with private directories; the exit code is in $got
run()
{
	"$stokerd" --set broker.runtime_directory="$dir/run" --set broker.state_directory="$dir/state" "$@" \
		>"$dir/out" 2>"$dir/err"
	got=$?
}

# refuse CODE TEXT ARGUMENT...: it ends at once, with CODE, says TEXT, and nothing on stdout
refuse()
{
	code=$1 text=$2
	shift 2
	run "$@"
	[ $got = "$code" ] || complain "stokerd $*: exit $got instead of $code"
	grep -qF -- "$text" "$dir/err" || complain "stokerd $*: does not say \"$text\""
	[ ! -s "$dir/out" ] || complain "stokerd $*: a refusal wrote to stdout"
}

# ---- options

refuse 2 "unrecognized option '--frob'" --frob
refuse 2 'the command line is not understood: see stokerd --help' --frob
refuse 2 "option '--name' requires an argument" --name
refuse 2 'argument "status" is not understood: see --help' status
for bad in /a/b stoker / '' /a//b "/a b" "/$(printf '%065d' 0)"; do
	refuse 2 "broker.name cannot be \"$bad\": allowed is / and 1 to 64 of [A-Za-z0-9._-]" --name "$bad"
done
refuse 2 'broker.name cannot be "/..": allowed is / and 1 to 64 of [A-Za-z0-9._-], but not /. and /..' --name /..
# These would be files in /dev/shm of the broker that has the name before the point.
for bad in /a.arena /a.table /a.new; do
	refuse 2 "broker.name cannot be \"$bad\": a broker named /a has files of that name; choose another ending" --name "$bad"
done
for bad in 0 -1 lots 64X 1.5G 110% 0% 18446744073709551616 ''; do
	refuse 2 "--memory: arena.size cannot be \"$bad\": allowed is a size above 0, as 64K, 2G or 10%" --memory "$bad"
done
refuse 2 'arena.size (--memory) cannot be 1 KiB: allowed is one extent (64 MiB) and more' --memory 1K
refuse 2 'arena.size (--memory) cannot be 900 TiB: this machine has ' --memory 900T
refuse 2 '--log-level: broker.log_level cannot be "loud": allowed is error, warning, info or debug' --log-level loud

refuse 2 "--tier $dir: must be PATH:SIZE, as /var/cache/stoker:100G" --tier "$dir"
refuse 2 '--tier :1G: must be PATH:SIZE' --tier :1G
refuse 2 "--tier $dir:0: tier disk0.size cannot be \"0\": allowed is a size above 0" --tier "$dir:0"
refuse 2 'tier disk0: size cannot be "1K": allowed is a size of one extent (64 MiB) and more' --tier "$dir:1K"
refuse 2 "tier disk0: size cannot be \"8000T\": the file system of $dir/tier has " --tier "$dir/tier:8000T"
refuse 2 'tier disk0: path /dev/null is neither a directory nor a block device: name one' --tier /dev/null:1G
refuse 2 "tiers disk0 and disk1 have one path, $dir/t: give each a directory of its own" \
	--memory 64M --tier "$dir/t:64M" --tier "$dir/t:64M"

# ---- --set

refuse 2 '--set arena.size: must be SECTION.KEY=VALUE, as arena.policy=lru or tier.disk0.size=20G' --set arena.size
refuse 2 '--set =1: must be SECTION.KEY=VALUE' --set =1
refuse 2 'there is no section "aren": broker, arena, disk, gpu, limits, tenant NAME and tier NAME are known' --set aren.size=1G
refuse 2 'section arena has no key "sizee": it has size, extent, policy, ' --set arena.sizee=1G
refuse 2 '--set arena.policy=fifo: arena.policy cannot be "fifo": allowed is lru or arc' --set arena.policy=fifo
refuse 2 'arena.extent cannot be "0": allowed is a size from 64 KiB to 1 GiB' --set arena.extent=0
refuse 2 'broker.threads cannot be "65": allowed is a number from 1 to 64' --set broker.threads=65
refuse 2 'disk.ios cannot be "many": allowed is a number from 16 to 65536' --set disk.ios=many
refuse 2 'disk.write_back cannot be "maybe": allowed is yes or no' --set disk.write_back=maybe
refuse 2 'tenant a.uids cannot be "no-such-user-here": allowed is up to 32 known names or numbers, or *' \
	--set tenant.a.uids=no-such-user-here
refuse 2 'tenant a names neither uids nor gids: nobody could ever belong to it' --set tenant.a.trusted=yes
refuse 2 '"tier a/b" is no section: write [tier NAME], with up to 31 of [A-Za-z0-9._-]' --set tier.a/b.size=1G
refuse 2 'tier x has no path: give it both path and size' --set tier.x.size=1G
refuse 2 'limits.lease_ms is above limits.lease_max_ms: a default cannot exceed its maximum' \
	--set limits.lease_ms=3000 --set limits.lease_max_ms=2000

refuse 2 'tenants a and b both name uid 77: name it in one of them' --set tenant.a.uids=77 --set tenant.b.uids=77

# ---- a file

# file TEXT MESSAGE: a configuration file of TEXT is refused with its name and MESSAGE
file()
{
	printf '%b' "$1" >"$dir/stoker.conf"
	refuse 2 "$dir/stoker.conf$2" --check-config --config "$dir/stoker.conf"
}

file '[arena]\n\nsize = lots\n' ':3: arena.size cannot be "lots": allowed is a size above 0, as 64K, 2G or 10%'
file '[arena]\nsize = 0\n' ':2: arena.size cannot be "0"'
file '# fine\n[arena]\npolcy = lru\n' ':3: section arena has no key "polcy": it has size, extent, policy'
file '[arenas]\nsize = 1G\n' ':1: there is no section "arenas"'
file '[broker]\nthreads\n' ':2: neither [SECTION] nor KEY = VALUE nor a comment (#)'
file '[broker]\nthreads = 1\nthreads = 2\n' ':3: broker.threads is given twice'
file '[tier]\npath = /tmp\n' ':1: "tier" is no section: write [tier NAME]'
file "[broker]\nname = $(printf '%0300d' 0)\n" ':2: the line is too long: 198 bytes are allowed'
file '# no section yet\nsize = 1G\n' ':2: the key "size" stands before any section: write a line [SECTION] above it; broker, '
file '[]\nsize = 1G\n' ':1: there is no section ""'
file '[nosuch]\n' ':1: there is no section "nosuch"'
file '[broker]\n[arena\nsize = 1G\n' ':2: the section'"'"'s name is not closed: write [SECTION]'
file '[arena]\nsize = 1G\0\n' ':2: there is a NUL byte'
refuse 2 "configuration file $dir/absent could not be opened: No such file or directory" --config "$dir/absent"
refuse 2 "$dir:0: could not be read: Is a directory" --config "$dir"

# The command line goes before the file; what is checked is printed as a file that says the same.
printf '[arena]\nsize = 64M\npolicy = lru\n[tier fast]\npath = %s/fast\nsize = 64M\n' "$dir" >"$dir/stoker.conf"
run --check-config --memory 128M --config "$dir/stoker.conf" --name "$name"
[ $got = 0 ] || complain "--check-config of a good file: exit $got"
for line in '[broker]' "name = $name" '[arena]' 'size = 134217728' 'policy = lru' '[tier fast]' "path = $dir/fast"; do
	grep -qxF -- "$line" "$dir/out" || complain "--check-config does not print \"$line\""
done
cp "$dir/out" "$dir/printed.conf"
run --check-config --config "$dir/printed.conf"
cmp -s "$dir/out" "$dir/printed.conf" || complain 'what --check-config prints does not say the same when it is read'

# All that was refused or checked has left nothing.
for left in "$dir/run" "$dir/state" "$dir/t" "$dir/fast" "$dir/tier" "/dev/shm$name"; do
	[ ! -e "$left" ] || complain "$left is there, and nothing was ever started"
done

# ---- what is printed and does not arrive

: >"$dir/out"
for option in --help --version --check-config; do
	"$stokerd" $option >/dev/full 2>"$dir/err"
	got=$?
	[ $got = 1 ] || complain "stokerd $option onto a full disk: exit $got instead of 1"
	grep -qF 'could not write to standard output: No space left on device' "$dir/err" ||
		complain "stokerd $option onto a full disk: does not say so"
done

# ---- at run time

small="--memory 8M --set arena.extent=4M"
: >"$dir/file"
# shellcheck disable=SC2086
refuse 1 "$dir/file is not a directory of uid " $small --name "$name" --set broker.runtime_directory="$dir/file"
# shellcheck disable=SC2086
refuse 1 "$dir/file" $small --name "$name" --set broker.state_directory="$dir/file/state"
long=$dir/$(printf '%0150d' 0)
# shellcheck disable=SC2086
refuse 2 "name a shorter broker.runtime_directory than $dir" $small --name "$name" --set broker.runtime_directory="$long"

# What is not ours under the arena's names is found before "ready" is said, and stays as it is.
for end in arena table; do
	mkfifo "/dev/shm$name.$end"
	# shellcheck disable=SC2086
	refuse 1 "/dev/shm$name.$end is no regular file; remove it" $small --name "$name"
	rm "/dev/shm$name.$end"
	[ "$(id -u)" = 0 ] || continue
	: >"/dev/shm$name.$end"
	chown 64103 "/dev/shm$name.$end"
	# shellcheck disable=SC2086
	refuse 1 "/dev/shm$name.$end belongs to uid 64103" $small --name "$name"
	[ -e "/dev/shm$name.$end" ] || complain "$name.$end of another uid was removed"
	rm -f "/dev/shm$name.$end"
	[ ! -e "/dev/shm$name" ] || complain 'a refused start left its control page'
done

# A name in use is told before anything of the one that has it is touched.
mkfifo "$dir/ready"
# shellcheck disable=SC2086
"$stokerd" $small --name "$name" --set broker.runtime_directory="$dir/run" --set broker.state_directory="$dir/state" \
	--log-level warning >"$dir/ready" 2>"$dir/log" &
broker=$!
read -r line <"$dir/ready"
[ "$line" = "ready $name" ] || complain "it says \"$line\" and not \"ready $name\""
# shellcheck disable=SC2086
refuse 3 "the name $name is in use: pid $broker holds $dir/run/private/${name#/}.lock; stop that broker" $small --name "$name"
"$top_builddir/stokerctl" --name "$name" ping >/dev/null 2>"$dir/err" || complain 'the broker that has the name does not answer'
kill "$broker"
wait "$broker"
got=$?
broker=
[ $got = 0 ] || complain "after TERM: exit $got"
[ ! -s "$dir/log" ] || { cat "$dir/log"; complain 'a start and an end that went well had warnings'; }

exit $failed
