# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive headless Chromium by its DevTools protocol over a pipe: sizes, schemes, keys and pictures, with the standard
library alone. It reaches no network but the hosts that it is told of: no other name is resolved.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("chromium")
_OPTIONS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-background-networking
    --disable-component-update --no-proxy-server --disable-dev-shm-usage --remote-debugging-pipe""".split()


class BrowserError(Exception):
    """Chromium did not do what it was asked for."""


class Chromium:
    """A browser with one page.

    :param hosts: {host name: address} of what it can reach
    :param keys: of whom it trusts besides, SHA-256 digests of public keys (SubjectPublicKeyInfo) in Base64
    :ivar problems: what the page's console and its policy have complained about
    :ivar requests: the URLs that the page has asked for
    """

    def __init__(self, limit=60, hosts=None, keys=()):
        self.limit = limit
        names = [f"MAP {name} {address}" for name, address in (hosts or {}).items()]
        self._reach = [f"--host-resolver-rules={', '.join([*names, 'MAP * ~NOTFOUND'])}"]
        self._reach += [f"--ignore-certificate-errors-spki-list={','.join(keys)}"] if keys else []
        self.problems = []
        self.requests = []
        self._stack = contextlib.ExitStack()
        self._count = 0
        self._buffer = b""
        self._scripts = True

    def __enter__(self):
        home = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        their_input, self._out = os.pipe()
        self._in, their_output = os.pipe()

        def descriptors():  # Chromium reads 3 and writes 4
            os.dup2(os.dup(their_input), 3)
            os.dup2(os.dup(their_output), 4)

        command = [PROGRAM, *_OPTIONS, f"--user-data-dir={home}", *self._reach]
        # it takes care of a child's descriptors above 2 only, so 3 and 4 may be anything here
        process = subprocess.Popen(
            command,
            pass_fds=sorted({3, 4, their_input, their_output}),
            preexec_fn=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
        )
        self._stack.callback(self._end, process)
        os.close(their_input)
        os.close(their_output)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_exception):
        self._stack.close()

    def _end(self, process):
        for descriptor in (self._out, self._in):
            os.close(descriptor)  # which ends it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def ask(self, method, **parameters):
        """Call a method of the page; returns its result."""
        return self._ask(method, self._session, **parameters)

    def _ask(self, method, session=None, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda event: event.get("id") == self._count, method)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _await(self, wanted, what):
        deadline = time.monotonic() + self.limit
        while True:
            while b"\0" in self._buffer:
                text, _zero, self._buffer = self._buffer.partition(b"\0")
                event = json.loads(text)
                self._note(event)
                if wanted(event):
                    return event
            if not select.select([self._in], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise BrowserError(f"{what}: no answer within {self.limit} s")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise BrowserError(f"{what}: Chromium has ended")
            self._buffer += chunk

    def _note(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.problems.append(parameters["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(parameters["exceptionDetails"]["text"])

    def open(self, path):
        """Open a file, and wait until it was loaded; returns the seconds that took."""
        return self.visit(Path(path).resolve().as_uri())

    def visit(self, url):
        """The same with a URL.

        :raises BrowserError: it can't be opened
        """
        started = time.monotonic()
        error = self.ask("Page.navigate", url=url).get("errorText")
        if error:
            raise BrowserError(f"{url}: {error}")
        self._await(lambda event: event.get("method") == "Page.loadEventFired", "load")
        if self._scripts:  # two frames later it was drawn
            self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.monotonic() - started

    def evaluate(self, expression):
        """The value of a JavaScript expression, of a promise when it is fulfilled."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(found["exceptionDetails"]["exception"].get("description", "exception"))
        return found["result"].get("value")

    def follow(self, expression):
        """Evaluate what leads to another page, such as the click on a button, and wait until that was loaded."""
        self.evaluate(f"window.left = true; {expression}")
        deadline = time.monotonic() + self.limit
        while time.monotonic() < deadline:
            with contextlib.suppress(BrowserError):  # a question that the change of pages has overtaken
                if self.evaluate("!window.left && document.readyState == 'complete'"):
                    return
            time.sleep(0.05)
        raise BrowserError(f"{expression}: no other page within {self.limit} s")

    def look(self, width, height, dark=False, scripts=True):
        """Have the page see a window of this size, and a system that is dark or bright."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._scripts = scripts

    def press(self, *keys):
        """Press keys: Tab, Enter, or text."""
        codes = {"Tab": (9, ""), "Enter": (13, "\r")}
        for key in keys:
            if key not in codes:
                self.ask("Input.insertText", text=key)
                continue
            code, text = codes[key]
            common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path):
        """Write a picture of what the window shows."""
        Path(path).write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
