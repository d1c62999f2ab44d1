// SPDX-License-Identifier: MIT
/*
 * The smallest complete program: echo one connection to port 7777, as the
 * README and libpaste(7) show it.
 *
 * What arrives is sent back from where it lies. A chunk goes back to the module
 * when its send is over. The entry that closes the connection has no chunk, so
 * its completion, with cookie 0, is the end. No ring can overflow: an rx entry
 * is taken only when there is a tx entry for it, and between two syncs there
 * are at most 2048 completions for the 4096 entries of the fill ring.
 */
#include <arpa/inet.h>
#include <err.h>
#include <paste.h>

int main(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(7777) };
	int fd, chunk = 1;
	struct paste_tx *t;
	struct paste p;
	struct pasteq q;

	if (paste_open(&p) || paste_pool(&p, NULL) || paste_queue(&p, &q, NULL) ||
	    paste_fill_all(&q) || paste_listen((void *)&any, sizeof(any), 1, 0, 0, &fd) ||
	    paste_attach(&q, accept(fd, NULL, NULL), 0, NULL))
		errx(1, "cannot start: %s", paste_text(&p));
	for (; chunk && !paste_sync(&q, 0, PASTE_FOREVER); paste_tx_submit(&q)) {
		for (; chunk && paste_comp_peek(&q); paste_comp_release(&q, 1))
			paste_fill(&q, chunk = (int)paste_comp_at(&q, 0)->cookie);
		for (; paste_rx_peek(&q) && (t = paste_tx_reserve(&q)); paste_rx_release(&q, 1)) {
			const struct paste_rx *r = paste_rx_at(&q, 0);

			*t = (struct paste_tx){ r->conn, r->chunk, r->off, r->len, 0, r->chunk };
			t->flags = r->len ? 0 : PASTE_TX_CLOSE;
		}
	}
	return chunk;
}
