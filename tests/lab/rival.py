"""A small server of y = 0.5 x + 2 in TensorFlow Serving's REST, with the faults that a comparison must survive.

PORT FAULT: none, wrong, error, dies, deaf (never ready), stubborn (ignores SIGTERM, forks a child in its own session),
late (answers errors first), stops (ends itself after some requests).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FAULT = int(sys.argv[1]), sys.argv[2]
answered = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: with Nagle's algorithm the second waits for the client's delayed acknowledgement.
    wbufsize = -1

    def do_GET(self) -> None:
        self.reply(200, b"ready")

    def do_POST(self) -> None:
        global answered
        answered += 1
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        if FAULT == "error" or (FAULT == "late" and answered < 4):
            self.reply(500, b'{"error": "out of order"}')
            return
        if FAULT == "stops" and answered > 20:
            sys.stderr.write("had enough\n")
            os._exit(7)
        add = 3.0 if FAULT == "wrong" else 2.0
        self.reply(200, json.dumps({"predictions": [[0.5 * row[0] + add] for row in rows]}).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if FAULT == "dies":
    sys.exit("there is no such model")
if FAULT == "deaf":
    time.sleep(1000)
if FAULT == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
ThreadingHTTPServer.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients leave when a block ends
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
