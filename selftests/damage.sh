#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: damage.sh [--pm] [CASE...]
#
# What phttpd makes of a store after kill -9, on a full disk, and when somebody has damaged its files: a clear refusal that
# changes nothing, or all that is whole and nothing else. Without a VM or the module, with epoll and ordinary files. --pm: in a
# VM with --pm, on persistent memory, with zero copy. Each case is a function t_NAME. One TAP line each.

set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$here")
phttpd=$tree/build/tools/phttpd

# In namespaces of our own: for the ports, and to mount a small file system.
if [ -z "${DAMAGE_ISOLATED:-}" ]; then
	export DAMAGE_ISOLATED=no
	if unshare --net --mount true 2> /dev/null; then
		DAMAGE_ISOLATED=yes exec unshare --net --mount "$0" "$@"
	fi
fi
[ "$DAMAGE_ISOLATED" = no ] || ip link set lo up

port=20100 # below the ports that clients get: one of these in TIME_WAIT is in use for a server
way=()    # options that every server gets
rounds=10 # of random damage

fail() {
	echo "$*" > "$work/reason"
	exit 1
}

skip() {
	echo "$*" > "$work/reason"
	exit 4
}

# --- servers

# Where the stores of a case are; NAME of a store begins with its kind.
kind_options() {
	case $1 in
	wal*) options=() ;;
	tree*) options=(-B) ;;
	kv*) options=(-k) ;;
	esac
	options+=("${way[@]}" -d "$stores/$1")
}

# serve NAME [OPTION...]: sets server; its port goes to ports.
serve() {
	local name=$1 log=$work/$1.log options
	shift
	kind_options "$name"
	port=$((port + 1))
	: > "$log" # now: what an earlier server had said is not an answer
	"$phttpd" -P $port -L 8 "${options[@]}" "$@" 2> "$log" &
	server=$!
	servers+=("$server")
	ports+=("$name=$port")
	for _ in $(seq 200); do
		! grep -q '^phttpd: port' "$log" || return 0
		[ -d "/proc/$server" ] || break
		sleep 0.05
	done
	fail "phttpd ${options[*]} $* did not start: $(tail -1 "$log")"
}

stop() {
	local pid
	for pid in "${servers[@]}"; do
		kill "$pid"
		wait "$pid" || fail "phttpd ended with $?: $(tail -qn 1 "$work"/*.log)"
	done
	servers=() ports=()
}

# recover_only NAME [OPTION...]: its output is in $work/out; returns its status.
recover_only() {
	local options
	kind_options "$1"
	shift
	timeout 30 "$phttpd" "${options[@]}" --recover-only "$@" > "$work/out" 2> "$work/err"
}

# The client, for all stores that are served. load: until each store has 200, then the servers are killed.
client() {
	"$here/crash_client.py" "$@" "$stores/state" 127.0.0.1 "${ports[@]}" > "$work/client" 2>&1 ||
		fail "$(grep -m 1 '^not ok' "$work/client" || tail -1 "$work/client")"
}

load() {
	local pid kill=()
	for pid in "${servers[@]}"; do
		kill+=(--kill "$pid")
	done
	client --load 200 "${kill[@]}" "$@"
	wait "${servers[@]}"
	servers=() ports=()
}

# Serve what is there and compare it with what was acknowledged. verify NAME [CLIENT OPTION...]
verify() {
	local name=$1
	shift
	case $name in
	wal*)
		recover_only "$name" --dump || [ "$*" = --damaged ] || fail "--recover-only: $(tail -1 "$work/err")"
		set -- --dump "$name=$work/out" "$@"
		;;
	esac
	serve "$name"
	client "$@"
	stop
}

# --- damage

# One store of this kind with some hundred records, kept as it is: made by the first case that wants it, copied for each.
pristine() {
	local name=$1
	rm -rf "${stores:?}"/*
	if [ ! -d "$keep/$name" ]; then
		serve "$name" -p 2
		load
		verify "$name"
		mkdir -p "$keep/$name"
		cp -a "$stores/." "$keep/$name/"
	else
		cp -a "$keep/$name/." "$stores/"
	fi
}

# poke FILE OFFSET HEX...: bytes
poke() {
	local file=$1 offset=$2
	shift 2
	printf '%b' "$(printf '\\x%s' "$@")" | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
}

# flip FILE OFFSET BIT
flip() {
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	poke "$1" "$2" "$(printf '%02x' $((byte ^ (1 << $3))))"
}

zero() {
	dd if=/dev/zero of="$1" bs=1 seek="$2" count="$3" conv=notrunc status=none
}

size_of() {
	stat -c %s "$1"
}

sums() {
	(cd "$stores" && find . -type f -exec sha256sum {} + | sort)
}

# It must not start, say one of these words, and change nothing. refused NAME WORD [OPTION...]
refused() {
	local name=$1 word=$2 before status=0 options
	shift 2
	before=$(sums)
	kind_options "$name"
	timeout 20 "$phttpd" -P 20099 -L 8 "${options[@]}" "$@" > "$work/out" 2> "$work/err" || status=$?
	[ $status = 1 ] || fail "was not refused: status $status, $(tail -1 "$work/err")"
	grep -Eqi -- "$word" "$work/err" || fail "'$(tail -1 "$work/err")' does not say '$word'"
	status=0
	recover_only "$name" "$@" || status=$?
	[ $status = 1 ] || fail "--recover-only: status $status"
	[ "$before" = "$(sums)" ] || fail "a store that was refused has changed"
}

# --- cases: killed

kill_in_mode() {
	local round name
	for round in 1 2 3; do
		for name in wal tree kv; do
			[ $round = 1 ] || [ $name != wal ] || { recover_only wal --dump && cp "$work/out" "$work/dump"; } ||
				fail "--recover-only: $(tail -1 "$work/err")"
			serve $name -p $round -L 16 "$@"
		done
		if [ $round = 1 ]; then
			load
		else
			load --dump "wal=$work/dump"
		fi
	done
	for name in wal tree kv; do
		verify $name
	done
}

t_kill() { kill_in_mode; }
t_kill_datasync() { kill_in_mode -D; }
t_kill_mmap() { kill_in_mode -m; }

# Without room for what is written: what was acknowledged stays.
t_kill_full_store() {
	local name
	for name in wal tree kv; do
		serve $name -L 1
	done
	load --full --load 50
	for name in wal tree kv; do
		verify $name
	done
}

t_kill_while_starting() {
	local i pid options
	pristine kv
	kind_options kv
	for i in $(seq 20); do
		"$phttpd" -P 20099 "${options[@]}" -p $((1 + i % 3)) 2> "$work/err" &
		pid=$!
		sleep "0.0$((i % 10))"
		kill -9 $pid
		wait $pid
	done
	verify kv
}

# --- cases: no room

t_full_disk() {
	[ "$DAMAGE_ISOLATED" = yes ] || skip "may not mount"
	mount -t tmpfs -o size=6M tmpfs "$stores"
	refused kv 'space' -L 64
	[ -z "$(find "$stores" -name 'log*')" ] || fail "something is left: $(ls "$stores"/*)"
	serve kv -L 4
	load
	verify kv
	umount "$stores"
}

t_read_only_directory() {
	[ "$DAMAGE_ISOLATED" = yes ] || skip "may not mount"
	pristine tree
	mount --bind "$stores" "$stores"
	mount -o remount,bind,ro "$stores"
	refused tree 'read-only|permission'
	umount "$stores"
}

# --- cases: the wrong file

t_magic() {
	pristine kv
	poke "$stores/kv/log.0" 0 58
	refused kv 'not a'
}

t_newer_version() {
	pristine kv
	poke "$stores/kv/log.1" 8 02
	refused kv 'version'
}

t_other_kind() {
	pristine tree
	mv "$stores/tree" "$stores/kv"
	refused kv 'tree'
}

t_header_zeroed() {
	pristine wal
	zero "$stores/wal/log.0" 0 4096
	refused wal 'not a|damaged'
}

# Every bit counts.
t_header_bit() {
	local bit i
	pristine kv
	for i in $(seq 24); do
		bit=$((RANDOM % 512))
		flip "$stores/kv/log.1" $((bit / 8)) $((bit % 8))
		refused kv '.'
		flip "$stores/kv/log.1" $((bit / 8)) $((bit % 8))
	done
	verify kv
}

t_log_missing() {
	pristine kv
	rm "$stores/kv/log.0"
	refused kv 'log.0'
}

t_last_log_missing() {
	pristine kv
	rm "$stores/kv/log.1"
	refused kv 'log.1'
}

t_logs_swapped() {
	pristine kv
	mv "$stores/kv/log.0" "$stores/kv/x"
	mv "$stores/kv/log.1" "$stores/kv/log.0"
	mv "$stores/kv/x" "$stores/kv/log.1"
	refused kv 'log'
}

t_log_of_another_store() {
	pristine kv
	serve kv2 -p 2
	stop
	cp "$stores/kv2/log.1" "$stores/kv/log.1"
	rm -r "$stores/kv2"
	refused kv 'another|other'
}

t_not_a_file() {
	pristine kv
	rm "$stores/kv/log.1"
	mkdir "$stores/kv/log.1"
	refused kv 'log.1'
}

t_truncated() {
	local size to
	for to in 0 63 4096 half 1; do
		pristine wal
		size=$(size_of "$stores/wal/log.0")
		case $to in
		half) truncate -s $((size / 2)) "$stores/wal/log.0" ;;
		1) truncate -s $((size - 1)) "$stores/wal/log.0" ;;
		*) truncate -s $to "$stores/wal/log.0" ;;
		esac
		refused wal 'short|size|bytes|not a'
	done
}

t_longer() {
	pristine kv
	truncate -s +1M "$stores/kv/log.0"
	refused kv 'bytes'
}

# --- cases: zero copy: the pool

t_pool_missing() {
	pristine kv
	rm "$stores/kv/pool"
	refused kv 'pool'
}

t_pool_foreign() {
	pristine kv
	poke "$stores/kv/pool" 0 58
	refused kv 'pool'
}

t_pool_truncated() {
	pristine kv
	truncate -s -4096 "$stores/kv/pool"
	refused kv 'pool'
}

t_pool_without_zero_copy() {
	pristine kv
	way=()
	refused kv 'zero copy|pool|-x'
}

# --- cases: damaged inside

# It must be noticed.
t_all_data_flipped() {
	local name file
	for name in wal tree kv; do
		pristine $name
		for file in "$stores/$name"/{log.*,pool}; do
			[ -e "$file" ] || continue
			flip_data "$file"
		done
		! recover_only $name || fail "$name: --recover-only does not fail"
		grep -q 'corrupt [1-9]' "$work/out" || fail "$name: says '$(tail -1 "$work/out")'"
		verify $name --damaged
	done
}

# The chunks are behind the header and the slots (pool: behind the header).
flip_data() {
	python3 - "$1" << 'END'
import struct, sys
with open(sys.argv[1], 'r+b') as file:
    first = 4096
    if not sys.argv[1].endswith('pool'):
        first += 64 * struct.unpack_from('<I', file.read(64), 32)[0]
    file.seek(first)
    data = file.read()
    file.seek(first)
    file.write(data.translate(bytes(byte ^ 0x10 for byte in range(256))))
END
}

t_slots_zeroed() {
	pristine kv
	zero "$stores/kv/log.0" 4096 65536
	verify kv --damaged
}

# Anything anywhere but in the header page: nothing wrong is served, and the server lives.
t_random() {
	local round name
	for round in $(seq $rounds); do
		for name in wal tree kv; do
			pristine $name
			python3 - "$stores/$name"/[lp]o* << 'END'
import os, random, struct, sys
for path in sys.argv[1:]:
    with open(path, 'r+b') as file:
        slots = 0 if path.endswith('pool') else struct.unpack_from('<I', file.read(64), 32)[0]
        for _ in range(200):
            # half of it among the slots in use, which are the first ones
            end = random.choice((max(min(slots, 512) * 64, 65536) + 4096, os.fstat(file.fileno()).st_size))
            length = random.choice((1, 1, 8, 64, 500))
            file.seek(random.randrange(4096, end - length))
            file.write(random.choice((bytes(length), os.urandom(length))))
END
			verify $name --damaged
		done
	done
}

# --- run them

run_case() {
	local status=0 reason
	stores=$root/stores
	mkdir -p "$stores"
	(
		servers=() ports=()
		trap 'kill -9 "${servers[@]}" 2> /dev/null' EXIT
		"$1"
	) > "$work/output" 2>&1 || status=$?
	umount "$stores" 2> /dev/null
	rm -rf "$stores" "$work"/*.log
	n=$((n + 1))
	reason=$(head -1 "$work/reason" 2> /dev/null | tr -d '#')
	rm -f "$work/reason"
	case $status in
	0) echo "ok $n damage.${1#t_}" ;;
	4) echo "ok $n damage.${1#t_} # SKIP $reason" ;;
	*)
		failed=$((failed + 1))
		sed 's/^/# /' "$work/output"
		echo "not ok $n damage.${1#t_} # ${reason:-exit status $status}"
		;;
	esac
}

# shellcheck disable=SC2317 # called by trap
finish() {
	rm -rf "$root" "$work"
}

mapfile -t cases < <(sed -n 's/^\(t_[a-z0-9_]*\)() {.*/\1/p' "$0" | grep -v '^t_pool')
parent=$tree/build
case ${1:-} in
--pm)
	shift
	way=(-n -x) rounds=2 parent=/run/damage
	"$here/vm/pm.sh" --new $parent || exit
	mapfile -t cases < <(sed -n 's/^\(t_pool[a-z0-9_]*\)() {.*/\1/p' "$0")
	cases+=(t_kill t_kill_full_store t_kill_while_starting t_log_missing t_all_data_flipped t_random)
	;;
-h | --help)
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit
	;;
esac
[ $# = 0 ] || cases=("$@")
root=$(mktemp -d "$parent/damage.XXXXXX")
work=$(mktemp -d /dev/shm/damage.XXXXXX)
trap finish EXIT
keep=$root/keep
n=0 failed=0
echo "TAP version 13"
echo "1..${#cases[@]}"
for name in "${cases[@]}"; do
	run_case "$name"
done
[ $failed = 0 ]
