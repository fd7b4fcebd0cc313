"""An app in a folder of its repository, with a lock, and a submodule that it depends on."""

from flask import Flask, jsonify
from library import GREETING

app = Flask(__name__)


@app.route("/")
@app.route("/health")
def health():
    return jsonify(greeting=GREETING)
