#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# usage: pm.sh [--new] DIRECTORY     in a VM with --pm
#
# Mount a file system with DAX on the VM's NVDIMM; --new: make it first.

set -euo pipefail

if [ "$1" = --new ]; then
	shift
	# DAX needs the kernel's page structures for the memory. That it has them is written to the NVDIMM.
	[ "$(cat /sys/bus/nd/devices/namespace0.0/mode)" = memory ] ||
		ndctl create-namespace -f -e namespace0.0 -m fsdax -M mem > /dev/null
	mkfs.ext4 -qFb 4096 /dev/pmem0
fi
mkdir -p "$1"
mount -o dax /dev/pmem0 "$1"
