# SPDX-License-Identifier: GPL-2.0-or-later
"""Read what the QEMU plugin insn counts (see insn.c for the file's format).

A block belongs to the function that its first instruction lies in, as the compiler left it: what was inlined is part of its
caller. Symbols are a copy of the guest's /proc/kallsyms, read as root with all modules loaded.
"""

import array
import bisect
import collections
import operator
import struct

MAGIC = 0x31304E534E495154
HEAD_SIZE = 4096
SLOT_SIZE = 24
KERNEL_BASE = 0xffff800000000000
REP = 1 << 63
NAMES = ('user', 'kernel', 'user_rep', 'kernel_rep', 'hlt')


def copy(file):
    """Return what is in use of a mapped counter file. It must be quick: the guest goes on."""
    magic, slots = struct.unpack_from('<2Q', file)
    if magic != MAGIC:
        raise ValueError('not a counter file')
    return file[:HEAD_SIZE + slots * SLOT_SIZE]


def parse_totals(data):
    return struct.unpack_from('<%dQ' % len(NAMES), data, 24)


def parse_slots(data):
    """Return the addresses, lengths and entries of all blocks."""
    slots = array.array('Q')
    slots.frombytes(data[HEAD_SIZE:])
    return slots[::3], slots[1::3], slots[2::3]


def load_symbols(path):
    """Return the sorted addresses of the guest's kernel functions, and their names."""
    symbols = []
    with open(path, encoding='ascii') as file:
        for line in file:
            address, kind, name = line.split()[:3]
            if kind in 'tTwW' and not name.startswith('__pfx_'):
                symbols.append((int(address, 16), name))
    symbols.sort(key=lambda symbol: symbol[0])
    return [symbol[0] for symbol in symbols], [symbol[1] for symbol in symbols]


class Difference:
    """What was executed between two copies of the counter file."""

    def __init__(self, before, after):
        self.totals = dict(zip(NAMES, map(operator.sub, parse_totals(after), parse_totals(before))))
        self.addresses, self.lengths, entries = parse_slots(after)
        earlier = parse_slots(before)[2]
        earlier.extend([0] * (len(entries) - len(earlier)))
        self.entries = list(map(operator.sub, entries, earlier))

    def entries_at(self, address):
        """Return how often the blocks at an address were entered, whatever their length."""
        return sum(count for count, where in zip(self.entries, self.addresses) if where == address)

    def find_loop(self, address):
        """Return {slot: entries in each round} of a loop that was all there was to do. It passes this address once in a round.

        What runs beside it, as timer ticks do, does so in few of the rounds.
        """
        rounds = self.entries_at(address)
        return {i: count / rounds for i, count in enumerate(self.entries) if count > rounds / 5 > 0}

    def take_off(self, loop, rounds):
        """Leave so many rounds of a loop out of everything. Return the instructions that they were."""
        instructions = 0
        for i, times in loop.items():
            count = times * rounds
            self.entries[i] -= count
            where = 'kernel' if self.addresses[i] >= KERNEL_BASE else 'user'
            if self.lengths[i] & REP:
                self.totals[where + '_rep'] -= count
            else:
                self.totals[where] -= count * self.lengths[i]
                instructions += count * self.lengths[i]
        return instructions

    def by_function(self, symbols):
        """Return instructions, rep units and entries of each kernel function."""
        starts, names = symbols
        instructions, reps, entries = (collections.Counter() for _ in range(3))
        for address, length, count in zip(self.addresses, self.lengths, self.entries):
            if not count or address < KERNEL_BASE:
                continue
            j = bisect.bisect_right(starts, address) - 1
            name = names[j] if j >= 0 else '?'
            if length & REP:
                reps[name] += count
                continue
            instructions[name] += count * length
            if j >= 0 and starts[j] == address:
                entries[name] += count
        return instructions, reps, entries

    def print_profile(self, file, symbols, requests, lines):
        """Print the functions with the most instructions, and those with many rep units."""
        instructions, reps, entries = self.by_function(symbols)
        kernel, kernel_rep = self.totals['kernel'] or 1, self.totals['kernel_rep']
        names = [name for name, _ in instructions.most_common(lines)]
        names += [name for name, value in reps.most_common() if value > kernel_rep / 50 and name not in names]
        print('per request:', *('%s %.4g' % (name, value / requests) for name, value in self.totals.items()), file=file)
        print('%9s %6s %8s %8s  %s' % ('insns', '%', 'entries', 'reps', 'function'), file=file)
        for name in names:
            print('%9.1f %6.1f %8.3f %8.1f  %s' % (instructions[name] / requests, 100 * instructions[name] / kernel,
                                                   entries[name] / requests, reps[name] / requests, name), file=file)
