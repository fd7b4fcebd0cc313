"""An app that keeps things: posts in a database, uploads in files, and exports made by a worker with a queue."""

import json
import os
import pathlib
import time

from flask import Flask, jsonify, request
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from rq import Queue
from sqlalchemy import text
from version import VERSION

DATA = pathlib.Path(os.environ["HOME"])
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
# a database that was away is asked anew, instead of a connection that is dead
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_pre_ping": True}
db = SQLAlchemy(app)
Migrate(app, db)


class Post(db.Model):
    """What somebody wrote."""

    id = db.Column(db.Integer, primary_key=True)
    body = db.Column(db.String(140), nullable=False)


def queue():
    return Queue("board", connection=Redis.from_url(os.environ["REDIS_URL"]))


def export(name, seconds):
    """A job: write all posts into a file."""
    time.sleep(seconds)
    with app.app_context():
        bodies = [post.body for post in Post.query.order_by(Post.id)]
    (DATA / "exports").mkdir(exist_ok=True)
    (DATA / "exports" / name).write_text(json.dumps({"version": VERSION, "posts": bodies}))


@app.route("/", methods=["GET", "POST"])
def version():
    return VERSION


@app.route("/health")
def health():
    """Healthy is what reaches its database."""
    try:
        db.session.execute(text("SELECT 1"))
    except Exception as error:
        return type(error).__name__, 503
    return "ok"


@app.route("/posts", methods=["GET", "POST"])
def posts():
    if request.method == "POST":
        db.session.add(Post(body=request.form["body"]))
        db.session.commit()
    return jsonify([post.body for post in Post.query.order_by(Post.id)])


@app.route("/exports/<name>", methods=["POST"])
def exports(name):
    return queue().enqueue(export, name, float(request.form.get("seconds", 0))).id


@app.route("/uploads/<name>", methods=["POST"])
def uploads(name):
    (DATA / "uploads").mkdir(exist_ok=True)
    (DATA / "uploads" / name).write_bytes(request.get_data())
    return "kept"


@app.cli.command("tidy")
def tidy():
    """What a schedule runs."""
    print(f"{Post.query.count()} posts")
