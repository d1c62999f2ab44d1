#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Supervise the QEMU of one test VM.

usage: agent.py [--timeout SECONDS] [--tap QUEUES] -- QEMU...

Runs QEMU (in the current directory) with four sockets appended to its command line: the guest's stdout and stderr, which are
copied to ours, the port over which the guest's `host` has commands run here, and the monitor. Makes the tap device first
if asked to. Exits with 0 when QEMU ended by itself, 124 when it had to be stopped, 137 when it was killed, 125 for anything
else; how the guest's command ended is not known here. Who wants to cut the power finds QEMU's process id in VM_QEMU.

Whoever starts this puts it into a network namespace of its own: nothing here may touch a network that others use.
"""

import argparse
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

PORTS = ('out', 'err', 'host')


def die_with_parent():
    """Between fork and exec: let the kernel kill us when the agent dies, however it dies."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def set_sysctl(name, value):
    """Best effort: containers may forbid it, and no test depends on it."""
    try:
        with open('/proc/sys/' + name, 'w', encoding='ascii') as file:
            file.write(value)
    except OSError:
        pass


def set_up_network(queues):
    """The host's end of the data NIC: 10.9.0.1/24 and fd09::1/64 on tap0."""
    def ip(*args):
        subprocess.run(('ip',) + args, check=True)

    ip('link', 'set', 'lo', 'up')
    multi = ('multi_queue',) if queues > 1 else ()
    ip('tuntap', 'add', 'dev', 'tap0', 'mode', 'tap', *multi)
    # Only the tests' own packets: no router solicitation, no duplicate address detection.
    set_sysctl('net/ipv6/conf/tap0/accept_dad', '0')
    set_sysctl('net/ipv6/conf/tap0/router_solicitations', '0')
    ip('addr', 'add', '10.9.0.1/24', 'dev', 'tap0')
    ip('addr', 'add', 'fd09::1/64', 'dev', 'tap0', 'nodad')
    ip('link', 'set', 'tap0', 'up')
    # Load generators open many short connections.
    set_sysctl('net/ipv4/ip_local_port_range', '10000 65000')
    set_sysctl('net/ipv4/tcp_tw_reuse', '1')


def copy(source, target):
    """Copy until the other end is closed."""
    try:
        while data := source.recv(65536):
            while data:
                data = data[os.write(target, data):]
    except OSError:
        pass


class Monitor:
    """QEMU's machine protocol, for human monitor commands."""

    def __init__(self, sock):
        self.lock = threading.Lock()
        self.stream = sock.makefile('rwb')

    def start(self):
        self.stream.readline()
        self.call('qmp_capabilities')

    def call(self, name, **arguments):
        """Run a command and return its result or error; events in between are of no interest."""
        with self.lock:
            request = {'execute': name, 'arguments': arguments}
            self.stream.write(json.dumps(request).encode() + b'\n')
            self.stream.flush()
            while line := self.stream.readline():
                reply = json.loads(line)
                if 'return' in reply or 'error' in reply:
                    return reply
        return {'error': {'desc': 'QEMU is gone'}}

    def run(self, command):
        """Return (exit status, text) of a human monitor command."""
        reply = self.call('human-monitor-command', **{'command-line': command})
        if 'error' in reply:
            return 1, reply['error']['desc'] + '\n'
        text = reply['return'].replace('\r', '')
        return int(text.startswith(('Error', 'unknown command'))), text


class Commands:
    """What the guest has us run, by the guest's number for it."""

    def __init__(self, port, monitor):
        self.port = port
        self.monitor = monitor
        self.send_lock = threading.Lock()
        self.lock = threading.Lock()
        self.running = {}

    def send(self, ident, kind, data):
        try:
            with self.send_lock:
                self.port.sendall(struct.pack('<IcI', ident, kind, len(data)) + data)
        except OSError:
            pass

    def serve(self):
        stream = self.port.makefile('rb')
        while len(head := stream.read(9)) == 9:
            ident, kind, length = struct.unpack('<IcI', head)
            data = stream.read(length)
            if kind == b'r':
                threading.Thread(target=self.run, args=(ident, json.loads(data)), daemon=True).start()
            elif kind == b'k':
                self.kill(ident)

    def run(self, ident, request):
        if 'monitor' in request:
            status, text = self.monitor.run(request['monitor'])
            self.send(ident, b'e' if status else b'o', text.encode())
        else:
            status = self.run_command(ident, request)
        self.send(ident, b'x', str(status).encode())

    def run_command(self, ident, request):
        """Run to the end or the timeout and return the exit status, as a shell would give it."""
        try:
            process = subprocess.Popen(request['command'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, start_new_session=True, cwd=os.environ['VM_TREE'],
                                       preexec_fn=die_with_parent)
        except OSError as error:
            self.send(ident, b'e', ('host: %s\n' % error).encode())
            return 127
        with self.lock:
            self.running[ident] = process
        copies = [threading.Thread(target=self.forward, args=args, daemon=True)
                  for args in ((ident, b'o', process.stdout), (ident, b'e', process.stderr))]
        for thread in copies:
            thread.start()
        try:
            status = process.wait(request['timeout'])
        except subprocess.TimeoutExpired:
            self.kill(ident)
            status = 124
        # A command may leave something in the background that holds its output open: it is not waited for.
        for thread in copies:
            thread.join(5)
        with self.lock:
            self.running.pop(ident, None)
        return status if status >= 0 else 128 - status

    def forward(self, ident, kind, pipe):
        while data := pipe.read1(65536):
            self.send(ident, kind, data)

    def kill(self, ident):
        with self.lock:
            process = self.running.pop(ident, None)
        if process:
            stop(process)

    def kill_all(self):
        with self.lock:
            idents = list(self.running)
        for ident in idents:
            self.kill(ident)

    def wait_all(self, seconds):
        """Let them end by themselves for so long."""
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            time.sleep(0.1)


def stop(process):
    """Politely first: wrk and iperf print what they have."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(2)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass


def start_qemu(command):
    """Start QEMU; return the process and our ends of its sockets."""
    ours = {}
    theirs = []
    for name in PORTS + ('monitor',):
        ours[name], end = socket.socketpair()
        theirs.append(end)
        command += ['-chardev', 'socket,id=%s,fd=%d' % (name, end.fileno())]
    for name in PORTS:
        command += ['-device', 'virtserialport,chardev=%s,name=paste.%s' % (name, name)]
    command += ['-mon', 'chardev=monitor,mode=control']
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[end.fileno() for end in theirs],
                               preexec_fn=die_with_parent)
    for end in theirs:
        end.close()
    return process, ours


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--timeout', type=float, default=600)
    parser.add_argument('--tap', type=int, default=0, metavar='QUEUES')
    parser.add_argument('qemu', nargs='+')
    args = parser.parse_args()

    if args.tap:
        try:
            set_up_network(args.tap)
        except subprocess.CalledProcessError as error:
            print('vm: cannot make the tap device:', ' '.join(error.cmd), file=sys.stderr)
            return 125

    qemu, ours = start_qemu(args.qemu)
    os.environ['VM_QEMU'] = str(qemu.pid)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        monitor = Monitor(ours['monitor'])
        threading.Thread(target=monitor.start, daemon=True).start()
        commands = Commands(ours['host'], monitor)
        threading.Thread(target=commands.serve, daemon=True).start()
        copies = [threading.Thread(target=copy, args=(ours[name], target), daemon=True)
                  for name, target in (('out', 1), ('err', 2))]
        for thread in copies:
            thread.start()
        try:
            ended = qemu.wait(args.timeout)
            status = 125 if ended else 0
            if ended == -signal.SIGKILL:
                # Who has cut the power wants to write down what there was at that moment.
                commands.wait_all(20)
                status = 137
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            qemu.kill()
            qemu.wait()
            commands.kill_all()
        for thread in copies:
            thread.join(5)
        return status
    except KeyboardInterrupt:
        return 130


sys.exit(main())
