#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: install.sh [--fast]
#
# Install paste in the ways that there are and remove it again, as TAP. --fast: only what needs neither root nor packages: make
# install and uninstall, and the kselftests' own install.
#
# The packages are built with the network off and installed over the clean root of vm/root.sh, all changes in memory. What compiles and what
# moves files is done in a chroot there, at the speed of this machine: DKMS's builds for the first kernel, for the second one when
# its package comes, and from the source tree. VMs with this root do what a chroot cannot: load the module, have udev make the
# device, serve, and remove a package from under the module that is loaded.
#
# shellcheck disable=SC2317 # check calls them

set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=${here%/selftests}
cd "$tree" || exit 1
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
packages=(paste-dkms libpaste1 libpaste-dev paste-tools)
may_mount='' work='' root=''

# --- in the VM

fail() {
	echo "$*"
	exit 1
}

# A member of the group serves, without any privilege.
serve_once() {
	setpriv --reuid=nobody --regid=nogroup --groups=paste --inh-caps=-all phttpd -n -C 256 &
	local server=$! status=1
	for _ in {1..100}; do
		sleep 0.2
		if curl -sS --max-time 20 -o /dev/null http://127.0.0.1:60000/; then
			status=0
			break
		fi
	done
	kill $server && wait $server && return $status
}

in_guest() {
	/lib/systemd/systemd-udevd --daemon || fail "no udev"
	modprobe paste || fail "modprobe paste"
	[ "$(cat /sys/module/paste/version)" = "$version" ] || fail "another version of the module"
	udevadm settle
	[ "$(stat -c '%G %a' /dev/paste)" = "paste 660" ] || fail "/dev/paste: $(stat -c '%G %a' /dev/paste)"
	serve_once || fail "phttpd does not answer"
	[ "$1" = --remove ] || return 0
	# That DKMS removes its files the chroot sees; here it would have depmod take minutes.
	ln -sf /bin/true /usr/sbin/dkms
	dpkg --remove paste-dkms || fail "cannot remove paste-dkms"
	[ ! -e /sys/module/paste ] || fail "the module is still loaded"
}

case ${1:-} in
--in-guest)
	in_guest "${2:-}"
	exit
	;;
--may-mount) may_mount=1 ;;
'')
	# A mount namespace of our own: what is mounted here goes when this ends, however it does.
	if [ "$(id -u)" = 0 ] && unshare --mount true 2> /dev/null; then
		exec unshare --mount "$0" --may-mount
	fi
	;;
esac

# --- outside

number=0 failures=0

# check NAME COMMAND...: passes when COMMAND does.
check() {
	local name=$1 start=$SECONDS
	shift
	number=$((number + 1))
	# In the background and waited for, because bash ignores 'set -e' in whatever an 'if' runs directly.
	(set -e; "$@") > "$work/log" 2>&1 < /dev/null &
	if wait $!; then
		echo "ok $number install: $name ($((SECONDS - start)) s)"
	else
		tail -60 "$work/log" | sed 's/^/# /'
		echo "not ok $number install: $name"
		failures=$((failures + 1))
	fi
}

end() {
	echo "1..$number"
	[ $failures = 0 ]
	exit
}

# No network: everything must be there.
in_root() {
	unshare --mount --net --pid --fork --mount-proc --root="$root" --wd=/ -- \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

files_below() {
	(cd "$1" && find . ! -type d | LC_ALL=C sort)
}

make_installs() {
	make install DESTDIR="$work/dest" PREFIX=/usr
	files_below "$work/dest" > "$work/installed"
	[ "$(grep -vc '^\./usr/' "$work/installed")" = 0 ]
	[ "$(wc -l < "$work/installed")" -gt 60 ]
	make uninstall DESTDIR="$work/dest" PREFIX=/usr
	[ -z "$(files_below "$work/dest")" ]
}

# Elsewhere than where it was installed, as far as it goes without the module.
kselftests_install() {
	local program
	make -C selftests install INSTALL_PATH="$work/there"
	mv "$work/there" "$work/kselftest"
	grep -qx 'timeout=[0-9]*' "$work/kselftest/paste/settings"
	grep -qx CONFIG_XDP_SOCKETS=y "$work/kselftest/paste/config"
	(cd / && "$work/kselftest/run_kselftest.sh" --list) > "$work/list"
	grep -qx paste:net.sh "$work/list"
	grep -v '\.sh$' "$work/list" | while IFS=: read -r _ program; do
		"$work/kselftest/paste/$program" -l || [ $? -lt 126 ] # that is, it was started
	done
	"$work/kselftest/paste/build/tools/phttpd" -h > /dev/null
	# The case is there, and so is all that it runs.
	"${isolate[@]}" env kselftest_override_timeout=100 "$work/kselftest/paste/net.sh" t_store_epoll_wal | grep '^ok 1 '
}

packages_build() {
	unshare --net make deb
}

lintian_accepts() {
	lintian --fail-on error build/deb/paste_"$version"_*.changes
}

# What the packages have in them and what make install installs are the same files.
packages_have_all() {
	local package
	for package in "${packages[@]}"; do
		dpkg-deb --fsys-tarfile build/deb/"${package}_$version"_*.deb | tar -t
	done | grep -v -e '/$' -e '^\./usr/share/doc/' | sed 's/\(\/man\/.*\)\.gz$/\1/; s/x86_64-linux-gnu\///' |
		LC_ALL=C sort > "$work/packaged"
	diff "$work/installed" "$work/packaged"
}

# Names, owners and modes of everything, and the content of what is configuration.
list_root() {
	(
		cd "$root"
		find . \( -path ./dev -o -path ./proc -o -path ./tmp \) -prune -o -printf '%p %M %U:%G %l\n'
		find etc -type f -print0 | xargs -0 sha256sum
	) | LC_ALL=C sort
}

# is_built_for KERNEL-SERIES
is_built_for() {
	in_root dkms status paste/"$version" | grep -q "^paste/$version, $1\..*: installed\$"
}

packages_install() {
	local package
	mkdir "$root/packages"
	for package in "${packages[@]}"; do
		cp build/deb/"${package}_$version"_*.deb "$root/packages/"
	done
	in_root sh -c 'dpkg --install /packages/*.deb'
	is_built_for 6.1
	in_root getent group paste
	# It would not load with Secure Boot otherwise.
	in_root modinfo -k "$(ls "$root/lib/modules")" -F signer paste | grep DKMS
}

# As somebody does who has only the packages.
packages_are_usable() {
	local page
	for page in phttpd.1 paste_attach.3 paste_queue_close.3 paste.4 libpaste.7 pastectl.8; do
		in_root man --where "${page#*.}" "${page%.*}"
	done
	cp tools/examples/hello.c "$root/tmp/"
	# shellcheck disable=SC2016 # for the shell there
	in_root sh -c 'gcc -Wall -Werror -o /tmp/hello /tmp/hello.c $(pkg-config --cflags --libs libpaste) && ldd /tmp/hello' |
		grep libpaste.so.1
	# shellcheck disable=SC2016 # for the shell there
	in_root bash -c '. /usr/share/bash-completion/bash_completion
		. /usr/share/bash-completion/completions/pastectl
		COMP_WORDS=(pastectl ch) COMP_CWORD=1 COMP_LINE="pastectl ch" COMP_POINT=11
		_pastectl pastectl ch pastectl && [ "${COMPREPLY[*]}" = check ]'
}

# The hooks of the kernel's packages call DKMS.
kernel_upgrade_rebuilds() {
	in_root apt-get -q -y --no-install-recommends --no-download install linux-image-6.12-amd64 linux-headers-6.12-amd64
	is_built_for 6.1
	is_built_for 6.12
}

# vm KERNEL ARGUMENT...
vm() {
	local kernel=$1
	shift
	selftests/vm/run.sh --root "$root" --kernel "$kernel" --nic none --no-module --timeout 400 -- "$here/install.sh" --in-guest "$@"
}

# What stays is not ours: the second kernel and the links to it, DKMS's key, caches, and what the package system keeps of old.
purge_leaves_nothing() {
	in_root dpkg --purge "${packages[@]}"
	list_root > "$work/after"
	diff "$work/before" "$work/after" | grep '^[<>]' |
		grep -vE -e '6\.12| \./(initrd\.img|vmlinuz) ' -e ' \./var/(cache/man/|lib/dkms/mok\.)' -e ' etc/ld\.so\.cache$' \
			-e ' (\./)?etc/[a-z]+-( |$)|-old ' > "$work/left" || return 0
	cat "$work/left"
	return 1
}

dkms_installs_from_tree() {
	mkdir "$root/tmp/paste"
	tar -c --exclude-vcs --exclude=./build . | tar -x -C "$root/tmp/paste"
	# shellcheck disable=SC2016 # for the shell there
	in_root sh -c 'dkms install /tmp/paste -k "$(ls /lib/modules | grep "^6\.1\.")"'
	is_built_for 6.1
	in_root dkms remove paste/"$version" --all
}

# A network of its own for what uses ports; see check.sh.
isolate=()
for options in --net '--map-root-user --net'; do
	# shellcheck disable=SC2086 # several words
	if unshare $options true 2> /dev/null; then
		read -ra isolate <<< "unshare $options"
		break
	fi
done

mkdir -p build
work=$(mktemp -d "$tree/build/install.XXXXXX")
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
check "make install, uninstall" make_installs
check "kselftests: a tree for another machine" kselftests_install
[ "${1:-}" != --fast ] || end
if [ -z "$may_mount" ]; then
	number=$((number + 1))
	echo "ok $number install: packages # SKIP must be root, and may mount"
	end
fi

selftests/deps.sh --install || exit 1
clean=$(selftests/vm/root.sh) || exit 1
root=$work/root
mkdir "$root" "$work/upper"
mount -t tmpfs -o size=75% upper "$work/upper" || exit 1
trap 'umount -q "$root"; umount "$work/upper"; rm -rf "$work"' EXIT
mkdir "$work/upper/data" "$work/upper/work"
mount -t overlay -o "lowerdir=$clean,upperdir=$work/upper/data,workdir=$work/upper/work" root "$root" || exit 1
list_root > "$work/before"
check "make deb, without network" packages_build
check "lintian" lintian_accepts
check "packages have what make install has" packages_have_all
check "packages install, DKMS builds for 6.1" packages_install
check "man pages, pkg-config, completion" packages_are_usable
check "kernel upgrade to 6.12 rebuilds" kernel_upgrade_rebuilds
check "6.1 loads it, group, phttpd answers" vm 6.1
check "6.12 the same, remove unloads it" vm 6.12 --remove
check "purge leaves nothing" purge_leaves_nothing
check "dkms install from the tree" dkms_installs_from_tree
end
