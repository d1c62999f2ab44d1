// SPDX-License-Identifier: GPL-2.0
/* kmod/nicrule.h: settings that keep a NIC from being bound, also those that no emulated NIC has. */
#include <string.h>

#include "shim.h"
#include "unit.h"
#include "nicrule.h"

static const struct paste_nic_settings good = { .up = true, .mtu = 1500 };

static void test_good(void)
{
	CHECK(!paste_nic_obstacle(&good, 4096));
	CHECK(!paste_nic_obstacle(&good, 2048));
}

static void check_says(struct paste_nic_settings s, const char *word)
{
	const char *obstacle = paste_nic_obstacle(&s, 4096);

	CHECK(obstacle && strstr(obstacle, word));
}

static void test_says_why(void)
{
	check_says((struct paste_nic_settings){ .up = true, .mtu = 1500, .rx_vlan = true }, "vlan");
	check_says((struct paste_nic_settings){ .up = true, .mtu = 1500, .lro = true }, "LRO");
	check_says((struct paste_nic_settings){ .up = false, .mtu = 1500 }, "down");
	check_says((struct paste_nic_settings){ .up = true, .mtu = 9000 }, "MTU");
}

static void test_driver(void)
{
	CHECK(paste_nic_driver_is_safe("ixgbe"));
	CHECK(!paste_nic_driver_is_safe("fsl_dpaa2_eth"));
}

/* 4096 - 256 = 30 * 128 bytes for a frame, 2048 - 256 = 14 * 128; 26 of them are not the MTU's. */
static void test_mtu_limits(void)
{
	CHECK(paste_nic_mtu_fits(3840 - 26, 4096));
	CHECK(!paste_nic_mtu_fits(3840 - 25, 4096));
	CHECK(paste_nic_mtu_fits(1792 - 26, 2048));
	CHECK(!paste_nic_mtu_fits(1792 - 25, 2048));
	CHECK(!paste_nic_mtu_fits(0xffffffff, 4096));
}

int main(void)
{
	static const struct unit_test tests[] = {
		{ "nicrule__good", test_good },
		{ "nicrule__says_why", test_says_why },
		{ "nicrule__driver", test_driver },
		{ "nicrule__mtu_limits", test_mtu_limits },
	};

	return unit_run(tests, ARRAY_SIZE(tests));
}
