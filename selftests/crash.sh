#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: crash.sh [--kernel 6.1|6.12] [--cuts N] [--size BYTES] [STORE...]

Cut the power under load, N times (10), and see whether everything that was acknowledged is still there: the VM's NVDIMM is a
file of the host, and a power cut is SIGKILL for QEMU. In the VM a phttpd serves each STORE, all at once; crash_client.py
outside writes to them and kills. Each boot recovers what the cut before it has left, has it verified, and is cut in its turn;
the last one only verifies. Stores: wal tree kv (the body is copied) and wal-x tree-x kv-x (zero copy); without names all.

One emulated NIC queue can be bound by one process: the zero copy stores are hooked in turn, the others plain meanwhile. From
boot to boot the number of threads changes too. --size: of all values, instead of mixed ones.

Results are TAP; last comes "crash: cuts N acked N records N lost N". VM_OPTIONS has more options for vm/run.sh. State and logs
are in build/crash/KERNEL.
END
}

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$here")
phttpd=$tree/build/tools/phttpd
all=(wal wal-x tree tree-x kv kv-x)

# --- in the VM: in_guest DIRECTORY CUT MODE SIZE STORE...
#
# DIRECTORY is shared with the host. MODE: load (and be cut) or verify.

pm=/run/pm

not_ok() {
	echo "not ok $*" >> "$dir/results"
	exit 1
}

mount_pm() {
	local new=()
	[ "$cut" != 0 ] || new=(--new)
	"$here/vm/pm.sh" "${new[@]}" $pm > "$dir/mount.log" 2>&1 || not_ok "no file system: $(tail -1 "$dir/mount.log")"
}

# Options of phttpd that say what the store is.
kind_options() {
	case $1 in
	tree*) options+=(-B) ;;
	kv*) options+=(-k) ;;
	esac
	case $1 in *-x) options+=(-x) ;; esac
}

# And those that change from boot to boot: how it is served. NAME INDEX
way_options() {
	local turn=$((cut + $2 / 2))
	case $1 in
	*-x)
		if [ $((turn % 3)) = 0 ]; then
			options+=(-i "$PASTE_IF" -Z)
		else
			options+=(-n -p $((1 + turn % 2)))
		fi
		;;
	*)
		options+=(-p $((1 + turn % 3)))
		[ $((turn % 2)) = 0 ] || options+=(-n)
		;;
	esac
}

serve() {
	local name=$1 index=$2 log=$dir/$1.log options=()
	kind_options "$name"
	way_options "$name" "$index"
	"$phttpd" -P $((60000 + index)) -d "$pm/$name" -L 96 "${options[@]}" 2> "$log" &
	servers+=($!)
	echo "# $name: phttpd ${options[*]}" >> "$dir/results"
}

wait_ready() {
	local name=$1 log=$dir/$1.log
	for _ in $(seq 300); do
		! grep -q '^phttpd: port' "$log" || return 0
		[ -d "/proc/$2" ] || break
		sleep 0.1
	done
	not_ok "$name: phttpd did not start: $(tail -1 "$log")"
}

# A WAL has no reader but this one. One that a fast machine has filled far is made anew, or it would soon be full.
dump_wal() {
	local options=()
	kind_options "$1"
	"$phttpd" -d "$pm/$1" "${options[@]}" --recover-only --dump > "$dir/$1.dump" 2>> "$dir/$1.log" ||
		not_ok "$1: --recover-only failed: $(tail -1 "$dir/$1.log")"
	client+=(--dump "$1=$dir/$1.dump")
	if [ "$(grep -ac '^record ' "$dir/$1.dump")" -gt 2000 ]; then
		rm -rf "${pm:?}/$1"
		client+=(--forget "$1")
	fi
}

in_guest() {
	local mode=$3 size=$4 name index=0 servers=() ports=() client
	dir=$1 cut=$2
	shift 4
	client=("$here/crash_client.py")
	mount_pm
	for name in "$@"; do
		: > "$dir/$name.log"
		case $name in
		wal*) [ "$cut" = 0 ] || dump_wal "$name" ;;
		esac
	done
	for name in "$@"; do
		serve "$name" $index
		ports+=("$name=$((60000 + index))")
		index=$((index + 1))
	done
	for index in "${!servers[@]}"; do
		name=${ports[index]%=*}
		wait_ready "$name" "${servers[index]}"
		[ "$cut" = 0 ] || [[ $name == wal* ]] ||
			client+=(--records "$name=$(sed -n 's/^phttpd: store .* records \([0-9]*\) .*/\1/p' "$dir/$name.log")")
	done
	echo "# served $(cut -d' ' -f1 /proc/uptime) s after the boot" >> "$dir/results"
	# shellcheck disable=SC2016 # outside they know
	[ "$mode" = verify ] || client+=(--load 1000 --kill '$VM_QEMU')
	[ "$size" = 0 ] || client+=(--size "$size")
	client+=("$dir/state" "$PASTE_ADDR" "${ports[@]}")
	# Not through here: what it says when it cuts the power would be lost.
	host --timeout 240 sh -c "exec ${client[*]} >> $dir/results 2>&1"
	kill "${servers[@]}"
	for index in "${!servers[@]}"; do
		wait "${servers[index]}" || not_ok "${ports[index]%=*}: phttpd failed: $(tail -1 "$dir/${ports[index]%=*}.log")"
	done
	umount $pm || not_ok "cannot unmount the file system"
	e2fsck -fn /dev/pmem0 > "$dir/fsck.log" 2>&1 || not_ok "e2fsck finds errors"
	echo "ok e2fsck finds no error" >> "$dir/results"
}

# --- outside

number=0 failed=0 acked=0 records=0 lost=0

# The results of one boot, as TAP.
show_results() {
	local line
	while IFS= read -r line; do
		case $line in
		'# acked '*)
			read -r _ _ acked _ records _ l <<< "$line"
			lost=$((lost + l))
			;;
		'ok '* | 'not ok '*)
			number=$((number + 1))
			case $line in not*) failed=$((failed + 1)) ;; esac
			echo "${line%%ok*}ok $number crash.$kernel cut $1, ${line#*ok }"
			;;
		*) echo "# ${line#\# }" ;;
		esac
	done < "$dir/results"
}

# One life of the VM, from boot to power cut.
boot() {
	local mode=load expected=137 status=0 begin=$SECONDS options
	if [ "$cut" = "$cuts" ]; then
		mode=verify expected=0
	fi
	: > "$dir/results"
	read -ra options <<< "${VM_OPTIONS:-}"
	"$here/vm/run.sh" --kernel "$kernel" --nic ixgbe --pm 1G --pm-file "$dir/pm" --timeout 400 "${options[@]}" -- \
		"$here/crash.sh" --in-guest "$dir" "$cut" $mode "$size" "${stores[@]}" || status=$?
	[ $status = $expected ] || grep -q '^not ok' "$dir/results" ||
		echo "not ok the VM ended with $status" >> "$dir/results"
	echo "# this boot took $((SECONDS - begin)) s" >> "$dir/results"
	show_results "$cut"
}

kernel=6.12 cuts=10 size=0 stores=()
while [ $# -gt 0 ]; do
	case $1 in
	--in-guest)
		shift
		in_guest "$@"
		exit
		;;
	--kernel) kernel=$2; shift ;;
	--cuts) cuts=$2; shift ;;
	--size) size=$2; shift ;;
	--help) usage; exit ;;
	-*) usage >&2; exit 1 ;;
	*) stores+=("$1") ;;
	esac
	shift
done
[ ${#stores[@]} -gt 0 ] || stores=("${all[@]}")

dir=$tree/build/crash/$kernel
rm -rf "$dir"
mkdir -p "$dir"
echo "TAP version 13"
cut=0
while [ "$cut" -le "$cuts" ] && [ $failed = 0 ]; do
	boot
	cut=$((cut + 1))
done
rm -f "$dir/pm"
echo "1..$number"
echo "crash: cuts $((cut - 1)) acked $acked records $records lost $lost"
[ $failed = 0 ]
