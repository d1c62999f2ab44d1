#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The part of the benchmark that runs in the VM: starts servers, has them loaded from outside, writes the results.

Called by run.sh only. In a round every server is measured once with every workload and number of connections, one server
after the other, so that a slow spell of the machine hits all alike.
"""

import argparse
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

TREE = os.environ['VM_TREE']
NIC = os.environ['PASTE_IF']
BUILD = TREE + '/build/bench'
PORT = '60000'
HAS_HOOK = os.environ['PASTE_NIC'] in ('ixgbe', 'i40e')
URL = 'http://%s:%s' % (os.environ['PASTE_ADDR'], PORT)
HTTPD = [TREE + '/build/tools/phttpd', '-P', PORT, '-S']
LOG = '/run/bench-server.log'
POLL_US = 100000  # how long phttpd's busy poll lasts at most; the kernel's gets as much

STORE = '/run/bench-store'
KEY = '/kv/bench'
SLOW_FACTOR = 2.7  # media latency of wal1k-slow, in epoll's times per request with wal1k at 50 connections


class Skip(Exception):
    """This server cannot do this workload here."""


def write_file(path, text):
    with open(path, 'w', encoding='ascii') as file:
        file.write(text)


def set_busy_poll(us):
    for name in ('busy_poll', 'busy_read'):
        write_file('/proc/sys/net/core/' + name, str(us))


@functools.cache
def kernel_function(name):
    """Return the address of one, in hexadecimal. Takes seconds."""
    return subprocess.run(['grep', '-m1', '-w', name, '/proc/kallsyms'], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.split()[0]


def module_function(path, name):
    """Return the address of a function in a loaded module. /proc/kallsyms would say it as well, but not as soon."""
    with open('/sys/module/%s/sections/.text' % os.path.basename(path).removesuffix('.ko'), encoding='ascii') as file:
        base = int(file.read(), 16)
    symbols = subprocess.run(['nm', path], stdout=subprocess.PIPE, text=True, check=True).stdout
    return '%x' % (base + int(re.search(r'^(\S+) t %s$' % name, symbols, re.MULTILINE).group(1), 16))


class Program:
    """A server that is a program and ends with a line of what it did."""

    busy_poll = 0

    def __init__(self, command):
        self.command = command

    def start(self, workload, threads):
        set_busy_poll(self.busy_poll)
        command = self.command + ['-p', str(threads)] + workload.options_for(self)
        with open(LOG, 'w', encoding='ascii') as log:
            self.process = subprocess.Popen(command, stderr=log)
        for _ in range(1000):
            with open(LOG, encoding='ascii') as log:
                if ': port ' in log.read():
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.process.kill()
        raise RuntimeError('%s does not start: %s' % (' '.join(command), open(LOG, encoding='ascii').read()))

    def poll_function(self):
        """Return the address of a function that is entered once in each poll, if the server polls."""
        return None

    def stop(self):
        """End it; return what it counted."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
        set_busy_poll(0)
        counts, summary = {}, {}
        with open(LOG, encoding='ascii') as log:
            for line in log:
                words = line.split()
                if line.startswith('phttpd: thread') and words[-1].isdigit():
                    counts[words[3]] = counts.get(words[3], 0) + int(words[4])
                elif ': requests ' in line:
                    summary = dict(zip(words[1::2], map(int, words[2::2])))
        return {**counts, **summary}  # what is in both is the same


class Epoll(Program):
    """phttpd with epoll."""

    copies = True  # what is stored is copied out of the receive buffers

    def __init__(self, busy_poll=0):
        super().__init__(HTTPD)
        self.busy_poll = busy_poll

    def poll_function(self):
        return kernel_function('ep_busy_loop_end') if self.busy_poll else None


class Paste(Program):
    """phttpd with paste."""

    def __init__(self, hooked, copies=False):
        super().__init__(HTTPD + ['-b', '0'] + (['-i', NIC, '-Z'] if hooked else ['-n']))
        self.copies = copies

    def poll_function(self):
        return module_function('%s/build/module-%s/paste.ko' % (TREE, os.uname().release), 'sync_busy_end')


class Limit:
    """The module in limit.c."""

    module = '%s/limit-%s/limit.ko' % (BUILD, os.uname().release)
    parameters = '/sys/module/limit/parameters/'

    def start(self, workload, threads):
        if workload.name != 'rpc64' or threads > 1:
            raise Skip('limit serves rpc64 with one thread')
        subprocess.run(['insmod', self.module, 'port=' + PORT], check=True)

    def stop(self):
        counts = {}
        for name in ('requests', 'batches', 'doorbells'):
            with open(self.parameters + name, encoding='ascii') as file:
                counts[name] = int(file.read())
        counts['sends'] = counts['requests']
        subprocess.run(['rmmod', 'limit'], check=True)
        return counts

    def poll_function(self):
        return module_function(self.module, 'poll_is_over')


SERVERS = {
    'epoll': Epoll,
    'epoll-busy': lambda: Epoll(POLL_US),
    'io_uring': lambda: Program([BUILD + '/uring', '-P', PORT]),
    'paste-plain': lambda: Paste(False),
    'paste-hooked': lambda: Paste(True),
    'paste-copy': lambda: Paste(HAS_HOOK, copies=True),
    'limit': Limit,
}


class Workload:
    """Small requests; the other workloads say what is different."""

    conns = [1, 10, 50, 100, 1000, 10000]
    servers = ['epoll', 'epoll-busy', 'io_uring', 'paste-plain', 'paste-hooked', 'limit']
    path = '/'
    load = {}

    def __init__(self, name):
        self.name = name

    def options_for(self, _server):
        return []


class Short(Workload):
    """A connection for each request."""

    conns = [50]
    servers = ['epoll', 'epoll-busy', 'io_uring', 'paste-plain', 'paste-hooked']
    load = {'close': 1}


class Bulk(Short):
    """Uploads of 1 MB."""

    conns = [10]
    load = {'body': 1 << 20}


class Storage(Workload):
    """Needs a store on persistent memory."""

    megabytes = {False: '128', True: '128'}  # by whether the server copies
    servers = ['epoll', 'paste-copy', 'paste-plain', 'paste-hooked']

    def options_for(self, server):
        subprocess.run(['rm', '-rf', STORE + '/data'], check=True)
        return ['-d', STORE + '/data', '-L', self.megabytes[server.copies]] + ([] if server.copies else ['-x'])


class Wal(Storage):
    """POSTs of 1 KB, each in the log before it is answered.

    A log that is full forgets its oldest records, as it does for ever after. All are so small that they are full when it is
    measured: of those that copy with 6400 records, of paste-hooked with 5500. paste-plain holds three times as many, since it
    puts three into a chunk.
    """

    megabytes = {False: '32', True: '8'}
    conns = [1, 50, 100]
    load = {'body': 1024}

    def options_for(self, server):
        return super().options_for(server) + ['--wrap']


class WalSlow(Wal):
    """The same on a slower medium."""

    latency_ns = None

    def options_for(self, server):
        if not self.latency_ns:
            raise Skip('needs wal1k of epoll with 50 connections before it')
        return super().options_for(server) + ['-e', str(self.latency_ns)]


class Get(Storage):
    """GETs of one value."""

    conns = [50]
    path = KEY

    def __init__(self, name):
        super().__init__(name)
        self.load = {'put': int(name.rsplit('-', 1)[1])}

    def options_for(self, server):
        return super().options_for(server) + ['-k']


WORKLOADS = {'rpc64': Workload, 'short': Short, 'bulk': Bulk, 'wal1k': Wal, 'wal1k-slow': WalSlow, 'kv-get-1024': Get,
             'kv-get-16384': Get, 'kv-get-1048576': Get}


def prepare_store():
    """Make and mount a file system on the NVDIMM."""
    usage = subprocess.run([HTTPD[0], '-h'], stdout=subprocess.PIPE, text=True, check=True).stdout
    if '  -d ' not in usage:
        return False
    subprocess.run([TREE + '/selftests/vm/pm.sh', '--new', STORE], check=True)
    return True


def pin_neighbour():
    """Keep the peer's link address. To look after one that may be out of date costs some packets more than others."""
    peer = os.environ['PASTE_PEER']
    subprocess.run(['ping', '-q', '-c1', '-W5', peer], stdout=subprocess.DEVNULL, check=True)
    show = subprocess.run(['ip', '-j', 'neigh', 'show', peer, 'dev', NIC], stdout=subprocess.PIPE, text=True, check=True)
    subprocess.run(['ip', 'neigh', 'replace', peer, 'dev', NIC, 'lladdr', json.loads(show.stdout)[0]['lladdr'], 'nud',
                    'permanent'], check=True)


def save_symbols(path):
    """Copy /proc/kallsyms for load.py; takes seconds."""
    with open('/proc/kallsyms', encoding='ascii') as file:
        write_file(path, file.read())


def load(options, server, workload, conns, profile):
    """Have the server loaded; return what load.py measured."""
    command = ['host', '--timeout', str(options.seconds + 150), TREE + '/selftests/bench/load.py', '--counters',
               options.counters, '--conns', str(conns), '--seconds', str(options.seconds)]
    for name, value in workload.load.items():
        command += ['--' + name, str(value)]
    if profile:
        save_symbols(BUILD + '/kallsyms')
        command += ['--profile', profile, '--kallsyms', BUILD + '/kallsyms']
    poll = server.poll_function()
    if poll:
        command += ['--poll', poll]
    result = subprocess.run(command + [URL + workload.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        raise RuntimeError('load failed: ' + result.stderr)
    return json.loads(result.stdout)


def ratio(a, b):
    return round(a / b, 2) if a and b else None


def measure(options, workload, conns, name, profile):
    server = SERVERS[name]()
    server.start(workload, options.queues)
    try:
        result = load(options, server, workload, conns, profile)
    finally:
        counts = server.stop()
    result['batch'] = ratio(counts.get('requests'), counts.get('batches'))
    result['packets_per_doorbell'] = ratio(counts.get('sends'), counts.get('doorbells'))
    return result


def median(values):
    values = sorted(value for value in values if value is not None)
    return values[len(values) // 2] if values else None


def combine(rounds):
    """The medians of all rounds, and how far the req/s lie apart, as a share of their median."""
    result = {key: median([one[key] for one in rounds]) for key in rounds[0]}
    rates = [one['rps'] for one in rounds]
    result['rps_spread'] = round((max(rates) - min(rates)) / max(result['rps'], 1), 3)
    result['errors'] = sum(one['errors'] for one in rounds)
    result['rounds'] = len(rounds)
    return result


def tell(text):
    print(text, flush=True)


class Bench:
    def __init__(self, options):
        self.options = options
        self.kernel = '.'.join(os.uname().release.split('.')[:2])
        self.nic = os.environ['PASTE_NIC']
        self.rounds = {}  # (workload, conns, server): results
        self.skipped = set()
        self.failed = False
        self.workloads = [WORKLOADS[name](name) for name in options.workloads]
        if any(isinstance(workload, Storage) for workload in self.workloads) and not prepare_store():
            tell('phttpd has no storage: skipping what needs it')
            self.workloads = [workload for workload in self.workloads if not isinstance(workload, Storage)]

    def cases(self):
        for workload in self.workloads:
            for conns in self.options.conns or workload.conns:
                for server in self.options.servers or workload.servers:
                    if server != 'paste-hooked' or HAS_HOOK:
                        yield workload, conns, server

    def run_case(self, number, workload, conns, server):
        key = (workload.name, conns, server)
        if key in self.skipped:
            return
        what = '%s %s %s %d %s' % (self.kernel, self.nic, workload.name, conns, server)
        profile = None
        if self.options.profile and number == 0:
            profile = '%s/profile-%s-%s-%d-%s.txt' % (BUILD, self.options.name, workload.name, conns, server)
        try:
            one = measure(self.options, workload, conns, server, profile)
        except Skip as reason:
            tell('%s: skipped: %s' % (what, reason))
            self.skipped.add(key)
            return
        except (RuntimeError, subprocess.SubprocessError) as error:
            tell('%s: failed: %s' % (what, error))
            self.skipped.add(key)
            self.failed = True
            return
        self.rounds.setdefault(key, []).append(one)
        tell('%d/%d %-40s %8.0f req/s  p50 %6d us p99 %7d us  insn %7.0f rep %6.0f  batch %s' % (
            number + 1, self.options.rounds, what, one['rps'], one['p50_us'], one['p99_us'], one['insn_per_req'],
            one['rep_per_req'], one['batch']))
        if one['errors']:
            tell('  wrk saw %d errors' % one['errors'])
        if key == ('wal1k', 50, 'epoll'):
            WalSlow.latency_ns = WalSlow.latency_ns or int(1e9 * SLOW_FACTOR / one['rps'])

    def write(self):
        results = []
        for (workload, conns, server), rounds in self.rounds.items():
            results.append({'workload': workload, 'conns': conns, 'server': server, 'kernel': self.kernel, 'nic': self.nic,
                            'vcpus': os.cpu_count(), 'queues': self.options.queues, **combine(rounds)})
            if workload == 'wal1k-slow':
                results[-1]['media_ns'] = WalSlow.latency_ns
        write_file('%s/%s.json' % (BUILD, self.options.name), json.dumps(results, indent=1) + '\n')

    def run(self):
        end = time.monotonic() + self.options.budget
        pin_neighbour()
        for number in range(self.options.rounds):
            for case in self.cases():
                if time.monotonic() > end:
                    tell('the time is up in round %d' % (number + 1))
                    return
                self.run_case(number, *case)
                self.write()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--name', required=True, help='of the files of results')
    parser.add_argument('--counters', required=True, help='what the QEMU plugin writes, outside')
    parser.add_argument('--workloads', type=str.split)
    parser.add_argument('--servers', type=str.split)
    parser.add_argument('--conns', type=lambda text: list(map(int, text.split())))
    parser.add_argument('--rounds', type=int)
    parser.add_argument('--seconds', type=float)
    parser.add_argument('--budget', type=float, help='begin nothing more after so many seconds')
    parser.add_argument('--queues', type=int)
    parser.add_argument('--profile', action='store_true')
    bench = Bench(parser.parse_args())
    bench.run()
    return int(bench.failed)


sys.exit(main())
