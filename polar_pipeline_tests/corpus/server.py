"""A real HTTP server for the tests of downloads, which misbehaves as it is told to, and remembers what it was asked."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer. `stop_after` bytes of the body the connection is cut; the other fields say how else it differs."""

    status: int = 200
    body: bytes | None = None
    stop_after: int | None = None
    declare_length: bool = True
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)


GOOD = Answer()


class Server:
    """Files by path, and for each path the answers to give before it behaves; `asked` are (path, Range header)."""

    def __init__(self, files: dict[str, bytes], slow: float = 0.0) -> None:
        self.files = files
        self.plans: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.times: list[float] = []
        self.slow = slow
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.url = ""

    def ranges_of(self, path: str) -> list[str | None]:
        """The Range headers with which a path was asked for, in order."""
        return [asked_range for asked, asked_range in self.asked if asked == path]

    def next_answer(self, path: str, asked_range: str | None) -> Answer:
        """Note a request and say how to answer it."""
        with self._lock:
            self.asked.append((path, asked_range))
            self.times.append(time.monotonic())
            plan = self.plans.get(path, [])
            return plan.pop(0) if plan else GOOD

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the requests that are being answered at once."""
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(self.slow)
            yield
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run `server` on a free port in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked_range = self.path.lstrip("/"), self.headers.get("Range")
            answer = server.next_answer(path, asked_range)
            with server.busy():
                self._answer(answer, server.files.get(path), asked_range)
            self.close_connection = True

        def _answer(self, answer: Answer, content: bytes | None, asked_range: str | None) -> None:
            if content is None or answer.status >= 400:
                self._head(404 if content is None else answer.status, {"Content-Length": "0", **answer.headers})
                return
            content = content if answer.body is None else answer.body
            status, headers = 200, dict(answer.headers)
            if "gzip" in self.headers.get(
                "Accept-Encoding", ""
            ):  # as real servers do; ranges then count compressed bytes
                content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
            body = content
            if asked_range and answer.ranges:
                start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
                    return
                body = content[start:]
                status = 206
                headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}", **headers}
            if answer.declare_length:
                headers["Content-Length"] = str(len(body))
            self._head(status, headers)
            self.wfile.write(body[: answer.stop_after])

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
