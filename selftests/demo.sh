#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make demo: the same small HTTP server with epoll and with PASTE, on a stock kernel with the stock ixgbe driver on an emulated
# NIC, under wrk with 50 connections. KERNEL=6.1 for the older kernel, NIC=i40e for another driver. The emulated CPU makes
# absolute numbers meaningless and flatters batching: the ratio says which way, not how far. VM_OPTIONS has more options for
# vm/run.sh.
#
# Then the server keeps what it gets, where the NIC has put it: in a log in persistent memory. The VM's power is cut under
# load, and after the next boot everything that a client outside saw acknowledged must be there.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$here")
phttpd=$tree/build/tools/phttpd
port=60000
rounds=3
seconds=5

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

median() {
	printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}

# One round: serve (with these options), load, stop. Sets $rate from wrk and $ready and $summary from the server.
measure() {
	local log=/run/demo.log load

	: > $log
	"$phttpd" -P $port -l 64 "$@" 2> $log &
	for _ in $(seq 100); do
		grep -q '^phttpd: port' $log && break
		sleep 0.1
	done
	ready=$(grep '^phttpd: port' $log) || die "phttpd $* did not start: $(< $log)"
	load=$(host wrk -t1 -c50 "-d${seconds}s" "http://$PASTE_ADDR:$port/") || die "wrk failed: $load"
	kill -INT $!
	wait $! || die "phttpd $* failed: $(< $log)"
	summary=$(grep '^phttpd: requests' $log) || die "phttpd $* printed no summary: $(< $log)"
	rate=$(awk '/^Requests\/sec:/ { print int($2) }' <<< "$load")
	! grep -E 'Socket errors|Non-2xx' <<< "$load" || die "wrk saw errors"
	[ "${rate:-0}" -gt 0 ] || die "wrk saw no answer: $load"
}

# In the VM.
compare() {
	local epoll=() paste=() requests=0 copied=0 zerocopy=1 word

	for _ in $(seq $rounds); do
		measure # sleeps in epoll_wait: spinning there would cost it
		epoll+=("$rate")
		echo "epoll: $rate requests/s"
		measure -i "$PASTE_IF" -b 0
		paste+=("$rate")
		echo "paste: $rate requests/s; $ready; $summary"
		# phttpd: requests N bytes N copied N preattach N batches N
		read -ra word <<< "$summary"
		requests=$((requests + word[2]))
		copied=$((copied + word[6]))
		[[ $ready == *hooked ]] || zerocopy=0
	done
	echo "demo: kernel $(uname -r | cut -d. -f1,2) nic $PASTE_NIC zerocopy=$zerocopy copied=$copied requests=$requests"
	awk -v a="$(median "${epoll[@]}")" -v b="$(median "${paste[@]}")" \
		'BEGIN { printf "demo: rpc64 epoll %d req/s, paste %d req/s, ratio %.2f\n", a, b, b / a }'
	if [ $zerocopy != 1 ] || [ $copied != 0 ]; then
		die "the NIC did not receive into the pool, or something was copied"
	fi
}

# Both lives of the VM, from outside.
cut_power() {
	local log=$tree/build/demo-crash.log acked records lost

	echo "demo: POSTs of 1 KB into a write-ahead log on persistent memory, and then a power cut"
	"$here/crash.sh" --kernel "${KERNEL:-6.12}" --cuts 1 --size 1024 wal-x > "$log" || die "$(grep -m 1 '^not ok' "$log")"
	grep '^#' "$log"
	# crash: cuts N acked N records N lost N
	read -r _ _ _ _ acked _ records _ lost < <(tail -1 "$log")
	echo "demo: wal acked=$acked recovered=$records lost=$lost"
}

if [ "${1:-}" = --in-guest ]; then
	compare
else
	make -s -C "$tree" lib tools
	# shellcheck disable=SC2086 # several words
	"$here/vm/run.sh" --kernel "${KERNEL:-6.12}" --nic "${NIC:-ixgbe}" --timeout 300 ${VM_OPTIONS:-} -- "$here/demo.sh" --in-guest
	cut_power
	echo "demo: ok"
fi
