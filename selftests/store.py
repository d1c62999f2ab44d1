#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0
"""Client of phttpd's store: checks every answer.

usage: store.py kv ADDRESS PORT                   what one client can see of a key-value store
       store.py tree ADDRESS PORT                 the same of a B+tree
       store.py wal ADDRESS PORT                  the same of a log
       store.py full ADDRESS PORT                 the same of one that has 4 MB: 507, 413, all is there, room again
       store.py load ADDRESS PORT SECONDS FILE    40 connections that put, get and delete, for so long or until the server
                                                  dies; FILE gets what must be there then, and says where to begin
       store.py verify ADDRESS PORT FILE          is it? FILE gets which of what may be there is
       store.py get ADDRESS PORT PATH             one value, to standard output

KIND=tree in the environment makes load and verify use a B+tree.
"""

import json
import os
import random
import socket
import sys
import threading
import time

CONNECTIONS = 40
KEYS = 12  # of a connection


class Closed(Exception):
    """The server has ended, or the connection."""


class Http:
    """A connection: requests in, (status, body) out."""

    def __init__(self, address, port):
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect((address, int(port)))
        self.data = b''

    def send(self, data):
        self.sock.sendall(data)

    def more(self):
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise Closed('no answer')
        self.data += piece

    def head(self):
        while b'\r\n\r\n' not in self.data:
            self.more()
        head, self.data = self.data.split(b'\r\n\r\n', 1)
        lines = head.decode().split('\r\n')
        names = dict(line.lower().split(': ', 1) for line in lines[1:])
        return int(lines[0].split()[1]), int(names.get('content-length', 0))

    def answer(self, body=True):
        status, length = self.head()
        if not body:
            return status, length
        pieces = [self.data[:length]]
        self.data = self.data[length:]
        have = len(pieces[0])
        while have < length:
            piece = self.sock.recv(min(1 << 18, length - have))
            if not piece:
                raise Closed('half an answer')
            pieces.append(piece)
            have += len(piece)
        return status, b''.join(pieces)

    def ask(self, method, path, body=None):
        self.send(request(method, path, body))
        return self.answer(method != 'HEAD')


def request(method, path, body=None, headers=''):
    if body is not None:
        headers += 'Content-Length: %d\r\n' % len(body)
    return ('%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n' % (method, path, headers)).encode() + (body or b'')


def expect(what, is_so, should):
    if is_so != should:
        text = repr(is_so) if len(repr(is_so)) < 200 else '%d bytes' % len(repr(is_so))
        sys.exit('store.py: %s: %s' % (what, text))


def status(http, method, path, should, body=None):
    expect('%s %s' % (method, path[:40]), http.ask(method, path, body)[0], should)


def value_is(http, path, value):
    got, body = http.ask('GET', path)
    expect('GET %s: status' % path[:40], got, 200)
    if body != value:
        sys.exit('store.py: GET %s: %d other bytes instead of %d' % (path[:40], len(body), len(value)))


def bytes_of(seed, size):
    return random.Random(seed).randbytes(size)


def slowly(http, data):
    """In many segments, cut at odd places."""
    http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), 7):
        http.send(data[at:at + 7])
        time.sleep(0.0005)


def kv(address, port):
    http = Http(address, port)
    for size in 0, 1, 1000, 4096, 1 << 20, 10 << 20:
        key = '/kv/size-%d' % size
        status(http, 'PUT', key, 201, bytes_of(size, size))
        value_is(http, key, bytes_of(size, size))
        expect('HEAD', http.ask('HEAD', key), (200, size))
        status(http, 'PUT', key, 204, bytes_of(size + 1, size))
        value_is(http, key, bytes_of(size + 1, size))
        status(http, 'DELETE', key, 204)
        status(http, 'GET', key, 404)
        status(http, 'DELETE', key, 404)
    # keys
    for key in 'a', 'k' * 255, 'a/b?c=%20', '..':
        status(http, 'PUT', '/kv/' + key, 201, key.encode())
        value_is(http, '/kv/' + key, key.encode())
    for method in 'PUT', 'GET', 'DELETE':
        status(http, method, '/kv/', 400, b'x')
        status(http, method, '/kv/' + 'k' * 256, 400, b'x')
    status(http, 'PUT', '/other', 404, b'x')
    status(http, 'DELETE', '/other', 404)
    status(http, 'POST', '/kv/a', 404, b'x')
    status(http, 'POST', '/', 200, b'not stored')
    value_is(http, '/kv/a', b'a')
    # one write, one key: the answers of a sequence
    http.send(request('PUT', '/kv/p', b'1') + request('GET', '/kv/p') + request('PUT', '/kv/p', b'22') +
              request('PUT', '/kv/p', b'333') + request('GET', '/kv/p') + request('DELETE', '/kv/p') +
              request('GET', '/kv/p') + request('PUT', '/kv/p', b'4') + request('GET', '/kv/p'))
    expect('pipeline', [http.answer() for _ in range(9)],
           [(201, b''), (200, b'1'), (204, b''), (204, b''), (200, b'333'), (204, b''), (404, b'404 Not Found\n'),
            (201, b''), (200, b'4')])
    # what one does not do
    slowly(http, request('PUT', '/kv/slow', b'slow' * 50))
    expect('slow', http.answer()[0], 201)
    value_is(http, '/kv/slow', b'slow' * 50)
    http.send(b'PUT /kv/chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n')
    expect('chunked', http.answer()[0], 201)
    value_is(http, '/kv/chunked', b'abcde')
    http.send(b'PUT /kv/expect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n')
    expect('100', http.answer()[0], 100)
    http.send(b'abc')
    expect('after 100', http.answer()[0], 201)
    value_is(http, '/kv/expect', b'abc')
    # half a PUT is none
    half = Http(address, port)
    half.send(request('PUT', '/kv/half', b'x' * 100000)[:50000])
    half.sock.shutdown(socket.SHUT_WR)
    try:
        half.more()
    except Closed:
        pass
    status(http, 'GET', '/kv/half', 404)
    # two connections, one key
    other = Http(address, port)
    for i in range(200):
        http.send(request('PUT', '/kv/both', b'h%d' % i))
        other.send(request('PUT', '/kv/both', b'o%d' % i))
        http.answer()
        other.answer()
        body = http.ask('GET', '/kv/both')[1]
        if body not in (b'h%d' % i, b'o%d' % i):
            sys.exit('store.py: two writers, and %r' % body)


def tree(address, port):
    http = Http(address, port)
    keys = [random.Random(i).getrandbits(64) for i in range(500)]
    for key in keys:
        body = key.to_bytes(8, 'big') + bytes_of(key, key % 3000)
        status(http, 'POST', '/', 200, body)
    for key in keys:
        value_is(http, '/tree/%016x' % key, key.to_bytes(8, 'big') + bytes_of(key, key % 3000))
    big = keys[0].to_bytes(8, 'big') + bytes_of(1, 5 << 20)
    status(http, 'POST', '/any', 200, big)
    value_is(http, '/tree/%016X' % keys[0], big)
    expect('HEAD', http.ask('HEAD', '/tree/%016x' % keys[0]), (200, len(big)))
    status(http, 'GET', '/tree/%016x' % (keys[0] ^ 1), 404)
    for path in '/tree/', '/tree/1', '/tree/' + 'x' * 16, '/tree/' + '0' * 17:
        status(http, 'GET', path, 400)
    status(http, 'POST', '/', 400, b'1234567')
    status(http, 'POST', '/', 400, b'')
    status(http, 'PUT', '/tree/%016x' % keys[0], 404, big)
    status(http, 'DELETE', '/tree/%016x' % keys[0], 404)
    slowly(http, request('POST', '/', b'sevenbit' * 20))
    expect('slow', http.answer()[0], 200)
    value_is(http, '/tree/' + b'sevenbit'.hex(), b'sevenbit' * 20)


def wal(address, port):
    http = Http(address, port)
    for size in 0, 1, 7, 1000, 5000, 1 << 20:
        status(http, 'POST', '/', 200, bytes_of(size, size))
    http.send(b''.join(request('POST', '/', b'%d' % i) for i in range(500)))
    for _ in range(500):
        expect('POST', http.answer()[0], 200)
    status(http, 'GET', '/', 200)
    status(http, 'GET', '/kv/a', 200)  # no such thing here: the ordinary answer
    status(http, 'PUT', '/kv/a', 404, b'x')


def full(address, port):
    http = Http(address, port)
    n = 0
    while True:
        got = http.ask('PUT', '/kv/full-%d' % n, bytes_of(n, 100000))[0]
        if got == 507:
            break
        expect('PUT', got, 201)
        n += 1
    if n < 3:
        sys.exit('store.py: full after %d values' % n)
    status(http, 'PUT', '/kv/large', 413, bytes(8 << 20))
    for i in range(n):
        value_is(http, '/kv/full-%d' % i, bytes_of(i, 100000))
    for i in range(n):
        status(http, 'DELETE', '/kv/full-%d' % i, 204)
    for i in range(n // 2):
        status(http, 'PUT', '/kv/full-%d' % i, 201, bytes_of(n + i, 100000))
    print('%d values' % n)


class Client(threading.Thread):
    """Puts, gets and deletes keys of its own; remembers of each what may be there: [seed, size] or None."""

    def __init__(self, address, port, number, end):
        super().__init__(daemon=True)
        self.random = random.Random(number * 1000003 + os.getpid())
        self.http = Http(address, port)
        self.number = number
        self.end = end
        self.there = dict.fromkeys(map(self.path, range(KEYS)), [None])
        self.done = 0
        self.wrong = None

    def path(self, key):
        number = self.number * KEYS + key
        return '/tree/%016x' % number if KIND == 'tree' else '/kv/key-%d' % number

    def change(self, path, new):
        """A PUT, POST or DELETE: until it is answered, both may be there."""
        old = self.there[path]
        self.there[path] = old + [new]
        if new is None:
            got, good = self.http.ask('DELETE', path)[0], 204 if old != [None] else 404
        elif KIND == 'tree':
            got, good = self.http.ask('POST', '/', value_of(path, new))[0], 200
        else:
            got, good = self.http.ask('PUT', path, value_of(path, new))[0], 204 if old != [None] else 201
        if got != good:
            self.wrong = 'a change of %s is answered with %d' % (path, got)
        self.there[path] = [new]

    def step(self):
        path = self.path(self.random.randrange(KEYS))
        what = self.random.random()
        if what < 0.3:
            self.wrong = self.wrong or differs(self.http, path, self.there[path])
        elif what < 0.4 and KIND == 'kv':
            self.change(path, None)
        else:
            size = self.random.choice((0, 1, 100, 1000, 1400, 5000, 20000))
            self.change(path, [self.random.randrange(1 << 30), size])
        self.done += 1

    def run(self):
        try:
            while time.time() < self.end and not self.wrong:
                self.step()
        except (Closed, OSError):
            pass


def value_of(path, what):
    body = bytes_of(*what)
    return bytes.fromhex(path[6:]) + body if KIND == 'tree' else body


def differs(http, path, may_be):
    got, body = http.ask('GET', path)
    for what in may_be:
        if (got, body) == (200, value_of(path, what)) if what else got == 404:
            return None
    return '%s: %d and %d bytes, instead of %s' % (path, got, len(body), may_be)


def load(address, port, seconds, file):
    end = time.time() + float(seconds)
    clients = [Client(address, port, i, end) for i in range(CONNECTIONS)]
    there = read(file) if os.path.exists(file) else {}
    for client in clients:
        client.there.update((path, there[path]) for path in client.there if path in there)
        client.start()
    print('ready', flush=True)
    for client in clients:
        client.join()
        if client.wrong:
            sys.exit('store.py: ' + client.wrong)
        there.update(client.there)
    write(file, there)
    print('%d requests' % sum(client.done for client in clients))


def verify(address, port, file):
    http = Http(address, port)
    there = read(file)
    for path, may_be in there.items():
        is_so = [what for what in may_be if not differs(http, path, [what])][:1]
        if not is_so:
            sys.exit('store.py: ' + differs(http, path, may_be))
        there[path] = is_so
    write(file, there)
    print('%d keys' % len(there))


def read(file):
    with open(file, encoding='ascii') as f:
        return json.load(f)


def write(file, there):
    with open(file, 'w', encoding='ascii') as f:
        json.dump(there, f)


def get(address, port, path):
    got, body = Http(address, port).ask('GET', path)
    expect('GET %s' % path, got, 200)
    sys.stdout.buffer.write(body)


KIND = os.environ.get('KIND', 'kv')
COMMANDS = {'kv': kv, 'tree': tree, 'wal': wal, 'full': full, 'load': load, 'verify': verify, 'get': get}

if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
    sys.exit(__doc__)
COMMANDS[sys.argv[1]](sys.argv[2], *sys.argv[3:])
