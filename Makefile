# SPDX-License-Identifier: GPL-2.0
# For people; the kernel's build system reads Kbuild. 'make help' says what there is.

PREFIX ?= /usr/local
# The kernels to build the module for: all whose headers are installed, or the one of KDIR=.
KDIRS := $(if $(KDIR),$(KDIR),$(wildcard /lib/modules/*/build))
# Where module builds go, one directory per kernel.
MODULE_BUILD ?= build/module
VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
DKMS_SOURCES := Kbuild dkms.conf $(wildcard kmod/*.c kmod/*.h) uapi/linux/paste.h
DKMS_DIR := $(DESTDIR)/usr/src/paste-$(VERSION)

# V=1 shows the commands, in the kernel's build system as well as here.
Q := $(if $(filter 1,$(V)),,@)
export V PREFIX DESTDIR

.PHONY: all module lib tools deps demo check check-debug soak bench install uninstall dkms-install deb abi clean help

all: module lib tools

# The kernel's build system leaves its objects beside the sources, so it gets a directory of links to them.
module:
	$(Q)set -e; \
	[ -n "$(KDIRS)" ] || { echo "no kernel headers in /lib/modules/*/build: run 'make deps', or give KDIR=" >&2; exit 1; }; \
	for kdir in $(KDIRS); do \
		release=$$(sed -n 's/^#define UTS_RELEASE "\(.*\)"/\1/p' $$kdir/include/generated/utsrelease.h); \
		dir=$(CURDIR)/$(MODULE_BUILD)-$$release; \
		mkdir -p $$dir/kmod $$dir/uapi/linux; \
		find $$dir -xtype l -delete; \
		for file in $(DKMS_SOURCES); do ln -sf $(CURDIR)/$$file $$dir/$$file; done; \
		$(MAKE) -C $$kdir M=$$dir modules; \
	done

lib:
	$(Q)$(MAKE) -C lib all

tools: lib
	$(Q)$(MAKE) -C tools all

deps:
	$(Q)selftests/deps.sh

demo: deps
	$(Q)selftests/demo.sh

check: deps
	$(Q)selftests/check.sh

check-debug:
	$(Q)selftests/deps.sh --debug
	$(Q)selftests/check-debug.sh

# Hours. Goes on where it was stopped.
soak: deps
	$(Q)selftests/soak.sh

# At most two and a half hours; QUICK=1: six minutes. For choices: selftests/bench/run.sh --help
bench:
	$(Q)selftests/deps.sh --bench
	$(Q)selftests/bench/run.sh $(if $(QUICK),--quick)

install: lib tools dkms-install
	$(Q)$(MAKE) -C lib install
	$(Q)$(MAKE) -C tools install

# Without its sources DKMS could not even remove the module.
uninstall:
	$(Q)! [ -e $(DESTDIR)/var/lib/dkms/paste/$(VERSION) ] || \
		{ echo "first run: dkms remove paste/$(VERSION) --all" >&2; exit 1; }
	$(Q)$(MAKE) -C lib uninstall
	$(Q)$(MAKE) -C tools uninstall
	$(Q)rm -rf $(DKMS_DIR)

# DKMS builds the module for every kernel that is or will be installed.
dkms-install:
	$(Q)rm -rf $(DKMS_DIR)
	$(Q)install -d $(DKMS_DIR)/kmod $(DKMS_DIR)/uapi/linux
	$(Q)for file in $(DKMS_SOURCES); do install -m 644 $$file $(DKMS_DIR)/$$file || exit; done
	@echo "Sources are in $(DKMS_DIR). Now: dkms install paste/$(VERSION)"

# dpkg-buildpackage leaves its results beside the source directory, so it gets a copy of the tree below build/.
deb:
	$(Q)selftests/deps.sh --deb
	$(Q)rm -rf build/deb
	$(Q)mkdir -p build/deb/paste-$(VERSION)
	$(Q)tar -c --exclude-vcs --exclude=./build --exclude=__pycache__ . | tar -x -C build/deb/paste-$(VERSION)
	$(Q)cd build/deb/paste-$(VERSION) && env -u PREFIX -u DESTDIR dpkg-buildpackage -us -uc
	@echo "Packages are in build/deb. Now, as root: apt install ./build/deb/*.deb"

abi: lib
	$(Q)$(MAKE) -C lib abi

clean:
	$(Q)rm -rf build
	$(Q)$(MAKE) -C lib clean
	$(Q)$(MAKE) -C tools clean

help:
	@echo 'all           module, lib and tools (the default; needs no root)'
	@echo 'module        the kernel module, for every kernel with headers in /lib/modules, or KDIR='
	@echo 'lib           libpaste'
	@echo 'tools         phttpd, pastectl and the examples'
	@echo 'deps          install every Debian package that the others need (root)'
	@echo 'demo          requests per second with and without PASTE, in a VM with an emulated NIC'
	@echo 'check         all tests: style, unit tests, VMs with 6.1 and 6.12'
	@echo 'check-debug   the tests on kernels built with KASAN, lockdep and others: takes hours'
	@echo 'soak          the long runs, hours: goes on where it was stopped'
	@echo 'bench         servers with and without PASTE against each other, in VMs; QUICK=1: 6 minutes'
	@echo 'install       lib, headers, man pages, tools and udev rule, below DESTDIR and PREFIX (/usr/local); dkms-install'
	@echo 'uninstall     remove what install has installed'
	@echo 'dkms-install  copy the module sources to where DKMS finds them'
	@echo 'deb           Debian packages, in build/deb'
	@echo 'abi           check that the library exports what libpaste.map says'
	@echo 'clean         remove what was built'
	@echo
	@echo 'V=1 shows the commands.'
