#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: run.sh [OPTION...]

make bench: measure servers with and without paste against each other, in VMs, with wrk outside them; QUICK=1 does --quick.
Lists are separated by spaces.

  --kernel LIST    6.12, 6.1 (6.12)
  --nic LIST       virtio, ixgbe, i40e (virtio ixgbe); one VM for each kernel and NIC
  --workload LIST  rpc64, short, bulk, wal1k, wal1k-slow, kv-get-1024, kv-get-16384, kv-get-1048576 (all)
  --conns LIST     connections (rpc64: 1 10 50 100 1000 10000, wal1k: 1 50 100, bulk: 10, else 50)
  --servers LIST   epoll, epoll-busy, io_uring, paste-plain, paste-hooked, paste-copy, limit (those that make sense)
  --rounds N       measurements of each, in turn (5); the median counts
  --seconds S      of one measurement (3)
  --queues N       NIC queues, and server threads (1)
  --smp N          virtual CPUs (1)
  --minutes M      begin nothing more after so many, in each VM (75)
  --profile        write instructions per request by kernel function as well: build/bench/profile-*.txt
  --quick          rpc64 at 1, 50 and 100 connections, two short rounds without epoll-busy: 6 minutes

Results: a table, build/bench/*.svg, and build/bench/KERNEL-NIC.json, a list of objects for each workload, conns and server:
  rps, rps_spread    requests per second, the median, and the rounds' range as a share of it
  p50_us, p99_us, p999_us   latency as wrk sees it
  insn_per_req       guest instructions, without the next two; user_per_req and kernel_per_req are its parts
  rep_per_req        repeats of string instructions
  poll_insn_per_req  what a server that polls executed while there was nothing to do
  halts_per_req      times that the guest went idle
  batch              requests per round of the server's loop that found some
  packets_per_doorbell  replies given to the NIC at once (paste, limit), else null
  requests, errors   counted in a round (median), seen by wrk (sum)
  media_ns           wal1k-slow: latency that was added to the medium
END
}

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../.." && pwd)
out=$tree/build/bench

die() { printf 'bench: %s\n' "$*" >&2; exit 1; }

kernels=6.12 nics='virtio ixgbe' conns='' servers='' rounds=5 seconds=3 queues=1 smp=1 minutes=75 options=()
workloads='rpc64 short bulk wal1k wal1k-slow kv-get-1024 kv-get-16384 kv-get-1048576'

while [ $# -gt 0 ]; do
	case $1 in
	--profile) options+=(--profile) ;;
	--quick) workloads=rpc64 conns='1 50 100' servers='epoll io_uring paste-plain paste-hooked limit' rounds=2 seconds=1.5 minutes=2 ;;
	--help) usage; exit ;;
	--*)
		[ $# -gt 1 ] || { usage >&2; die "$1 needs a value"; }
		case $1 in
		--kernel) kernels=$2 ;;
		--nic) nics=$2 ;;
		--workload) workloads=$2 ;;
		--conns) conns=$2 ;;
		--servers) servers=$2 ;;
		--rounds) rounds=$2 ;;
		--seconds) seconds=$2 ;;
		--queues) queues=$2 ;;
		--smp) smp=$2 ;;
		--minutes) minutes=$2 ;;
		*) usage >&2; die "unknown option $1" ;;
		esac
		shift
		;;
	*) usage >&2; die "what is $1?" ;;
	esac
	shift
done

[ -z "$conns" ] || options+=(--conns "$conns")
[ -z "$servers" ] || options+=(--servers "$servers")

# The headers of the newest installed kernel of a series, which is what the VM runs.
headers() {
	local dir
	dir=$(printf '%s\n' /lib/modules/"$1".*/build | sort -V | tail -1)
	[ -d "$dir" ] || die "no headers of a kernel $1: run 'make deps' as root"
	echo "$dir"
}

build() {
	local kernel
	make -s -C "$tree" lib tools
	make -s -C "$here"
	for kernel in $kernels; do
		make -s -C "$tree" module KDIR="$(headers "$kernel")"
		make -s -C "$here" limit KDIR="$(headers "$kernel")"
	done
}

run_vm() {
	local kernel=$1 nic=$2 dir version vm
	version=$(headers "$kernel")
	version=${version#/lib/modules/}
	version=${version%/build}
	# Emulated CPUs share one clock, so time is cheap to read, as on real ones.
	vm=(--kernel "$version" --nic "$nic" --smp "$smp" --mem 3072 --ko "$tree/build/module-$version/paste.ko"
		--append 'clocksource=tsc tsc=reliable' --timeout $((minutes * 60 + 240)) --qemu -plugin
		--qemu "$out/insn.so,out=$counters/insn")
	[ "$queues" = 1 ] || vm+=(--queues "$queues")
	[[ $workloads != *wal* && $workloads != *kv* ]] || vm+=(--pm 512M)
	"$tree/selftests/vm/run.sh" "${vm[@]}" -- "$here/guest.py" --name "$kernel-$nic" --counters "$counters/insn" \
		--workloads "$workloads" --rounds "$rounds" --seconds "$seconds" --budget $((minutes * 60)) --queues "$queues" "${options[@]}"
}

mkdir -p "$out"
rm -f "$out"/*.json "$out"/*.svg "$out"/profile-*.txt
build
counters=$(mktemp -d /dev/shm/paste-bench.XXXXXX)
trap 'rm -rf "$counters"' EXIT
status=0
for kernel in $kernels; do
	for nic in $nics; do
		run_vm "$kernel" "$nic" || status=$?
	done
done
"$here/report.py" "$out"
exit $status
