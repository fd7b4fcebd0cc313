#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A steady load on one site, which counts every request that did not get a whole, good answer.

Half of the clients keep their connection, half open one for each request; every second request is a POST. Beside them,
streams of the app moody can be kept in flight. Nothing is ever tried again: what a user would see as an error is one
here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field

TIMEOUT = 20  # seconds for one answer


@dataclass
class Report:
    """What became of the requests. seconds: of each good answer, in order of arrival. failed_at: when others failed."""

    seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    failed_at: list[float] = field(default_factory=list)
    bodies: dict[str, int] = field(default_factory=dict)
    streams: int = 0

    def fail(self, problem: str) -> None:
        """Count a request that failed, by what was seen."""
        self.failures[problem] = self.failures.get(problem, 0) + 1
        self.failed_at.append(time.perf_counter())

    def summary(self) -> dict[str, object]:
        """Counts, quantiles in milliseconds, and how many answers had each body."""
        cuts = statistics.quantiles(self.seconds, n=100) if len(self.seconds) > 1 else [0.0] * 99
        return {
            "requests": len(self.seconds) + sum(self.failures.values()),
            "failed": sum(self.failures.values()),
            "failures": self.failures,
            "seconds_away": round(self.failed_at[-1] - self.failed_at[0], 2) if self.failed_at else 0,
            "streams": self.streams,
            "p50_ms": round(cuts[49] * 1000, 1),
            "p99_ms": round(cuts[98] * 1000, 1),
            "bodies": self.bodies,
        }


class Client:
    """One client with one connection at a time."""

    def __init__(self, address: str, port: int, host: str, path: str, keep: bool) -> None:
        self.target = (address, port)
        self.host = host
        self.path = path
        self.keep = keep
        self.streams = None

    async def request(self, method: str) -> tuple[int, bytes]:
        """Send one request and read the whole answer. Raises whatever a broken connection raises."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(*self.target)
        reader, writer = self.streams
        body = b"x" * 512 if method == "POST" else b""
        head = f"{method} {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
        head += f"Connection: {'keep-alive' if self.keep else 'close'}\r\n\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _colon, value in (line.partition(": ") for line in lines[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            content = b""
            while size := int(await reader.readline(), 16):
                content += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            content = await reader.readexactly(int(headers["content-length"]))
        if not self.keep or headers.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split()[1]), content

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
            self.streams = None


async def run_client(client: Client, interval: float, stop: asyncio.Event, report: Report) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        started = time.perf_counter()
        try:
            status, body = await asyncio.wait_for(client.request("POST" if number % 2 else "GET"), TIMEOUT)
            problem = None if status == 200 else f"status {status}"
        except (OSError, EOFError, asyncio.TimeoutError, ValueError, KeyError) as error:
            problem = type(error).__name__
            client.close()
        took = time.perf_counter() - started
        if problem is None:
            report.seconds.append(took)
            text = body.decode(errors="replace")[:120]
            report.bodies[text] = report.bodies.get(text, 0) + 1
        else:
            report.fail(problem)
        await asyncio.sleep(max(0.0, interval - took))
    client.close()


async def run_stream(client: Client, delay: float, stop: asyncio.Event, report: Report) -> None:
    """Read one stream of ten seconds after the other; each must be whole."""
    await asyncio.sleep(delay)
    while not stop.is_set():
        try:
            status, body = await asyncio.wait_for(client.request("GET"), 2 * TIMEOUT)
            problem = None if status == 200 and body.endswith(b"end\n") else f"stream: status {status}, {body[-40:]!r}"
        except (OSError, EOFError, asyncio.TimeoutError, ValueError, KeyError) as error:
            problem = f"stream: {type(error).__name__}"
        client.close()
        if problem is None:
            report.streams += 1
        else:
            report.fail(problem)
            await asyncio.sleep(0.1)


async def run(
    address: str,
    host: str,
    rate: float,
    clients: int,
    stop: asyncio.Event,
    port: int = 80,
    path: str = "/",
    streams: int = 0,
    report: Report | None = None,
) -> Report:
    """Load ``http://host:port/path`` at ``address`` with ``rate`` requests a second until ``stop`` is set.

    report: is filled while the load runs, for who wants to look meanwhile; a new one when None
    streams: how many streams of ten seconds to keep in flight beside that, one begun after the other
    """
    report = Report() if report is None else report
    everyone = [Client(address, port, host, path, keep=index % 2 == 0) for index in range(clients)]
    work = [run_client(client, clients / rate, stop, report) for client in everyone]
    for index in range(streams):
        client = Client(address, port, host, "/stream?seconds=10", keep=False)
        work.append(run_stream(client, 10 * index / streams, stop, report))
    await asyncio.gather(*work)
    return report


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("host", help="the site's domain")
    parser.add_argument("--path", default="/")
    parser.add_argument("--rate", type=float, default=100, help="requests a second (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--streams", type=int, default=0, help="of ten seconds, in flight beside that")
    parser.add_argument("--seconds", type=float, help="for so long, or so long after --during")
    parser.add_argument("--until-eof", action="store_true", help="until standard input ends")
    parser.add_argument(
        "--during", nargs=argparse.REMAINDER, default=[], metavar="COMMAND", help="last: run this meanwhile"
    )
    options = parser.parse_args()
    stop = asyncio.Event()
    load = asyncio.create_task(
        run(
            options.address,
            options.host,
            options.rate,
            options.clients,
            stop,
            path=options.path,
            streams=options.streams,
        )
    )
    status = 0
    if options.during:
        await asyncio.sleep(1)
        process = await asyncio.create_subprocess_exec(*options.during, stdout=sys.stderr)
        status = await process.wait()
    if options.until_eof:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    if options.seconds:
        await asyncio.sleep(options.seconds)
    stop.set()
    summary = (await load).summary()
    print(json.dumps(summary, indent=2))
    return status or (1 if summary["failed"] else 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
