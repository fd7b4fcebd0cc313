"""An app with static files that tells how it sees a request.

As behind any proxy, it must know that there is one: nginx sends one value in each of these headers, its own.
"""

import time

from flask import Flask, Response, jsonify, request
from version import VERSION
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)


@app.route("/")
def page():
    link = '<link rel="stylesheet" href="/static/style.css">'
    return f"<!doctype html><title>Shop</title>{link}<h1>Shop, version {VERSION}, over {request.scheme}</h1>"


@app.route("/health")
def health():
    return jsonify(status="ok")


@app.route("/seen", methods=["GET", "POST"])
def seen():
    return jsonify(
        url=request.url,
        client=request.remote_addr,
        secure=request.is_secure,
        length=len(request.get_data()),
        headers=list(request.headers),
    )


@app.route("/events")
def events():
    def tell():
        for number in range(3):
            yield f"data: {number}\n\n"
            time.sleep(1)

    return Response(tell(), mimetype="text/event-stream")


@app.route("/slow")
def slow():
    time.sleep(float(request.args["seconds"]))
    return "done"


@app.route("/framed")
def framed():
    return Response("framed", headers={"X-Frame-Options": "DENY"})
