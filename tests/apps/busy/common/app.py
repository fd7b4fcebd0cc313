"""An app with work to do: a worker that takes jobs, and a command for a schedule. Its page shows what both did.

A job is a file in the folder jobs of the app's data, whose name ends with the seconds that it takes: ``mail-20``.
WORKER in the environment is one of:
    crash=N     the worker dies N seconds after it was started
    stubborn    it does not end when it is told to
"""

import contextlib
import hashlib
import json
import os
import pathlib
import pwd
import signal
import sys
import time

import click
from flask import Flask, jsonify
from version import VERSION

DATA = pathlib.Path(os.environ["HOME"])
JOBS = DATA / "jobs"
app = Flask(__name__)


def seen():
    """What a process of this app sees, and the release that it belongs to."""
    return {
        "version": VERSION,
        "release": os.environ["PATH"].partition("/releases/")[2].partition("/")[0],
        "greeting": os.environ.get("GREETING"),
        "token": hashlib.sha256(os.environ.get("TOKEN", "").encode()).hexdigest(),
        "debug": app.debug,
        "directory": os.getcwd(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "apps": os.listdir("/opt/flask_apps"),
    }


def note(what, **more):
    """Write down what happened."""
    line = json.dumps({"at": time.time(), "what": what, "pid": os.getpid(), **seen(), **more})
    with (DATA / "notes").open("a") as stream:
        stream.write(f"{line}\n")


@app.route("/", methods=["GET", "POST"])
def version():
    return VERSION


@app.route("/health")
def health():
    return jsonify(status="ok")


@app.route("/seen")
def seen_by_web():
    return jsonify(seen())


def environment():
    """{name: digest of the value} of the variables of a test, as the kernel has them."""
    names = (name for name in os.environb if name.startswith(b"ROUND_"))
    return {name.decode(): hashlib.sha256(os.environb[name]).hexdigest() for name in names}


def write_environment(name):
    (DATA / "environment.new").write_text(json.dumps(environment()))
    (DATA / "environment.new").rename(DATA / f"environment.{name}")


@app.route("/environment")
def environment_of_web():
    return jsonify(environment())


@app.route("/notes")
def notes():
    """What was done, one thing a line."""
    return (DATA / "notes").read_text(), {"Content-Type": "text/plain"}


@app.cli.command("work")
@click.option("--name", default="worker")
def work(name):
    """Take jobs, until told to end; then finish the one that was begun."""
    mood, _, number = os.environ.get("WORKER", "").partition("=")
    started = time.monotonic()
    told = []
    signal.signal(signal.SIGTERM, lambda *_arguments: told.append(True))
    JOBS.mkdir(exist_ok=True)
    write_environment(f"worker-{os.getpid()}")
    note("started", name=name)
    while not told or mood == "stubborn":
        for job in sorted(JOBS.glob("*-*[0-9]")):
            with contextlib.suppress(FileNotFoundError):  # the other instance was faster
                taken = job.rename(job.with_suffix(".taken"))
                note("begun", name=name, job=job.name)
                time.sleep(float(job.name.rpartition("-")[2]))
                taken.unlink()
                note("done", name=name, job=job.name)
                break
        if mood == "crash" and time.monotonic() - started > float(number):
            sys.exit("busy, as asked")
        time.sleep(0.1)
    note("ended", name=name)


@app.cli.command("environment")
def environment_of_command():
    """Tell what a command reads."""
    print(json.dumps(environment()))


@app.cli.command("once")
def once():
    """Do something that has an end."""
    note("once")


@app.cli.command("tidy")
@click.option("--seconds", default=0.0)
@click.option("--status", default=0)
def tidy(seconds, status):
    """What a schedule runs."""
    write_environment("schedule")
    note("tidying")
    time.sleep(seconds)
    note("tidied")
    print("tidied")
    sys.exit(status)
