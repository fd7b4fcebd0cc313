"""A package in a src layout: a factory, a console script, a part in C, and a database in its instance folder.

CREW_WRITES in the environment names a folder of its own that it writes to when it is made.
"""

import os
import pathlib
import sqlite3

import click
from flask import Flask, jsonify, request

from ._length import length
from .version import VERSION


def database(app):
    connection = sqlite3.connect(pathlib.Path(app.instance_path, "crew.sqlite"), timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS notes (who TEXT, release TEXT)")
    return connection


def note(app, who):
    """Write into the instance folder that somebody was here."""
    release = os.environ["PATH"].partition("/releases/")[2].partition("/")[0]
    with database(app) as connection:
        connection.execute("INSERT INTO notes VALUES (?, ?)", (who, release))


def create_app():
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_pyfile("settings.cfg")
    folder = os.environ.get("CREW_WRITES")
    if folder:
        os.makedirs(folder, exist_ok=True)
        pathlib.Path(folder, "log").write_text("written\n")

    @app.route("/")
    def version():
        return VERSION

    @app.route("/health")
    def health():
        return jsonify(greeting=app.config["GREETING"], length=length("crew"), instance=app.instance_path)

    @app.route("/notes", methods=["GET", "POST"])
    def notes():
        if request.method == "POST":
            note(app, "web")
        return jsonify(database(app).execute("SELECT who, release FROM notes").fetchall())

    @app.cli.command("note")
    @click.argument("who")
    def note_by_command(who):
        note(app, who)

    return app
