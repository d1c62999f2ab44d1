#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: suite.sh [NIC [PART...]]
#
# All tests of the module, as one KTAP stream with a line per test; NIC is what run.sh was told (ixgbe, i40e, virtio, none).
# Parts: uapi conn accept ring life hook pmem hostile nicprep net damage; all of these without names. nic: what depends on the NIC alone.
# hooked: what depends on the NIC's zero copy; the other t_*hooked* of net.sh test what is above. hostile is told by HOSTILE_SEED,
# HOSTILE_SECONDS and HOSTILE_SEQUENCES what to do, see hostile.c. By name only: fuzz, for FUZZ_SECONDS (20) and beginning with
# FUZZ_SEED (1); fail_nth, for kernels with fault injection. Runs in the VM:
#
#   selftests/vm/run.sh --kernel 6.12 --nic ixgbe -- selftests/vm/suite.sh ixgbe
#
# The programs must have been built before (make all; make -C selftests). The last line counts.

set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
selftests=${here%/vm}
programs=${selftests%/selftests}/build/selftests

export PASTE_NIC=${1:-${PASTE_NIC:-none}}
shift $(($# > 0))
parts=("$@")
[ $# -gt 0 ] || parts=(uapi conn accept ring life hook pmem hostile nicprep net damage)

# Of the part hooked: other frames, two queues, that nothing is copied, restarts of the NIC. Last what takes it away.
hooked=(t_hooked_{v4,v6,64_mb_in_one_request,lost_frames,two_queues,50000_requests,bad_checksum,rxvlan}
	t_pm_hooked_{50000_posts,unread_at_close} t_hooked_{kill_and_restart,xdp_detached,ifdown}
	t_hooked_{link_down,settings_changed,driver_unbound,after_driver_bound_again})

slow=${PASTE_SLOW:-1}
: "${FUZZ_SECONDS:=20}"
n=0 passed=0 failed=0 skipped=0

# result TEXT: a line that begins with ok or not ok, without its number
result() {
	n=$((n + 1))
	case $1 in
	*'# SKIP'*)
		skipped=$((skipped + 1))
		echo "ok $n $2"
		;;
	'ok '*)
		passed=$((passed + 1))
		echo "ok $n $2"
		;;
	*)
		failed=$((failed + 1))
		echo "not ok $n $2"
		;;
	esac
}

# Renumber the results of one part, and notice when some are missing.
run_part() {
	local part=$1 line planned='' seen=0 begin=$SECONDS prefix=$1.
	shift
	case $part in net | damage) prefix= ;; esac
	while IFS= read -r line; do
		if [[ $line =~ ^(ok|not\ ok)\ +[0-9]+\ +(.*)$ ]]; then
			seen=$((seen + 1))
			result "$line" "$prefix${BASH_REMATCH[2]}"
		elif [[ $line =~ ^1\.\.([0-9]+) ]]; then
			planned=${BASH_REMATCH[1]}
		elif [[ $line == '# '* && ! $line =~ ^#\ +(RUN|OK|PASSED|Starting|Totals) ]]; then
			printf '%s\n' "$line"
		elif [[ $line == 'robust: '* ]]; then
			printf '%s\n' "$line"
		fi
	done < <("$@" 2>&1)
	[ "$seen" = "${planned:-none}" ] || result 'not ok' "$part # $seen of ${planned:-unknown} tests ran"
	echo "# $part: $seen tests, $((SECONDS - begin)) s"
}

echo "TAP version 13"
for part in "${parts[@]}"; do
	case $part in
	net) run_part net timeout $((2400 * slow)) "$selftests/net.sh" ;;
	nicprep) run_part nicprep timeout $((300 * slow)) "$selftests/nicprep.sh" ;;
	damage) run_part damage timeout $((900 * slow)) "$selftests/damage.sh" --pm ;;
	nic)
		run_part uapi timeout $((60 * slow)) "$programs/uapi" -f bind
		mapfile -t cases < <(sed -n 's/^\(t_nic_[a-z0-9_]*\)() {.*/\1/p' "$selftests/net.sh")
		run_part net timeout $((300 * slow)) "$selftests/net.sh" "${cases[@]}"
		run_part nicprep timeout $((300 * slow)) "$selftests/nicprep.sh"
		;;
	hooked)
		run_part uapi timeout $((60 * slow)) "$programs/uapi" -f bind
		run_part hook timeout $((120 * slow)) "$programs/hook"
		run_part nicprep timeout $((300 * slow)) "$selftests/nicprep.sh"
		run_part net timeout $((600 * slow)) "$selftests/net.sh" "${hooked[@]}"
		;;
	pmem) run_part pmem timeout $((600 * slow)) "$programs/pmem" ;;
	hostile) run_part hostile timeout $((900 * slow)) "$programs/hostile" ;;
	fuzz) run_part fuzz timeout $((FUZZ_SECONDS + 200 * slow)) "$programs/fuzz" -s "${FUZZ_SEED:-1}" -t "$FUZZ_SECONDS" ;;
	fail_nth) run_part fail_nth timeout $((1200 * slow)) "$programs/fail_nth" ;;
	life) run_part life timeout $((600 * slow)) "$programs/life" ;;
	*) run_part "$part" timeout $((300 * slow)) "$programs/$part" ;;
	esac
done
echo "1..$n"
echo "# $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
