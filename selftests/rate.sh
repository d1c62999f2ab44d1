#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: rate.sh [ROUNDS [SECONDS]]     in a VM, see vm/run.sh
#
# Requests per second of small HTTP requests over 50 connections, with wrk outside the VM: nginx, phttpd with epoll, with paste
# without a NIC binding, and (if the NIC can) with one. Rounds alternate, so that a slow spell of the machine hits all alike;
# what counts is the median. Checks that the baseline is an honest one (0.9 of nginx) and that paste answers more than it.
# Results are KTAP, the figures comments.

set -euo pipefail

rounds=${1:-5}
seconds=${2:-3}
phttpd=$VM_TREE/build/tools/phttpd
port=60000
log=/run/rate.log
declare -A rates=()

cat > /run/nginx.conf <<'END'
worker_processes 1;
daemon off;
master_process off;
pid /run/rate-nginx.pid;
error_log /dev/null;
events { worker_connections 1024; multi_accept on; }
http {
	access_log off;
	keepalive_requests 100000000;
	server {
		listen 60000 backlog=4096;
		location / { return 200 "paste: packet buffers that belong to the application. 012345678\n"; }
	}
}
END

start() {
	case $1 in
	nginx) nginx -c /run/nginx.conf 2> $log & ;;
	epoll) "$phttpd" -P $port 2> $log & ;; # sleeps in epoll_wait: spinning would cost it
	plain) "$phttpd" -P $port -b 0 -n 2> $log & ;;
	hooked) "$phttpd" -P $port -b 0 -i "$PASTE_IF" -Z 2> $log & ;;
	esac
	pid=$!
	for _ in $(seq 100); do
		host curl -s -o /dev/null --max-time 1 "http://$PASTE_ADDR:$port/" && return
		sleep 0.1
	done
	echo "Bail out! $1 does not answer: $(< $log)"
	exit 1
}

measure() {
	local load
	start "$1"
	load=$(host timeout $((seconds + 20)) wrk -t1 -c50 "-d${seconds}s" "http://$PASTE_ADDR:$port/")
	kill "$pid"
	wait "$pid" || true
	rates[$1]+="$(awk '/^Requests\/sec:/ { print int($2) }' <<< "$load") "
}

# min median max of a list of numbers
spread() {
	# shellcheck disable=SC2086 # a list of words
	printf '%s\n' $1 | sort -n | awk '{ v[NR] = $1 } END { print v[1], v[int((NR + 1) / 2)], v[NR] }'
}

number=0
failures=0

# at_least A FACTOR B: the median of A is at least FACTOR times that of B
at_least() {
	local a b
	number=$((number + 1))
	a=$(spread "${rates[$1]}" | cut -d' ' -f2)
	b=$(spread "${rates[$3]}" | cut -d' ' -f2)
	if awk "BEGIN { exit !($a >= $2 * $b) }"; then
		echo "ok $number rate: $1 at least $2 times $3"
	else
		echo "not ok $number rate: $1 at least $2 times $3"
		failures=$((failures + 1))
	fi
}

contestants=(nginx epoll plain)
case $PASTE_NIC in
ixgbe | i40e) contestants+=(hooked) ;;
esac

for round in $(seq "$rounds"); do
	echo "# round $round of $rounds: ${contestants[*]}" >&2
	for server in "${contestants[@]}"; do
		measure "$server"
	done
done

echo "TAP version 13"
for server in "${contestants[@]}"; do
	read -r min median max < <(spread "${rates[$server]}")
	echo "# rate: $(uname -r) $PASTE_NIC $server: median $median req/s of $rounds runs of $seconds s, from $min to $max"
done
at_least epoll 0.9 nginx
at_least plain 1 epoll
[ ${#contestants[@]} = 3 ] || at_least hooked 1 epoll
echo "1..$number"
[ $failures = 0 ]
