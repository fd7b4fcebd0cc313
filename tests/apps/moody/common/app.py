"""An app that misbehaves on demand: what its environment asks for, every release of it does.

MOODY is one of:
    silent      never answers
    error       answers 500 to everything
    import      fails when it is imported
    hang        hangs while it is imported, so nobody ever accepts a connection
    crash=N     its server dies N seconds after it was started
    sick=N      its health path answers 500 from N seconds after the start on
"""

import os
import pathlib
import signal
import threading
import time

from flask import Flask, jsonify, request
from version import VERSION

STARTED = time.monotonic()
mood, _, number = os.environ.get("MOODY", "").partition("=")
app = Flask(__name__)

if mood == "import":
    raise RuntimeError("moody, as asked")
if mood == "hang":
    time.sleep(3600)
if mood == "crash":
    # the whole server, as a crash in native code would; its first process is the parent of this worker
    threading.Timer(float(number), os.kill, (os.getppid(), signal.SIGKILL)).start()


@app.before_request
def misbehave():
    if mood == "silent":
        time.sleep(3600)
    if mood == "error":
        return "moody, as asked", 500


@app.route("/", methods=["GET", "POST"])
def version():
    """Which release answers, and what it was sent."""
    return f"{VERSION} {os.environ.get('GREETING', '')} {len(request.get_data())}"


@app.route("/health")
def health():
    if mood == "sick" and time.monotonic() - STARTED > float(number):
        return "moody, as asked", 500
    return jsonify(status="ok")


@app.route("/stream")
def stream():
    """Ten lines in ``seconds``, and a last one that says it is whole."""
    pause = float(request.args.get("seconds", "10")) / 10

    def lines():
        for line in range(10):
            yield f"{VERSION} {line}\n"
            time.sleep(pause)
        yield "end\n"

    return lines(), {"Content-Type": "text/plain"}


@app.route("/secret")
def secret():
    """Whether the secret is the one that was sent; never the secret itself."""
    return jsonify(same=request.args.get("value") == os.environ.get("TOKEN"))


@app.cli.command("note")
def note():
    """Write down that a command ran, and with which release."""
    with pathlib.Path(os.environ["HOME"], "notes").open("a") as stream:
        stream.write(f"{VERSION} {os.environ.get('GREETING', '')}\n")
