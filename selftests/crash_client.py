#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Remember what a store has acknowledged, kill it, and see whether it still knows.

usage: crash_client.py [OPTION...] STATE ADDRESS NAME=PORT...

Behind each PORT is a phttpd with a store; NAME begins with its kind: wal, tree or kv. The file STATE says what was
acknowledged in earlier runs. First all of that is verified, byte for byte: by GET, and for a WAL in the file of --dump. A
result line for each store goes to standard output. With --load all stores are then written to and read from at once, and
when each has acknowledged enough, and some random time more has passed, --kill are killed. STATE is written at the end.

What a write in flight at that moment has left may be the old value or the new one, each whole, and nothing else.
"""

import argparse
import hashlib
import json
import os
import random
import re
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque

KEYS = 1500      # of a tree or kv store
CONNECTIONS = 6  # to each store
DEPTH = 3        # requests under way on a connection
PATIENCE = 60    # seconds that a store may take to answer
REPORTED = 5     # wrong things that are described, of each store


class Failure(Exception):
    pass


def stream(name, length):
    """Bytes that nobody else has, and that can be had again."""
    return hashlib.shake_128(b'%d' % name if isinstance(name, int) else name.encode()).digest(length)


def some_length():
    """Most are about a frame, some span many chunks."""
    low, high = random.choices(((1024, 1024), (24, 512), (1000, 3000), (3000, 20000), (50000, 150000)),
                               (80, 50, 40, 20, 1))[0]
    return random.randint(low, high)


class Write:
    """A request that changes something: value [serial, length], or None to delete."""
    def __init__(self, key, value, statuses):
        self.key = key
        self.value = value
        self.statuses = statuses


class Read:
    def __init__(self, key, allowed):
        self.key = key
        self.allowed = allowed


class Store:
    """What one store must know. Kinds differ in their requests and in what a key is."""

    def __init__(self, name, state, length, damaged):
        self.name = name
        self.damaged = damaged
        self.some_length = (lambda: length) if length else some_length
        self.total = state.get('total', 0)         # acknowledged, ever
        self.acked = 0                             # in this run
        self.acked_before = state.get('acked', 0)  # since the store was made
        self.full = 0
        self.wrong = []
        self.lost = 0
        self.found = 0
        self.unacked_found = 0

    def claim(self, text):
        """This must not be."""
        self.wrong.append(text)

    def lose(self, text):
        """This must not be where nothing was damaged."""
        self.lost += 1
        if not self.damaged:
            self.claim(text)

    def save(self):
        return {'total': self.total + self.acked, 'acked': self.acked_before + self.acked}

    def report(self, records):
        """The result line. records: how many the server says it has recovered."""
        if records is not None and records != self.found:
            self.lose('the server says that it has %d records, but %d were found' % (records, self.found))
        for text in self.wrong[:REPORTED]:
            print('# %s: %s' % (self.name, text))
        print('%s %s: %d acknowledged, %d records there, %d of them written but not acknowledged, %d lost' % (
            'not ok' if self.wrong else 'ok', self.name, self.acked_before, self.found, self.unacked_found, self.lost))


class Wal(Store):
    """Records are told by their first 16 bytes."""

    def __init__(self, name, state, *args):
        super().__init__(name, state, *args)
        self.records = {serial: [length, acked] for serial, length, acked in state.get('records', [])}

    def save(self):
        return {**super().save(), 'records': [[serial] + record for serial, record in self.records.items()]}

    def forget(self):
        self.acked_before = 0
        self.records.clear()

    def body(self, serial, length):
        return struct.pack('<QQ', serial, length) + stream(serial, length - 16)

    def next_request(self, serial):
        length = self.some_length()
        self.records[serial] = [length, False]
        data = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % length
        return Write(serial, [serial, length], (200,)), data + self.body(serial, length)

    def answered(self, request, status, _):
        if status == 507:
            self.full += 1
            del self.records[request.key]
        elif status in request.statuses:
            self.records[request.key][1] = True
            self.acked += 1
        else:
            raise Failure('%s: POST of %d bytes: status %d' % (self.name, request.value[1], status))

    def verify_dump(self, file):
        """Each record that was acknowledged is there once, one that was not at most once, and no other."""
        seen = {}
        while head := file.readline():
            word = head.split()
            if word[0] == b'corrupt':
                if not self.damaged:
                    self.claim('record %s does not match its checksum' % word[1].decode())
                continue
            if word[0] != b'record':
                break  # the summary
            length = int(word[2]) + int(word[3])
            data = file.read(length + 1)[:length]
            serial = struct.unpack('<Q', data[:8])[0] if length >= 16 else -1
            record = self.records.get(serial)
            if not record or data != self.body(serial, record[0]):
                self.claim('record %s of %d bytes is nothing that was sent' % (word[1].decode(), length))
            elif serial in seen:
                self.claim('record %s is there twice' % word[1].decode())
            else:
                seen[serial] = True
                self.unacked_found += not record[1]
        for serial, (length, acked) in self.records.items():
            if acked and serial not in seen:
                self.lose('record %d of %d bytes is lost' % (serial, length))
        self.found = len(seen)
        # What was not acknowledged but is there stays there.
        self.records = {serial: [self.records[serial][0], True] for serial in seen}


class Keyed(Store):
    """possible[key]: what it may hold; a write under way is the second and last one."""

    def __init__(self, name, state, *args):
        super().__init__(name, state, *args)
        self.possible = {int(key): values for key, values in state.get('keys', {}).items()}
        self.readers = {}
        self.writing = set()

    def save(self):
        return {**super().save(), 'keys': self.possible}

    def get(self, key):
        request = Read(key, list(self.possible.get(key, [None])))
        self.readers.setdefault(key, []).append(request)
        return request, b'GET %s HTTP/1.1\r\nHost: x\r\n\r\n' % self.path(key)

    def next_request(self, serial):
        """One write at a time per key: the order of two would not be known."""
        key = random.randrange(KEYS)
        if key in self.writing or random.random() < 0.2:
            return self.get(key)
        values = self.possible.setdefault(key, [None])
        value = None if self.may_delete(values[0]) and random.random() < 0.2 else [serial, self.some_length()]
        values.append(value)
        for reader in self.readers.get(key, ()):
            reader.allowed.append(value)
        self.writing.add(key)
        return self.write(key, values[0], value)

    def answered(self, request, status, body):
        if isinstance(request, Read):
            self.got(request, status, body)
        else:
            self.wrote(request, status)

    def wrote(self, request, status):
        values = self.possible[request.key]
        self.writing.remove(request.key)
        if status in request.statuses:
            self.acked += 1
            values[:] = [request.value]
        elif status == 507 and len(values) == 2:
            self.full += 1
            values.pop()
        else:
            raise Failure('%s: writing %s over %s: status %d' % (self.name, request.value, values[0], status))

    def got(self, request, status, body):
        readers = self.readers[request.key]
        readers.remove(request)
        value = self.identify(request.key, request.allowed, status, body)
        if value is False:
            raise Failure('%s: GET %s: status %d, %d bytes, which is none of %s' % (
                self.name, self.path(request.key).decode(), status, len(body), request.allowed))
        # What was once served is durable.
        values = self.possible.get(request.key, [None])
        if len(values) == 2 and value == values[1]:
            values[0] = value

    def identify(self, key, allowed, status, body):
        """The one of the allowed values that this is, or False."""
        for value in allowed:
            if value is None:
                if status == 404:
                    return None
            elif status == 200 and len(body) == value[1] and body == self.body(key, value):
                return value
        return False

    def verified(self, request, status, body):
        """Also takes it as what is known from now on."""
        value = self.identify(request.key, request.allowed, status, body)
        if value is False:
            text = 'GET %s: status %d, %d bytes, which is none of %s' % (
                self.path(request.key).decode(), status, len(body), request.allowed)
            if status in (404, 500):
                self.lose(text)
            else:
                self.claim(text)
            value = None
        elif len(request.allowed) == 2 and value == request.allowed[1]:
            self.unacked_found += value is not None
        self.possible[request.key] = [value]
        self.found += value is not None


class Tree(Keyed):
    def may_delete(self, _):
        return False

    def key(self, key):
        return stream('tree%d' % key, 8)

    def path(self, key):
        return b'/tree/' + self.key(key).hex().encode()

    def body(self, key, value):
        return self.key(key) + stream(value[0], value[1] - 8)

    def write(self, key, _, value):
        data = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % value[1]
        return Write(key, value, (200,)), data + self.body(key, value)


class Kv(Keyed):
    def may_delete(self, value):
        return value is not None

    def path(self, key):
        """Keys of 1 to about 200 bytes."""
        return b'/kv/%d' % key + stream('kv%d' % key, key % 7 * key % 100).hex().encode()

    def body(self, _, value):
        return stream(*value)

    def write(self, key, old, value):
        if value is None:
            return Write(key, None, (204,)), b'DELETE %s HTTP/1.1\r\nHost: x\r\n\r\n' % self.path(key)
        if not random.randrange(50):
            value[1] = 0
        data = b'PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % (self.path(key), value[1])
        return Write(key, value, (204 if old else 201,)), data + self.body(key, value)


class Connection:
    """Requests go out as DEPTH allows, answers come in their order."""

    def __init__(self, store, address, port):
        self.store = store
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((address, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.waiting = deque()
        self.out = bytearray()
        self.data = bytearray()
        self.active = time.monotonic()

    def add(self, request, data):
        self.waiting.append(request)
        self.out += data

    def send(self):
        try:
            while self.out:
                del self.out[:self.sock.send(self.out)]
        except BlockingIOError:
            pass

    def receive(self):
        """Take what is there; False at the end of the stream."""
        try:
            while data := self.sock.recv(262144):
                self.data += data
                self.active = time.monotonic()
        except BlockingIOError:
            return True
        return False

    def answers(self):
        """All complete answers: (request, status, body)."""
        while (end := self.data.find(b'\r\n\r\n')) >= 0:
            head = bytes(self.data[:end])
            status = int(head[9:12])
            length = re.search(rb'(?i)\r\ncontent-length: *(\d+)', head)
            size = int(length.group(1)) if length and status != 204 else 0
            if len(self.data) < end + 4 + size:
                return
            body = bytes(self.data[end + 4:end + 4 + size])
            del self.data[:end + 4 + size]
            if not self.waiting:
                raise Failure('%s: an answer to nothing' % self.store.name)
            yield self.waiting.popleft(), status, body


class Client:
    def __init__(self, args):
        self.address = args.address
        self.ports = dict((name, int(port)) for name, port in (pair.split('=') for pair in args.stores))
        try:
            with open(args.state, encoding='ascii') as file:
                state = json.load(file)
        except FileNotFoundError:
            state = {}
        self.serial = state.get('serial', 0)
        kinds = {'wal': Wal, 'tree': Tree, 'kv': Kv}
        self.stores = [kinds[name.split('-')[0]](name, state.get(name, {}), args.size, args.damaged)
                       for name in self.ports]

    def save(self, path):
        state = {store.name: store.save() for store in self.stores}
        state['serial'] = self.serial
        with open(path + '.new', 'w', encoding='ascii') as file:
            json.dump(state, file)
        os.replace(path + '.new', path)

    def connect(self, stores, count):
        self.poll = selectors.DefaultSelector()
        self.connections = [Connection(store, self.address, self.ports[store.name])
                            for store in stores for _ in range(count)]
        for connection in self.connections:
            self.poll.register(connection.sock, selectors.EVENT_READ, connection)

    def close(self):
        for connection in self.connections:
            connection.sock.close()
        self.poll.close()

    def feed(self, connection, next_request):
        while len(connection.waiting) < DEPTH and (item := next_request(connection.store)):
            if not connection.waiting:
                connection.active = time.monotonic()
            connection.add(*item)
        connection.send()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        if self.poll.get_key(connection.sock).events != wanted:
            self.poll.modify(connection.sock, wanted, connection)

    def step(self, next_request, answered):
        """Go on with all connections that can."""
        for key, _ in self.poll.select(0.1):
            connection = key.data
            if not connection.receive():
                raise Failure('%s: the server has closed the connection' % connection.store.name)
            for answer in connection.answers():
                answered(connection.store, *answer)
            self.feed(connection, next_request)
        for connection in self.connections:
            if connection.waiting and time.monotonic() > connection.active + PATIENCE:
                raise Failure('%s: no answer for %d s' % (connection.store.name, PATIENCE))

    def verify(self, dumps, records):
        for store in self.stores:
            if store.name in dumps:
                with open(dumps[store.name], 'rb') as file:
                    store.verify_dump(file)
        self.verify_keys([store for store in self.stores if isinstance(store, Keyed) and store.possible])
        for store in self.stores:
            if store.acked_before:
                store.report(records.get(store.name))
        print('# acked %d records %d lost %d' % (
            sum(store.total for store in self.stores), sum(store.found for store in self.stores),
            sum(store.lost for store in self.stores)))

    def verify_keys(self, stores):
        """GET every key that was ever written."""
        keys = {store: list(store.possible) for store in stores}
        left = sum(map(len, keys.values()))

        def next_request(store):
            return store.get(keys[store].pop()) if keys[store] else None

        def answered(store, *answer):
            nonlocal left
            left -= 1
            store.verified(*answer)

        self.connect(stores, 2)
        for connection in self.connections:
            self.feed(connection, next_request)
        while left:
            self.step(next_request, answered)
        self.close()
        for store in stores:
            store.readers.clear()

    def acked(self):
        return sum(store.acked for store in self.stores)

    def load(self, least, kill, full):
        """Write and read until each store has acknowledged enough, and on until a moment that nobody knows."""
        def next_request(store):
            self.serial += 1
            return store.next_request(self.serial)

        def answered(store, *answer):
            store.answered(*answer)

        begin = time.monotonic()
        end = None
        self.connect(self.stores, CONNECTIONS)
        for connection in self.connections:
            self.feed(connection, next_request)
        while end is None or (time.monotonic() < end and self.acked() < enough):
            self.step(next_request, answered)
            if end is None and all(store.acked >= least and (store.full or not full) for store in self.stores):
                end = time.monotonic() + random.uniform(0, 2)
                enough = self.acked() + random.randint(0, 2 * least * len(self.stores))
            for store in self.stores:
                if store.full and store.acked < least and not full:
                    raise Failure('%s: full after %d requests' % (store.name, store.acked))
        for pid in kill:
            os.kill(pid, signal.SIGKILL)
        self.drain()
        print('# killed after %.1f s; %s' % (time.monotonic() - begin, ', '.join(
            '%s %d acknowledged, %d times full' % (store.name, store.acked, store.full) for store in self.stores)))

    def drain(self):
        """What was acknowledged and has arrived here counts, though we have not read it yet."""
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for connection in self.connections:
                try:
                    connection.receive()
                except ConnectionError:
                    pass
                for answer in connection.answers():
                    connection.store.answered(*answer)
            time.sleep(0.05)


def pairs(text):
    name, value = text.split('=', 1)
    return name, value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--dump', action='append', type=pairs, default=[], metavar='WAL=FILE',
                        help='its records, as phttpd --dump prints them')
    parser.add_argument('--records', action='append', type=pairs, default=[], metavar='NAME=N',
                        help='how many records the server says it has')
    parser.add_argument('--forget', action='append', default=[], metavar='WAL', help='it was made anew after the dump')
    parser.add_argument('--damaged', action='store_true', help='404 and 500 are right answers, too')
    parser.add_argument('--load', type=int, metavar='N', help='load until each store has acknowledged N writes')
    parser.add_argument('--full', action='store_true', help='and each store has answered that it is full')
    parser.add_argument('--kill', type=int, action='append', default=[], metavar='PID', help='whom to kill then')
    parser.add_argument('--size', type=int, help='of all values (default: mixed)')
    parser.add_argument('state')
    parser.add_argument('address')
    parser.add_argument('stores', nargs='+', metavar='NAME=PORT')
    args = parser.parse_args()

    client = Client(args)
    try:
        client.verify(dict(args.dump), {name: int(count) for name, count in args.records})
        for store in client.stores:
            if store.name in args.forget:
                store.forget()
        if args.load and not any(store.wrong for store in client.stores):
            client.load(args.load, args.kill, args.full)
    except (Failure, OSError) as error:
        print('not ok %s' % error)
        return 1
    finally:
        sys.stdout.flush()
        client.save(args.state)
    return int(any(store.wrong for store in client.stores))


sys.exit(main())
