/* SPDX-License-Identifier: MIT */
/*
 * pastectl: what its files share. Each command is a function that gets its
 * arguments as main() does and returns the exit status.
 */
#ifndef PASTECTL_H
#define PASTECTL_H

/* Exit statuses, as pastectl(8) documents them. */
#define EXIT_OK	   0
#define EXIT_NO	   1 /* check, nic show: zero copy would not work; else: it failed */
#define EXIT_USAGE 2 /* wrong arguments, or the question has no answer */

int cmd_info(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_conns(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_nic(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif /* PASTECTL_H */
