"""An app that misbehaves on demand: what its environment asks for, every release of it does.

MOODY is one of:
    silent      never answers
    error       answers 500 to everything
    import      fails when it is imported
    hang        hangs while it is imported, so nobody ever accepts a connection
    crash=N     its server dies N seconds after it was started
    sick=N      its health path answers 500 from N seconds after the start on
"""

import hashlib
import json
import os
import pathlib
import pwd
import re
import signal
import sys
import threading
import time

from dotenv import load_dotenv
from flask import Flask, jsonify, request
from version import VERSION

load_dotenv(".flaskenv")  # which turns debugging on, as that of many a repository does

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
    """Whether the secret is the one that was sent, never the secret itself; and which release says so."""
    release = f"{VERSION} {os.environ.get('GREETING', '')}"
    return jsonify(same=request.args.get("value") == os.environ.get("TOKEN"), release=release)


@app.route("/built")
def built():
    """What the build command left."""
    return pathlib.Path("built.json").read_text()


def seen():
    """What a command of this app sees."""
    return {
        "version": VERSION,
        "greeting": os.environ.get("GREETING"),
        "token": hashlib.sha256(os.environ.get("TOKEN", "").encode()).hexdigest(),
        "debug": app.debug,
        "directory": os.getcwd(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "terminal": sys.stdin.isatty(),
        "interfaces": re.findall(r"(\w+):", pathlib.Path("/proc/self/net/dev").read_text()),
        "apps": os.listdir("/opt/flask_apps"),
    }


@app.route("/seen")
def seen_by_web():
    return jsonify(seen())


@app.cli.command("build")
def build():
    """Make a file that is part of the build, of what a build command sees."""
    pathlib.Path("built.json").write_text(json.dumps(seen()))


@app.cli.command("tell")
def tell():
    """Print what a command sees."""
    print(json.dumps(seen()))


@app.cli.command("note")
def note():
    """Write down that a command ran, and with which release."""
    with pathlib.Path(os.environ["HOME"], "notes").open("a") as stream:
        stream.write(f"{VERSION} {os.environ.get('GREETING', '')}\n")
