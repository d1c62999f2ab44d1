#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: style.sh [--fix]
#
# What can be said about the sources without running them, as TAP. --fix lets clang-format have its way instead.

set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

number=0
failures=0

# check NAME COMMAND...: passes when COMMAND does.
check() {
	local name=$1 output
	shift
	number=$((number + 1))
	if output=$("$@" 2>&1); then
		echo "ok $number style: $name"
	else
		head -100 <<< "$output" | sed 's/^/# /'
		echo "not ok $number style: $name"
		failures=$((failures + 1))
	fi
}

files() {
	find . \( -path ./build -o -path ./.git \) -prune -o -type f -print
}

# Scripts have no suffix where a suffix says nothing, so they are told by their first line.
scripts() {
	local file line
	files | while read -r file; do
		line=
		IFS= read -r line 2> /dev/null < "$file"
		[[ ${line//$'\0'/} =~ ^#!.*[/\ ]$1 ]] && echo "$file"
	done
}

# The NIC models are written in QEMU's style; headers made of tables keep the columns that their authors gave them.
c_files() {
	files | grep '\.[ch]$' | grep -v -e '^\./selftests/qemu/' -e '^\./uapi/' -e '^\./kmod/trace\.h$'
}

python_compiles() {
	local file
	for file in "$@"; do
		python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' "$file" || return 1
	done
}

# Warnings of the kernel's own headers are not ours.
module_is_clean() {
	local output
	output=$(make -k module KDIR="$1" MODULE_BUILD=build/style C=2 W=1 2>&1) || { echo "$output"; return 1; }
	! grep -E '(kmod|uapi)/.*(warning|error):' <<< "$output"
}

files_have_licenses() {
	local file status=0
	while read -r file; do
		head -3 "$file" | grep -q SPDX-License-Identifier || { echo "$file: no SPDX line"; status=1; }
	done
	return $status
}

if [ "${1:-}" = --fix ]; then
	c_files | xargs clang-format -i
	exit
fi

mapfile -t shell < <(scripts '(ba|da)?sh')
mapfile -t python < <(scripts python3)
mapfile -t c < <(c_files)

check shellcheck shellcheck "${shell[@]}"
check python python_compiles "${python[@]}"
check clang-format clang-format --dry-run --Werror "${c[@]}"
check documentation selftests/docs.py
check licenses files_have_licenses < <(files | grep -E '\.([ch]|sh|py|mak)$|/(Makefile|Kbuild)$')
for kdir in /lib/modules/*/build; do
	release=${kdir#/lib/modules/}
	check "sparse and W=1, ${release%/build}" module_is_clean "$kdir"
done
echo "1..$number"
[ $failures = 0 ]
