#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: soak.sh [--again]

make soak: what takes hours. On both kernels half an hour of connections that come and go while the NIC is reset and servers
are killed; the suite on a kernel that looks for data races (6.12); fifty thousand sequences of a hostile peer; and hostile
programs until they have done ten million operations. Each run is a step of check.sh. Started again it goes on with the next
one; --again, or another module, begins with the first.

The figures of all are added up in the end, in lines "robust: NAME N".
END
}

set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

state=build/soak
operations=10000000

case ${1:-} in
--again) rm -rf $state ;;
'') ;;
--help) usage; exit ;;
*) usage >&2; exit 1 ;;
esac

# What was run is of this module only.
of=$(cat Kbuild kmod/*.[ch] uapi/linux/paste.h | sha256sum)
[ "$(cat $state/of 2> /dev/null)" = "$of" ] || rm -rf $state
mkdir -p $state
echo "$of" > $state/of

# figure NAME: the sum over all that has been run
figure() { cat $state/*.figures 2> /dev/null | awk -v name="$1" '$2 == name { sum += $3 } END { print sum + 0 }'; }

# run NAME STEP...: unless it was
run() {
	local name=$1
	shift
	[ ! -e "$state/$name.figures" ] || return 0
	echo "== soak: $name, $(date +%T)"
	selftests/check.sh "$@" | tee "$state/$name.log" || { echo "== soak: $name has FAILED; its log is $state/$name.log"; exit 1; }
	grep '^robust: ' "$state/$name.log" > "$state/part"
	mv "$state/part" "$state/$name.figures"
}

run build build
run endurance endurance-{6.12,6.1}
run races races-6.12
run hostile hostile-{6.12,6.1}
for ((round = 1; $(figure fuzz-ops) < operations; round++)); do
	run "fuzz-$round" fuzz-{6.12,6.1}
	echo "== soak: $(figure fuzz-ops) of $operations operations"
done

awk '{ sum[$2] += $3 } END { for (name in sum) print "robust:", name, sum[name] }' $state/*.figures
