# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""upstream.py PORT: a server of the loopback that speaks as few apps of the tests do.

GET /echo with an upgrade to WebSocket  what the client sends on that connection comes back
GET /events                             one event, and the second a second later
POST /upload                            the answer is how many seconds lay between the request's head and its end
"""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/events":
            self._head(200, {"Content-Type": "text/event-stream"})
            for number in (1, 2):
                self.wfile.write(f"data: {number}\n\n".encode())
                time.sleep(1)
        elif self.headers.get("Upgrade") == "websocket" and self.headers.get("Connection") == "upgrade":
            key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + WEBSOCKET).encode()).digest()
            accept = base64.b64encode(key).decode()
            self._head(101, {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept})
            while data := self.connection.recv(1024):
                self.connection.sendall(data)
        else:
            self._head(426, {})

    def do_POST(self):
        started = time.monotonic()
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{time.monotonic() - started:.2f}".encode()
        self._head(200, {"Content-Length": str(len(answer))})
        self.wfile.write(answer)

    def _head(self, status, headers):
        self.close_connection = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
