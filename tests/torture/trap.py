# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a test host: strike one of the collection's programs at a place that was chosen before.

Every Python of the host imports this at its start, by a .pth file. It does nothing unless FOLDER has a trap.json:

    {"record": true}                          write each step of each program into steps.jsonl
    {"program": …, "what": …, "time": n, "blow": …}   strike when that program is about to take such a step for the n-th
                                                      time, once; with "delay", so many seconds later
    {"clock": seconds}                        beside these: what time.time() is off by

A program is a module (``app_build``) or a command of flask-app (``flask-app settle``). Its steps are what it does to
the world, as Python's audit hooks tell (PEP 578): a file opened for writing, a rename, a command run, a connection.

Blows: ``kill`` ends the process by SIGKILL. ``halt`` stops it and writes its process id into the file ``halted``: who
set the trap does something and lets the process go on. ``power`` does so after emptying every file that was written
and not flushed to the disk, as a loss of power may.
"""

import collections
import json
import os
import re
import signal
import sys
import threading
import time

FOLDER = "/var/lib/flaskfleet-torture"  # outlives a reboot
TRAP = os.path.join(FOLDER, "trap.json")
KEPT = ("/opt/", "/etc/", "/var/", "/srv/", "/usr/")  # what outlives a reboot
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
READING = ("setup", "find", "stat")  # modules that change nothing
COMMANDS = ("live", "settle", "drain")
NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}(\.\d+)?|[0-9a-f]{8,}|\d+")


class Trap:
    def __init__(self, settings):
        self.settings = settings
        self.program = None
        self.times = collections.Counter()  # that each step was taken
        self.counting = threading.Lock()
        self.own = threading.local()  # its attribute busy: what this class does itself is no step
        self.other = False  # whether this is not the program that is to be struck
        self.unflushed = set()
        if settings.get("clock"):
            now = time.time
            time.time = lambda: now() + settings["clock"]
        if settings.get("record") or "program" in settings:
            self._watch_flushes()
            sys.addaudithook(self.hook)

    def _watch_flushes(self):
        fsync, sync = os.fsync, os.sync

        def watched_fsync(descriptor):
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            self.unflushed.discard(os.readlink(f"/proc/self/fd/{number}"))
            fsync(descriptor)

        def watched_sync():
            self.unflushed.clear()
            sync()

        os.fsync, os.sync = watched_fsync, watched_sync

    def hook(self, event, arguments):
        if self.other or getattr(self.own, "busy", False):
            return
        if self.program is None:
            if event == "exec":
                self._recognise(getattr(arguments[0], "co_filename", ""))
            return
        self.own.busy = True
        try:
            step = self._step(event, arguments)
            if step:
                with self.counting:
                    self.times[step] += 1
                    time = self.times[step]
                self._take(step, time)
        finally:
            self.own.busy = False

    def _recognise(self, path):
        found = re.search(r"/modules/([a-z]\w+)\.py$", path)
        if found and found[1] not in READING:
            self.program = found[1]
        elif path.endswith("/sbin/flask-app"):
            command = next((word for word in sys.argv[1:] if word in COMMANDS), None)
            self.program = command and f"flask-app {command}"
        if self.program and self.settings.get("program") not in (None, self.program):
            self.other = True

    def _step(self, event, arguments):
        """What the program is about to do to the world, in words that are the same each time; None for nothing."""
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if not isinstance(path, (str, bytes)) or not flags & WRITING:
                return None
            path = self._path(path)
            if path.startswith(KEPT):
                self.unflushed.add(path)
            words = ["write", path]
        elif event == "os.rename":
            source, destination = self._path(arguments[0]), self._path(arguments[1])
            if source in self.unflushed:
                self.unflushed.discard(source)
                self.unflushed.add(destination)
            words = ["rename to", destination]
        elif event in ("os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.chown", "os.truncate"):
            folder = arguments[-1] if event in ("os.mkdir", "os.rmdir", "os.remove") else -1
            words = [event[3:], self._path(arguments[0], folder)]
        elif event in ("os.link", "os.symlink"):
            words = [event[3:], self._path(arguments[1])]
        elif event == "shutil.rmtree":
            words = ["remove tree", self._path(arguments[0])]
        elif event == "subprocess.Popen":
            command = [str(word) for word in arguments[1]]
            words = ["run", os.path.basename(command[0]), *(command[1:2] if command[0].endswith("systemctl") else [])]
        elif event == "fcntl.flock":
            words = ["lock", self._path(arguments[0])]
        elif event == "socket.connect":
            words = ["connect", self._path(arguments[1]) if isinstance(arguments[1], (str, bytes)) else ""]
        else:
            return None
        text = " ".join(words)
        if "/dev/" in text or "__pycache__" in text or FOLDER in text or "ansible" in text:
            return None
        text = re.sub(r"(/builds/[^/]+/|/\.sets/[^/]+/|/repo\.git/).+", r"\1…", text)  # one of thousands of files
        return NUMBERS.sub("N", text)

    @staticmethod
    def _path(path, folder=-1):
        """An absolute path; ``folder`` is the descriptor of the directory that it is relative to."""
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        base = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()
        return os.path.normpath(os.path.join(base, os.fsdecode(path)))

    def _take(self, step, time):
        if self.settings.get("record"):
            line = json.dumps({"program": self.program, "what": step, "time": time}) + "\n"
            descriptor = os.open(os.path.join(FOLDER, "steps.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, line.encode())
            os.close(descriptor)
        elif (step, time) == (self.settings["what"], self.settings["time"]):
            try:
                os.rename(TRAP, f"{TRAP}.sprung")  # by one process only
            except FileNotFoundError:
                return
            delay = self.settings.get("delay", 0)
            if delay:
                later = threading.Timer(delay, self._strike, [step])
                later.daemon = True
                later.start()
            else:
                self._strike(step)

    def _strike(self, step):
        self.own.busy = True
        blow = self.settings["blow"]
        if blow == "power":
            for path in list(self.unflushed):
                if os.path.isfile(path) and not os.path.islink(path):
                    os.truncate(path, 0)
        note = os.path.join(FOLDER, "halted")
        with open(f"{note}.new", "w", encoding="utf-8") as stream:
            json.dump({"pid": os.getpid(), "what": step}, stream)
        os.rename(f"{note}.new", note)
        os.kill(os.getpid(), signal.SIGKILL if blow == "kill" else signal.SIGSTOP)


def arm():
    try:
        with open(TRAP, encoding="utf-8") as stream:
            settings = json.load(stream)
    except (OSError, ValueError):
        return
    Trap(settings)


arm()
