/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's test harness. Its time limit for a test is there for tests that
 * hang, and those of the tests themselves (SOON) come first, so it is long.
 */
#ifndef SELFTESTS_HARNESS_H
#define SELFTESTS_HARNESS_H

#include <kselftest_harness.h>

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

#endif
