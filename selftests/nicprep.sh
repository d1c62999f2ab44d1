#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: nicprep.sh [CASE...]
#
# Tests of `pastectl nic`, as root in what vm/run.sh provides: PASTE_IF and the rest of its variables, and the command `host`.
# With two CPUs the NIC can have two queues:
#
#   selftests/vm/run.sh --nic ixgbe --smp 2 -- selftests/nicprep.sh
#
# Each case is a function t_NAME and finds the NIC not prepared; it must leave it so. One TAP line each. What a NIC's state is,
# ethtool says and /proc/irq. At the end the NIC is as it was, for other tests.

set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=${here%/selftests}
[ -x "$tree/build/tools/pastectl" ] || tree=$(cd "$here/../.." && pwd)
pastectl=$tree/build/tools/pastectl
phttpd=$tree/build/tools/phttpd
nic=${PASTE_IF:-}
saved=/run/paste/$nic
port=60000
slow=${PASTE_SLOW:-1}
work=

fail() {
	echo "$*" > "$work/reason"
	exit 1
}

skip() {
	echo "$*" > "$work/reason"
	exit 4
}

need_zero_copy() {
	[ -n "$nic" ] || skip "no NIC"
	case ${PASTE_NIC:-} in ixgbe | i40e) ;; *) skip "no zero copy on ${PASTE_NIC:-this NIC}" ;; esac
}

# What a driver forgets of what was prepared when an XDP program comes, and whether the emulated NIC has ntuple rules.
forgotten='' rules=''
case ${PASTE_NIC:-} in
ixgbe) forgotten='CPU for queue' rules=yes ;;
i40e) forgotten='adaptive-rx\|rx-usecs' ;;
esac

# The interrupts of the NIC by name, and where they go.
interrupts() {
	local irq
	for irq in /sys/class/net/"$nic"/device/msi_irqs/*; do
		irq=/proc/irq/${irq##*/}
		echo "$(cd "$irq" && echo */) $(cat "$irq/smp_affinity_list")"
	done | sort
}

state() {
	local option
	for option in -k -l -g -c -x -n; do
		ethtool $option "$nic" 2>&1
	done
	interrupts
}

# run STATUS COMMAND...: its output is in $work/out, and it ends with this status.
run() {
	local want=$1 status=0
	shift
	"$@" > "$work/out" 2>&1 || status=$?
	[ $status = "$want" ] || fail "$*: status $status, not $want: $(tail -1 "$work/out")"
}

says() {
	grep -q -e "$1" "$work/out" || fail "'$(tail -1 "$work/out")' does not say '$1'"
}

prepare() {
	local want=$1
	shift
	run "$want" "$pastectl" nic prepare "$nic" --port $port "$@"
}

# As commands that make it so again.
first_state() {
	echo "ethtool -X $nic default"
	ethtool -l "$nic" | sed -n "/^Current/,\$s/^Combined:[[:space:]]*/ethtool -L $nic combined /p"
	ethtool -g "$nic" | sed -n "/^Current/,\$s/^RX:[[:space:]]*/ethtool -G $nic rx /p"
	echo "ethtool -C $nic adaptive-rx off"
	ethtool -c "$nic" | sed -n "s/^rx-usecs:[[:space:]]*/ethtool -C $nic rx-usecs /p"
	ethtool -c "$nic" | sed -n "s/^Adaptive RX: \(on\|off\).*/ethtool -C $nic adaptive-rx \1/p"
	ethtool -k "$nic" | sed -n "s/^\(ntuple-filters\|rx-vlan-offload\|large-receive-offload\): \([onf]*\).*/ethtool -K $nic \1 \2/p"
}

# moderate USECS ADAPTIVE: i40e does not take the first while the second is on, ixgbe has no such thing.
moderate() {
	ethtool -C "$nic" adaptive-rx off 2> /dev/null
	ethtool -C "$nic" rx-usecs "$1" 2> /dev/null
	ethtool -C "$nic" adaptive-rx "$2" 2> /dev/null
}

# Nothing of what was before is what prepare wants. Done once as long as cases leave it so: each change is a reset of the NIC.
unprepare() {
	[ ! -e "$work/unprepared" ] || return 0
	[ -e "$work/first" ] || first_state > "$work/first"
	ethtool -L "$nic" combined 2 2> /dev/null || skip "$nic cannot have two queues"
	ethtool -K "$nic" rxvlan on lro on ntuple off > /dev/null 2>&1
	moderate 50 on
	ethtool -G "$nic" rx 512 2> /dev/null
	ethtool -X "$nic" weight 3 1 || fail "ethtool -X"
	state > "$work/before"
	touch "$work/unprepared"
}

is_as_before() {
	state > "$work/after"
	diff "$work/before" "$work/after" > "$work/diff" || fail "not as before: $(xargs < "$work/diff")"
	[ ! -e "$saved" ] || fail "$saved is there"
}

poll() {
	local end=$((SECONDS + $1 * slow))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# --- cases

t_usage() {
	run 0 "$pastectl" --help
	says 'nic prepare'
	run 2 "$pastectl" nic
	run 2 "$pastectl" nic show
	run 2 "$pastectl" nic repair lo
	run 2 "$pastectl" nic prepare lo
	run 2 "$pastectl" nic prepare lo --queues 2
	run 2 "$pastectl" nic prepare lo --queues 2 --port 0
	run 2 "$pastectl" nic prepare lo --queues two --port 80
	run 2 "$pastectl" nic restore -n lo
	run 2 "$pastectl" nic show nosuchnic
	says 'no network interface nosuchnic'
}

t_not_a_nic() {
	run 1 "$pastectl" nic show lo
	run 1 "$pastectl" nic prepare lo --queues 1 --port $port
	says 'lo is no NIC'
	ip link add pp0 type veth peer name pp1
	run 1 "$pastectl" nic show pp0
	run 1 "$pastectl" nic prepare pp0 --queues 1 --port $port
	says 'veth .* AF_XDP zero copy'
	run 1 "$pastectl" nic restore pp0
	says 'is not prepared'
	ip link del pp0
}

t_no_zero_copy() {
	[ "${PASTE_NIC:-}" = virtio ] || skip "${PASTE_NIC:-this NIC} has zero copy"
	state > "$work/before"
	run 1 "$pastectl" nic show "$nic"
	says 'virtio_net .* AF_XDP zero copy'
	prepare 1 --queues 1
	says 'virtio_net .* AF_XDP zero copy'
	says "$nic stays as it is"
	is_as_before
}

t_no_root() {
	need_zero_copy
	run 0 setpriv --reuid=65534 --regid=65534 --clear-groups "$pastectl" nic show "$nic"
	run 1 setpriv --reuid=65534 --regid=65534 --clear-groups "$pastectl" nic prepare "$nic" --queues 1 --port $port
	says 'needs root'
	unprepare
	run 0 setpriv --reuid=65534 --regid=65534 --clear-groups "$pastectl" nic prepare "$nic" --queues 1 --port $port -n
	says 'channels: 2 -> 1'
	# root without the capability
	run 1 setpriv --bounding-set=-net_admin "$pastectl" nic prepare "$nic" --queues 2 --port $port
	says 'not permitted'
	is_as_before
}

t_show() {
	need_zero_copy
	unprepare
	run 1 "$pastectl" nic show "$nic"
	says "device  *$PASTE_NIC"
	says 'queues  *2 of at most 2'
	says 'RX ring  *512 of at most'
	says 'RSS table  *[0-9]* entries; queue 0: [0-9]* queue 1: [0-9]*'
	says 'rx-vlan-offload  *no  *on'
	says 'ntuple  *slow\|rss  *slow'
	says "$nic: zero copy would not work"
}

# The last step fails.
t_undone() {
	need_zero_copy
	unprepare
	mount --bind /proc/irq /proc/irq
	trap 'umount /proc/irq' EXIT
	mount -o remount,bind,ro /proc/irq
	prepare 1 --queues 2
	says 'rx-vlan-offload: on -> off'
	says 'cannot change it to .*: interrupt: Read-only'
	says 'undoing'
	says 'rx-vlan-offload: off -> on'
	is_as_before
}

t_prepare_and_restore() {
	need_zero_copy
	unprepare
	prepare 0 --queues 2 -n
	says 'rx-vlan-offload: on -> off'
	says 'rx-ring: 512 -> 1024'
	says 'rss: .* -> even over 2'
	is_as_before
	cp "$work/out" "$work/dry"
	prepare 0 --queues 2
	cmp -s "$work/out" "$work/dry" || fail "a dry run says another thing: $(diff "$work/dry" "$work/out" | xargs)"
	[ "$(command stat -c '%a %u' "$saved")" = '600 0' ] || fail "the mode of $saved"
	ethtool -k "$nic" > "$work/out"
	says '^rx-vlan-offload: off'
	says '^large-receive-offload: off'
	says '^ntuple-filters: on'
	ethtool -g "$nic" | sed '1,/^Current/d' > "$work/out"
	says '^RX:[[:space:]]*1024$'
	ethtool -c "$nic" > "$work/out"
	says '^rx-usecs:[[:space:]]*20$'
	[ "$(interrupts | awk '/[rR]x-[01]\// { print $2 }' | xargs)" = '0 1' ] || fail "interrupts: $(interrupts | xargs)"
	prepare 0 --queues 2
	says 'nothing to change'
	run 0 "$pastectl" nic show "$nic"
	says "prepared  *yes, old values in $saved"
	! grep ' slow ' "$work/out" > "$work/slow" || fail "$(head -1 "$work/slow")"
	run 0 "$pastectl" nic restore "$nic"
	is_as_before
	run 1 "$pastectl" nic restore "$nic"
	says 'is not prepared'
}

is_without_xdp() { ! ip link show "$nic" | grep -q xdp; }

# Restore goes back to before the first of several, to what drivers have forgotten meanwhile, too.
t_prepared_twice_and_served() {
	need_zero_copy
	unprepare
	rm "$work/unprepared"
	moderate 70 off
	state > "$work/before"
	prepare 0 --queues 1
	says 'channels: 2 -> 1'
	prepare 0 --queues 2
	says 'channels: 1 -> 2'
	says 'CPU for queue 1: new -> 1'
	prepare 0 --queues 2
	says 'nothing to change'
	"$phttpd" -i "$nic" -Z -p 2 -P $port -S 2> "$work/log" &
	poll 30 grep -q '^phttpd: port' "$work/log" || fail "phttpd: $(tail -1 "$work/log")"
	poll 30 host ping -c 1 -W 1 "$PASTE_ADDR" > /dev/null || fail "the NIC does not come back"
	prepare 0 --queues 2
	! grep -v "$forgotten\|nothing to change" "$work/out" > "$work/more" || fail "still to change: $(cat "$work/more")"
	run 0 "$pastectl" nic show "$nic"
	says "bound  *queue 1 by process $!"
	says 'of libpaste: in use now'
	host --timeout $((60 * slow)) wrk -t1 -c20 -d1s "http://$PASTE_ADDR:$port/" > "$work/wrk" || fail "wrk"
	run 0 "$pastectl" stat --prom
	says "^paste_ref_entries_total{queue=\"[0-9]*\",pid=\"$!\",nic=\"$nic\",nic_queue=\"1\"} [1-9]"
	! grep -Ev '^(# TYPE paste_[a-z_]+ (counter|gauge)|paste_[a-z_]+\{[^}]*\} [0-9]+)$' "$work/out" || fail "not in Prometheus's format"
	kill -TERM $!
	wait $! || fail "phttpd ended with $?"
	grep -q ' copied 0\b' "$work/log" || fail "$(tail -1 "$work/log")"
	[ "$(sed -n 's/.* requests \([0-9]*\).*/\1/p' "$work/log")" -gt 100 ] || fail "$(tail -1 "$work/log")"
	poll 30 is_without_xdp || fail "the XDP program stays"
	run 0 "$pastectl" nic restore "$nic"
	is_as_before
}

t_refused() {
	need_zero_copy
	unprepare
	prepare 1 --queues 1000
	says 'at most 2 queues'
	rm "$work/unprepared"
	ip link set "$nic" down
	prepare 1 --queues 2
	says "ip link set $nic up"
	ip link set "$nic" up
	ip addr add "$PASTE_ADDR6/64" dev "$nic" nodad # which went with the link
	ip link set "$nic" mtu 9000
	prepare 1 --queues 2
	says 'MTU: 9000'
	ip link set "$nic" mtu 1500
	[ ! -e "$saved" ] || fail "$saved is there"
}

t_refused_for_a_rule() {
	need_zero_copy
	[ -n "$rules" ] || skip "the emulated $PASTE_NIC has no ntuple rules"
	unprepare
	rm "$work/unprepared"
	ethtool -K "$nic" ntuple on
	ethtool -N "$nic" flow-type tcp4 dst-port $port action 1 > "$work/rule" || fail "ethtool -N"
	prepare 1 --queues 1
	says "rule [0-9]* sends port $port elsewhere"
	prepare 0 --queues 2 -n
	ethtool -N "$nic" delete "$(sed -n 's/.*ID \([0-9]*\).*/\1/p' "$work/rule")" || fail "ethtool -N delete"
	[ ! -e "$saved" ] || fail "$saved is there"
}

# --- running them

run_case() {
	local name=$1 status
	rm -f "$work/reason"
	("$name") > "$work/output" 2>&1 &
	wait $!
	status=$?
	n=$((n + 1))
	case $status in
	0) echo "ok $n $name" ;;
	4) echo "ok $n $name # SKIP $(head -1 "$work/reason")" ;;
	*)
		failed=$((failed + 1))
		[ ! -e "$saved" ] || "$pastectl" nic restore "$nic" > /dev/null 2>&1
		rm -f "$work/unprepared"
		sed 's/^/# /' "$work/output" "$work/out"
		echo "not ok $n $name # $(head -c 300 "$work/reason" 2> /dev/null || echo "exit status $status")"
		;;
	esac
	echo "# $((SECONDS - begin)) s"
}

# shellcheck disable=SC2317 # called by trap
finish() {
	if [ -e "$work/first" ]; then
		sh "$work/first" > /dev/null 2>&1
		poll 30 host ping -c 1 -W 1 "$PASTE_ADDR" > /dev/null
	fi
	rm -rf "$work"
}

case ${1:-} in
-h | --help)
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit
	;;
esac
cases=("$@")
[ $# -gt 0 ] || mapfile -t cases < <(sed -n 's/^\(t_[a-z0-9_]*\)() {.*/\1/p' "$0")
work=$(mktemp -d /dev/shm/paste.XXXXXX)
trap finish EXIT
n=0 failed=0
echo "TAP version 13"
echo "1..${#cases[@]}"
for name in "${cases[@]}"; do
	begin=$SECONDS
	run_case "$name"
done
[ $failed = 0 ]
