#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Load a server with wrk, from outside the VM, and count what the VM executes meanwhile.

Prints a line of JSON: requests, rps, p50_us, p99_us, p999_us, errors, and the guest's instructions per request. Requests and
instructions are those of a window of SECONDS that begins when all connections are up and warm; the latencies are wrk's own
and of its whole run.

A server that polls executes instructions while it waits for us. The blocks that make up a poll are found before the load
comes, when polls find nothing, and as many of them are taken off as there were polls in the window; the rest is what the
requests cost. (For a poll that found something it is a little too much.) --poll is the address of a function that is entered
once in each poll.
"""

import argparse
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import insn

SETUP_SECONDS = 90
WARM_SECONDS = (0.5, 3)  # at least, at most
WARM_REQUESTS = 10000  # enough for a server to have touched all its receive buffers once
IDLE_SECONDS = 0.5


def wait_for_server(url):
    """Ask, and return the connection. The NIC may just have been reset: ask again sooner than TCP would."""
    parts = urllib.parse.urlsplit(url)
    request = 'GET %s HTTP/1.1\r\nHost: bench\r\n\r\n' % parts.path
    for _ in range(100):
        try:
            sock = socket.create_connection((parts.hostname, parts.port), 0.3)
            sock.settimeout(2)
            # Twice: a server may not have seen yet where the connection comes from when the first one arrives.
            for _ in range(2):
                sock.sendall(request.encode())
                if not sock.recv(65536):
                    raise OSError
                time.sleep(0.05)
            return sock
        except OSError:
            time.sleep(0.1)
    sys.exit('load: %s does not answer' % url)


def put(url, size):
    request = urllib.request.Request(url, data=(b'0123456789abcdef' * (size // 16)), method='PUT')
    urllib.request.urlopen(request, timeout=30).close()


class Counter:
    """The number of requests that wrk has sent."""

    def __init__(self, path):
        with open(path, 'wb+') as file:
            file.truncate(8)
            self.memory = mmap.mmap(file.fileno(), 8)

    def read(self):
        return struct.unpack('Q', self.memory)[0]


class Window:
    """What happens in so many seconds."""

    def __init__(self, seconds, counters, counter):
        start, requests, before = time.monotonic(), counter.read(), insn.copy(counters)
        time.sleep(seconds)
        self.seconds, self.requests, after = time.monotonic() - start, counter.read() - requests, insn.copy(counters)
        self.executed = insn.Difference(before, after)


def wait_for_requests(counter, wrk, number):
    end = time.monotonic() + SETUP_SECONDS
    while counter.read() < number:
        if time.monotonic() > end or wrk.poll() is not None:
            wrk.kill()
            sys.exit('load: %d of %d connections\n%s' % (counter.read(), number, wrk.communicate()[0]))
        time.sleep(0.02)


def warm_up(counter):
    least, most = WARM_SECONDS
    start, first = time.monotonic(), counter.read()
    time.sleep(least)
    while counter.read() - first < WARM_REQUESTS and time.monotonic() - start < most:
        time.sleep(0.02)


def run_wrk(options, directory, source, counter, path):
    """Return the window and wrk's figures."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'load.lua')
    wrk = subprocess.Popen(['wrk', '-t1', '-c%d' % options.conns, '-d1000s', '--timeout', '30s', '-s', script, options.url,
                            '--', path, str(options.body), str(options.close)],
                           cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_requests(counter, wrk, options.conns)
    warm_up(counter)
    window = Window(options.seconds, *source)
    wrk.send_signal(signal.SIGINT)
    output = wrk.communicate()[0]
    line = [line for line in output.splitlines() if line.startswith('load: ')]
    if not line:
        sys.exit('load: wrk failed\n' + output)
    return window, dict(zip(('p50_us', 'p99_us', 'p999_us', 'errors'), map(int, line[0].split()[1:])))


def summary(window, poll_instructions):
    requests = max(window.requests, 1)
    executed = {name: value / requests for name, value in window.executed.totals.items()}
    return {
        'requests': window.requests,
        'rps': window.requests / window.seconds,
        'insn_per_req': executed['user'] + executed['kernel'],
        'user_per_req': executed['user'],
        'kernel_per_req': executed['kernel'],
        'rep_per_req': executed['user_rep'] + executed['kernel_rep'],
        'poll_insn_per_req': poll_instructions / requests,
        'halts_per_req': executed['hlt'],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--counters', required=True, help='what the plugin writes')
    parser.add_argument('--conns', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=3)
    parser.add_argument('--body', type=int, default=0, help='POST so many bytes')
    parser.add_argument('--close', type=int, default=0, help='1: a connection per request')
    parser.add_argument('--put', type=int, help='PUT so many bytes before')
    parser.add_argument('--poll', type=lambda text: int(text, 16))
    parser.add_argument('--profile', help='write instructions by function there')
    parser.add_argument('--kallsyms')
    parser.add_argument('url')
    options = parser.parse_args()

    # The client's turn comes first: what waits for it is not the server's fault.
    try:
        os.nice(-15)
    except PermissionError:
        pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with open(options.counters, 'rb') as file:
        counters = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with tempfile.TemporaryDirectory(dir='/dev/shm') as directory:
        path = os.path.join(directory, 'count')
        counter = Counter(path)
        source = (counters, counter)
        sock = wait_for_server(options.url)
        if options.put:
            put(options.url, options.put)
        idle = Window(IDLE_SECONDS, *source) if options.poll else None
        sock.close()
        window, latencies = run_wrk(options, directory, source, counter, path)
    poll_instructions = 0
    if idle:
        loop = idle.executed.find_loop(options.poll)
        poll_instructions = window.executed.take_off(loop, window.executed.entries_at(options.poll))
    print(json.dumps({**summary(window, poll_instructions), **latencies}))
    if options.profile:
        with open(options.profile, 'w', encoding='ascii') as file:
            window.executed.print_profile(file, insn.load_symbols(options.kallsyms), max(window.requests, 1), 250)


main()
