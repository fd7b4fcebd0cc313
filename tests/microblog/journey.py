#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Microblog in a real browser, as its example deploys it: from two bare machines to users who are logged in,
an upgrade, an export across a deployment, a rollback, and their posts on new machines from a dump.

Makes machines of its own and removes them. Writes .cache/reports/microblog.md and a picture of each step. Exits with 1
when a step was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import email
import email.policy
import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT / "tests" / name) for name in ("lab", "browser")]

from chromium import BrowserError, Chromium  # noqa: E402
from machines import CommandFailed, Lab, Machine, output_of  # noqa: E402

LAB = Lab(HERE / "inventory", PROJECT / ".cache" / "microblog")
EXAMPLE = PROJECT / "examples" / "microblog"
REPORTS = PROJECT / ".cache" / "reports"
CERTIFICATE = "/etc/nginx/certificates/microblog.pem"
DUMPS = "/var/backups/flask_apps"
POSTS = 12  # an export takes 5 s for each, which must be longer than a deployment
EXPORT_LIMIT = 120  # seconds
FIRST = "The first post, written on version 0.17"


class Wrong(Exception):
    """A step was not as it must be."""


def demand(condition: object, text: str) -> None:
    """:raises Wrong: the condition does not hold"""
    if not condition:
        raise Wrong(text)


@dataclass
class Report:
    """What was done and seen."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(f"microblog: {text}", flush=True)
        self.lines.append(f"- {text}")


def declared(name: str) -> dict:
    """What a file of the example declares."""
    return yaml.safe_load((EXAMPLE / name).read_text())


class Mailbox:
    """A mail server that keeps what it is given.

    :ivar mails: [(time.time() of the arrival, recipient, names of the attachments {name: text})]
    """

    def __init__(self) -> None:
        self.mails: list[tuple[float, str, dict[str, str]]] = []
        self.port = 0

    async def open(self, address: str) -> None:
        server = await asyncio.start_server(self._talk, address, 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mailbox\r\n")
        while line := (await reader.readline()).strip().upper():
            if line == b"DATA":
                writer.write(b"354 go on\r\n")
                self._keep(await reader.readuntil(b"\r\n.\r\n"))
            writer.write(b"221 bye\r\n" if line == b"QUIT" else b"250 well\r\n")
            if line == b"QUIT":
                break
        writer.close()

    def _keep(self, data: bytes) -> None:
        mail = email.message_from_bytes(data, policy=email.policy.default)
        attached = {part.get_filename(): part.get_content() for part in mail.iter_attachments()}
        texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in attached.items()}
        self.mails.append((time.time(), str(mail["To"]), texts))

    async def wait_for(self, recipient: str, limit: float) -> tuple[float, dict[str, str]]:
        """When a recipient got the first mail, and its attachments.

        :raises Wrong: none came
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            for arrived, to, attached in self.mails:
                if to == recipient:
                    return arrived, attached
            await asyncio.sleep(0.2)
        raise Wrong(f"{recipient} got no mail within {limit} s")


class Visitor:
    """Somebody who uses Microblog on one machine in a browser.

    :ivar name: of the user, that of the machine
    """

    def __init__(self, machine: Machine, domain: str, browser: Chromium) -> None:
        self.machine = machine
        self.browser = browser
        self.address = f"https://{domain}"
        self.name = machine.name.removesuffix("-new")
        self.mail = f"{self.name}@example.org"
        self.password = f"a password of {self.name}"

    @classmethod
    async def come(cls, machine: Machine, domain: str) -> Visitor:
        """A new browser, which trusts the machine's own certificate and no other."""
        command = f"openssl x509 -in {CERTIFICATE} -noout -pubkey | openssl pkey -pubin -outform der | base64 -w 0"
        digest = hashlib.sha256(base64.b64decode(await machine.run(command))).digest()
        browser = Chromium(hosts={domain: machine.address}, keys=[base64.b64encode(digest).decode()])
        browser.__enter__()
        browser.look(1000, 900)
        return cls(machine, domain, browser)

    def leave(self) -> None:
        self.browser.__exit__(None, None, None)

    def visit(self, path: str) -> None:
        self.browser.visit(f"{self.address}{path}")

    def fill(self, **fields: str) -> None:
        """Fill in the fields of the page's form, and send it."""
        for name, value in fields.items():
            self.browser.evaluate(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)}")
        self.browser.follow("document.getElementById('submit').click()")

    def text(self) -> str:
        return self.browser.evaluate("document.body.innerText")

    def register(self) -> None:
        self.visit("/auth/register")
        self.fill(username=self.name, email=self.mail, password=self.password, password2=self.password)
        demand("you are now a registered user" in self.text(), f"{self.machine.name}: registered {self.text()!r}")

    def log_in(self) -> bool:
        """Log in; returns whether that was possible."""
        self.visit("/auth/login")
        self.fill(username=self.name, password=self.password)
        return f"Hi, {self.name}!" in self.text()

    def write(self, text: str) -> None:
        self.visit("/index")
        self.fill(post=text)

    def posts(self) -> list[str]:
        """The texts of the posts that the user sees, the newest first."""
        self.visit("/index")
        return self.browser.evaluate("[...document.querySelectorAll('span[id^=post]')].map(each => each.innerText)")

    def picture(self, step: str) -> None:
        self.browser.picture(REPORTS / f"microblog-{self.machine.name}-{step}.png")


class Journey:
    """All steps, on all machines.

    :ivar visitors: by name of the machine
    :ivar upgraded: the release with which the upgrade came, likewise
    """

    def __init__(self, machines: dict[str, Machine], mailbox: Mailbox, repository: str, report: Report) -> None:
        self.machines = machines
        self.mailbox = mailbox
        self.report = report
        self.apps = declared("group_vars/appservers.yml")["flask_apps"]
        self.apps[0]["repository"] = repository
        self.apps[0]["secrets"] = {"SECRET_KEY": "the same on the new machines"}
        self.apps[0]["database"]["backups"] = 3
        self.domain = self.apps[0]["domain"]
        self.visitors: dict[str, Visitor] = {}
        self.upgraded: dict[str, str] = {}
        self.gateway = next(iter(machines.values())).gateway

    def first(self) -> list[Machine]:
        return [machine for name, machine in self.machines.items() if not name.endswith("-new")]

    async def deploy(self, machines: list[Machine], variables: str = "", **env: str) -> float:
        """Deploy the example, with one of its files of variables over it; returns the seconds that took."""
        more = {}
        if variables:
            override = declared(variables)["flask_app_overrides"]["microblog"]
            override["env"] |= {"MAIL_SERVER": self.gateway, "MAIL_PORT": str(self.mailbox.port), **env}
            if "database" in override:
                override["database"]["backups"] = 3
            more = {"flask_app_overrides": {"microblog": override}}
        names = ",".join(machine.name for machine in machines)
        run = await LAB.playbook("flaskfleet.deploy.site", names, flask_apps=self.apps, **more)
        return run.seconds

    async def live(self, machine: Machine) -> str:
        return Path((await machine.run("readlink /opt/flask_apps/microblog/current")).strip()).name

    async def begin(self) -> None:
        """Version 0.17 on MariaDB; a user registers, logs in and posts."""
        seconds = await self.deploy(self.first())
        self.report.say(f"v0.17 with MariaDB on bare machines, both at once: {seconds:.0f} s")
        for machine in self.first():
            visitor = self.visitors[machine.name] = await Visitor.come(machine, self.domain)
            visitor.register()
            demand(visitor.log_in(), f"{machine.name}: can't log in")
            visitor.write(FIRST)
            demand(visitor.posts() == [FIRST], f"{machine.name}: has {visitor.posts()}")
            visitor.picture("1-first-post")
            self.report.say(f"{machine.name}: {visitor.name} has registered, logged in and posted, over HTTPS")

    async def upgrade(self) -> None:
        """The branch main, with Redis and a worker; the user is still logged in and the post is there."""
        seconds = await self.deploy(self.first(), "main.yml")
        self.report.say(f"upgrade to main with Redis and the rq worker: {seconds:.0f} s")
        for machine in self.first():
            visitor = self.visitors[machine.name]
            demand(visitor.posts() == [FIRST], f"{machine.name}: after the upgrade it has {visitor.posts()}")
            visitor.picture("2-upgraded")
            for number in range(2, POSTS + 1):
                visitor.write(f"Post {number}, written on main")
            self.report.say(f"{machine.name}: after the upgrade the user is logged in, and the post is there")

    async def export(self) -> None:
        """An export that begins before a deployment, and ends after it got the traffic."""
        begun = {}
        self.upgraded = {machine.name: await self.live(machine) for machine in self.first()}
        for machine in self.first():
            visitor = self.visitors[machine.name]
            visitor.visit(f"/user/{visitor.name}")
            visitor.browser.follow("document.querySelector('a[href$=export_posts]').click()")
            begun[machine.name] = time.time()
        await self.deploy(self.first(), "main.yml", DEPLOYED="again")
        for machine in self.first():
            visitor = self.visitors[machine.name]
            live = await self.live(machine)
            demand(live != self.upgraded[machine.name], f"{machine.name}: there was no new release")
            mark = await machine.run(f"cat /opt/flask_apps/microblog/marks/{live}.json")
            switched = json.loads(mark)["since"] - begun[machine.name]
            arrived, attached = await self.mailbox.wait_for(visitor.mail, EXPORT_LIMIT)
            ended = arrived - begun[machine.name]
            count = len(json.loads(attached["posts.json"])["posts"])
            demand(0 < switched < ended, f"{machine.name}: switched after {switched:.0f} s, export after {ended:.0f} s")
            demand(count == POSTS, f"{machine.name}: the export has {count} posts of {POSTS}")
            visitor.visit(f"/user/{visitor.name}")
            visitor.picture("3-exported")
            self.report.say(
                f"{machine.name}: an export of {count} posts went on for {ended:.0f} s, and arrived by mail; the new "
                f"release had got the traffic {switched:.0f} s after its beginning"
            )

    async def rollback(self) -> None:
        """Back to the release from before the export; nothing is lost."""
        before = {machine.name: await self.live(machine) for machine in self.first()}
        run = await LAB.playbook(
            "flaskfleet.deploy.rollback", ",".join(before), flask_apps=self.apps, **declared("main.yml")
        )
        for machine in self.first():
            live = await self.live(machine)
            demand(live == self.upgraded[machine.name], f"{machine.name}: it went back to {live}")
            posts = self.visitors[machine.name].posts()
            demand(len(posts) == POSTS, f"{machine.name}: after the rollback it has {posts}")
            self.report.say(f"{machine.name}: back from {before[machine.name]} to {live}, with {len(posts)} posts")
        self.report.say(f"rollback: {run.seconds:.0f} s")

    async def restore(self) -> None:
        """New machines get the database back from the last dump of the old ones, as docs/jobs/lost-machine.md says."""
        new = {machine.name: self.machines[f"{machine.name}-new"] for machine in self.first()}
        seconds = await self.deploy(list(new.values()), "main.yml")
        self.report.say(f"main on two more bare machines: {seconds:.0f} s")
        for name, machine in new.items():
            visitor = await Visitor.come(machine, self.domain)
            demand(not visitor.log_in(), f"{machine.name}: knows the user already")
            old = self.machines[name]
            dump = (await old.run(f"ls {DUMPS}/microblog")).split()[-1]
            await output_of(
                "sh",
                "-c",
                f"podman exec {old.container} tar -C {DUMPS} -c microblog/{dump} "
                f"| podman exec -i {machine.container} tar -C {DUMPS} -x",
            )
            await LAB.playbook(
                "flaskfleet.deploy.restore",
                flask_app_restore_host=machine.name,
                flask_app_restore_app="microblog",
                flask_app_restore_backup=dump,
            )
            demand(visitor.log_in(), f"{machine.name}: can't log in after the restore")
            posts = visitor.posts()
            demand(FIRST in posts and len(posts) == POSTS, f"{machine.name}: after the restore it has {posts}")
            visitor.picture("4-restored")
            visitor.leave()
            self.report.say(f"{machine.name}: the user of {name} logs in after the restore, with {len(posts)} posts")

    async def postgresql(self) -> None:
        """The same on PostgreSQL, whose database begins empty."""
        seconds = await self.deploy(self.first(), "postgresql.yml")
        self.report.say(f"main on PostgreSQL: {seconds:.0f} s")
        for machine in self.first():
            visitor = await Visitor.come(machine, self.domain)
            demand(not visitor.log_in(), f"{machine.name}: PostgreSQL knows the user already")
            visitor.register()
            demand(visitor.log_in(), f"{machine.name}: can't log in on PostgreSQL")
            visitor.write("Written into PostgreSQL")
            demand(visitor.posts() == ["Written into PostgreSQL"], f"{machine.name}: has {visitor.posts()}")
            visitor.picture("5-postgresql")
            visitor.leave()
            self.report.say(f"{machine.name}: registered, logged in and posted on PostgreSQL")


async def fetch(source: str) -> None:
    """Microblog's repository, to be served to the machines."""
    LAB.served.mkdir(parents=True, exist_ok=True)
    mirror = LAB.served / "microblog.git"
    if mirror.is_dir():
        await output_of("git", f"--git-dir={mirror}", "fetch", "--quiet", source, "+refs/*:refs/*")
    else:
        await output_of("git", "clone", "--quiet", "--mirror", source, mirror)


async def travel(options: argparse.Namespace, report: Report) -> None:
    await fetch(options.repository)
    kinds = await output_of(PROJECT / "molecule" / "hosts" / "build", "--kind", "ubuntu2204", "almalinux")
    await LAB.destroy()
    report.lines += [f"- {kind}" for kind in kinds.splitlines()]
    machines = {machine.name: machine for machine in await LAB.create()}
    gateway = next(iter(machines.values())).gateway
    mailbox = Mailbox()
    await mailbox.open(gateway)
    journey = Journey(machines, mailbox, f"git://{gateway}/microblog.git", report)
    try:
        for step in (
            journey.begin,
            journey.upgrade,
            journey.export,
            journey.rollback,
            journey.restore,
            journey.postgresql,
        ):
            await step()
    finally:
        for visitor in journey.visitors.values():
            visitor.leave()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = declared("group_vars/appservers.yml")["flask_apps"][0]["repository"]
    parser.add_argument("repository", nargs="?", default=default, help="where Microblog is (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the machines as they are at the end")
    options = parser.parse_args()
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = Report()
    result = 1
    try:
        await travel(options, report)
        result = 0
    except (Wrong, BrowserError, CommandFailed) as error:
        report.say(f"WRONG: {error}")
    finally:
        (REPORTS / "microblog.md").write_text("# Microblog's journey\n\n" + "\n".join(report.lines) + "\n")
        if not options.keep:
            await LAB.destroy()
    return result


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
