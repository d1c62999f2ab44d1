#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: run.sh [OPTION...] -- COMMAND [ARGUMENT...]

Run COMMAND as root in a VM with a stock Debian kernel, the host's files (changes to them stay in the VM's memory) and the
module loaded; pass on its output and exit status. build/ of the tree is shared with the host and can be written.

  --kernel 6.1|6.12|VERSION  kernel (6.12): the newest of that series in /boot, or exactly VERSION
  --nic ixgbe|i40e|virtio|none  the data NIC (ixgbe)
  --net tap|pair       what the NIC is connected to (tap): the host, or a second one in the guest's network namespace "peer"
  --queues N           NIC channels (1; virtio: what the driver chooses); ixgbe has at most as many as there are CPUs
  --pm SIZE            an NVDIMM of SIZE (K, M or G), as /dev/pmem0
  --pm-file FILE       keep the NVDIMM's content in FILE, across runs
  --root DIR           the system in DIR instead of the host's, with its kernels; the tree is there at the same path
  --smp N              virtual CPUs (1)
  --mem MIB            memory (2048)
  --tcg single|multi   threads of the CPU emulation (single). Multi is faster with --smp, but guests crash in it when an XDP
                       program is attached or detached under traffic (QEMU's fault): for compiling only
  --no-module          do not load the module
  --ko FILE            load this .ko instead of the one that DKMS installs
  --timeout SECONDS    stop the VM after so long (600)
  --append WORDS       more for the kernel command line
  --qemu ARGUMENT      one more argument for QEMU (repeat)
  --verbose            show the kernel's console on stderr, with all messages

In the VM COMMAND finds PASTE_IF (interface of the data NIC), PASTE_ADDR and PASTE_PEER, PASTE_ADDR6 and PASTE_PEER6 (its own
and the other end's addresses), PASTE_NIC, PASTE_NET, VM_TREE, and `host` in its PATH, which runs commands at the other end.

KERNEL_IMAGE and KERNEL_MODULES (.../lib/modules/VERSION) name another kernel than one of Debian's. PASTE_SLOW is a factor for
all time limits, here and in the tests: for kernels that look for trouble and hosts that have other work to do.

Exit status: that of COMMAND; 124 after a timeout; 125 when the VM could not be started, died, or its kernel log has a
warning in it; 137 when what ran at the other end has killed QEMU, whose process id it finds in VM_QEMU: a power cut. The logs
of a failed run are kept in build/vm/.
END
}

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../.." && pwd)

say() { printf 'vm: %s\n' "$*" >&2; }
die() { say "$*"; exit 125; }

kernel=6.12 nic=ixgbe net=tap queues='' pm='' pm_file='' smp=1 mem=2048 tcg=single
root='' module=dkms ko='' timeout=600 append='' verbose='' qemu_arguments=()
slow=${PASTE_SLOW:-1}

while [ $# -gt 0 ]; do
	case $1 in
	--kernel) kernel=$2; shift ;;
	--nic) nic=$2; shift ;;
	--net) net=$2; shift ;;
	--queues) queues=$2; shift ;;
	--pm) pm=$2; shift ;;
	--pm-file) pm_file=$(realpath -m "$2"); shift ;;
	--root) root=$(realpath "$2"); shift ;;
	--smp) smp=$2; shift ;;
	--mem) mem=$2; shift ;;
	--tcg) tcg=$2; shift ;;
	--no-module) module=none ;;
	--ko) module=ko ko=$(realpath "$2"); shift ;;
	--timeout) timeout=$2; shift ;;
	--append) append=$2; shift ;;
	--qemu) qemu_arguments+=("$2"); shift ;;
	--verbose) verbose=1 ;;
	--help) usage; exit ;;
	--) shift; break ;;
	*) usage >&2; die "unknown option $1" ;;
	esac
	shift
done
[ $# -gt 0 ] || { usage >&2; die "no COMMAND"; }
timeout=$((timeout * slow))
case $nic in ixgbe | i40e | virtio | none) ;; *) die "--nic $nic: not ixgbe, i40e, virtio or none" ;; esac
case $net in tap | pair) ;; *) die "--net $net: not tap or pair" ;; esac
[ -z "$root" ] || [ $module != dkms ] || die "--root needs --no-module or --ko: DKMS would build for the host's kernels"
case $tcg in single | multi) ;; *) die "--tcg $tcg: not single or multi" ;; esac
# The path of the tree goes through QEMU options and the kernel command line, which have no quoting for these.
case $tree in *[\ ,\"]*) die "the tree's path must not contain spaces, commas or quotes: $tree" ;; esac

# --- the kernel

newest_kernel() {
	local image versions=()
	for image in "$root"/boot/vmlinuz-"$1".*; do
		case $image in
		*-rt-* | *-cloud-* | *'*') ;;
		*) versions+=("${image#"$root"/boot/vmlinuz-}") ;;
		esac
	done
	[ ${#versions[@]} -gt 0 ] || die "no kernel $1 in $root/boot: run 'make deps' as root"
	printf '%s\n' "${versions[@]}" | sort -V | tail -1
}

if [ -n "${KERNEL_IMAGE:-}" ]; then
	image=$(realpath "$KERNEL_IMAGE")
	modules=$(realpath "${KERNEL_MODULES:?KERNEL_IMAGE needs KERNEL_MODULES=.../lib/modules/VERSION}")
	version=$(basename "$modules")
else
	case $kernel in
	*.*.*) version=$kernel ;;
	*) version=$(newest_kernel "$kernel") ;;
	esac
	image=$root/boot/vmlinuz-$version
	modules=$root/lib/modules/$version
fi
[ -r "$image" ] || die "cannot read $image"
[ -d "$modules" ] || die "no directory $modules"

# --- the machine that we are on

# A network namespace of our own for the tap and for everything that the guest runs outside, and a process namespace so that
# nothing of it is left behind, whatever happens. The latter cannot be had in a chroot; a container that may not make any
# namespace has a network namespace of its own already.
isolate=(unshare --net --pid --fork --kill-child --mount-proc)
if ! "${isolate[@]}" true 2> /dev/null; then
	isolate=(unshare --net)
	"${isolate[@]}" true 2> /dev/null || isolate=()
fi

check_tap() {
	[ -c /dev/net/tun ] || die "no /dev/net/tun: load the module tun, or give the container --device /dev/net/tun"
	if [ ! -r /dev/net/tun ] || [ ! -w /dev/net/tun ]; then
		die "no permission for /dev/net/tun: run as root"
	fi
	"${isolate[@]}" ip tuntap add dev paste-probe mode tap 2> /dev/null ||
		die "may not make a tap device: run as root, in a container with --cap-add NET_ADMIN"
	[ ${#isolate[@]} -gt 0 ] || ip tuntap del dev paste-probe mode tap
}
if [ "$nic" != none ] && [ "$net" = tap ]; then
	check_tap
fi

# --- what the VM is made of

qemu=$("$tree/selftests/qemu/build.sh") || exit 125
initramfs=$("$here/initramfs.sh" "$modules") || exit 125
tarball=
if [ $module = dkms ]; then
	tarball=$("$here/module.sh" "$version") || exit 125
fi

# Inside build/, which the guest shares: its way to give us files.
mkdir -p "$tree/build/vm"
run=$(mktemp -d "$tree/build/vm/run.XXXXXX")
chmod 755 "$run"
logs=$tree/build/vm/failed-$(date +%m%d-%H%M%S)-$$
failed=''
# shellcheck disable=SC2317 # called by trap
finish() {
	if [ -n "$failed" ]; then
		mkdir -p "$logs"
		cp "$run"/*.log "$logs/" 2> /dev/null || true
		say "logs kept in ${logs#"$tree/"}"
	fi
	rm -rf "$run"
}
trap finish EXIT
agent_pid=''
# The shell acts on a signal only while it waits for something in the background, so that is where the agent runs.
trap 'kill $agent_pid 2> /dev/null; exit 130' INT
trap 'kill $agent_pid 2> /dev/null; exit 143' TERM

directory=$PWD
case $directory/ in "$tree"/*) ;; *) directory=$tree ;; esac
{
	printf '%s=%q\n' kernel_modules "${KERNEL_IMAGE:+$modules}" nic "$nic" net "$net" queues "$queues" module "$module" \
		ko "$ko" tarball "$tarball" pm "$pm" directory "$directory" slow "$slow"
	printf 'command=('
	printf '%q ' "$@"
	printf ')\n'
} > "$run/config"

machine=q35
memory=$mem
if [ -n "$pm" ]; then
	machine+=,nvdimm=on
	pm_bytes=$(numfmt --from=iec "${pm%B}")
	memory+=,slots=1,maxmem=$((mem + pm_bytes / 1048576 + 1024))M
	# As the guest's other memory. That of a file is slower: the host writes it back, and has no huge pages for it.
	pm_backend="memory-backend-ram"
	if [ -n "$pm_file" ]; then
		[ -e "$pm_file" ] || truncate -s "$pm_bytes" "$pm_file"
		pm_backend=memory-backend-file,mem-path=$pm_file,share=on
	fi
fi

# no_timer_check: on a busy host the emulated timer looks broken.
words=(console=ttyS0 panic=-1 panic_on_warn=1 oops=panic mitigations=off no_timer_check net.ifnames=0 log_buf_len=4M
	VM_TREE="$tree" VM_RUN="$run")
[ -n "$verbose" ] || words+=(quiet loglevel=5)

# shellcheck disable=SC2054 # the commas are QEMU's
arguments=(
	-L /usr/share/seabios -L /usr/share/qemu -nodefaults -no-user-config -display none -no-reboot
	-machine "$machine" -accel "tcg,thread=$tcg" -cpu max -smp "$smp" -m "$memory"
	-kernel "$image" -initrd "$initramfs" -append "${words[*]} $append"
	-serial "file:$run/console.log"
	-device virtio-rng-pci
	-device virtio-serial-pci
	# The host's root and a container's mounts in it have inode numbers of several file systems.
	-fsdev "local,id=root,path=${root:-/},security_model=none,readonly=on,multidevs=remap"
	-device virtio-9p-pci,fsdev=root,mount_tag=root
	-fsdev "local,id=build,path=$tree/build,security_model=none,multidevs=remap"
	-device virtio-9p-pci,fsdev=build,mount_tag=build
)
if [ -n "$root" ]; then
	# shellcheck disable=SC2054
	arguments+=(
		-fsdev "local,id=tree,path=$tree,security_model=none,readonly=on,multidevs=remap"
		-device virtio-9p-pci,fsdev=tree,mount_tag=tree
	)
fi
if [ -n "$pm" ]; then
	# shellcheck disable=SC2054
	arguments+=(
		-object "$pm_backend,id=pm0,size=$pm_bytes"
		-device nvdimm,id=nvdimm0,memdev=pm0
	)
fi

# Each NIC sits on a port of its own so that it can be pulled out: device_del nic0.
add_nic() {
	local index=$1 device=$nic options=
	if [ "$nic" = virtio ]; then
		device=virtio-net-pci
		options=,romfile=
		[ "$tap_queues" = 1 ] || options+=,mq=on,vectors=$((2 * tap_queues + 2))
	fi
	arguments+=(
		-device "pcie-root-port,id=port$index,chassis=$((index + 1)),slot=$((index + 1))"
		-device "$device,id=nic$index,netdev=net$index,bus=port$index,mac=52:54:00:09:00:0$((2 - index))$options"
	)
}
# How many queues a virtio NIC could have; the tap must have as many.
tap_queues=1
if [ "$nic" = virtio ] && [ "$net" = tap ]; then
	tap_queues=${queues:-2}
fi
agent=()
if [ "$nic" = none ]; then
	:
elif [ "$net" = tap ]; then
	agent=(--tap "$tap_queues")
	arguments+=(-netdev "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off,queues=$tap_queues")
	add_nic 0
else
	# shellcheck disable=SC2054
	arguments+=(-netdev hubport,id=net0,hubid=0 -netdev hubport,id=net1,hubid=0)
	add_nic 0
	add_nic 1
fi
arguments+=("${qemu_arguments[@]}")

# --- run it

: > "$run/console.log"
if [ -n "$verbose" ]; then
	tail -f "$run/console.log" >&2 &
	tail_pid=$!
fi
(cd "$run" && VM_TREE=$tree exec "${isolate[@]}" "$here/agent.py" --timeout "$timeout" "${agent[@]}" -- \
	"$qemu" "${arguments[@]}") 2> >(tee "$run/stderr.log" >&2) &
agent_pid=$!
status=0 cut=0
wait $agent_pid || status=$?
[ -z "$verbose" ] || kill "$tail_pid"

# --- judge

if [ $status = 124 ]; then
	failed=1
	say "stopped after $timeout s; the end of the console:"
	tail -20 "$run/console.log" >&2
	exit 124
elif [ $status = 137 ]; then
	cut=137
	echo 0 > "$run/status" # only what the kernel has said until then can be wrong
elif [ $status != 0 ]; then
	failed=1
	exit "$status"
elif [ ! -e "$run/status" ]; then
	failed=1
	say "the VM died; the end of the console:"
	tail -40 "$run/console.log" >&2
	exit 125
fi
status=$(< "$run/status")

# Words that no healthy kernel log has in it. The guest's own copy of the log has the messages that are below the console's
# level; the console has those of a kernel that did not live to write its copy.
bad='WARNING: |BUG: |Oops|Call Trace:|Kernel panic|general protection fault|INFO: task .* blocked|INFO: rcu|soft lockup'
bad+='|possible (circular|recursive) locking|inconsistent lock state|suspicious RCU usage|refcount_t: |stack-?trace'
bad+='|KASAN|KCSAN|UBSAN: |kmemleak: [1-9][0-9]* new|unregister_netdevice: waiting|stalled pool|Bad page'
# A failed vmalloc() shows a trace as well, a few lines on. That is not a bug: fault injection makes them fail, in others' code too.
if { cat "$run/console.log" "$run/dmesg.log" 2> /dev/null || true; } |
	sed '/vmalloc error: size/,+5{/Call Trace:/d}' | grep -E "$bad" | awk "!seen[\$0]++" > "$run/bad.log" && [ -s "$run/bad.log" ]; then
	failed=1
	say "the kernel log has this in it:"
	head -20 "$run/bad.log" >&2
	[ "$status" != 0 ] || status=125
fi
[ "$status" = 0 ] || failed=1
[ "$status" != 0 ] || status=$cut
exit "$status"
