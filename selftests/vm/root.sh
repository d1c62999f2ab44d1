#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: root.sh
#
# Make a clean root of this Debian release and print its path: a minimal system with the kernel 6.1, its headers, DKMS, and what
# the Debian packages of paste depend on, but nothing of paste; the packages of the kernel 6.12 lie in apt's cache there. It is
# for copying: tests change the copy. Cached outside the tree, keyed by this script. Needs root, and the network when it is made.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paste/root

packages=(
	linux-image-amd64 linux-headers-amd64 pahole tiny-initramfs
	dkms gcc libc6-dev make
	adduser bash-completion kmod libbpf-dev libelf1 libnl-3-200 libnl-genl-3-200 libnl-route-3-200 libpmem1 libxxhash0
	pkg-config udev zlib1g
	curl iproute2 man-db openssl
)
upgrade=(linux-image-6.12-amd64 linux-headers-6.12-amd64)

say() { printf 'root: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# shellcheck source=/dev/null
. /etc/os-release
key=$({ echo "$VERSION_CODENAME"; cat "$here/root.sh"; } | sha256sum | cut -c1-16)
root=$cache/$VERSION_CODENAME-$key
mkdir -p "$cache"
exec 9> "$cache/.lock"
flock 9
if [ -d "$root" ]; then
	echo "$root"
	exit
fi
[ "$(id -u)" = 0 ] || die "must be root to make a root"

# Where this system gets its packages, which may be a mirror that the network here has.
# shellcheck disable=SC2016 # apt's variables
uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk -v code="$VERSION_CODENAME" '$2 == code && $3 == "main" { print $1; exit }')
uri=${uri%/}
[ -n "$uri" ] || die "no Debian $VERSION_CODENAME in the apt sources"

work=$(mktemp -d "$cache/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT

in_root() {
	unshare --mount --pid --fork --mount-proc --root="$work/root" --wd=/ -- \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		http_proxy="${http_proxy:-}" "$@"
}

make_root() {
	# unshare's: what debootstrap mounts goes with it.
	unshare --mount debootstrap --variant=minbase "$VERSION_CODENAME" "$work/root" "$uri"
	printf "deb %s $VERSION_CODENAME%s main\n" "$uri" '' "$uri-security" -security > "$work/root/etc/apt/sources.list"
	# A root that is lost with the power is made again.
	echo force-unsafe-io > "$work/root/etc/dpkg/dpkg.cfg.d/unsafe-io"
	in_root apt-get -q update
	in_root apt-get -q -y --no-install-recommends install "${packages[@]}"
	in_root apt-get clean
	in_root apt-get -q -y --no-install-recommends --download-only install "${upgrade[@]}"
	rm -f "$work/root/etc/resolv.conf"
}

say "making a clean $VERSION_CODENAME in $root (some minutes, once)"
start=$SECONDS
# In the background and waited for, because bash ignores 'set -e' in whatever an 'if' runs directly.
make_root > "$work/log" 2>&1 < /dev/null &
if ! wait $!; then
	tail -30 "$work/log" >&2
	die "it failed"
fi
mv -T "$work/root" "$root"
say "made in $((SECONDS - start)) s"
echo "$root"
