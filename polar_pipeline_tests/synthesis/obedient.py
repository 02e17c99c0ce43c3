"""A chat-completions server that does as it is told: it writes posts of the labels and type asked for, and judges them.

It runs in a thread, so that a test can say in Python what the judge answers and look at what was asked.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

_KINDS = {"direct": r"^Write \d+ new posts", "rewrite": r"^Rewrite each", "contrast": r"^Write \d+ pairs"}
_ORDER = re.compile(r"(?:in this order|one after the other): ([^.\n]+)\.|They are ([^.]+), and must stay so")
_TYPE = re.compile(r"^Every polarized one is to be polarized of this type: (\S+)", re.MULTILINE)
_WHO = ("Der Bürgermeister", "Unsere Regierung", "Die Opposition", "Mein Nachbar", "Der Stadtrat", "Diese Partei")
_DOES = ("verspricht schon wieder", "fordert jetzt lautstark", "verhindert seit Jahren", "versteht einfach nicht")
_WHAT = ("mehr Geld für die Schulen", "neue Wohnungen am Bahnhof", "den Umbau der alten Brücke", "sichere Radwege")
_END = ("und keiner hört mehr zu", "das ist doch ein Witz", "und wir bezahlen es am Ende", "und das nervt mich sehr")


class Written(NamedTuple):
    """What a post was asked to be."""

    kind: str
    label: int
    type: str


class Obedient:
    """What was asked and written so far; `judge` gives the answer about a text, and what the text was asked to be."""

    def __init__(self, judge: Callable[[str, Written | None], Any]) -> None:
        self.judge, self.url = judge, ""
        self.asked: list[str] = []  # the last words of each request for posts
        self.judged: list[str] = []  # texts
        self.written: dict[str, Written] = {}
        self._lock = threading.Lock()

    def answer(self, task: str) -> list[Any]:
        """The answers to the last message of a request."""
        fenced = [row["text"] for row in json.loads(task.split("<data>\n")[1].split("\n</data>")[0])]
        words = task.split("</data>\n\n")[-1]
        with self._lock:
            if words == "Give each text its probability.":
                self.judged += fenced
                return [self.judge(text, self.written.get(text)) for text in fenced]
            self.asked.append(words)
            return list(self._write(words, len(self.asked)))

    def _write(self, words: str, number: int) -> Iterator[str]:
        kind = next(name for name, pattern in _KINDS.items() if re.search(pattern, words))
        order, asked = _ORDER.search(words), _TYPE.search(words)
        assert order, words
        for place, name in enumerate((order[1] or order[2]).split(", ")):
            label = {"polarized": 1, "not polarized": 0}[name]
            draw = hashlib.sha256(f"{number} {place}".encode()).digest()
            parts = (some[draw[at] % len(some)] for at, some in enumerate((_WHO, _DOES, _WHAT, _END)))
            text = f"{' '.join(parts)} {draw.hex()[:6]} {'!' * (1 + draw[5] % 3)}"
            self.written[text] = Written(kind, label, asked[1] if asked and label else "")
            yield text


@contextmanager
def obedient(judge: Callable[[str, Written | None], Any] = lambda *_: "0.5") -> Iterator[Obedient]:
    """Serve until the block ends."""
    found = Obedient(judge)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            content = json.dumps({"posts": found.answer(body["messages"][-1]["content"])}, ensure_ascii=False)
            choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
            about = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            answer = json.dumps({**about, "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
