#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: module.sh KERNELVERSION
#
# Have DKMS build and install the module for a kernel, in a VM that runs this kernel, and print the path of a tarball of all
# files that this made: DKMS's tree, the module, depmod's files. Unpacked over the root of another VM they are what a
# machine has after 'dkms install', without the minutes that compiling takes under emulation. Cached outside the tree, keyed
# by the module's sources and the kernel.
#
# KERNEL_IMAGE and KERNEL_MODULES are run.sh's.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/module

say() { printf 'module: %s\n' "$*" >&2; }

# The part that runs in the VM.
build_with_dkms() {
	local out=$1 kernel name version
	kernel=$(uname -r)
	name=$(sed -n 's/^PACKAGE_NAME="\(.*\)"/\1/p' "$tree/dkms.conf")
	version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$tree/dkms.conf")

	# What the host may have of it is not ours to test.
	rm -rf "/var/lib/dkms/$name" "/lib/modules/$kernel/updates/dkms/$name".ko*
	make -s -C "$tree" dkms-install DESTDIR=
	dkms add "$name/$version"
	if ! dkms build "$name/$version" -k "$kernel"; then
		cat "/var/lib/dkms/$name/$version/build/make.log"
		return 1
	fi
	dkms install "$name/$version" -k "$kernel"
	cd /
	tar -cf "$out" "usr/src/$name-$version" "var/lib/dkms/$name" "lib/modules/$kernel/updates/dkms/$name".ko* \
		"lib/modules/$kernel"/modules.*
}

if [ "$1" = --in-guest ]; then
	build_with_dkms "$2"
	exit
fi

version=$1
key=$({
	echo "$version"
	cd "$tree"
	sha256sum Kbuild dkms.conf kmod/*.[ch] uapi/linux/*.h selftests/vm/module.sh "${KERNEL_IMAGE:-/boot/vmlinuz-$version}"
} | sha256sum | cut -c1-16)
tarball=$cache/$key.tar
if [ -e "$tarball" ]; then
	echo "$tarball"
	exit
fi

mkdir -p "$cache" "$tree/build/vm"
work=$(mktemp -d "$tree/build/vm/module.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "DKMS builds the module for $version in a VM (takes some minutes, once per version of the sources)"
start=$SECONDS
# Compiling attaches no XDP program, so two emulated CPUs are safe here.
if ! "$here/run.sh" --kernel "$version" --nic none --no-module --smp 2 --tcg multi --timeout 1500 -- \
	"$here/module.sh" --in-guest "$work/out.tar" > "$work/log" 2>&1; then
	cat "$work/log" >&2
	say "the DKMS build failed"
	exit 1
fi
say "built in $((SECONDS - start)) s"
mv "$work/out.tar" "$cache/.$key.$$"
mv "$cache/.$key.$$" "$tarball"
echo "$tarball"
