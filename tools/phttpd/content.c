// SPDX-License-Identifier: MIT
/*
 * content.c - what the bodies of phttpd's own answers are
 */
#include "serve.h"

static const char text[] = "paste: packet buffers that belong to the application. 012345678\n";

unsigned pattern_period(enum pattern which)
{
	return which == PATTERN_TEXT ? sizeof(text) - 1 : 251;
}

void pattern_fill(enum pattern which, char *buf, size_t len)
{
	unsigned period = pattern_period(which);
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = which == PATTERN_TEXT ? text[i % period] : (char)(i % period);
}
