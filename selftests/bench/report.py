#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Print the results of the benchmark as tables, with ratios to epoll, and plot them.

usage: report.py DIRECTORY

DIRECTORY holds the results, *.json; the plots go there, as *.svg: requests per second and instructions per request over
connections, for each workload, kernel and NIC with several numbers of connections.
"""

import glob
import json
import os
import subprocess
import sys

ORDER = ('epoll', 'epoll-busy', 'io_uring', 'paste-copy', 'paste-plain', 'paste-hooked', 'limit')
TITLES = {'rpc64': '64-byte RPC', 'wal1k': '1 KB POST into the WAL', 'wal1k-slow': '1 KB POST into the WAL, slow medium',
          'short': 'a connection per request', 'bulk': '1 MB POST'}
COLUMNS = ('conns', 'server', 'req/s', 'spread', 'x epoll', 'p50 us', 'p99 us', 'p99.9', 'insn', 'user', 'rep', 'batch',
           'pkt/bell')


def load(directory):
    """Return the results as {(workload, kernel, nic): [result]}."""
    groups = {}
    for path in sorted(glob.glob(directory + '/*.json')):
        with open(path, encoding='ascii') as file:
            for result in json.load(file):
                groups.setdefault((result['workload'], result['kernel'], result['nic']), []).append(result)
    for results in groups.values():
        results.sort(key=lambda result: (result['conns'], ORDER.index(result['server'])))
    return groups


def show(value):
    if value is None:
        return '-'
    return '%.0f' % value if value >= 100 or value == int(value) else '%.2f' % value


def table(results):
    base = {result['conns']: result['rps'] for result in results if result['server'] == 'epoll'}
    lines = [COLUMNS]
    for result in results:
        ratio = result['rps'] / base[result['conns']] if base.get(result['conns']) else None
        lines.append((str(result['conns']), result['server'], '%.0f' % result['rps'], '%.0f%%' % (100 * result['rps_spread']),
                      *map(show, (ratio, result['p50_us'], result['p99_us'], result['p999_us'], result['insn_per_req'],
                                  result['user_per_req'], result['rep_per_req'], result['batch'],
                                  result['packets_per_doorbell']))))
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        print('  ' + '  '.join(text.rjust(width) for text, width in zip(line, widths)))


def plot_script(results, title, label, key, output):
    """Return what gnuplot needs to draw one figure."""
    servers = [server for server in ORDER if any(result['server'] == server for result in results)]
    conns = sorted({result['conns'] for result in results})
    script = ['set terminal svg size 720,480 enhanced background "white"', 'set output "%s"' % output,
              'set title "%s" noenhanced' % title, 'set xlabel "connections"', 'set ylabel "%s"' % label, 'set key left top',
              'set grid', 'set logscale x', 'set xrange [%g:%g]' % (conns[0] / 1.5, conns[-1] * 1.5),
              'set xtics (%s)' % ', '.join('"%d" %d' % (number, number) for number in conns), 'set yrange [0:*]']
    curves = []
    for i, server in enumerate(servers):
        script.append('$data%d << END' % i)
        script += ['%d %g' % (result['conns'], result[key]) for result in results if result['server'] == server]
        script.append('END')
        curves.append('$data%d using 1:2 with linespoints linewidth 2 title "%s" noenhanced' % (i, server))
    return '\n'.join(script + ['plot ' + ', '.join(curves)]) + '\n'


def plot(directory, group, results):
    workload, kernel, nic = group
    title = '%s, Linux %s, %s (emulated)' % (TITLES.get(workload, workload), kernel, nic)
    for suffix, label, key in (('', 'requests per second', 'rps'), ('-insn', 'guest instructions per request', 'insn_per_req')):
        output = os.path.join(directory, '%s-%s-%s%s.svg' % (workload, kernel, nic, suffix))
        script = plot_script(results, title, label, key, output)
        subprocess.run(['gnuplot'], input=script, text=True, check=True)


def main():
    directory = sys.argv[1]
    for group, results in load(directory).items():
        first = results[0]
        print('\n%s, kernel %s, %s, %d vCPU, %d queue(s), median of %d round(s):' % (
            *group, first['vcpus'], first['queues'], first['rounds']))
        table(results)
        if len({result['conns'] for result in results}) > 1:
            plot(directory, group, results)


main()
