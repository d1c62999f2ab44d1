#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: check.sh [--fast] [STEP...]

make check: run the steps (all of them, or with --fast those that need no VM, or the named ones), two at a time where they do
not disturb each other, and print, last, what has failed and "N passed, N failed, N skipped". The output of a step is shown when
it ends, and kept in build/check/STEP.log. VM_OPTIONS has more options for vm/run.sh, PASTE_SLOW a factor for all time limits (a
host with other work). Also by name: endurance-, races-, hostile- and fuzz-KERNEL, which make soak runs; and rate-KERNEL-NIC
(rate.sh: figures, for a quiet machine). The steps are:
END
	printf '  %s\n' "${all[@]}"
}

set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

fast=(build style unit store damage install-fast)
# The first VM of a kernel has DKMS build the module, which the second one finds: not both at the same time.
all=("${fast[@]}" vm-{6.12,6.1}-ixgbe install crash-{6.12,6.1} vm-{6.12,6.1}-{i40e,virtio} recovery-{6.12,6.1} demo)

steps=()
while [ $# -gt 0 ]; do
	case $1 in
	--fast) steps+=("${fast[@]}") ;;
	--help) usage; exit ;;
	*) steps+=("$1") ;;
	esac
	shift
done
[ ${#steps[@]} -gt 0 ] || steps=("${all[@]}")

# KIND-KERNEL[-NIC]
run_in_vm() {
	local kind kernel nic command options
	IFS=- read -r kind kernel nic <<< "$1-ixgbe"
	nic=${nic%%-*}
	read -ra options <<< "${VM_OPTIONS:-}"
	[ "$kind" = rate ] || options=(--smp 2 "${options[@]}") # for NICs with two queues
	case $kind-$nic in
	# Of other NICs than the first, what depends on them.
	vm-virtio) command=(selftests/vm/suite.sh virtio nic) ;;
	vm-i40e) command=(selftests/vm/suite.sh i40e hooked) ;;
	vm-*) command=(selftests/vm/suite.sh "$nic") ;;
	rate-*) command=(selftests/rate.sh) ;;
	# of make soak
	endurance-*) command=(env SOAK_SECONDS="${SOAK_SECONDS:-1800}" selftests/net.sh t_hooked_endurance) ;;
	hostile-*) command=(env HOSTILE_SEQUENCES=50000 HOSTILE_SEED="$SRANDOM" selftests/vm/suite.sh "$nic" hostile) ;;
	fuzz-*) command=(env FUZZ_SECONDS="${SOAK_SECONDS:-1800}" FUZZ_SEED="$SRANDOM" selftests/vm/suite.sh "$nic" fuzz) ;;
	esac
	case $kind-$nic in vm-ixgbe | vm-i40e) options+=(--pm 512M) ;; esac # xfs wants 300 MB
	selftests/vm/run.sh --kernel "$kernel" --nic "$nic" --timeout 4200 "${options[@]}" -- "${command[@]}"
}

run_step() {
	case $1 in
	build) make lib tools abi && make -C lib check && make -C tools/phttpd check speed && make -C selftests ;;
	style) selftests/style.sh ;;
	unit) make -s -C selftests unit && make -s -C tools/phttpd sim ;;
	store) "${isolate[@]}" selftests/net.sh --no-module ;;
	damage) selftests/damage.sh ;;
	install-fast) selftests/install.sh --fast ;;
	install) selftests/install.sh ;;
	vm-* | rate-* | endurance-* | hostile-* | fuzz-*) run_in_vm "$1" ;;
	crash-*) selftests/crash.sh --kernel "${1#crash-}" ;;
	recovery-*)
		selftests/vm/run.sh --kernel "${1#recovery-}" --nic none --no-module -- \
			build/tools/obj-phttpd/store_speed --recover 1000000
		;;
	demo) selftests/demo.sh ;;
	races-*) selftests/check-debug.sh --sanitizer kcsan "${1#races-}" ;;
	*) echo "no step $1"; return 1 ;;
	esac
}

# Count the results in (K)TAP on stdin: "passed failed skipped". A test that has results nested in it ("# ok 3 ...") is
# counted by these; by itself only if it failed though they all passed, as when it crashed after them.
count_results() {
	awk '
		function count(line) {
			if (line ~ /# *SKIP/)
				skipped++
			else if (line ~ /^ok/)
				passed++
			else
				failed++
		}
		{ sub(/\r$/, "") }
		/^(#|[ \t])+(not )?ok [0-9]/ {
			sub(/^(#|[ \t])+/, "")
			before = failed
			count($0)
			nested++
			nested_failed += failed - before
		}
		/^(not )?ok [0-9]/ {
			if (!nested || ($0 ~ /^not/ && !nested_failed))
				count($0)
			nested = nested_failed = 0
		}
		END { print passed + 0, failed + 0, skipped + 0 }'
}

# Those that failed, and before each the last that was said of it.
failed_results() {
	awk '
		/^[# \t]*(not )?ok [0-9]/ {
			failed = /^[# \t]*not/
			for (i = n > 4 ? n - 4 : 0; failed && i < n; i++)
				print said[i]
			if (failed)
				print
			n = 0
			next
		}
		/^#/ { said[n++] = $0 }'
}

logs=build/check
mkdir -p "$logs"
passed=0 failed=0 skipped=0
failures= # a line for each, shown again at the end: a log may be cut
declare -A step_of=() start_of=() # by the process group of a running step

# VMs emulate one CPU each and keep another busy for a part of the time with what runs outside, so that two share two cores
# well. Where no network namespace can be made they would share the tap device.
jobs=2
unshare --net true 2> /dev/null || jobs=1

# A network of its own for what uses ports without a VM. Who is not root needs a user namespace for that, which a chroot refuses.
isolate=()
for options in --net '--map-root-user --net'; do
	# shellcheck disable=SC2086 # several words
	if unshare $options true 2> /dev/null; then
		read -ra isolate <<< "unshare $options"
		break
	fi
done

# Later steps need what the first one makes; figures want a quiet machine.
runs_alone() {
	case $1 in build | demo | rate-* | recovery-*) ;; *) return 1 ;; esac
}

start_step() {
	echo "== $1: starts"
	# A process group of its own, which is what can be stopped as a whole.
	set -m
	run_step "$1" > "$logs/$1.log" 2>&1 < /dev/null &
	set +m
	step_of[$!]=$1 start_of[$!]=$SECONDS
}

# finish_step GROUP STATUS
finish_step() {
	local step=${step_of[$1]} p f s
	cat "$logs/$step.log"
	read -r p f s < <(count_results < "$logs/$step.log")
	# A step without results is one result: how it ended. One that failed without saying what has failed all the same.
	if [ "$2" != 0 ] && [ "$f" = 0 ]; then
		f=1
	elif [ "$2" = 0 ] && [ $((p + f + s)) = 0 ]; then
		p=1
	fi
	echo "== $step: $p passed, $f failed, $s skipped, $((SECONDS - start_of[$1])) s"
	[ "$f" = 0 ] || failures+="$(failed_results < "$logs/$step.log")"$'\n'
	[ "$2" = 0 ] || failures+="$step has ended with status $2"$'\n'
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	unset "step_of[$1]" "start_of[$1]"
}

show_progress() {
	local group step
	for group in "${!step_of[@]}"; do
		step=${step_of[$group]}
		read -r p f s < <(count_results < "$logs/$step.log")
		echo "   $step: $((p + f + s)) results, $f failed, $((SECONDS - start_of[$group])) s"
	done
}

# The output of steps that run side by side would be unreadable mixed: it is shown when a step ends.
wait_for_step() {
	local group status tick
	sleep 60 > /dev/null 2>&1 &
	tick=$!
	while status=0; wait -n -p group "${!step_of[@]}" $tick || status=$?; [ "$group" = $tick ]; do
		show_progress
		sleep 60 > /dev/null 2>&1 &
		tick=$!
	done
	kill $tick
	finish_step "$group" $status
}

# shellcheck disable=SC2317 # called by trap
stop_steps() {
	local group
	for group in "${!step_of[@]}"; do
		kill -- -"$group"
	done
	exit 130
}
trap stop_steps INT TERM

for step in "${steps[@]}"; do
	limit=$jobs
	! runs_alone "$step" || limit=1
	while [ ${#step_of[@]} -ge $limit ]; do
		wait_for_step
	done
	start_step "$step"
	! runs_alone "$step" || wait_for_step
done
while [ ${#step_of[@]} -gt 0 ]; do
	wait_for_step
done

printf %s "$failures"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
