// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * insn - a QEMU plugin (TCG, API version 1, x86-64) that counts the guest's
 * instructions
 *
 * They go into a file that is mapped: a page of totals, then a slot for each
 * translated block, which says how often the block was entered. Anybody may read
 * the file while the guest runs; the difference of two readings is the cost of
 * what happened in between (insn.py). The speed and noise of the host do
 * not enter.
 *
 * A block's whole length is counted when it is entered, so a fault in the middle
 * of one counts too much. TCG runs "rep" string instructions as loops whose second
 * and later rounds are blocks of their own: these are counted apart, because a
 * processor clears a page in a few dozen cycles, not in 4096 instructions. With
 * several vCPUs in threads of their own (thread=multi) additions would race.
 *
 * Arguments: out=FILE, best in memory (24 bytes per slot, sparse), slots=N.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <qemu-plugin.h>

#define MAGIC	    0x31304e534e495154ULL
#define HEAD_SIZE   4096
#define KERNEL_BASE 0xffff800000000000ULL
#define REP	    (1ULL << 63)

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* The order is insn.py's too. */
enum counter {
	USER,
	KERNEL,
	USER_REP,
	KERNEL_REP,
	HLT,
	COUNTERS
};

struct head {
	uint64_t magic;
	uint64_t n_slots; /* in use: the first ones */
	uint64_t lost;	  /* blocks without a slot: in the totals all the same */
	uint64_t count[COUNTERS];
};

struct slot {
	uint64_t address; /* of the first instruction */
	uint64_t length;  /* in instructions, with REP */
	uint64_t entries;
};

static struct head *head;
static struct slot *slots;
static uint32_t max_slots = 1 << 20;
static uint32_t *table; /* 2 * max_slots numbers of slots by hash, 0: none */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_prefix(uint8_t c)
{
	switch (c) {
	case 0x66: /* operand size */
	case 0x67: /* address size */
	case 0x26: /* segments */
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
		return true;
	default:
		return (c & 0xf0) == 0x40; /* REX */
	}
}

/* ins, outs; movs, cmps; stos, lods, scas */
static bool is_string(uint8_t c)
{
	return (c >= 0x6c && c <= 0x6f) || (c >= 0xa4 && c <= 0xa7) || (c >= 0xaa && c <= 0xaf);
}

static bool is_rep_string(const uint8_t *code, size_t len)
{
	bool rep = false;
	size_t i;

	for (i = 0; i < len; i++) {
		if (code[i] == 0xf2 || code[i] == 0xf3)
			rep = true;
		else if (!is_prefix(code[i]))
			return rep && is_string(code[i]);
	}
	return false;
}

/* A block is often translated anew: always the same slot. Under the lock. */
static struct slot *slot_of(uint64_t address, uint64_t length)
{
	uint64_t hash = (address * 0x9e3779b97f4a7c15ULL) ^ (length * 0xff51afd7ULL);
	uint32_t *number;
	struct slot *s;

	for (;; hash++) {
		number = &table[hash % (2ULL * max_slots)];
		if (!*number)
			break;
		s = &slots[*number - 1];
		if (s->length == length && s->address == address)
			return s;
	}
	if (head->n_slots == max_slots) {
		head->lost++;
		return NULL;
	}
	s = &slots[head->n_slots];
	s->address = address;
	s->length = length;
	*number = ++head->n_slots;
	return s;
}

static void count_hlt(struct qemu_plugin_insn *insn)
{
	const uint8_t *code = qemu_plugin_insn_data(insn);

	if (qemu_plugin_insn_size(insn) == 1 && *code == 0xf4)
		qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
							   &head->count[HLT], 1);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
	bool rep = n == 1 &&
		   is_rep_string(qemu_plugin_insn_data(first), qemu_plugin_insn_size(first));
	enum counter c = address >= KERNEL_BASE ? KERNEL : USER;
	struct slot *s;

	(void)id;
	if (rep)
		c = c == KERNEL ? KERNEL_REP : USER_REP;
	for (i = 0; i < n; i++)
		count_hlt(qemu_plugin_tb_get_insn(tb, i));
	qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &head->count[c],
						 n);
	pthread_mutex_lock(&lock);
	s = slot_of(address, n | (rep ? REP : 0));
	pthread_mutex_unlock(&lock);
	if (s)
		qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64,
							 &s->entries, 1);
}

static void *map_file(const char *path, size_t size)
{
	void *m = MAP_FAILED;
	int fd;

	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd >= 0 && !ftruncate(fd, size))
		m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		perror(path);
	if (fd >= 0)
		close(fd);
	return m == MAP_FAILED ? NULL : m;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
					   char **argv)
{
	const char *path = NULL;
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			path = argv[i] + 4;
		else if (!strncmp(argv[i], "slots=", 6))
			max_slots = strtoul(argv[i] + 6, NULL, 0);
	}
	if (!path || !max_slots || strcmp(info->target_name, "x86_64")) {
		fprintf(stderr, "insn: needs out=FILE and an x86-64 guest\n");
		return -1;
	}
	head = map_file(path, HEAD_SIZE + max_slots * sizeof(*slots));
	table = calloc(2ULL * max_slots, sizeof(*table));
	if (!head || !table)
		return -1;
	slots = (void *)((char *)head + HEAD_SIZE);
	head->magic = MAGIC;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
