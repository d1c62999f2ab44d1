#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: net.sh [--no-module | CASE...]
#
# Tests of the module in a network: phttpd serves, curl, wrk and client.py are its clients. Needs root, the module, and
# build/tools. Everything between network namespaces works anywhere; the cases with a NIC want what vm/run.sh provides:
# PASTE_IF and the rest of its variables, and the command `host`, which runs the clients at the other end.
#
# Each case is a function t_NAME and can be named on the command line; without names all run, in the order of this file, but
# for t_store_epoll_*: they test phttpd's store without the module, and --no-module runs these, anywhere (`unshare -rn` keeps
# their ports out of the way). One KTAP line each. After each case the kernel log must be clean and no object of the module
# may be left.
#
# Cases wait for what they want to see, not for a time: a load runs until then, and time limits are there for what hangs.
# PASTE_SLOW multiplies them, for kernels that look for trouble and hosts with other work.

set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=${here%/selftests}
[ -x "$tree/build/tools/phttpd" ] || tree=$(cd "$here/../.." && pwd)
phttpd=$tree/build/tools/phttpd
pastectl=$tree/build/tools/pastectl
client=$tree/selftests/client.py
store=$tree/selftests/store.py

port=60000
MB=1048576
work=
nic=${PASTE_IF:-}
wrk_options=()
as=() # command that runs a server with fewer rights
slow=${PASTE_SLOW:-1}
# Seconds that one request, and the transfer of some MB, may take.
one_limit=$((30 * slow))
transfer_limit=$((200 * slow))

# --- for cases

fail() {
	echo "$*" > "$work/reason"
	exit 1
}

skip() {
	echo "$*" > "$work/reason"
	exit 4
}

# To be done when the case is over, last one first.
later() {
	undo=("$*" "${undo[@]}")
}

# shellcheck disable=SC2317 # called by trap
end_case() {
	local status=$? command
	set +e
	if [ $status != 0 ] && [ $status != 4 ]; then
		"$pastectl" stat 2> /dev/null
		tail -n 60 "$work"/server.[0-9]*
	fi
	for command in "${undo[@]}"; do
		eval "$command"
	done
	jobs -p | xargs -r kill -9 2> /dev/null
	wait
	exit $status
}

n0() { ip netns exec paste0 "$@"; }
n1() { ip netns exec paste1 "$@"; }
outside() { host --timeout $((transfer_limit + 20)) "$@"; }

# poll SECONDS COMMAND...: until it succeeds
poll() {
	local end=$((SECONDS + $1 * slow))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# Two namespaces and a veth between them.
set_up_veth() {
	ip netns add paste0 || return
	later "ip netns del paste0"
	ip netns add paste1
	later "ip netns del paste1"
	ip link add pv0 netns paste0 type veth peer name pv1 netns paste1
	n0 sysctl -qw net.ipv6.conf.all.accept_dad=0
	n1 sysctl -qw net.ipv6.conf.all.accept_dad=0
	ip -n paste0 addr add 10.8.0.1/24 dev pv0
	ip -n paste1 addr add 10.8.0.2/24 dev pv1
	ip -n paste0 addr add fd08::1/64 dev pv0 nodad
	ip -n paste1 addr add fd08::2/64 dev pv1 nodad
	ip -n paste0 link set pv0 mtu "$1" up
	ip -n paste1 link set pv1 mtu "$1" up
	ip -n paste0 link set lo up
}

# What is to run in the background is started without these functions, so that $! is its own process.
#
# serve [NAMESPACE] -- OPTION...: start phttpd and wait until it is ready.
serve() {
	local prefix=()
	if [ "$1" != -- ]; then
		prefix=(ip netns exec "$1")
		shift
	fi
	shift
	server_log=$work/server.$((++servers))
	: > "$server_log" # now: what another case had there is not an answer
	"${prefix[@]}" "${as[@]}" "$phttpd" -P "$port" -S "$@" 2> "$server_log" &
	server=$!
	poll 60 server_is_up || fail "phttpd $*: $(tail -1 "$server_log")"
	[ -d "/proc/$server" ] || fail "phttpd $*: $(tail -1 "$server_log")"
}

server_is_up() {
	grep -q '^phttpd: port' "$server_log" || [ ! -d "/proc/$server" ]
}

serve_hooked() {
	need_hook
	serve -- -i "$nic" -Z "$@"
	grep -q hooked "$server_log" || fail "phttpd does not say that it is hooked"
}

# Stop it in an orderly way; sets requests and copied.
stop() {
	kill -TERM "$server" || fail "phttpd is not there: $(tail -1 "$server_log")"
	wait "$server" || fail "phttpd ended with $?: $(tail -1 "$server_log")"
	requests=$(sed -n 's/.* requests \([0-9]*\).*/\1/p' "$server_log")
	copied=$(sed -n 's/.* copied \([0-9]*\).*/\1/p' "$server_log")
}

kill_server() {
	kill -9 "$server"
	wait "$server" || true
}

# It must not start, and say this word.
serve_refused() {
	local word=$1 log=$work/refused status=0
	shift
	timeout $one_limit "${as[@]}" "$phttpd" -P 60009 "$@" 2> "$log" || status=$?
	[ $status = 1 ] || fail "phttpd $*: was not refused, status $status"
	grep -qi -- "$word" "$log" || fail "phttpd $*: '$(head -1 "$log")' does not say '$word'"
}

need_nic() {
	[ -n "$nic" ] || skip "no NIC"
	[ -d "/sys/class/net/$nic" ] || skip "the NIC is gone"
	command -v host > /dev/null || skip "no command host"
}

can_hook() {
	case ${PASTE_NIC:-} in ixgbe | i40e) ;; *) return 1 ;; esac
}

need_hook() {
	need_nic
	can_hook || skip "no zero copy on ${PASTE_NIC:-this NIC}"
}

# Data to transfer, here and for the other end, which sees this VM's run directory.
data() {
	[ -e "$work/data" ] || head -c $((64 * MB)) /dev/urandom > "$work/data"
	[ -e "$work/sum" ] || sha256sum < "$work/data" > "$work/sum"
}

data_outside() {
	shared=$VM_RUN/data
	[ -e "$work/sum.outside" ] && return
	outside sh -c "head -c $((64 * MB)) /dev/urandom > $shared; sha256sum < $shared" > "$work/sum.outside"
}

# URL of the server for curl.
url() {
	case $1 in
	*:*) echo "http://[$1]:$port" ;;
	*) echo "http://$1:$port" ;;
	esac
}

# echo_file ADDRESS [PREFIX...]: 64 MB there and back.
echo_file() {
	local to
	to=$(url "$1")/echo
	shift
	data
	"$@" curl -sS -g --max-time $transfer_limit -H Expect: -X POST -T "$work/data" "$to" | sha256sum > "$work/back"
	cmp -s "$work/sum" "$work/back" || fail "what comes back is not what was sent"
}

echo_file_outside() {
	data_outside
	outside sh -c "curl -sS -g --max-time $transfer_limit -H Expect: -X POST -T $shared '$(url "$1")/echo' | sha256sum" > "$work/back"
	cmp -s "$work/sum.outside" "$work/back" || fail "what comes back is not what was sent"
}

# The same in 16 requests over one connection. The server holds what it has received until the client has taken the answer:
# no pool is large enough for a client that first sends everything.
echo_pieces_outside() {
	data_outside
	outside sh -c "rm -f $shared.*; split -b 4M $shared $shared.
		curl -sS --max-time $transfer_limit -H Expect: -X POST -T \"{\$(echo $shared.* | tr ' ' ,)}\" '$(url "$1")/echo' | sha256sum
		rm -f $shared.*" > "$work/back"
	cmp -s "$work/sum.outside" "$work/back" || fail "what comes back is not what was sent"
}

ask() {
	local address=$1
	shift
	"$@" curl -sS -g --max-time $one_limit "$(url "$address")/" | grep -q paste || fail "no answer from $address"
}

ask_outside() { ask "$PASTE_ADDR" outside; }

# A statistic of each queue, one a line, and the sum of it.
stats() {
	"$pastectl" stat --json | tr ',{}' '\n' | awk -F': *' -v name="\"$1\"" '{ sub(/^ */, "", $1) } $1 == name { print $2 }'
}

stat() {
	stats "$1" | awk '{ sum += $1 } END { print sum + 0 }'
}

# What the driver says that the RX queues got.
driver_packets() {
	ethtool -S "$nic" | awk '/rx_queue_[0-9]+_packets:|rx-[0-9]+\.packets:/ { sum += $2 } END { print sum + 0 }'
}

# load [COMMAND...]: wrk with $wrk_options in the background, started by COMMAND (outside, unless said), to $to. It runs until
# stop_load.
load() {
	[ $# -gt 0 ] || set -- host --timeout $((10 * transfer_limit))
	rm -f "$flag"
	# shellcheck disable=SC2016 # for the other shell
	"$@" sh -c 'flag=$1; shift
		wrk -t1 -c50 -d1h --timeout 60s "$@" &
		until [ -e "$flag" ] || ! kill -0 $!; do sleep 0.1; done
		kill -INT $!
		wait $!' load "$flag" "${wrk_options[@]}" "${to:-$(url "$PASTE_ADDR")/}" > "$work/wrk" 2>&1 &
	wrk=$!
	served 100
}

# served N: until N more answers are out
served() {
	local goal=$(($(stat sends) + $1))
	poll 60 reached sends "$goal" || fail "$1 more answers: still $((goal - $(stat sends))) to come; wrk: $(tail -1 "$work/wrk")"
}

# reached STATISTIC VALUE
reached() {
	[ "$(stat "$1")" -ge "$2" ]
}

stop_load() {
	touch "$flag"
	wait "$wrk" || true # its server may be gone
}

# The other end dies with all its connections.
kill_load() {
	kill "$wrk" || true # it may have ended by itself
	wait "$wrk" || true
}

wrk_requests() {
	sed -n 's/^ *\([0-9]*\) requests in.*/\1/p' "$1"
}

# Stop the load. Every request must have been answered.
stop_clean_load() {
	touch "$flag"
	wait "$wrk" || fail "wrk: $(tail -1 "$work/wrk")"
	wrk_is_clean "$work/wrk"
}

wrk_is_clean() {
	if grep -q 'Socket errors\|Non-2xx' "$1"; then
		fail "wrk: $(grep 'Socket errors\|Non-2xx' "$1")"
	fi
	[ "$(wrk_requests "$1")" -gt 0 ] || fail "wrk: $(cat "$1")"
}

# Packets go both ways again, after a change of the NIC's settings.
poll_nic() {
	poll 60 outside ping -c 1 -W 1 "$PASTE_ADDR" > "$work/ping" || fail "the NIC does not come back"
}

# --- plain: no NIC at all

t_lo_v4() {
	serve -- -n
	echo_file 127.0.0.1
	ask 127.0.0.1
	stop
	[ "$requests" = 2 ] || fail "$requests requests"
}

t_lo_v6() {
	serve -- -n -6
	echo_file ::1
	stop
}

t_lo_chunks_of_2048() {
	serve -- -n -s 2048 -C 1024
	echo_file 127.0.0.1
	stop
}

# What the README and the man pages show must run. 3 MB through each, then the end of the stream.
t_lo_examples() {
	local example
	"$tree/build/tools/echo" 7001 &
	"$tree/build/tools/epoll" 7002 &
	"$tree/build/tools/hello" &
	for example in 7001 7002 7777; do
		python3 - $example << 'END' || fail "the echo on port $example"
import os, socket, sys, threading, time

for attempt in range(100):
    try:
        s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
sent = os.urandom(3000000)

def send():
    s.sendall(sent)
    s.shutdown(socket.SHUT_WR)

threading.Thread(target=send).start()
received = bytearray()
while piece := s.recv(65536):
    received += piece
sys.exit(received != sent)
END
	done
}

# shellcheck disable=SC2317 # called by poll
count_on_7004() {
	[ "$(head -c 100000 /dev/zero | nc -N 127.0.0.1 7004)" = 100000 ]
}

# The examples of the man pages, where selftests/docs.py has left them.
t_lo_manual() {
	local programs=$tree/build/docs page
	[ -x "$programs/paste.4" ] || skip "selftests/docs.py has not compiled them"
	for page in paste.4 paste_open.3 paste_stats.3; do
		timeout $one_limit "$programs/$page" > "$work/$page" || fail "the example of $page"
	done
	timeout $one_limit "$programs/paste_nic_open.3" lo | grep -q copied || fail "the example of paste_nic_open.3"
	timeout $one_limit "$programs/paste_queue.3" &
	poll 20 count_on_7004 || fail "the example of paste_queue.3 does not count"
	wait $! || fail "the example of paste_queue.3"
}

t_lo_wrk() {
	serve -- -n
	to=http://127.0.0.1:$port/
	load env
	served 2000
	stop_clean_load
	stop
	[ "$requests" -ge "$(wrk_requests "$work/wrk")" ] || fail "$requests requests"
}

# Bodies that the server sums, and so reads where the chunks are.
t_lo_sum() {
	serve -- -n -v
	"$client" sum 127.0.0.1 $port $MB || fail "client"
	stop
}

t_lo_options() {
	"$phttpd" -h | grep -q -- -P || fail "-h does not help"
	serve -- -n -l 100000 -c -v -a 0 -u 50 -b 0
	[ "$(curl -sS --max-time $one_limit "$(url 127.0.0.1)/" | wc -c)" = 100000 ] || fail "-l 100000"
	"$pastectl" stat | grep -q 'now: ' || fail "pastectl stat"
	timeout 3 "$pastectl" stat -w 1 | grep -q 'queue' || fail "pastectl stat -w"
	stop
}

# As somebody who has nothing but the group's permission on the device, and as root of a user namespace: plain is all there is.
t_lo_unprivileged() {
	local nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups) before
	before=$(command stat -c 'chown %u:%g /dev/paste; chmod %a /dev/paste' /dev/paste)
	later "$before"
	chown 0:65534 /dev/paste
	# the tree may lie where nobody else can look
	chmod 711 "$work"
	later "chmod 700 $work"
	cp "$phttpd" "$pastectl" "$work"
	local phttpd=$work/phttpd pastectl=$work/pastectl

	as=("${nobody[@]}")
	chmod 600 /dev/paste
	serve_refused "permission" -n
	chmod 660 /dev/paste
	unprivileged_server
	as=("${nobody[@]}" unshare -r)
	unprivileged_server
}

unprivileged_server() {
	serve -- -n -C 1024 # less than the usual RLIMIT_MEMLOCK
	echo_file 127.0.0.1
	# somebody else's queue is not to be seen
	"$pastectl" stat --json | grep -q '"id"' || fail "no queue"
	! "${as[@]}" "$pastectl" stat --json | grep '"id"' || fail "it sees others' queues"
	stop
	serve_refused "not permitted" -C 1024 -i lo -Z
}

# 20 connections, each with other figures, are there. Then a load.
t_lo_conns() {
	serve -- -n
	"$client" keep 127.0.0.1 $port 20 "$flag.keep" > "$work/client" 2>&1 &
	conns_add_up 127.0.0.1
	to=http://127.0.0.1:$port/
	load env
	top_shows 127.0.0.1
	stop_clean_load
	[ "$("$pastectl" conns | wc -l)" = 1 ] || fail "connections are left: $("$pastectl" conns)"
	stop
	[ "$("$pastectl" conns -j)" = "[]" ] || fail "connections without a server: $("$pastectl" conns -j)"
	command_refused conns -x
	command_refused conns 1
	command_refused top -n 0
	command_refused top -n 1x
	command_refused top -w 0
	command_refused top 1
}

# It goes on whatever fails: without rights there is no device and no log.
t_lo_doctor() {
	local word
	serve -- -n
	ask 127.0.0.1
	"$pastectl" doctor > "$work/report" || fail "doctor: $?"
	cat "$work/report"
	for word in "^kernel  *$(uname -r) " "^doorbell_batch  *[0-9]" "^/dev/paste  *mode 0" "^version " "^queue [0-9]* *pid $server " \
		"^=== ${nic:-system}"; do
		grep -q "$word" "$work/report" || fail "doctor: no line '$word'"
	done
	sed '1,/^=== kernel log/d' "$work/report" | grep -q "paste.*loaded" || fail "doctor: the kernel's log is not there"
	setpriv --reuid=65534 --regid=65534 --clear-groups "$pastectl" doctor > "$work/report" || fail "doctor without rights: $?"
	grep -q "^kernel  *$(uname -r) " "$work/report" || fail "doctor without rights: no kernel"
	grep -qi "permission denied" "$work/report" || fail "doctor without rights does not say that it has none"
	command_refused doctor lo
	stop
}

# command_refused WORD...: pastectl must not take that, and say how it is done.
command_refused() {
	local status=0
	"$pastectl" "$@" > "$work/refused" 2>&1 || status=$?
	[ $status = 2 ] || fail "pastectl $*: status $status, not 2"
	[ -s "$work/refused" ] || fail "pastectl $*: says nothing"
}

# conns_add_up PEER: what conns shows of the connections that the client keeps. ss shows the same sockets.
conns_add_up() {
	local c=$!
	poll 60 grep -q kept "$work/client" || fail "client: $(cat "$work/client")"
	poll 20 sums_are_equal || fail "conns shows other sums than stat: $(cat "$work/sums")"
	[ "$(stat conns)" = 20 ] || fail "$(stat conns) connections"
	[ "$("$pastectl" conns | grep -c "^[0-9]* *$1:[0-9]* .*:$port .* -$")" = 20 ] || fail "conns: $("$pastectl" conns)"
	grep -o '"inode": [0-9]*' "$work/conns" | sed 's/.* //' | sort > "$work/inodes"
	ss -tneH state established "sport = :$port" | sed -n 's/.* ino:\([0-9]*\).*/\1/p' | sort | cmp - "$work/inodes" ||
		fail "ss shows other sockets: $(ss -tneH state established "sport = :$port")"
	touch "$flag.keep"
	wait "$c" || fail "client: $(cat "$work/client")"
	poll 60 no_connections || fail "$(stat conns) connections are left"
}

# Sends may still be under way.
sums_are_equal() {
	"$pastectl" conns --json > "$work/conns"
	"$pastectl" stat --json > "$work/stat"
	python3 - "$work/conns" "$work/stat" > "$work/sums" << 'END'
import json, sys

conns, queues = (json.load(open(name)) for name in sys.argv[1:])
status = not queues
for q in queues:
    mine = [c for c in conns if c["queue"] == q["id"]]
    of_conns = [len(mine)] + [sum(c[name] for c in mine) for name in ("rx_bytes", "tx_bytes", "sends_now")]
    of_queue = [q["conns"], q["ref_bytes"] + q["copy_bytes"], q["send_bytes"], 0]
    print(q["id"], of_conns, of_queue)
    status |= of_conns != of_queue or not all(of_conns[:3])
sys.exit(status)
END
}

# top_shows PEER: what top shows of a load.
top_shows() {
	"$pastectl" top -n 2 -w 1 > "$work/top" || fail "top: $?"
	cat "$work/top"
	[ "$(grep -c "^queue [0-9].* 5[0-9] connections" "$work/top")" = 2 ] || fail "top: not twice a line for the queue"
	[ "$(grep -c "^ *in *[1-9].* entries/s .* of [1-9]" "$work/top")" = 2 ] || fail "top: nothing comes in"
	[ "$(grep -c "^ *out *[1-9].* sends/s" "$work/top")" = 2 ] || fail "top: nothing goes out"
	[ "$(grep -cE '^  chunks  \[[#=.]{50}\]$' "$work/top")" = 2 ] || fail "top: no bar"
	[ "$(grep -cE "^[0-9]+ +$1:[0-9]+ +[0-9]+k? +[0-9]+k? " "$work/top")" = 20 ] || fail "top: not ten connections each time"
	! grep -q $'\033' "$work/top" || fail "top: escape sequences in a file"
	script -qec "$pastectl top -n 1" /dev/null < /dev/null | grep -q $'\033\[J' || fail "top: nothing is drawn on a terminal"
}

# follow_chunks COMMAND...: run it with all tracepoints of the module on; which of them were passed?
follow_chunks() {
	local tracing=/sys/kernel/tracing
	[ -d $tracing/events/paste ] || skip "no tracepoints"
	later "echo 0 > $tracing/events/paste/enable"
	echo > $tracing/trace
	echo 1 > $tracing/events/paste/enable
	"$@"
	echo 0 > $tracing/events/paste/enable
	grep -o 'paste_[a-z]*:' $tracing/trace | sort -u | xargs
}

t_lo_tracepoints() {
	serve -- -n
	follow_chunks ask 127.0.0.1 > "$work/trace"
	[ "$(< "$work/trace")" = "paste_comp: paste_deliver: paste_fill: paste_send:" ] || fail "$(< "$work/trace")"
	stop
}

# The baseline is an honest one: no more than two system calls for a request, but for epoll_wait.
t_lo_epoll_system_calls() {
	local hist=/sys/kernel/tracing/events/raw_syscalls/sys_enter calls
	[ -e $hist/hist ] || skip "no histograms of system calls"
	serve --
	later "echo '!hist:keys=id.syscall if comm == \"phttpd\"' > $hist/trigger"
	echo 'hist:keys=id.syscall if comm == "phttpd"' > $hist/trigger
	wrk -t1 -c50 -d2 --timeout 60s "$(url 127.0.0.1)/" > "$work/wrk"
	wrk_is_clean "$work/wrk"
	cat $hist/hist
	calls=$(awk '/hitcount:/ && !/sys_epoll_/ { sum += $NF } END { print sum }' $hist/hist)
	stop
	[ "$requests" -gt 100 ] || fail "$requests requests"
	# connections are made and closed, too
	[ "$calls" -le $((2 * requests + 50 * 12)) ] || fail "$calls system calls for $requests requests"
}

# Pools with all that was in them, half of them killed under load: what is missing afterwards would be a leak.
t_lo_memory_comes_back() {
	to=http://127.0.0.1:$port/
	memory_comes_back serve -- -n
}

# memory_comes_back COMMAND...: that starts the server
memory_comes_back() {
	local before after
	for round in 0 1 2 3 4; do
		[ $round != 1 ] || before=$(free_memory)
		"$@"
		load ${to:+env}
		if [ $((round % 2)) = 1 ]; then
			kill_server
			stop_load
		else
			stop_load
			stop
		fi
		poll 60 no_objects_left || fail "objects are left"
	done
	after=$(free_memory)
	echo "free before $before after $after KB"
	# Two ended well, two were killed, and a pool has 37 MB. Of memory that is free, some 10 MB wait in lists of the CPUs.
	[ $((before - after)) -lt $((60 * 1024)) ] || fail "$((before - after)) KB are gone"
}

# The end of a killed process that has 10 000 connections takes little longer with paste. The least counts of at most five.
t_lo_kill_10000_connections() {
	local epoll paste
	for round in 1 2 3 4 5; do
		epoll=$(time_to_kill "${epoll:-}" --)
		paste=$(time_to_kill "${paste:-}" -- -n)
		[ $((paste * 10)) -gt $((epoll * 13)) ] || break
	done
	echo "robust: kill-10000 epoll $epoll ms paste $paste ms" > "$work/figure"
	[ $((paste * 10)) -le $((epoll * 13)) ] || fail "epoll $epoll ms, paste $paste ms"
}

# time_to_kill LEAST -- OPTION...: ms that the end of this server takes, or LEAST if that was less
time_to_kill() {
	local least=$1 holder begin ms
	shift
	serve "$@"
	"$client" hold 127.0.0.1 $port 10000 > "$work/hold" &
	holder=$!
	poll 120 grep -q served "$work/hold" || fail "$(tail -1 "$work/hold")"
	begin=$(date +%s%N)
	kill_server
	ms=$((($(date +%s%N) - begin) / 1000000))
	kill $holder
	wait $holder || true
	poll 60 no_objects_left || fail "objects are left"
	[ -n "$least" ] && [ "$least" -lt $ms ] && ms=$least
	echo "$ms"
}

free_memory() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
	awk '/^MemFree:/ { print $2 }' /proc/meminfo
}

t_veth_v4() {
	set_up_veth 1500
	serve paste0 -- -n
	echo_file 10.8.0.1 n1
	stop
}

t_veth_v6() {
	set_up_veth 1500
	serve paste0 -- -n -6
	echo_file fd08::1 n1
	stop
}

t_veth_mtu_9000() {
	set_up_veth 9000
	serve paste0 -- -n -6
	echo_file fd08::1 n1
	stop
}

t_veth_two_contexts() {
	local first first_log wrk=()
	set_up_veth 1500
	serve paste0 -- -n
	first=$server first_log=$server_log
	port=60001
	serve paste0 -- -n -C 1024
	for i in 0 1; do
		ip netns exec paste1 wrk -t1 -c10 -d4 --timeout 60s "http://10.8.0.1:6000$i/" > "$work/wrk.$i" &
		wrk[i]=$!
	done
	for i in 0 1; do
		wait "${wrk[i]}" || fail "wrk: $(cat "$work/wrk.$i")"
		wrk_is_clean "$work/wrk.$i"
	done
	stop
	server=$first server_log=$first_log
	stop
}

# veth_netem WORDS...: on both ends, and a transfer of 4 MB in both directions
veth_netem() {
	set_up_veth 1500
	n0 tc qdisc add dev pv0 root netem "$@" || skip "no netem"
	n1 tc qdisc add dev pv1 root netem "$@"
	serve paste0 -- -n
	head -c $((4 * MB)) /dev/urandom > "$work/part"
	for _ in 1 2; do
		n1 curl -sS --max-time $transfer_limit -H Expect: -X POST -T "$work/part" "http://10.8.0.1:$port/echo" |
			cmp - "$work/part" || fail "what comes back is not what was sent"
	done
	stop
}

t_veth_loss() { veth_netem limit 10000 delay 1ms loss 2%; }
t_veth_reorder() { veth_netem limit 10000 delay 5ms reorder 75% 50%; }
t_veth_duplicate() { veth_netem limit 10000 delay 1ms duplicate 10%; }

t_veth_half_close() {
	set_up_veth 1500
	serve paste0 -- -n
	n1 "$client" half 10.8.0.1 $port 300000 || fail "half close"
	n1 "$client" half 10.8.0.1 $port 3000000 || fail "half close of what does not fit into buffers"
	stop
}

t_veth_resets() {
	set_up_veth 1500
	serve paste0 -- -n
	n1 "$client" reset 10.8.0.1 $port 40 || fail "client"
	poll 60 no_connections || fail "$(stat conns) connections are left"
	ask 10.8.0.1 n1
	stop
}

no_connections() { [ "$(stat conns)" = 0 ]; }

t_veth_slow_client() {
	set_up_veth 1500
	serve paste0 -- -n
	n1 "$client" slow 10.8.0.1 $port 3000000 || fail "client"
	stop
}

t_veth_slow_server() {
	set_up_veth 1500
	data
	serve paste0 -- -n -C 256
	ip netns exec paste1 curl -sS --max-time $transfer_limit -H Expect: -X POST -T "$work/data" "http://10.8.0.1:$port/echo" > "$work/back.part" &
	curl=$!
	pause_server
	wait "$curl" || fail "curl: $?"
	cmp "$work/data" "$work/back.part" || fail "what comes back is not what was sent"
	stop
}

# The server sleeps three times in the middle of a transfer.
pause_server() {
	served 1
	for _ in 1 2 3; do
		kill -STOP "$server"
		sleep 1
		kill -CONT "$server"
		sleep 0.2
	done
}

t_veth_unsent_data_at_kill() {
	set_up_veth 1500
	serve paste0 -- -n
	ip netns exec paste1 "$client" prefix 10.8.0.1 $port "$flag" > "$work/client" 2>&1 &
	kill_with_unsent_data
}

# The client takes the first bytes of a large answer and the rest only when the server is dead.
kill_with_unsent_data() {
	local c=$!
	poll 60 grep -q ready "$work/client" || fail "client: $(cat "$work/client")"
	sleep 0.5 # for the buffers to fill
	kill_server
	touch "$flag"
	wait "$c" || fail "client: $(tail -1 "$work/client")"
}

t_veth_kill_and_restart() {
	set_up_veth 1500
	to=http://10.8.0.1:$port/
	for _ in 1 2; do
		serve paste0 -- -n
		load ip netns exec paste1
		kill_server
		stop_load
	done
	serve paste0 -- -n
	ask 10.8.0.1 n1
	stop
}

t_veth_link_goes_away() {
	set_up_veth 1500
	serve paste0 -- -n
	to=http://10.8.0.1:$port/
	load ip netns exec paste1
	ip -n paste0 link del pv0
	ask 127.0.0.1 n0
	stop_load
	stop
}

t_netns_deleted_under_load() {
	set_up_veth 1500
	serve paste0 -- -n
	to=http://10.8.0.1:$port/
	load ip netns exec paste1
	ip netns del paste0
	stop
	stop_load
	ip netns add paste0
}

# --- the store: bodies copied to a log

# With epoll, and with -n (and what else these functions get as arguments).
t_store_epoll_kv() { store_checks kv -k; }
t_store_epoll_kv_threads() { store_checks kv -k -p 3; }
t_store_epoll_tree() { store_checks tree -B; }
t_store_epoll_wal() { store_checks wal; }
t_store_epoll_mmap() { store_checks kv -k -m; }
t_store_epoll_datasync() { store_checks tree -B -D; }
t_store_epoll_no_flush() { store_checks kv -k -F; }
t_store_epoll_full() { store_full; }
t_store_epoll_restart() { store_restart; }
t_store_epoll_kill() { store_kill; }
t_store_epoll_kill_tree() { KIND=tree store_kill; }
t_store_epoll_wrap() { store_wrap; }
t_store_plain_kv() { store_checks kv -n -k; }
t_store_plain_tree() { store_checks tree -n -B; }
t_store_plain_wal() { store_checks wal -n; }
t_store_plain_full() { store_full -n; }
t_store_plain_restart() { store_restart -n; }
t_store_plain_kill() { store_kill -n; }
t_store_plain_wrap() { store_wrap -n; }

# Where the client runs, and what it sees the server at.
from=()
at=127.0.0.1
zero_copy=() # or -x

# An empty directory for a store, in $stores if that is set.
new_store() {
	dir=$(mktemp -d "${stores:-$work}/store.XXXXXX")
	later "rm -rf $dir"
}

# store_checks COMMAND OPTION...: what the client can check; and then all of it must be intact.
store_checks() {
	local command=$1 options
	shift
	new_store
	serve -- -d "$dir" -L 200 "$@"
	"${from[@]}" "$store" "$command" "$at" $port
	stop
	mapfile -t options < <(printf '%s\n' "$@" | grep -x -e -k -e -B -e -x)
	recover "${options[@]}"
}

# recover OPTION...: --recover-only must be content; sets records
recover() {
	"$phttpd" -d "$dir" --recover-only "$@" > "$work/recovered" 2>&1 || fail "--recover-only: $(cat "$work/recovered")"
	grep -q ' torn 0 in .* corrupt 0$' "$work/recovered" || fail "$(cat "$work/recovered")"
	records=$(sed -n 's/.* records \([0-9]*\) .*/\1/p' "$work/recovered")
}

store_full() {
	new_store
	serve -- -d "$dir" -k -L 4 "$@"
	"${from[@]}" "$store" full "$at" $port
	stop
}

# Everything must be there after an orderly end, with any number of threads.
store_restart() {
	local threads
	new_store
	rm -f "$work/there"
	for threads in 2 3 1; do
		serve -- -d "$dir" -k -p $threads "${zero_copy[@]}" "$@"
		[ ! -e "$work/there" ] || "${from[@]}" "$store" verify "$at" $port "$work/there"
		"${from[@]}" "$store" load 127.0.0.1 $port 1 "$work/there"
		stop
		recover -k "${zero_copy[@]}"
	done
}

# Everything that was acknowledged must be there after a kill, and nothing that was not sent.
store_kill() {
	local threads kind=-k
	[ "${KIND:-kv}" = kv ] || kind=-B
	export KIND=${KIND:-kv}
	new_store
	rm -f "$work/there" "$work/load"
	for threads in 2 1 3; do
		serve -- -d "$dir" "$kind" -p $threads "${zero_copy[@]}" "$@"
		[ ! -e "$work/there" ] || "${from[@]}" "$store" verify "$at" $port "$work/there"
		"${from[@]}" "$store" load 127.0.0.1 $port 60 "$work/there" > "$work/load" &
		poll 60 grep -q ready "$work/load" || fail "no load"
		sleep 1
		kill_server
		wait "$!" || fail "the client did not like it"
		grep requests "$work/load"
	done
	serve -- -d "$dir" "$kind" "${zero_copy[@]}" "$@"
	"${from[@]}" "$store" verify "$at" $port "$work/there"
	stop
}

# Five times as much as there is room for; what is left at the end are the newest.
store_wrap() {
	new_store
	serve -- -d "$dir" --wrap -L 1 -p 2 "$@"
	head -c 1000 /dev/urandom > "$work/record"
	for _ in 1 2 3 4; do
		seq 1300 | sed "s,.*,url=http://127.0.0.1:$port/\noutput=/dev/null," |
			curl -sS --max-time 60 -K - --data-binary "@$work/record" -w '%{http_code}\n' | sort | uniq -c > "$work/answers"
		[ "$(awk '{ print $2 }' "$work/answers")" = 200 ] || fail "$(cat "$work/answers")"
	done
	stop
	recover
	[ "$records" -ge 200 ] || fail "$records records are left"
	"$phttpd" -d "$dir" --recover-only --dump > "$work/dump" || fail "--dump"
	[ "$(grep -ac '^record [0-9]* 0 1000$' "$work/dump")" = "$records" ] || fail "--dump does not have $records records"
	[ "$(wc -c < "$work/dump")" -gt $((records * 1000)) ] || fail "--dump has no contents"
	serve_refused 'only a log' -d "$dir" --wrap -k
}

t_store_epoll_latency() {
	local begin end
	new_store
	serve -- -d "$dir" -e 20000000
	begin=$(date +%s%N)
	for _ in 1 2 3 4 5; do
		curl -sS -d x -o /dev/null "$(url 127.0.0.1)/"
	done
	end=$(date +%s%N)
	stop
	[ $(((end - begin) / 1000000)) -ge 100 ] || fail "five POSTs with 20 ms each took $(((end - begin) / 1000000)) ms"
}

t_store_epoll_options() {
	new_store
	serve_refused 'need -d' -k
	serve_refused 'need -d' -L 10
	serve_refused 'need -d' --recover-only
	serve_refused 'not both' -d "$dir" -k -B
	serve_refused 'oldest' -d "$dir" -B --wrap
	serve_refused '-D has no meaning' -d "$dir" -m -D
	serve_refused '-D has no meaning' -d "$dir" -F -D
	serve_refused 'neither -m nor -D' -d "$dir" -x -n -m
	serve_refused 'needs -i or -n' -d "$dir" -x
	serve_refused 'not a number' -d "$dir" -L 0
	serve_refused 'no store' -d "$dir" --recover-only
	serve_refused 'No such file' -d "$dir/a/b"
}

# Another kind, another program's file, a store in use: a sentence, and nothing is changed.
t_store_epoll_refused() {
	local before
	new_store
	serve -- -d "$dir" -k
	curl -sS -T /dev/null "$(url 127.0.0.1)/kv/a"
	serve_refused 'in use' -d "$dir" -k
	stop
	before=$(sha256sum "$dir"/*)
	serve_refused 'key-value' -d "$dir"
	serve_refused 'key-value' -d "$dir" -B
	serve_refused 'key-value' -d "$dir" -B --recover-only
	[ "$before" = "$(sha256sum "$dir"/*)" ] || fail "what was refused was written to"
	head -c 100000 /dev/urandom > "$dir/log.0"
	before=$(sha256sum "$dir"/*)
	serve_refused 'log.0' -d "$dir" -k
	[ "$before" = "$(sha256sum "$dir"/*)" ] || fail "what was refused was written to"
}

# Values that have changed on the medium are found, and are not served.
t_store_epoll_corrupt() {
	local status=0
	new_store
	serve -- -d "$dir" -k
	for i in 1 2 3; do
		printf 'needle %d in a haystack' $i | curl -sS -T - "$(url 127.0.0.1)/kv/$i"
	done
	stop
	sed -i 's/needle 1 in/noodle 1 in/' "$dir/log.0"
	"$phttpd" -d "$dir" -k --recover-only > "$work/recovered" || status=$?
	[ $status = 1 ] || fail "--recover-only: status $status"
	grep -q 'records 3 .* corrupt 1$' "$work/recovered" || fail "$(cat "$work/recovered")"
	serve -- -d "$dir" -k
	[ "$(curl -s -o /dev/null -w '%{http_code}' "$(url 127.0.0.1)/kv/1")" = 500 ] || fail "corrupt, but answered"
	[ "$(curl -s "$(url 127.0.0.1)/kv/2")" = 'needle 2 in a haystack' ] || fail "the next one is gone"
	stop
}

# --- with a NIC, not hooked

t_nic_plain_v4() {
	need_nic
	serve -- -n
	echo_file_outside "$PASTE_ADDR"
	stop
}

t_nic_plain_v6() {
	need_nic
	serve -- -n -6
	echo_file_outside "$PASTE_ADDR6"
	stop
}

t_nic_plain_mtu_9000() {
	need_nic
	later "ip link set $nic mtu 1500"
	ip link set "$nic" mtu 9000 || skip "$nic has no MTU of 9000"
	if [ "${PASTE_NET:-tap}" = tap ]; then
		later "outside ip link set tap0 mtu 1500"
		outside ip link set tap0 mtu 9000 || skip "the other end has no MTU of 9000"
	fi
	poll_nic
	serve -- -n
	echo_file_outside "$PASTE_ADDR"
	stop
	can_hook || return 0
	serve_refused MTU -i "$nic" -Z
}

has_carrier() { [ "$(cat "/sys/class/net/$nic/carrier" 2> /dev/null)" = 1 ]; }

# Give the NIC two channels until the case is over.
set_two_channels() {
	local before
	need_nic
	before=$(ethtool -l "$nic" 2> /dev/null | sed -n '/^Current/,$s/^Combined:[[:space:]]*//p')
	[ -n "$before" ] || skip "the channels of $nic cannot be set"
	[ "$before" = 2 ] && return
	ethtool -L "$nic" combined 2 2> /dev/null || skip "$nic cannot have two channels (with $(nproc) CPU)"
	later "ethtool -L $nic combined $before"
	poll_nic
}

# Each of the two queues has had connections.
both_queues_were_used() {
	[ "$(stats sends | awk '$1 > 100' | wc -l)" = 2 ] || fail "answers of the queues: $(stats sends | xargs)"
}

t_nic_two_queues() {
	set_two_channels
	can_hook && skip "hooked it is tested"
	serve -- -i "$nic" -p 2
	load
	served 2000
	both_queues_were_used
	stop_clean_load
	stop
}

t_nic_without_zero_copy() {
	need_nic
	[ "${PASTE_NIC:-}" = virtio ] || skip "$PASTE_NIC has zero copy"
	serve_refused 'zero copy' -i "$nic" -Z
	! "$pastectl" check "$nic" > "$work/check" || fail "pastectl check says that it works"
	# without -Z it goes on as plain
	serve -- -i "$nic"
	ask_outside
	stop
}

# --- hooked

t_hooked_check() {
	need_hook
	"$pastectl" check "$nic" > "$work/check" || fail "pastectl check: $(tail -1 "$work/check")"
}

t_hooked_v4() {
	serve_hooked
	echo_pieces_outside "$PASTE_ADDR"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_sum() {
	serve_hooked -v
	outside "$client" sum "$PASTE_ADDR" $port $((8 * MB)) || fail "client"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_tracepoints() {
	serve_hooked
	follow_chunks ask_outside > "$work/trace"
	[ "$(< "$work/trace")" = "paste_comp: paste_deliver: paste_fill: paste_frame: paste_lend: paste_send:" ] ||
		fail "$(< "$work/trace")"
	stop
}

t_hooked_conns() {
	serve_hooked
	host --timeout $transfer_limit "$client" keep "$PASTE_ADDR" $port 20 "$flag.keep" > "$work/client" 2>&1 &
	conns_add_up "$PASTE_PEER"
	load
	top_shows "$PASTE_PEER"
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_memory_comes_back() {
	memory_comes_back serve_hooked
}

t_hooked_v6() {
	serve_hooked -6
	echo_pieces_outside "$PASTE_ADDR6"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

# More than the pool holds: when the server has too much of it, it lets the client wait.
t_hooked_64_mb_in_one_request() {
	serve_hooked
	echo_file_outside "$PASTE_ADDR"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

# What comes behind a gap waits in the socket, as much as TCP has promised to take. If that were more than the socket may have,
# TCP would copy it into less memory.
t_hooked_lost_frames() {
	need_hook
	later "tc qdisc del dev $nic clsact"
	tc qdisc add dev "$nic" clsact || skip "no tc ingress"
	tc filter add dev "$nic" ingress matchall action pass random netrand drop 80 || skip "no tc gact"
	serve_hooked
	echo_file_outside "$PASTE_ADDR"
	stop
	tc -s filter show dev "$nic" ingress | grep -q 'dropped [1-9]' || fail "nothing was lost"
	[ "$copied" = 0 ] || fail "copied $copied"
}

# A client that only sends keeps no chunks from the others.
t_hooked_greedy_client() {
	serve_hooked
	host --timeout $((2 * transfer_limit)) "$client" greedy "$PASTE_ADDR" $port $((64 * MB)) "$flag.greedy" > "$work/client" 2>&1 &
	greedy=$!
	poll 60 grep -q stuck "$work/client" || fail "client: $(cat "$work/client")"
	load
	served 3000
	[ "$(stat chunks_held)" -lt 2000 ] || fail "$(stat chunks_held) chunks are held"
	stop_clean_load
	touch "$flag.greedy"
	wait "$greedy" || fail "client: $(cat "$work/client")"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

# A thread for each RX queue: connections stay where their packets arrive.
t_hooked_two_queues() {
	set_two_channels
	serve_hooked -p 2
	load
	served 3000
	both_queues_were_used
	[ "$(stat copy_foreign)" = 0 ] || fail "$(stat copy_foreign) entries came another way"
	[ "$(stat copy_cross)" = 0 ] || fail "$(stat copy_cross) entries came in the other queue's chunks"
	stop_clean_load
	poll 60 no_connections || fail "$(stat conns) connections are left"
	# All flows to the first queue. (Set after the start of the server: attaching the XDP program resets the table.)
	ethtool -X "$nic" equal 1 || fail "ethtool -X"
	later "ethtool -X $nic default"
	before=$(stats rx_frames | tail -1)
	load
	stop_clean_load
	[ "$(stats rx_frames | tail -1)" = "$before" ] || fail "the second queue gets frames: $(stats rx_frames | xargs)"
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

# A connection for each request, a NIC that is reset all the time, servers that end well or badly, for SOAK_SECONDS: memory stays,
# no connection is stuck, and each frame has gone somewhere. The first server is there to warm up.
t_hooked_endurance() {
	local seconds=${SOAK_SECONDS:-120} life end before='' after made resets=0 servers_ended=0
	need_hook
	life=$((seconds / 5 > 60 ? 60 : seconds / 5))
	end=$((SECONDS + seconds * slow))
	wrk_options=(-H 'Connection: close')
	made=$(objects_made connections)
	while [ $SECONDS -lt $end ]; do
		endure $((SECONDS + life * slow))
		poll 60 no_objects_left || fail "objects are left"
		[ -n "$before" ] || before=$(free_memory)
	done
	after=$(free_memory)
	made=$(($(objects_made connections) - made))
	echo "robust: connections $made" > "$work/figure"
	echo "servers $servers_ended resets $resets connections $made; free before $before after $after KB"
	[ $servers_ended -gt 2 ] || fail "$servers_ended servers in $seconds s"
	[ $resets -gt $servers_ended ] || fail "$resets resets"
	[ "$made" -gt $((seconds * 20)) ] || fail "$made connections in $seconds s"
	# three servers and more after the first count: each with a pool of 37 MB, and lists of the CPUs have some 10 MB
	[ $((before - after)) -lt $((40 * 1024)) ] || fail "$((before - after)) KB are gone"
}

# endure TIME: one server's life, until $SECONDS is TIME
endure() {
	serve_hooked
	load
	while [ $SECONDS -lt "$1" ]; do
		sleep 2
		ethtool -r "$nic" || fail "ethtool -r"
		resets=$((resets + 1))
		served 100
	done
	servers_ended=$((servers_ended + 1))
	if [ $((servers_ended % 2)) = 0 ]; then
		kill_server
		stop_load
		return
	fi
	stop_load
	poll 60 no_connections || fail "$(stat conns) connections are left"
	[ "$(stat rx_frames)" = "$(frames_by_fate)" ] || fail "$(stat rx_frames) frames came, $(frames_by_fate) went somewhere"
	stop
}

frames_by_fate() {
	"$pastectl" stat --json | grep -o '"rx_[a-z_]*": *[0-9]*' |
		awk -F': *' '$1 != "\"rx_frames\"" { sum += $2 } END { print sum + 0 }'
}

# objects_made KIND: since the module was loaded
objects_made() {
	"$pastectl" info | awk -v kind="$1" '$1 == kind { print $2 }'
}

# The number of wrk's requests, of frames by the driver's count and of entries by the module's must agree. At the beginning
# the driver is asked first, at the end last: so its number can only be the larger one.
t_hooked_50000_requests() {
	local total before after frames entries payload drops
	serve_hooked
	poll_nic
	before=$(driver_packets)
	frames=$(stat rx_frames)
	load
	poll 180 reached sends 51000 || fail "$(stat sends) answers"
	stop_clean_load
	total=$(wrk_requests "$work/wrk")
	poll 60 no_connections || fail "$(stat conns) connections are left"
	frames=$(($(stat rx_frames) - frames))
	after=$(driver_packets)
	payload=$(($(stat rx_byref) + $(stat rx_unattached) + $(stat rx_lowwater)))
	entries=$(($(stat ref_entries) + $(stat copy_preattach)))
	drops=$(($(stat rx_drop_header) + $(stat rx_drop_port) + $(stat rx_drop_desc) + $(stat rx_drop_nomem) +
		$(stat rx_drop_offload)))
	echo "requests $total driver $((after - before)) frames $frames payload $payload entries $entries drops $drops"
	stop
	[ "$total" -ge 50000 ] || fail "$total requests"
	[ "$copied" = 0 ] || fail "copied $copied"
	[ "$requests" -ge "$total" ] || fail "phttpd counts $requests requests, wrk $total"
	# ARP and the like are not for us; a handful in all this time
	[ $((after - before - frames)) -ge 0 ] || fail "driver $((after - before)), module $frames frames"
	[ $((after - before - frames)) -le 50 ] || fail "driver $((after - before)), module $frames frames"
	# a frame's payload is at least one entry, unless GRO or TCP put two into one
	[ $payload -ge "$total" ] || fail "$payload frames with payload, $total requests"
	[ $entries -ge "$total" ] || fail "$entries entries, $total requests"
	[ $drops = 0 ] || fail "$drops frames dropped"
}

t_hooked_bad_checksum() {
	local address errors
	serve_hooked -6
	errors=$(awk '/^Tcp:/ { n = $NF } END { print n }' /proc/net/snmp)
	for address in "$PASTE_ADDR" "$PASTE_ADDR6"; do
		outside "$client" corrupt "$address" $port || fail "$address"
	done
	errors=$(($(awk '/^Tcp:/ { n = $NF } END { print n }' /proc/net/snmp) - errors))
	stop
	[ $errors = 2 ] || fail "$errors checksum errors were counted, not 2"
}

t_hooked_ipv6_requests() {
	serve_hooked -6
	to=$(url "$PASTE_ADDR6")/
	load
	served 1000
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_bound_twice() {
	serve_hooked
	serve_refused busy -i "$nic" -Z
	ask_outside
	stop
	# and free again
	serve_hooked
	stop
}

t_hooked_no_such_queue() {
	need_hook
	serve_refused 'queue' -i "$nic" -Z -q 60000
}

t_hooked_rebound_often() {
	need_hook
	for _ in 1 2 3; do
		serve_hooked
		ask_outside
		stop
	done
}

t_hooked_rxvlan() {
	need_hook
	later "ethtool -K $nic rxvlan off"
	ethtool -K "$nic" rxvlan on || skip "rx-vlan-offload cannot be switched on"
	serve_refused rx-vlan-offload -i "$nic" -Z
	! "$pastectl" check "$nic" > "$work/check" || fail "pastectl check does not mind"
}

t_hooked_lro() {
	need_hook
	later "ethtool -K $nic lro off 2> /dev/null"
	ethtool -K "$nic" lro on 2> /dev/null || skip "no LRO on this NIC"
	ethtool -k "$nic" | grep -q '^large-receive-offload: on' || skip "no LRO on this NIC"
	serve_refused LRO -i "$nic" -Z
}

t_hooked_other_traffic() {
	serve_hooked
	head -c $MB /dev/urandom > "$work/part"
	nc -N -l -p 2222 < "$work/part" &
	load
	outside ping -c 20 -i 0.1 "$PASTE_ADDR" > "$work/ping" || fail "ping: $(tail -2 "$work/ping")"
	outside "$client" read "$PASTE_ADDR" 2222 > "$work/back.part" || fail "the other TCP session"
	cmp "$work/part" "$work/back.part" || fail "the other TCP session has wrong data"
	served 100
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_tcpdump() {
	serve_hooked
	tcpdump -i "$nic" -w "$work/pcap" -s 96 -c 2000 tcp port $port 2> /dev/null &
	poll 60 test -e "$work/pcap" || fail "tcpdump does not start"
	load
	served 2000
	stop_clean_load
	stop
	[ "$(wc -c < "$work/pcap")" -gt 10000 ] || fail "tcpdump saw nothing"
}

t_hooked_client_killed() {
	serve_hooked
	for _ in 1 2 3; do
		load
		kill_load
	done
	poll 60 no_connections || fail "$(stat conns) connections are left"
	ask_outside
	stop
}

t_hooked_kill_and_restart() {
	need_hook
	for _ in 1 2; do
		serve_hooked
		load
		kill_server
		stop_load
		# the NIC goes on without it
		poll_nic
	done
	serve_hooked
	load
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_half_close() {
	serve_hooked
	outside "$client" half "$PASTE_ADDR" $port 300000 || fail "half close"
	outside "$client" half "$PASTE_ADDR" $port 3000000 || fail "half close of what does not fit into buffers"
	stop
}

t_hooked_resets() {
	serve_hooked
	outside "$client" reset "$PASTE_ADDR" $port 100 || fail "client"
	poll 60 no_connections || fail "$(stat conns) connections are left"
	ask_outside
	stop
}

t_hooked_slow_client() {
	serve_hooked
	outside "$client" slow "$PASTE_ADDR" $port 3000000 || fail "client"
	stop
}

t_hooked_slow_server() {
	serve_hooked -C 512
	data_outside
	host --timeout $((transfer_limit + 20)) sh -c "curl -sS --max-time $transfer_limit -H Expect: -X POST -T $shared '$(url "$PASTE_ADDR")/echo' | sha256sum" > "$work/back" &
	curl=$!
	pause_server
	wait "$curl" || fail "curl: $?"
	cmp -s "$work/sum.outside" "$work/back" || fail "what comes back is not what was sent"
	stop
}

t_hooked_unsent_data_at_kill() {
	serve_hooked
	host --timeout $((transfer_limit + 20)) "$client" prefix "$PASTE_ADDR" $port "$flag" > "$work/client" 2>&1 &
	kill_with_unsent_data
}

t_hooked_loss() {
	local dev=tap0
	need_hook
	if [ "${PASTE_NET:-tap}" = pair ]; then
		dev=$(outside sh -c 'ls /sys/class/net | grep -v lo | head -1')
	fi
	later "outside tc qdisc del dev $dev root 2> /dev/null"
	later "tc qdisc del dev $nic root 2> /dev/null"
	# frames to us, if the other end's kernel can do it (with --net pair it is ours), and frames from us
	outside tc qdisc add dev "$dev" root netem limit 10000 delay 2ms reorder 25% 50% loss 1% duplicate 1% 2> /dev/null ||
		echo "no netem at the other end"
	tc qdisc add dev "$nic" root netem limit 10000 delay 2ms reorder 25% 50% loss 1% duplicate 1% || skip "no netem"
	serve_hooked
	head -c $((4 * MB)) /dev/urandom > "$VM_RUN/part"
	later "rm -f $VM_RUN/part"
	for _ in 1 2; do
		outside sh -c "curl -sS --max-time $transfer_limit -H Expect: -X POST -T $VM_RUN/part '$(url "$PASTE_ADDR")/echo' |
			cmp - $VM_RUN/part" || fail "what comes back is not what was sent"
	done
	stop
}

t_hooked_plain_beside_it() {
	local first first_log
	serve_hooked
	first=$server first_log=$server_log
	port=60001
	serve -- -n -C 1024
	port=60000
	load
	outside curl -sS --max-time $one_limit "http://$PASTE_ADDR:60001/bytes/1000000" > "$work/back.part" || fail "the plain server"
	[ "$(wc -c < "$work/back.part")" = 1000000 ] || fail "the plain server's answer is too short"
	stop_clean_load
	stop
	server=$first server_log=$first_log
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

# The first XDP link of the NIC.
xdp_link() {
	bpftool -j link list | tr '{' '\n' | grep '"type":"xdp"' | sed -n 's/.*"id":\([0-9]*\).*/\1/p' | head -1
}

t_hooked_xdp_detached() {
	serve_hooked
	load
	[ "$(stat ref_entries)" -gt 0 ] || fail "nothing by reference before the detach"
	bpftool link detach id "$(xdp_link)" || fail "bpftool link detach"
	before=$(stat copy_entries)
	poll 60 reached copy_entries $((before + 100)) || fail "nothing by copy after the detach"
	stop_clean_load
	ask_outside
	stop
	serve_hooked
	load
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied after the next bind"
}

# New connections are served by reference. Old ones may be waiting for long times between retransmissions.
poll_by_reference() {
	before=$(stat ref_entries)
	poll 60 asked_by_reference || fail "nothing by reference any more"
}

asked_by_reference() {
	outside curl -s --max-time 5 "$(url "$PASTE_ADDR")/" > /dev/null
	reached ref_entries $((before + 1))
}

t_hooked_ifdown() {
	serve_hooked
	load
	for _ in 1 2; do
		ip link set "$nic" down
		sleep 0.5
		ip link set "$nic" up
		ip addr add "$PASTE_ADDR6/64" dev "$nic" nodad 2> /dev/null
		poll_nic
	done
	poll_by_reference
	stop_load
	ask_outside
	stop
}

t_hooked_link_down() {
	serve_hooked
	[ "${PASTE_NET:-tap}" = tap ] || skip "no monitor"
	load
	outside --monitor set_link nic0 off > /dev/null || skip "no monitor"
	later "host --monitor set_link nic0 on > /dev/null"
	poll 60 has_no_carrier || fail "the carrier stays"
	outside --monitor set_link nic0 on > /dev/null
	poll_nic
	poll_by_reference
	stop_load
	ask_outside
	stop
}

has_no_carrier() { ! has_carrier; }

t_hooked_settings_changed() {
	serve_hooked
	load
	# what does not fit is refused or ends the zero copy, but nothing breaks
	! ip link set "$nic" mtu 9000 2> /dev/null || fail "an MTU of 9000 is not refused"
	later "ethtool -K $nic rxvlan off"
	if ethtool -K "$nic" rxvlan on 2> /dev/null; then
		poll 60 reached rx_drop_offload 1 || fail "frames are taken with rx-vlan-offload on"
	fi
	set +e
	ethtool -K "$nic" rxvlan off
	ip link set "$nic" mtu 1400 2> /dev/null
	later "ip link set $nic mtu 1500"
	sleep 0.5
	ethtool -G "$nic" rx 256 2> /dev/null
	later "ethtool -G $nic rx 512 2> /dev/null"
	sleep 0.5
	ip link set "$nic" mtu 1500
	set -e
	poll_nic
	stop_load
	poll_by_reference
	ask_outside
	stop
}

# --- pools on persistent memory

declare -A figure

need_pm() {
	[ -b /dev/pmem0 ] || skip "no /dev/pmem0"
}

# pm_mount TYPE: a new file system on it, for pools in $pm.
pm_mount() {
	need_pm
	# an NVDIMM has no struct pages at first, without which there is no DAX
	ndctl list -n namespace0.0 2> /dev/null | grep -q fsdax || pm_namespace -m fsdax
	case $1 in
	ext4) mkfs.ext4 -q -F -b 4096 /dev/pmem0 > /dev/null 2>&1 ;;
	xfs) mkfs.xfs -q -f /dev/pmem0 > /dev/null ;;
	esac
	pm=/run/paste-pm
	mkdir -p "$pm"
	mount -o dax /dev/pmem0 "$pm" || skip "no DAX with $1"
	later pm_clean_up
	pool=$pm/pool
}

# A server that is still there holds the file system.
# shellcheck disable=SC2317 # called by end_case
pm_clean_up() {
	if [ -n "${server:-}" ]; then
		kill -9 "$server" 2> /dev/null
		wait "$server" 2> /dev/null
	fi
	mountpoint -q "$pm" && poll 60 umount "$pm" 2> /dev/null
}

pm_namespace() {
	ndctl create-namespace -f -e namespace0.0 "$@" > /dev/null 2>&1 || fail "ndctl create-namespace $*"
}

pm_devdax() {
	need_pm
	later pm_end_devdax
	pm_namespace -m devdax --align=4k
	pool=$(echo /dev/dax*)
	python3 -c 'import mmap, os, sys
mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)[:] = bytes(4096)' "$pool"
}

# shellcheck disable=SC2317 # called by end_case
pm_end_devdax() {
	[ -z "${server:-}" ] || kill -9 "$server" 2> /dev/null
	wait 2> /dev/null
	ndctl create-namespace -f -e namespace0.0 -m fsdax > /dev/null 2>&1
}

# Not a moment after the last close, and whole.
pm_unmount() {
	umount "$pm" || fail "cannot unmount after the close"
	case $1 in
	ext4) e2fsck -fn /dev/pmem0 > "$work/fsck" 2>&1 ;;
	xfs) xfs_repair -n /dev/pmem0 > "$work/fsck" 2>&1 ;;
	esac || fail "the file system is damaged: $(tail -3 "$work/fsck")"
}

# serve_pm OPTION...: start pmserve with its pool in $pool.
serve_pm() {
	pm_log=$work/server.$((++servers)) pm_out=$work/pmserve.out
	: > "$pm_log"
	"$tree/build/selftests/pmserve" "$@" $port "$pool" > "$pm_out" 2> "$pm_log" &
	server=$!
	poll 60 pm_is_up || fail "pmserve $*: $(tail -1 "$pm_log")"
	[ -d "/proc/$server" ] || fail "pmserve $*: $(tail -1 "$pm_log")"
}

pm_is_up() {
	grep -q ready "$pm_log" || [ ! -d "/proc/$server" ]
}

# Stop it in an orderly way; its figures are then in figure[].
stop_pm() {
	kill -TERM "$server" || fail "pmserve is not there: $(tail -1 "$pm_log")"
	wait "$server" || fail "pmserve ended with $?: $(tail -1 "$pm_log")"
	pm_figures
}

pm_figures() {
	local words i
	cat "$pm_out"
	read -ra words < "$pm_out"
	for ((i = 0; i < ${#words[@]}; i += 2)); do
		figure[${words[i]}]=${words[i + 1]}
	done
}

# POSTs of 1 KB for wrk, each with another content.
pm_script() {
	lua=$VM_RUN/post.lua
	cat > "$lua" << 'END'
local n = 0
request = function()
	n = n + 1
	return wrk.format("POST", "/", nil, string.rep(string.format("%08x", n), 128))
end
END
}

# pm_load SECONDS ADDRESS [PREFIX...]
pm_load() {
	local seconds=$1 address=$2
	shift 2
	pm_script
	"$@" wrk -t1 -c50 -d"$seconds" --timeout 30s -s "$lua" "$(url "$address")/" > "$work/wrk" 2>&1
	if grep -q 'Socket errors\|Non-2xx' "$work/wrk"; then
		fail "wrk: $(grep 'Socket errors\|Non-2xx' "$work/wrk")"
	fi
	[ "$(wrk_requests "$work/wrk")" -gt 100 ] || fail "wrk: $(tail -3 "$work/wrk")"
}

# What was kept is in the file, and was put there by the NIC or by the one copy.
pm_check() {
	[ "${figure[kept]}" -gt 100 ] || fail "kept ${figure[kept]} entries"
	[ "${figure[same]}" = "${figure[kept]}" ] || fail "${figure[same]} of ${figure[kept]} entries are in the file"
	if [ "$1" = hooked ]; then
		[ "${figure[copied]}" = 0 ] || fail "copied ${figure[copied]}"
	else
		[ "${figure[byref]}" = 0 ] || fail "by reference ${figure[byref]}"
	fi
}

# pm_refused WORD PATH: no pool there, and the library says why.
pm_refused() {
	local status=0
	timeout 60 "$tree/build/selftests/pmserve" 60009 "$2" 2> "$work/refused" || status=$?
	[ $status = 1 ] || fail "pmserve with $2: was not refused, status $status"
	grep -qi -- "$1" "$work/refused" || fail "pmserve with $2: '$(head -1 "$work/refused")' does not say '$1'"
}

t_pm_refused() {
	local sum
	pm_mount ext4
	pm_refused 'persistent memory' /dev/shm/pool
	[ ! -e /dev/shm/pool ] || fail "a file was left behind on tmpfs"
	head -c 8192 /dev/zero > "$work/file"
	pm_refused 'persistent memory' "$work/file"
	pm_refused 'no such file' "$pm/none/pool"
	pm_refused 'no such device\|not on' /dev/zero
	echo "a text" > "$pm/text"
	pm_refused 'too short' "$pm/text"
	head -c $((20 * MB)) /dev/urandom > "$pm/text"
	sum=$(sha256sum < "$pm/text")
	pm_refused 'neither a pool' "$pm/text"
	[ "$(sha256sum < "$pm/text")" = "$sum" ] || fail "a foreign file was written to"
	head -c $((600 * MB)) /dev/zero > "$pm/zeros" 2> /dev/null || true
	pm_refused 'no space' "$pm/pool"
	rm "$pm/zeros"
	[ "$(ls "$pm")" = "lost+found
text" ] || fail "something was left behind: $(ls "$pm")"
	serve_pm
	[ "$(command stat -c %a%s "$pool")" = "600$((4353 * 4096))" ] || fail "the pool is $(command stat -c %a%s "$pool")"
	pm_refused 'another context' "$pool"
	stop_pm
	truncate -s $((100 * 4096)) "$pool"
	pm_refused 'shorter' "$pool"
	pm_unmount ext4
}

pm_plain() {
	pm_mount "$1"
	serve_pm -n 2000
	pm_load 3 127.0.0.1
	stop_pm
	pm_check plain
	pm_unmount "$1"
}

t_pm_plain_ext4() { pm_plain ext4; }
t_pm_plain_xfs() { pm_plain xfs; }

t_pm_plain_echo() {
	pm_mount ext4
	serve_pm -e
	"$client" echo 127.0.0.1 $port $((64 * MB)) || fail "echo"
	stop_pm
	pm_unmount ext4
}

# A packet with bytes of the pool is late on its way: the file is kept until it is gone, the close is not.
t_pm_late_packets() {
	pm_mount ext4
	serve_pm -e
	python3 -c 'import socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
time.sleep(2)
s.sendall(bytes(8000))
time.sleep(60)' $port > "$work/client" &
	poll 60 grep -q ready "$work/client" || fail "no connection"
	later "tc qdisc del dev lo root"
	tc qdisc add dev lo root netem delay 8s || skip "no netem"
	sleep 11.5 # the request is there, the answer is not
	kill_server
	! umount "$pm" 2> /dev/null || fail "a file system is unmounted whose bytes are still to be sent"
	poll 60 umount "$pm" 2> /dev/null || fail "the file is never given back"
	e2fsck -fn /dev/pmem0 > "$work/fsck" 2>&1 || fail "the file system is damaged: $(tail -3 "$work/fsck")"
}

t_pm_hooked_50000_posts() {
	local total=0
	need_hook
	pm_mount ext4
	serve_pm -i "$nic" -n 2000
	for _ in {1..20}; do
		[ $total -lt 50000 ] || break
		pm_load 8 "$PASTE_ADDR" outside
		total=$((total + $(wrk_requests "$work/wrk")))
	done
	stop_pm
	[ "${figure[posts]}" -ge 50000 ] || fail "${figure[posts]} POSTs"
	pm_check hooked
	pm_unmount ext4
}

t_pm_hooked_xfs() {
	need_hook
	pm_mount xfs
	serve_pm -i "$nic" -n 2000
	pm_load 3 "$PASTE_ADDR" outside
	stop_pm
	pm_check hooked
	pm_unmount xfs
}

t_pm_hooked_devdax() {
	need_hook
	pm_devdax
	serve_pm -i "$nic" -n 2000
	pm_load 3 "$PASTE_ADDR" outside
	stop_pm
	pm_check hooked
	# again, with what is in there now
	serve_pm -i "$nic" -n 2000
	pm_load 2 "$PASTE_ADDR" outside
	stop_pm
	pm_check hooked
	[ "${figure[existed]}" = 1 ] || fail "the pool was not found again"
}

t_pm_hooked_echo() {
	need_hook
	pm_mount ext4
	serve_pm -i "$nic" -e
	outside "$client" echo "$PASTE_ADDR" $port $((64 * MB)) || fail "echo"
	stop_pm
	[ "${figure[copied]}" = 0 ] || fail "copied ${figure[copied]}"
	pm_unmount ext4
}

# What a socket has by reference when the context closes, it has still when the file system is gone.
t_pm_hooked_unread_at_close() {
	local type
	need_hook
	for type in ext4 xfs; do
		pm_mount "$type"
		serve_pm -i "$nic" -o "$work/got" -c "umount $pm"
		outside "$client" push "$PASTE_ADDR" $port 1500000 || fail "client"
		wait "$server" || fail "pmserve: $(tail -1 "$pm_log")"
		pm_figures
		[ "${figure[command]}" = 0 ] || fail "cannot unmount after the close"
		[ "${figure[rest]}" -gt 200000 ] || fail "only ${figure[rest]} bytes were in the socket"
		[ "${figure[copied]}" = 0 ] || fail "copied ${figure[copied]}"
		python3 -c 'import sys; sys.exit(sys.stdin.buffer.read() != (bytes(range(251)) * 6000)[:1500000])' \
			< "$work/got" || fail "the stream is not what was sent"
	done
}

t_pm_hooked_kill() {
	local type posts
	need_hook
	pm_script
	for type in ext4 xfs; do
		pm_mount "$type"
		for _ in 1 2 3; do
			serve_pm -i "$nic" -n 2000
			host --timeout 100 wrk -t1 -c50 -d60 --timeout 60s -s "$lua" "$(url "$PASTE_ADDR")/" > "$work/wrk" 2>&1 &
			posts=$!
			served 100
			kill_server
			umount "$pm" || fail "cannot unmount after kill -9"
			kill "$posts" 2> /dev/null || true
			wait "$posts" || true
			mount -o dax /dev/pmem0 "$pm"
		done
		serve_pm -i "$nic" -n 2000
		pm_load 2 "$PASTE_ADDR" outside
		stop_pm
		pm_check hooked
		[ "${figure[existed]}" = 1 ] || fail "the pool was not found again"
		pm_unmount "$type"
	done
}

# --- the store on persistent memory, with zero copy

t_pm_store_kv() { pm_store && store_checks kv -n -k -x; }
t_pm_store_kv_chunks_of_2048() { pm_store && store_checks kv -n -k -x -s 2048; }
t_pm_store_tree() { pm_store && store_checks tree -n -B -x; }
t_pm_store_wal() { pm_store && store_checks wal -n -x; }
t_pm_store_full() { pm_store && store_full -n -x; }
t_pm_store_restart() { pm_store && zero_copy=(-x) && store_restart -n; }
t_pm_store_kill() { pm_store && zero_copy=(-x) && store_kill -n; }
t_pm_store_wrap() { pm_store && store_wrap -n; }
t_pm_store_hooked_kv() { pm_store_hooked kv -k; }
t_pm_store_hooked_tree() { pm_store_hooked tree -B; }
t_pm_store_hooked_wal() { pm_store_hooked wal; }

pm_store() {
	pm_mount ext4
	stores=$pm
}

pm_store_hooked() {
	local command=$1
	shift
	need_hook
	pm_store
	from=(outside)
	at=$PASTE_ADDR
	store_checks "$command" -i "$nic" -Z -x "$@"
	[ "$copied" = 0 ] || fail "copied $copied"
	pm_unmount ext4
}

# tools/examples/persist.c: what it has answered is printed by the next one.
t_pm_example() {
	pm_mount ext4
	persist_says 'first|' ''
	persist_says 'second|' 'first|'
	persist_says 'third|' 'first|second|'
	pm_unmount ext4
}

# persist_says WORD BEFORE: give it this, it has printed that
persist_says() {
	"$tree/build/tools/persist" "$pm" > "$work/persist" &
	server=$!
	poll 60 sh -c 'ss -Hltn sport = :7003 | grep -q .' || fail "it does not listen"
	# It sees the word and the end of the connection at once.
	kill -STOP $server
	printf '%s' "$1" | nc -N -w 20 127.0.0.1 7003 > "$work/answer" &
	poll 60 sh -c 'ss -Htn state close-wait sport = :7003 | grep -q .' || fail "$1 does not arrive"
	kill -CONT $server
	wait $!
	[ "$(cat "$work/answer")" = ok ] || fail "no answer to $1"
	kill_server
	[ "$(cat "$work/persist")" = "$2" ] || fail "'$(cat "$work/persist")' instead of '$2'"
}

t_store_zero_copy_needs_pm() {
	new_store
	serve_refused 'persistent memory' -d "$dir" -n -x -k
}

# --- commands that the documentation shows

# documented FILE [SECTION]: those in the first block of a section of the README, or in a section (EXAMPLES) of a page, for the
# NIC, the addresses and the sizes that there are here.
documented() {
	local file=$tree/$1
	[ -e "$file" ] || skip "no $1"
	case $1 in
	*.md)
		awk -v heading="## $2" '
			/^## / { on = $0 == heading }
			on && $0 == "```" { exit }
			block { print }
			on && $0 == "```sh" { block = 1 }' "$file"
		;;
	*)
		awk -v section="${2:-EXAMPLES}" '
			/^\.SH / { on = $0 == ".SH " section }
			$0 == ".EE" { block = 0 }
			on && block { print }
			$0 == ".EX" { block = 1 }' "$file" | sed "s/\\\\-/-/g; s/\\\\(aq/'/g"
		;;
	esac | sed "s/ *#.*//; s/\beth[01]\b/$nic/; s/192\.0\.2\.1/$PASTE_ADDR/; s|/mnt/pmem|${pm:-}|; s/-L 4096/-L 96/; s/-p 4/-p 2/"
}

# Run them as they are. A server is there until the next one comes, or somebody wants the NIC or to see what it has left.
follow() {
	local command commands
	local PATH=$tree/build/tools:$PATH
	commands=$(documented "$@")
	[ -n "$commands" ] || fail "no commands in $*"
	cd "$work"
	while IFS= read -r command; do
		echo "\$ $command"
		case $command in phttpd* | 'pastectl nic'*) [ -z "${server:-}" ] || stop_documented ;; esac
		case $command in
		'ndctl create-namespace'*) ;; # not without labels, which this NVDIMM has none of
		*--recover-only) eval "$command" ;;
		phttpd*) serve_documented "$command" ;;
		curl* | wrk* | head*) outside sh -c "cd $VM_RUN && $command" ;;
		'pastectl stat -w'* | 'pastectl top') seen_for_a_moment "$command" ;;
		*grep*) eval "$command" || [ $? = 1 ] ;; # there need not be any
		*) eval "$command" ;;
		esac || fail "$command: $?"
	done <<< "$commands"
	[ -z "${server:-}" ] || stop_documented
}

serve_documented() {
	server_log=$work/server.$((++servers))
	: > "$server_log"
	sh -c "exec $1" 2> "$server_log" &
	server=$!
	poll 60 server_is_up || fail "$1: $(tail -1 "$server_log")"
	[[ $1 != *" -i "* ]] || grep hooked "$server_log" || fail "$1: $(tail -1 "$server_log")"
	poll_nic
	outside curl -sS -o /dev/null --max-time $one_limit "$(url "$PASTE_ADDR")/" || fail "no answer"
}

stop_documented() {
	stop
	server=
}

seen_for_a_moment() {
	timeout 3 sh -c "exec $1" || [ $? = 124 ]
}

t_hooked_documented_use() {
	need_hook
	pm_mount ext4
	later "'$pastectl' nic restore $nic; poll_nic"
	follow README.md Use
	[ -s "$work/report" ] || fail "no report"
}

t_hooked_documented_tracepoints() {
	local command traced
	need_hook
	command -v trace-cmd > /dev/null || skip "no trace-cmd"
	later "trace-cmd reset"
	serve_hooked
	while IFS= read -r command; do
		echo "\$ $command"
		(cd "$work" && exec timeout $one_limit bash -c "$command" > traced 2>&1) &
		traced=$!
		while kill -0 $traced 2> /dev/null; do
			# so its request comes before the connection is attached
			kill -STOP "$server"
			(sleep 1; kill -CONT "$server") &
			ask_outside
		done
		wait $traced || fail "$command: $(tail -1 "$work/traced")"
		grep -q 'queue=\|Hits:' "$work/traced" || fail "$command: $(tail -1 "$work/traced")"
	done < <(documented lib/man/paste.4 TRACEPOINTS)
	stop
}

t_hooked_documented_pastectl() {
	need_hook
	command -v jq > /dev/null || skip "no jq"
	set_two_channels
	later "'$pastectl' nic restore $nic 2> /dev/null; poll_nic"
	serve_hooked
	load
	follow tools/pastectl/pastectl.8
	stop_load
}

t_pm_documented_phttpd() {
	need_hook
	pm_mount ext4
	set_two_channels
	outside sh -c "head -c 1000000 /dev/urandom > $VM_RUN/photo.jpg"
	follow tools/phttpd/phttpd.1 > "$work/said" 2>&1
	cat "$work/said"
	grep -q 'records 1 bytes 1000005' "$work/said" || fail "it is not found again"
}

t_pm_documented_readme() {
	need_hook
	need_pm
	later "umount /mnt"
	wipefs -qa /dev/pmem0
	outside sh -c "head -c 100000 /dev/urandom > $VM_RUN/photo"
	follow README.md 'Persistent memory' > "$work/said" 2>&1
	cat "$work/said"
	grep -q 'records 1 bytes 100005' "$work/said" || fail "it is not found again"
}

# --- the module

reload() {
	local ko
	modprobe paste 2> /dev/null && return
	ko=$(sed -n 's/^ko=//p' "${VM_RUN:-/nonexistent}/config" 2> /dev/null)
	insmod "$ko"
}

t_rmmod() {
	[ -d /sys/module/paste ] || skip "not a module"
	serve -- -n
	! rmmod paste 2> /dev/null || fail "rmmod while it is in use"
	to=http://127.0.0.1:$port/
	load env
	kill_server
	rmmod paste || poll 10 rmmod paste || fail "rmmod right after"
	stop_load
	[ ! -e /dev/paste ] || fail "/dev/paste is still there"
	before=$(dmesg | grep -c 'paste.* loaded')
	reload || fail "cannot load it again"
	[ "$(dmesg | grep -c 'paste.* loaded')" = $((before + 1)) ] || fail "loading does not print one line"
	serve -- -n
	ask 127.0.0.1
	stop
}

t_rmmod_after_hooked() {
	[ -d /sys/module/paste ] || skip "not a module"
	serve_hooked
	load
	! rmmod paste 2> /dev/null || fail "rmmod while it is in use"
	kill_server
	rmmod paste || poll 10 rmmod paste || fail "rmmod right after"
	stop_load
	reload || fail "cannot load it again"
	serve_hooked
	ask_outside
	stop
}

# Last of all: these take the NIC away.

t_hooked_driver_unbound() {
	local slot
	serve_hooked
	slot=$(basename "$(readlink "/sys/class/net/$nic/device")")
	load
	timeout $((30 * slow)) sh -c "echo $slot > /sys/bus/pci/drivers/$PASTE_NIC/unbind" || fail "the driver cannot be unbound"
	later "wait_for_nic $slot"
	ask 127.0.0.1
	stop_load
	stop
}

# The driver again, with the settings that vm/init had made.
wait_for_nic() {
	[ -d "/sys/class/net/$nic" ] || echo "$1" > "/sys/bus/pci/drivers/$PASTE_NIC/bind"
	poll 60 test -d "/sys/class/net/$nic"
	ethtool -K "$nic" rxvlan off lro off > /dev/null 2>&1
	ethtool -L "$nic" combined 1 > /dev/null 2>&1
	ip addr add "$PASTE_ADDR/24" dev "$nic"
	sysctl -qw "net.ipv6.conf.$nic.accept_dad=0"
	ip addr add "$PASTE_ADDR6/64" dev "$nic" nodad
	ip link set "$nic" up
	poll 60 has_carrier
}

t_hooked_after_driver_bound_again() {
	serve_hooked
	load
	stop_clean_load
	stop
	[ "$copied" = 0 ] || fail "copied $copied"
}

t_hooked_nic_removed() {
	[ "${PASTE_NET:-tap}" = tap ] || skip "no monitor"
	serve_hooked
	load
	outside --monitor device_del nic0 > /dev/null || skip "no monitor"
	poll 60 test ! -d "/sys/class/net/$nic" || fail "the NIC does not go"
	ask 127.0.0.1
	stop_load
	stop
}

# --- running them

# Objects that exist, but for pastectl's own context.
objects_left() {
	[ -c /dev/paste ] || return
	"$pastectl" info | awk '/^objects/ { on = 1; next } on { sum += $NF } END { exit sum == 1 }'
}

no_objects_left() {
	! objects_left
}

log_is_clean() {
	dmesg 2> /dev/null | awk -v mark="net.sh: $1" '{ if (index($0, mark)) on = 1; else if (on) print }' |
		grep -E 'WARNING: |BUG: |Oops|Call Trace|refcount_t: |general protection|unregister_netdevice: waiting|blocked for more' \
			> "$work/log"
	[ ! -s "$work/log" ]
}

run_case() {
	local name=$1 status begin=$SECONDS
	rm -f "$work/reason"
	[ ! -w /dev/kmsg ] || echo "net.sh: $name" > /dev/kmsg
	(
		set -e
		undo=(true)
		servers=0
		to=
		rm -f "$flag"*
		trap end_case EXIT
		"$name"
	) > "$work/output" 2>&1 &
	wait $!
	status=$?
	if [ $status = 0 ] && ! poll 60 no_objects_left; then
		status=1
		echo "objects are left: $("$pastectl" info | awk '/^objects/ { on = 1; next } on && $NF { printf "%s ", $0 }')" > "$work/reason"
	fi
	if [ $status != 4 ] && ! log_is_clean "$name"; then
		status=1
		echo "kernel log: $(head -1 "$work/log")" > "$work/reason"
	fi
	report "$name" $status
	echo "# $((SECONDS - begin)) s"
}

report() {
	local reason
	# other output of a case is shown only if it fails
	[ ! -e "$work/figure" ] || cat "$work/figure"
	rm -f "$work/figure"
	n=$((n + 1))
	reason=$(head -1 "$work/reason" 2> /dev/null | tr -d '#')
	case $2 in
	0) echo "ok $n net.$1" ;;
	4) echo "ok $n net.$1 # SKIP $reason" ;;
	*)
		failed=$((failed + 1))
		sed 's/^/# /' "$work/output"
		echo "not ok $n net.$1 # ${reason:-exit status $2}"
		;;
	esac
}

# shellcheck disable=SC2317 # called by trap
finish() {
	rm -rf "$work"
}

case ${1:-} in
-h | --help)
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit
	;;
esac
mapfile -t all < <(sed -n 's/^\(t_[a-z0-9_]*\)() {.*/\1/p' "$0")
cases=("$@")
if [ "${1:-}" = --no-module ]; then
	mapfile -t cases < <(printf '%s\n' "${all[@]}" | grep '^t_store_epoll_')
elif [ $# = 0 ]; then
	mapfile -t cases < <(printf '%s\n' "${all[@]}" | grep -v '^t_store_epoll_')
fi
for name in "${cases[@]}"; do
	[ "$(type -t "$name")" = function ] || { echo "net.sh: no case $name" >&2; exit 1; }
done

if [ ! -c /dev/paste ] && printf '%s\n' "${cases[@]}" | grep -qv '^t_store_epoll_'; then
	echo "1..0 # SKIP no /dev/paste"
	exit 4
fi
work=$(mktemp -d /dev/shm/paste.XXXXXX)
trap finish EXIT
# Seen by the other end, too.
flag=${VM_RUN:-$work}/flag
ip link set lo up
n=0 failed=0
echo "TAP version 13"
echo "1..${#cases[@]}"
for name in "${cases[@]}"; do
	run_case "$name"
done
[ $failed = 0 ]
