// SPDX-License-Identifier: GPL-2.0
/* lib/refusal.h: what the library says when a driver refuses XDP, also for what no emulated NIC has. */
#include <string.h>

#include "unit.h"
#include "refusal.h"

static void check_says(int err, int vfs, const char *word)
{
	const char *s = paste_refusal(err, vfs);

	CHECK(s && strstr(s, word));
}

static void test_settings(void)
{
	check_says(-EINVAL, 0, "LRO");
	check_says(-EINVAL, 0, "MTU");
	check_says(-EINVAL, 0, "DCB");
	check_says(-EINVAL, 4, "SR-IOV");
	CHECK(!strstr(paste_refusal(-EINVAL, 0), "SR-IOV"));
}

static void test_others(void)
{
	check_says(-EBUSY, 0, "another");
	check_says(-EEXIST, 0, "another");
	check_says(-EOPNOTSUPP, 0, "no XDP");
	check_says(-EOPNOTSUPP, 4, "no XDP");
	CHECK(!paste_refusal(-EPERM, 0));
	CHECK(!paste_refusal(-ENOMEM, 4));
}

int main(void)
{
	static const struct unit_test tests[] = {
		{ "refusal__settings", test_settings },
		{ "refusal__others", test_others },
	};

	return unit_run(tests, ARRAY_SIZE(tests));
}
