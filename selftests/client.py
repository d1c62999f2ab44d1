#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0
"""HTTP clients of phttpd that do what curl and wrk never would.

usage: client.py reset ADDRESS PORT COUNT         connections that end with a RST in the middle of a request
       client.py half ADDRESS PORT BYTES          the request ends with a FIN, the whole answer must come
       client.py slow ADDRESS PORT BYTES          takes an answer of BYTES with pauses, and checks it
       client.py prefix ADDRESS PORT FLAG         the server dies before the file FLAG is there: what came of the answer
                                                  must be right
       client.py greedy ADDRESS PORT BYTES FLAG   sends until it can send no more, and takes nothing before the file FLAG is
                                                  there; then everything must come back
       client.py sum ADDRESS PORT BYTES           the server must know the sum of what it is sent
       client.py corrupt ADDRESS PORT             a segment with a wrong checksum must be ignored, the right one answered
       client.py read ADDRESS PORT                everything that comes, to standard output
       client.py push ADDRESS PORT BYTES          sends BYTES of a pattern and the end
       client.py hold ADDRESS PORT COUNT          connections that have been served once, until they are killed
       client.py echo ADDRESS PORT BYTES          sends as many random ones to a plain echo server, and wants them back
       client.py keep ADDRESS PORT COUNT FLAG     connections that ask, each once more than the one before it, and then stay
                                                  until the file FLAG is there
"""

import os
import resource
import socket
import struct
import sys
import threading
import time

PATTERN = bytes(range(251))


def connect(address, port, **options):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(600)  # for what hangs: whoever starts this has a limit of his own
    if 'rcvbuf' in options:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options['rcvbuf'])
    sock.connect((address, port))
    return sock


def check(data, position):
    start = position % 251
    repeated = PATTERN * (len(data) // 251 + 2)
    if data != repeated[start:start + len(data)]:
        sys.exit('client: wrong bytes between %d and %d' % (position, position + len(data)))


def read_head(sock):
    """The answer's head is taken; the part of the body behind it is returned."""
    data = b''
    while b'\r\n\r\n' not in data:
        more = sock.recv(4096)
        if not more:
            sys.exit('client: no answer')
        data += more
    return data.split(b'\r\n\r\n', 1)[1]


def reset(address, port, count):
    now = struct.pack('ii', 1, 0)
    for i in range(int(count)):
        sock = connect(address, port)
        sock.sendall(b'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n' + b'x' * (i * 997))
        if i % 2:
            time.sleep(0.01)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        sock.close()


def half(address, port, size):
    body = (PATTERN * (int(size) // 251 + 1))[:int(size)]
    sock = connect(address, port)
    sock.sendall(b'POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % len(body))
    sender = threading.Thread(target=lambda: (sock.sendall(body), sock.shutdown(socket.SHUT_WR)), daemon=True)
    sender.start()
    # The FIN should be there before the answer is. What does not fit into buffers cannot be sent before that is taken.
    sender.join(2)
    data = read_head(sock)
    while True:
        more = sock.recv(65536)
        if not more:
            break
        data += more
    if data != body:
        sys.exit('client: got %d of %d bytes, or others' % (len(data), len(body)))


def get(sock, size):
    sock.sendall(b'GET /bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n' % size)
    data = read_head(sock)
    check(data, 0)
    return len(data)


def slow(address, port, size):
    sock = connect(address, port, rcvbuf=16384)
    got = get(sock, int(size))
    while got < int(size):
        time.sleep(0.005)
        data = sock.recv(16384)
        if not data:
            sys.exit('client: the end after %d bytes' % got)
        check(data, got)
        got += len(data)


def prefix(address, port, flag):
    sock = connect(address, port, rcvbuf=65536)
    got = get(sock, 1 << 30)
    print('ready', flush=True)
    while not os.path.exists(flag):
        time.sleep(0.1)
    try:
        while True:
            data = sock.recv(65536)
            if not data:
                break
            check(data, got)
            got += len(data)
    except ConnectionResetError:
        print('reset', flush=True)
    print('got %d' % got, flush=True)
    if not 65536 < got < 1 << 30:
        sys.exit('client: %d bytes' % got)


def greedy(address, port, size, flag):
    size = int(size)
    body = memoryview((PATTERN * (size // 251 + 1))[:size])
    sock = connect(address, port)
    sock.sendall(b'POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % size)
    sent = 0
    sock.settimeout(2)
    try:
        while sent < size:
            sent += sock.send(body[sent:sent + 65536])
    except socket.timeout:
        pass
    print('stuck at %d' % sent, flush=True)
    if sent == size:
        sys.exit('client: the server takes everything')
    while not os.path.exists(flag):
        time.sleep(0.1)
    sock.settimeout(600)
    threading.Thread(target=sock.sendall, args=(body[sent:],), daemon=True).start()
    data = read_head(sock)
    check(data, 0)
    got = len(data)
    while got < size:
        data = sock.recv(65536)
        if not data:
            sys.exit('client: the end after %d bytes' % got)
        check(data, got)
        got += len(data)


def fnv(data):
    """The 64-bit FNV-1a sum."""
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return value


def sum_up(address, port, size):
    body = (PATTERN * (int(size) // 251 + 1))[:int(size)]
    sock = connect(address, port)
    sock.sendall(b'POST /sum HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
    answer = read_head(sock)
    while True:
        more = sock.recv(4096)
        if not more:
            break
        answer += more
    if answer != b'%016x %d\n' % (fnv(body), len(body)):
        sys.exit('client: wrong sum %r' % answer)


def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def next_segment(frame, payload):
    """The frame that follows this one, with the same payload, and where its checksum is. TCP's options have a timestamp first."""
    ip, tcp, addresses = (14, 34, 26) if frame[12:14] == b'\x08\x00' else (14, 54, 22)
    segment = bytearray(frame[tcp:])
    seq, = struct.unpack_from('!I', segment, 4)
    struct.pack_into('!I', segment, 4, (seq + len(payload)) & 0xffffffff)
    stamp, = struct.unpack_from('!I', segment, 24)
    struct.pack_into('!I', segment, 24, (stamp + 5000) & 0xffffffff)
    struct.pack_into('!H', segment, 16, 0)
    pseudo = frame[addresses:tcp] + struct.pack('!II', len(segment), socket.IPPROTO_TCP)
    struct.pack_into('!H', segment, 16, checksum(pseudo + bytes(segment) + b'\0' * (len(segment) % 2)))
    return bytearray(frame[:tcp]) + segment, tcp + 16


def is_answered(raw, port, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        raw.settimeout(max(end - time.monotonic(), 0.001))
        try:
            frame, _ = raw.recvfrom(65536)
        except socket.timeout:
            break
        if b'HTTP/1.1 200' in frame and struct.pack('!H', port) in (frame[34:36], frame[54:56]):
            return True
    return False


def corrupt(address, port):
    """What the kernel here knows nothing of goes out through a packet socket, which also sees what comes."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock = connect(address, port)
    request = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
    sock.sendall(request)
    frame, where = raw.recvfrom(65536)
    while where[2] != socket.PACKET_OUTGOING or not frame.endswith(request):
        frame, where = raw.recvfrom(65536)
    if not is_answered(raw, port, 10):
        sys.exit('client: no answer')
    while is_answered(raw, port, 0.3):
        pass  # the same once more
    frame, position = next_segment(frame, request)
    frame[position + 1] ^= 1
    raw.sendto(frame, where)
    if is_answered(raw, port, 1):
        sys.exit('client: an answer to a segment with a wrong checksum')
    frame[position + 1] ^= 1
    raw.sendto(frame, where)
    if not is_answered(raw, port, 10):
        sys.exit('client: no answer to the segment with the right checksum')


def read(address, port):
    sock = connect(address, port)
    while True:
        data = sock.recv(65536)
        if not data:
            break
        sys.stdout.buffer.write(data)


def push(address, port, size):
    sock = connect(address, port)
    sock.sendall((PATTERN * (int(size) // 251 + 1))[:int(size)])
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)


def hold(address, port, count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(count) + 100, int(count) + 100))
    socks = [connect(address, port) for _ in range(int(count))]
    for sock in socks:
        sock.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    for sock in socks:
        read_head(sock)
    print('served', flush=True)
    time.sleep(3600)


def echo(address, port, size):
    sock = connect(address, port)
    sent = os.urandom(1 << 20) * (int(size) >> 20)
    thread = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(socket.SHUT_WR)), daemon=True)
    thread.start()
    got = 0
    while data := sock.recv(65536):
        if data != sent[got:got + len(data)]:
            sys.exit('client: wrong bytes between %d and %d' % (got, got + len(data)))
        got += len(data)
    if got != len(sent):
        sys.exit('client: the end after %d bytes' % got)


def keep(address, port, count, flag):
    socks = [connect(address, port) for _ in range(int(count))]
    for i, sock in enumerate(socks):
        for _ in range(i + 1):
            got = get(sock, 1000 * i)
            while got < 1000 * i:
                data = sock.recv(65536)
                if not data:
                    sys.exit('client: the end after %d bytes' % got)
                check(data, got)
                got += len(data)
    print('kept', flush=True)
    while not os.path.exists(flag):
        time.sleep(0.1)


COMMANDS = {'reset': reset, 'half': half, 'slow': slow, 'prefix': prefix, 'greedy': greedy, 'sum': sum_up,
            'corrupt': corrupt, 'read': read, 'push': push, 'hold': hold, 'echo': echo, 'keep': keep}

if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
    sys.exit(__doc__)
COMMANDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
