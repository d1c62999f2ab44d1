#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: deps.sh [--debug | --bench | --deb | --install]
#
# make deps: install what building, the demo and the tests need, from Debian 12's own packages. Does nothing, quickly, when
# nothing is missing. Changes no apt configuration, and only fetches package lists when the ones that are there do not do.
# --debug: also what building kernels needs, for make check-debug. --bench: also what make bench needs.
# --deb: what make deb needs, and nothing else. --install: that and what install.sh needs.

set -euo pipefail

packages=(
	# the module, for both kernels
	dkms gcc libc6-dev make
	linux-headers-amd64 linux-headers-6.12-amd64
	linux-image-amd64 linux-image-6.12-amd64
	# the library and the tools
	bpftool clang libbpf-dev libelf-dev libnl-3-dev libnl-genl-3-dev libnl-route-3-dev libpmem-dev libxxhash-dev llvm
	pkg-config
	# the tests: kselftest's harness comes from the kernel source, openssl is for the sums of what was transferred
	clang-format g++ libclang-rt-14-dev linux-source-6.12 man-db openssl rsync shellcheck sparse xz-utils
	# building QEMU; qemu-system-data is at the version of the source that is built
	dpkg-dev libattr1-dev libcap-ng-dev libfdt-dev libglib2.0-dev libpixman-1-dev meson ninja-build patch python3
	qemu-system-data zlib1g-dev
	# running the VM, and what the tests run in it and beside it
	busybox-static cpio curl e2fsprogs ethtool iproute2 iputils-ping jq kmod ndctl netcat-openbsd nginx-light procps
	seabios tcpdump trace-cmd wrk xfsprogs
)
case ${1:-} in
--debug) packages+=(bc bison flex linux-source-6.1) ;;
--bench) packages+=(gnuplot-nox liburing-dev) ;;
--deb | --install)
	control=$(dirname "${BASH_SOURCE[0]}")/../debian/control
	mapfile -t packages < <(sed -n '/^Build-Depends:/,/^[^ B]/s/^ \([a-z0-9-]*\).*/\1/p' "$control" |
		sed 's/-compat$//; s/^dh-sequence-/dh-/')
	packages+=(build-essential dpkg-dev)
	[ "$1" = --deb ] || packages+=(curl debootstrap lintian man-db)
	;;
esac

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

status=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n')

installed() {
	grep -q "^installed $1 " <<< "$status"
}

missing=()
for package in "${packages[@]}"; do
	installed "$package" || missing+=("$package")
done
# A kernel wants some tool that makes its initramfs. We never boot from it, so where none is installed the smallest will do.
if ! grep -Eq '^installed (initramfs-tools |.*linux-initramfs-tool)' <<< "$status"; then
	missing+=(tiny-initramfs)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

# shellcheck source=/dev/null
. /etc/os-release
[ "$ID-${VERSION_ID:-}" = debian-12 ] || say "this is written for Debian 12; ${PRETTY_NAME:-this system} may lack packages"
[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 is supported"
[ "$(id -u)" = 0 ] || die "must be root to install: ${missing[*]}"

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)

can_install() {
	"${apt[@]}" install --simulate "${missing[@]}" > /dev/null 2>&1
}

# Debian 12 has the kernel 6.12 in its security suite, which every installed system has among its sources, but not one that
# is fresh from debootstrap. There, take the suite from beside the main archive, for this run only.
add_security_suite() {
	local uri
	# shellcheck disable=SC2016 # apt's variables
	uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v code="$VERSION_CODENAME" '$2 == code && $3 == "main" { print $1; exit }')
	[ -n "$uri" ] || die "no Debian $VERSION_CODENAME in the apt sources"
	sources=$(mktemp -d)
	cp -p /etc/apt/sources.list.d/* "$sources/" 2> /dev/null || true
	echo "deb ${uri%/}-security $VERSION_CODENAME-security main" > "$sources/security.list"
	apt+=(-o "Dir::Etc::sourceparts=$sources")
	say "no $VERSION_CODENAME-security in the apt sources; using ${uri%/}-security for now"
}

sources=''
trap 'rm -rf "$sources"' EXIT
# nginx is only to compare with, in VMs: the package must not start it here. Debian asks this file, if there is one.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
	trap 'rm -rf "$sources" $policy' EXIT
fi

say "installing ${missing[*]}"
# The lists may be missing, or so old that the archive no longer has what they name.
if ! can_install || ! "${apt[@]}" install "${missing[@]}" < /dev/null; then
	"${apt[@]}" update
	if ! can_install; then
		add_security_suite
		"${apt[@]}" update
	fi
	"${apt[@]}" install "${missing[@]}" < /dev/null || die "apt could not install all of: ${missing[*]}"
fi
