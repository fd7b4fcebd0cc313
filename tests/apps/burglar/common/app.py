"""An app that somebody has taken over: it tells what it could do to the host and to its neighbours."""

import attempts
from flask import Flask, jsonify

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def page():
    return "Nothing to see here"


@app.route("/attempts")
def what_came_of_them():
    return jsonify(attempts.results())


@app.route("/health")
def health():
    return jsonify(status="ok")
