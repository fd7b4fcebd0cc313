"""The smallest app that is worth deploying: a page and a health path."""

import socket

from flask import Flask, jsonify

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def hello():
    return f"<h1>Hello from {socket.gethostname()}!</h1>"


@app.route("/health")
def health():
    return jsonify(status="ok")
