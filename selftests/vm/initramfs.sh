#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: initramfs.sh MODULES
#
# Make the initramfs for the kernel whose modules are in the directory MODULES (.../lib/modules/VERSION) and print its path:
# busybox, stage1 and the modules that mounting the host's root needs. Cached outside the tree, keyed by its content.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/initramfs
modules=$1
version=$(basename "$modules")
base=${modules%/lib/modules/*}

# Files of one module and of all that it needs, in the order to load them. Nothing for what is built into the kernel.
list_module() {
	modprobe -d "${base:-/}" -S "$version" --show-depends "$1" | awk '$1 == "insmod" { print $2 }'
}

mapfile -t files < <(for name in virtio_pci 9pnet_virtio 9p overlay; do list_module "$name"; done | awk '!seen[$0]++')

key=$({ echo "$version"; sha256sum "$here/initramfs.sh" "$here/stage1" /bin/busybox "${files[@]}" | cut -d' ' -f1; } |
	sha256sum | cut -c1-16)
image=$cache/$key.cpio
if [ -e "$image" ]; then
	echo "$image"
	exit
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/root/{bin,dev,proc,sys,lower,upper,root,modules}
cp /bin/busybox "$work/root/bin/"
for applet in sh mount mkdir insmod switch_root reboot; do
	ln -s busybox "$work/root/bin/$applet"
done
install -m 755 "$here/stage1" "$work/root/init"
number=10
for file in "${files[@]}"; do
	name=$(basename "$file")
	case $name in
	*.xz) xz -dc "$file" > "$work/root/modules/$number-${name%.xz}" ;;
	*.zst) zstd -qdc "$file" > "$work/root/modules/$number-${name%.zst}" ;;
	*) cp "$file" "$work/root/modules/$number-$name" ;;
	esac
	number=$((number + 1))
done
# Not compressed: the emulated CPU would take longer to unpack it than the host takes to read it.
(cd "$work/root" && find . -print0 | sort -z | cpio --null --create --format=newc --owner=0:0 --quiet) > "$work/image"
mv "$work/image" "$image"
echo "$image"
