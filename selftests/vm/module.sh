#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: module.sh KERNELVERSION
#
# Have DKMS build and install the module for a kernel, and print the path of a tarball of all files that this made: DKMS's
# tree, the module, depmod's files. Unpacked over the root of a VM they are what a machine has after 'dkms install'. Cached
# outside the tree, keyed by the module's sources and the kernel.
#
# What it changes on this system lies in memory, and in a mount namespace of its own. Where no such can be made (a container
# without SYS_ADMIN) a VM does the same, and takes ten times as long.
#
# KERNEL_IMAGE and KERNEL_MODULES are run.sh's.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/module

say() { printf 'module: %s\n' "$*" >&2; }

# build_with_dkms KERNEL TARBALL, where it can do no harm
build_with_dkms() {
	local kernel=$1 out=$2 name version
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

# shield DIRECTORY: what is changed in the directories that DKMS writes to goes there, and with this mount namespace
shield() {
	local dir
	mount -t tmpfs shield "$1" || return
	for dir in usr/src var/lib/dkms usr/lib/modules; do
		mkdir -p "$1/$dir/upper" "$1/$dir/work"
		mount -t overlay -o "lowerdir=/$dir,upperdir=$1/$dir/upper,workdir=$1/$dir/work" shield "/$dir" || return
	done
}

case $1 in
--in-guest)
	build_with_dkms "$(uname -r)" "$2"
	exit
	;;
--shielded)
	shield "$3" > "$4.mount" 2>&1 || exit 125
	build_with_dkms "$2" "$4"
	exit
	;;
esac

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
mkdir "$work/shield"
say "DKMS builds the module for $version"
start=$SECONDS status=0
unshare --mount "$here/module.sh" --shielded "$version" "$work/shield" "$work/out.tar" > "$work/log" 2>&1 || status=$?
if [ ! -e "$work/out.tar.mount" ] || [ $status = 125 ]; then
	say "in a VM, as nothing can be mounted here: takes some minutes"
	status=0
	# Compiling attaches no XDP program, so two emulated CPUs are safe here.
	"$here/run.sh" --kernel "$version" --nic none --no-module --smp 2 --tcg multi --timeout 1500 -- \
		"$here/module.sh" --in-guest "$work/out.tar" > "$work/log" 2>&1 || status=$?
fi
if [ $status != 0 ]; then
	cat "$work/log" >&2
	say "the DKMS build failed"
	exit 1
fi
say "built in $((SECONDS - start)) s"
mv "$work/out.tar" "$cache/.$key.$$"
mv "$cache/.$key.$$" "$tarball"
echo "$tarball"
