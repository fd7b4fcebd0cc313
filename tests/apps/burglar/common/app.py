"""An app that somebody has taken over: it tells what it could do to the host and to its neighbours."""

import contextlib
import os
import signal
import time

import attempts
from flask import Flask, jsonify

app = Flask(__name__)
if "DEAF" in os.environ:  # in a worker of gunicorn, after it has set its own handler
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@app.route("/", methods=["GET", "POST"])
def page():
    return "Nothing to see here"


@app.route("/attempts")
def what_came_of_them():
    return jsonify(attempts.results())


@app.route("/health")
def health():
    return jsonify(status="ok")


HELD = []


@app.route("/attack/memory", methods=["POST"])
def take_memory():
    """Take more and more, for good."""
    while True:
        HELD.append(bytearray(os.urandom(1 << 20) * 16))


@app.route("/attack/processes", methods=["POST"])
def take_processes():
    """Start as many as there can be, for a while, so that a host that is full of them comes back."""
    children = []
    with contextlib.suppress(OSError):
        while True:
            child = os.fork()
            if child == 0:
                time.sleep(8)
                os._exit(0)
            children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return str(len(children))


@app.route("/attack/disk", methods=["POST"])
def take_disk():
    """Write until there is no room; tell how much it was, in MiB."""
    written = 0
    with contextlib.suppress(OSError), open(os.path.expanduser("~/filling"), "wb", buffering=0) as stream:
        while True:
            written += stream.write(bytes(1 << 20))
    return str(written >> 20)


@app.route("/attack/time", methods=["POST"])
def take_time():
    """Keep a thread busy with nothing."""
    time.sleep(600)
    return ""
