"""A proxy between a client and an S3 server on this machine that makes a given share of the requests fail.

    500, 503        answered without asking the server
    lost answer     the server carries the request out, the client is told 500
    timeout         no answer for longer than a client waits, then the connection is cut
    truncated       the answer's body ends half-way, and the connection with it (GET; others: cut before the answer)
    slow            the answer dribbles in

Which request fails is decided by its number and a seed. Every request is noted, so that a test can count them by kind.
"""

import http.client
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FAULTS = ("500", "503", "lost answer", "timeout", "truncated", "slow")
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length"}
_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>injected</Message></Error>"


class FaultyProxy:
    """Passes requests on, or lets them fail."""

    def __init__(self, upstream, fraction=0.0, seed=0, hang_s=2.0, faults=FAULTS, most=10**9):
        self.host, self.port = urlsplit(upstream).hostname, urlsplit(upstream).port
        self.fraction = fraction
        self.hang_s = hang_s
        self.requests = Counter()
        self.faults = Counter()
        self._kinds = faults
        self._most = most
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._deck = []

    def note(self, kind):
        """Count a request; gives the fault that it meets, or None."""
        with self._lock:
            self.requests[kind] += 1
            if self._random.random() >= self.fraction or self.faults.total() >= self._most:
                return None
            if not self._deck:
                self._deck = self._random.sample(self._kinds, len(self._kinds))
            fault = self._deck.pop()
            self.faults[fault] += 1
            return fault


@contextmanager
def faulty_proxy(upstream, **options):
    """Serve a proxy; gives it and its address."""
    proxy = FaultyProxy(upstream, **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kind_of(method, path):
    """Name a request: LIST is a GET on a bucket."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    return "LIST" if method == "GET" and ("list-type" in query or "prefix" in query) else method


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers are sent in two pieces; waiting to join them would cost 40 ms each.
    disable_nagle_algorithm = True
    proxy = None

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        """Pass on."""
        body = self._read_body()
        fault = self.proxy.note(kind_of(self.command, self.path))
        if fault in ("500", "503"):
            self._refuse(int(fault))
        elif fault == "timeout":
            time.sleep(self.proxy.hang_s)
            self.close_connection = True
        else:
            self._answer(*self._ask(body), fault)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _answer(self, status, headers, body, fault):
        if fault == "lost answer":
            self._refuse(500)
        elif fault == "truncated":
            if self.command == "GET":
                self._send(status, headers, body[: len(body) // 2], len(body))
            self.close_connection = True
        elif fault == "slow":
            self._send(status, headers, b"", len(body))
            step = max(1, len(body) // 8)
            for start in range(0, len(body), step):
                time.sleep(0.05)
                self.wfile.write(body[start : start + step])
        else:
            self._send(status, headers, body, len(body))

    def _read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _ask(self, body):
        connection = http.client.HTTPConnection(self.proxy.host, self.proxy.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            length = answer.getheader("Content-Length")
            content = answer.read()
            if self.command == "HEAD":
                self._head_length = length
            return answer.status, answer.getheaders(), content
        finally:
            connection.close()

    def _refuse(self, status):
        code = b"InternalError" if status == 500 else b"SlowDown"
        body = b"" if self.command == "HEAD" else _ERROR % code
        self._head_length = "0"
        self._send(status, [("Content-Type", "application/xml")], body, len(body))

    def _send(self, status, headers, body, length):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", self._head_length if self.command == "HEAD" else str(length))
        self.end_headers()
        self.wfile.write(body)
