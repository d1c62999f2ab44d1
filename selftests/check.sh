#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: check.sh [--fast] [STEP...]

make check: run the steps (all of them, or with --fast those that need no VM, or the named ones) and print, last,
"N passed, N failed, N skipped". The whole output of a step is kept in build/check/STEP.log. VM_OPTIONS has more options for
vm/run.sh. Also by name: rate-KERNEL-NIC (rate.sh: figures, for a quiet machine). The steps are:
END
	printf '  %s\n' "${all[@]}"
}

set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

fast=(build style unit)
all=("${fast[@]}")
for kernel in 6.12 6.1; do
	all+=("vm-$kernel-ixgbe" "vm-$kernel-virtio")
done
all+=(demo)

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

# KIND-KERNEL-NIC
run_in_vm() {
	local kind kernel nic command options
	IFS=- read -r kind kernel nic <<< "$1"
	read -ra options <<< "${VM_OPTIONS:-}"
	case $kind-$nic in
	vm-virtio) command=(selftests/vm/suite.sh virtio nic) ;; # what does not depend on the NIC was tested already
	vm-*) command=(selftests/vm/suite.sh "$nic") ;;
	rate-*) command=(selftests/rate.sh) ;;
	esac
	selftests/vm/run.sh --kernel "$kernel" --nic "$nic" --timeout 1200 "${options[@]}" -- "${command[@]}"
}

run_step() {
	case $1 in
	build) make lib tools abi && make -C lib check && make -C tools/phttpd check && make -C selftests ;;
	style) selftests/style.sh ;;
	unit) make -s -C selftests unit ;;
	vm-* | rate-*) run_in_vm "$1" ;;
	demo) selftests/demo.sh ;;
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

logs=build/check
mkdir -p "$logs"
passed=0 failed=0 skipped=0
for step in "${steps[@]}"; do
	echo "== $step"
	start=$SECONDS
	run_step "$step" 2>&1 | tee "$logs/$step.log"
	status=${PIPESTATUS[0]}
	read -r p f s < <(count_results < "$logs/$step.log")
	# A step without results is one result: how it ended. One that failed without saying what has failed all the same.
	if [ "$status" != 0 ] && [ "$f" = 0 ]; then
		f=1
	elif [ "$status" = 0 ] && [ $((p + f + s)) = 0 ]; then
		p=1
	fi
	echo "== $step: $p passed, $f failed, $s skipped, $((SECONDS - start)) s"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
