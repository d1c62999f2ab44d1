#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: check-debug.sh [--nic NIC] [--smp N] [--sanitizer kasan|kcsan] [KERNEL...]

make check-debug: the suite of make check on kernels that look for trouble (see vm/kernel.sh), with two minutes of fuzz, ten
thousand sequences of hostile and with fail_nth. For each KERNEL (6.12 and 6.1 unless named): build it and the module, boot
it, and in this order run the tests, unload the module, scan for leaked memory, look through the kernel log, and compare the
objects that the module has made with those it has destroyed. SUITE_PARTS: other parts of vm/suite.sh than all. FUZZ_SECONDS
(120), FUZZ_SEED (any): of fuzz. HOSTILE_SEQUENCES (10000), HOSTILE_SEED (any): of hostile.

With kcsan, which make soak does, the kernel looks for data races instead of bad accesses, with two CPUs. It is told to report
those between two functions of the module: of others it knows many, which are TCP's and the drivers' own.

The last line is "robust: kernel-reports N": warnings, bad accesses, leaks and the like in the kernels' logs. Everything is
kept in build/check-debug/KERNEL.log.
END
}

set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=${here%/selftests}

say() { printf '== %s\n' "$*"; }

# --- in the VM

# Unloading may have to wait for what other CPUs still do.
unload() {
	local tries
	for ((tries = 0; tries < 50; tries++)); do
		rmmod paste 2> /dev/null && return
		sleep 0.2
	done
	rmmod paste
}

objects_are_gone() {
	"$tree/build/tools/pastectl" info | sed -n '/^objects/,$p' > "$1"
	# All but the context of pastectl itself.
	awk 'NR > 1 { left += $4 } END { exit left != 1 }' "$1"
}

wait_for_objects() {
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		objects_are_gone "$1" && break
		sleep 0.2
	done
}

# What was allocated in the last seconds does not count, and what is there at the first scan only, neither.
scan_for_leaks() {
	local _
	for _ in 1 2; do
		sleep 6
		echo scan > /sys/kernel/debug/kmemleak || return
	done
	[ ! -s /sys/kernel/debug/kmemleak ] || cat /sys/kernel/debug/kmemleak
}

watch_for_races() {
	[ -e /sys/kernel/debug/kcsan ] || return 0
	awk '$4 == "[paste]" && $2 ~ /[tT]/ { print "!" $3 }' /proc/kallsyms | sort -u > /run/functions
	while read -r function; do
		echo "$function" > /sys/kernel/debug/kcsan
	done < /run/functions
	echo whitelist > /sys/kernel/debug/kcsan
	say "looking for data races in $(wc -l < /run/functions) functions"
}

in_guest() {
	local out=$1 ko=$2 status
	shift 2

	# Where modprobe finds it: tests load it again.
	mkdir -p "/lib/modules/$(uname -r)/updates"
	cp "$ko" "/lib/modules/$(uname -r)/updates/"
	depmod
	modprobe paste || return
	watch_for_races

	"$@"
	status=$?
	say "tests ended with $status after $(cut -d. -f1 /proc/uptime) s"
	wait_for_objects "$out/objects"
	unload || return
	say "unloaded; scanning for leaked memory"
	scan_for_leaks
	return $status
}

if [ "${1:-}" = --in-guest ]; then
	shift
	in_guest "$@"
	exit
fi

# --- outside

kernels=() nic=ixgbe smp='' sanitizer=kasan
while [ $# -gt 0 ]; do
	case $1 in
	--nic) nic=$2; shift ;;
	--smp) smp=$2; shift ;;
	--sanitizer) sanitizer=$2; shift ;;
	--help) usage; exit ;;
	-*) usage >&2; exit 1 ;;
	*) kernels+=("$1") ;;
	esac
	shift
done
[ ${#kernels[@]} -gt 0 ] || kernels=(6.12 6.1)

# A race wants two.
[ -n "$smp" ] || case $sanitizer in kcsan) smp=2 ;; *) smp=1 ;; esac

cd "$tree" || exit 1
logs=$tree/build/check-debug
[ "$sanitizer" = kasan ] || logs+=/$sanitizer
mkdir -p "$logs"
passed=0 failed=0 reports=0

# Memory that is freed is filled with a pattern; watchdogs know that the machine is emulated.
words='page_poison=1 kmemleak=on watchdog_thresh=60'

# run_vm KERNEL: build what is needed and run the tests.
run_vm() {
	local dir modules ko parts
	read -ra parts <<< "${SUITE_PARTS:-uapi conn accept ring life hook pmem hostile net damage fuzz fail_nth}"
	dir=$(selftests/vm/kernel.sh --sanitizer "$sanitizer" "$1") || return
	modules=$(echo "$dir"/lib/modules/*)
	say "$1: the module"
	KCFLAGS=-g make -s module KDIR="$modules/build" || return
	ko=build/module-$(basename "$modules")/paste.ko
	say "$1: the tests"
	PASTE_SLOW=${PASTE_SLOW:-4} KERNEL_IMAGE=$dir/vmlinux KERNEL_MODULES=$modules \
		selftests/vm/run.sh --nic "$nic" --smp "$smp" --mem 3072 --pm 512M --no-module --timeout 3000 --append "$words" -- \
		selftests/check-debug.sh --in-guest "$logs/$1" "$tree/$ko" \
		env FUZZ_SECONDS="${FUZZ_SECONDS:-120}" FUZZ_SEED="${FUZZ_SEED:-$SRANDOM}" \
		HOSTILE_SEQUENCES="${HOSTILE_SEQUENCES:-10000}" HOSTILE_SEED="${HOSTILE_SEED:-$SRANDOM}" \
		selftests/vm/suite.sh "$nic" "${parts[@]}"
}

check() {
	local status saved bad
	mkdir -p "$logs/$1"
	rm -f "$logs/$1/objects"
	run_vm "$1" 2>&1 | tee "$logs/$1.log"
	status=${PIPESTATUS[0]}

	saved=$(sed -n 's/^vm: logs kept in //p' "$logs/$1.log" | tail -1)
	if [ -n "$saved" ] && [ -s "$saved/bad.log" ]; then
		bad=$(wc -l < "$saved/bad.log")
		reports=$((reports + bad))
		say "$1: $bad lines of the kernel log are reports: $saved"
	fi
	# a panic, which leaves no such file
	! grep -q '^vm: the VM died' "$logs/$1.log" || reports=$((reports + 1))
	[ "$status" = 0 ] || return "$status"

	if ! [ -s "$logs/$1/objects" ]; then
		say "$1: the objects were not counted"
		return 1
	fi
	cat "$logs/$1/objects"
	if ! awk 'NR > 1 { left += $4 } END { exit left != 1 }' "$logs/$1/objects"; then
		say "$1: objects of the module were made and not destroyed"
		return 1
	fi
}

for kernel in "${kernels[@]}"; do
	start=$SECONDS
	if check "$kernel"; then
		passed=$((passed + 1))
		say "$kernel: passed, $((SECONDS - start)) s"
	else
		failed=$((failed + 1))
		say "$kernel: FAILED, $((SECONDS - start)) s"
	fi
done
echo "$passed passed, $failed failed, 0 skipped"
echo "robust: kernel-reports $reports"
[ $failed = 0 ] && [ $reports = 0 ]
