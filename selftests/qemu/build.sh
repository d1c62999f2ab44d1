#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the QEMU that the VM tests run on: Debian's source package plus the two NIC models in this directory. Prints the path
# of the binary on stdout and nothing else; progress goes to stderr.
#
# The binary lives in a cache outside the tree, keyed by everything that goes into it, so it is built once (about three
# minutes on two cores) and found at once from then on. Removing the cache directory is always safe.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/qemu
sources=(build.sh devices.mak hooks.patch ixgbe.c i40e.c)

say() { printf 'qemu: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# qemu-system-data holds the option ROMs that the binary loads at run time and comes from the same source package, so its
# version is the one to build, and is known without asking the network.
version=$(dpkg-query -W -f '${source:Version}' qemu-system-data 2>/dev/null) ||
	die "the package qemu-system-data is missing: run 'make deps' as root"
key=$({ echo "$version"; cd "$here" && sha256sum "${sources[@]}"; } | sha256sum | cut -c1-16)
binary=$cache/$key/qemu-system-x86_64

if [ -x "$binary" ]; then
	echo "$binary"
	exit
fi

# Everything happens in a directory beside the final one, so that an interrupted build leaves nothing that looks complete and
# the last step is a rename within one file system.
mkdir -p "$cache"
exec 9> "$cache/.lock"
flock 9
if [ -x "$binary" ]; then
	echo "$binary"
	exit
fi
work=$(mktemp -d "$cache/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The Debian entries of this system, as source entries: 'make deps' and this script must not change what apt knows, so they
# go into a directory of our own. Entries of other vendors are left out by suite and component; options such as signed-by
# stay as they are.
write_source_entries() {
	local out=$1 codename file
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mkdir -p "$out"
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -r "$file" ] || continue
		awk -v code="$codename" '
			$1 == "deb" {
				rest = $0
				sub(/^deb[ \t]+(\[[^]]*\][ \t]*)?/, "", rest)
				n = split(rest, word)
				if (word[2] !~ ("^" code "(-updates|-security)?$"))
					next
				for (i = 3; i <= n; i++)
					if (word[i] == "main") {
						sub(/^deb/, "deb-src")
						print
						next
					}
			}' "$file"
	done > "$out/debian.list"
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -r "$file" ] || continue
		awk -v code="$codename" '
			BEGIN { RS = ""; FS = "\n" }
			{
				types = suites = components = text = ""
				enabled = 1
				for (i = 1; i <= NF; i++) {
					value = $i
					sub(/^[^:]*:[ \t]*/, "", value)
					field = tolower($i)
					if (field ~ /^#/)
						continue
					if (field ~ /^types:/) {
						types = " " value " "
						$i = "Types: deb-src"
					} else if (field ~ /^suites:/)
						suites = value
					else if (field ~ /^components:/)
						components = " " value " "
					else if (field ~ /^enabled:[ \t]*(no|false)/)
						enabled = 0
					text = text $i "\n"
				}
				ours = 0
				n = split(suites, word, /[ \t]+/)
				for (i = 1; i <= n; i++)
					if (word[i] ~ ("^" code "(-updates|-security)?$"))
						ours = 1
				if (enabled && ours && types ~ / deb / && components ~ / main /)
					print text
			}' "$file"
	done > "$out/debian.sources"
	[ -s "$out/debian.list" ] || rm "$out/debian.list"
	[ -s "$out/debian.sources" ] || rm "$out/debian.sources"
	[ -n "$(ls "$out")" ] || die "no Debian $codename entry with 'main' found in /etc/apt/sources.list*"
}

fetch_source() {
	local apt=(
		-q
		-o "Dir::Etc::sourcelist=/dev/null"
		-o "Dir::Etc::sourceparts=$work/sources.list.d"
		-o "Dir::State::lists=$work/lists"
		-o "Dir::Cache=$work/cache"
		-o "APT::Sandbox::User=$(id -un)"
		-o "Acquire::Retries=3"
	)

	write_source_entries "$work/sources.list.d"
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/download"
	apt-get "${apt[@]}" update
	cd "$work/download"
	# An update in the archive replaces the version that is installed here; the newer source will do as well.
	apt-get "${apt[@]}" source --download-only "qemu=$version" ||
		apt-get "${apt[@]}" source --download-only qemu
	dpkg-source -x qemu_*.dsc "$work/src"
	cd "$work/src"
	cp "$here/ixgbe.c" "$here/i40e.c" hw/net/
	cp "$here/devices.mak" configs/devices/x86_64-softmmu/paste.mak
	patch -p1 < "$here/hooks.patch"
}

# Without the default features: what remains is what the tests use, and it builds in a third of the time. Plugins are for the
# benchmarks, which count guest instructions.
compile() {
	mkdir "$work/build"
	cd "$work/build"
	../src/configure --prefix=/usr --target-list=x86_64-softmmu --without-default-features --without-default-devices \
		--with-devices-x86_64=paste --enable-system --disable-user --enable-tcg --enable-plugins \
		--enable-attr --enable-cap-ng --enable-virtfs --enable-fdt=system \
		--disable-docs --disable-tools --disable-guest-agent --disable-install-blobs --disable-werror --disable-debug-info
	nice ninja qemu-system-x86_64
}

say "building version $version with the NIC models into $cache/$key (takes some minutes, once)"
log=$cache/$key.log
# In the background and waited for, because bash ignores 'set -e' in whatever an 'if' runs directly.
(fetch_source; compile) > "$log" 2>&1 < /dev/null &
if ! wait $!; then
	tail -30 "$log" >&2
	die "the build failed; all of its output is in $log"
fi

mkdir "$work/out"
# Plugins find QEMU's functions in its dynamic symbols, which strip keeps.
strip -o "$work/out/qemu-system-x86_64" "$work/build/qemu-system-x86_64"
cp "$work/src/include/qemu/qemu-plugin.h" "$work/out/"
"$work/out/qemu-system-x86_64" -device help > "$work/devices" 2>&1 || die "the new binary does not run"
for device in ixgbe i40e virtio-net-pci virtio-9p-pci virtserialport nvdimm pcie-root-port; do
	grep -q "^name \"$device\"" "$work/devices" || die "the new binary lacks the device $device"
done
mv -T "$work/out" "$cache/$key"
rm -f "$log"
echo "$binary"
