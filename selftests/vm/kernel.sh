#!/bin/bash
# SPDX-License-Identifier: GPL-2.0

usage() {
	cat <<'END'
usage: kernel.sh [--sanitizer kasan|kcsan] 6.1|6.12

Build a kernel that looks for trouble, for run.sh, from Debian's linux-source package, and print the directory it is in:

  vmlinux                what KERNEL_IMAGE wants
  lib/modules/RELEASE/   what KERNEL_MODULES wants; build/ in it is for compiling modules (KDIR)
  config

The configuration is base.config (what the VM and the tests need), debug.config (locks, objects, leaks, faults) and one of
kasan.config (the default) and kcsan.config, and what only one kernel has in kasan-VERSION.config, over allnoconfig. The
build fails if one line of these is not in the kernel's .config in the end.

The result is in a cache outside the tree, keyed by everything that goes into it; a build takes up to 15 minutes on two idle
cores, and goes on where it was interrupted. Removing the cache directory is always safe.
END
}

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/kernel

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

sanitizer=kasan
while [ $# -gt 0 ]; do
	case $1 in
	--sanitizer) sanitizer=$2; shift ;;
	--help) usage; exit ;;
	-*) usage >&2; die "unknown option $1" ;;
	*) break ;;
	esac
	shift
done
[ $# = 1 ] || { usage >&2; exit 1; }
series=$1
case $sanitizer in kasan | kcsan) ;; *) die "--sanitizer $sanitizer: not kasan or kcsan" ;; esac

source=/usr/src/linux-source-$series.tar.xz
[ -r "$source" ] || die "no $source: run 'make deps' as root"
version=$(dpkg-query -W -f '${Version}' "linux-source-$series")
fragments=("$here/base.config" "$here/debug.config")
for fragment in "$here/$sanitizer.config" "$here/$sanitizer-$series.config"; do
	[ ! -e "$fragment" ] || fragments+=("$fragment")
done
key=$({ echo "$version"; gcc --version; cat "$here/kernel.sh" "${fragments[@]}"; } | sha256sum | cut -c1-16)
result=$cache/$series-$sanitizer-$key
if [ -d "$result" ]; then
	echo "$result"
	exit
fi

mkdir -p "$cache"
exec 9> "$cache/.lock-$series-$sanitizer"
flock 9
if [ -d "$result" ]; then
	echo "$result"
	exit
fi
# What an interrupted build has compiled is not compiled again; that of other configurations is of no use any more.
work=$cache/.build-$series-$sanitizer-$key
for other in "$cache/.build-$series-$sanitizer"-*; do
	[ "$other" = "$work" ] || rm -rf "$other"
done
mkdir -p "$work"

# What a make that called us says to its children is not for the kernel.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES V ARCH CROSS_COMPILE O M INSTALL_MOD_PATH

unpack() {
	[ ! -d "$work/src" ] || return 0
	rm -rf "$work/part"
	mkdir "$work/part"
	tar -C "$work/part" --strip-components=1 --exclude='linux-source-*/Documentation/*/*' -xf "$source"
	mv "$work/part" "$work/src"
}

configure() {
	cat "${fragments[@]}" > "$work/all.config"
	make -C "$work/src" KCONFIG_ALLCONFIG="$work/all.config" allnoconfig
	grep '^CONFIG_' "$work/all.config" > "$work/wanted"
	if grep -vxFf "$work/src/.config" "$work/wanted" > "$work/missing"; then
		echo "these lines of the fragments are not in the final .config:"
		cat "$work/missing"
		return 1
	fi
}

compile() {
	nice make -C "$work/src" -j "$(nproc)" vmlinux modules
}

# What compiling a module needs, and no more.
keep_build_tree() {
	cd "$work/src"
	mkdir "$work/out/build"
	find Makefile Kbuild .config Module.symvers include scripts arch/x86/include arch/x86/Makefile* arch/x86/um/Makefile* \
		tools/objtool/objtool \( -type f -o -type l \) ! -name '*.o' ! -name '*.cmd' -print0 |
		tar -c --null -T - | tar -x -C "$work/out/build"
}

collect() {
	local release
	rm -rf "$work/out"
	mkdir "$work/out"
	# Symbols for the messages are in the kernel itself. Not compressed: the emulated CPU would take long to unpack it.
	strip -o "$work/out/vmlinux" "$work/src/vmlinux"
	cp "$work/src/.config" "$work/out/config"
	make -C "$work/src" INSTALL_MOD_PATH="$work/out" modules_install
	release=$(make -s -C "$work/src" kernelrelease)
	keep_build_tree
	rm -f "$work/out/lib/modules/$release"/{build,source}
	ln -s ../../../build "$work/out/lib/modules/$release/build"
}

say "building $series with ${sanitizer^^} from linux-source $version into $result (once)"
log=$result.log
start=$SECONDS
# In the background and waited for, because bash ignores 'set -e' in whatever an 'if' runs directly.
(unpack; configure; compile; collect) > "$log" 2>&1 < /dev/null &
if ! wait $!; then
	tail -30 "$log" >&2
	die "the build failed; all of its output is in $log"
fi
mv -T "$work/out" "$result"
rm -rf "$log" "$work"
# Not in a subshell, whose times these would be.
times > "$result/times"
say "built in $((SECONDS - start)) s; CPU time, user and system: $(tail -1 "$result/times")"
echo "$result"
