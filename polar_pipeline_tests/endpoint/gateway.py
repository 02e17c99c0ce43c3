"""A server of raw bytes for tests: the behaviour at hand writes every answer, and books are kept of what it did."""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PROMPT, COMPLETION = 100, 50  # tokens of an answer, unless a case says otherwise
_ORDER = re.compile(r"(?:in this order|one after the other|They are):?\s+([^.]*?)(?:, and must|\.)")
_NAMES = {"polarized": 1, "not polarized": 0}


@dataclass(frozen=True)
class Call:
    """A request as it came: which of the case it is, and what posts with which labels it asks for."""

    number: int  # from 0
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def labels(self) -> list[int]:
        task = self.body["messages"][-1]["content"].rpartition("</data>")[2] if self.body else ""
        found = _ORDER.search(task)
        return [_NAMES[name] for name in found[1].split(", ")] if found else []

    @property
    def posts(self) -> list[str]:
        """The right posts: each says its request, its place and its label."""
        stem = hashlib.sha256(json.dumps(self.body.get("messages")).encode()).hexdigest()[:10]
        return [f"post {stem} {place} L{label}" for place, label in enumerate(self.labels)]

    @property
    def format(self) -> str:
        return (self.body.get("response_format") or {}).get("type", "")

    @property
    def limit(self) -> int:
        return self.body.get("max_tokens") or self.body.get("max_completion_tokens") or 0


@dataclass(frozen=True)
class Answer:
    """What goes over the wire, and what the server writes into its books for it."""

    content: bytes | str | dict[str, Any] | list[Any] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)  # prompt and completion tokens that are charged
    posts: int = 0  # posts that are written
    cut: int | None = None  # bytes after which the connection is closed
    pause: float = 0.0  # seconds between two bytes
    chunked: bool = False


@dataclass
class Books:
    """What the server did for a case."""

    calls: int = 0
    charged: int = 0
    tokens: int = 0
    posts: int = 0
    seen: list[Call] = field(default_factory=list)


class Gateway:
    """Serves in a thread of its own until `stop`; `respond` is the case at hand."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.respond: Callable[[Call], Answer | None] = lambda call: None
        self.books = Books()
        self._host, self._loop, ready = host, asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)

    def begin(self, respond: Callable[[Call], Answer | None]) -> None:
        self.respond, self.books = respond, Books()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, self._host, 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and await self._one(head.decode(), reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        books = self.books
        call = Call(books.calls, method, path, headers, json.loads(content) if content else {})
        books.calls += 1
        books.seen.append(call)
        answer = self.respond(call)
        if answer is None:
            return False  # nothing is said, and the connection closed
        books.charged += bool(sum(answer.tokens))
        books.tokens += sum(answer.tokens)
        books.posts += answer.posts
        await self._write(answer, writer)
        return answer.cut is None and "close" not in answer.headers.get("connection", "")

    async def _write(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        content = answer.content
        content = json.dumps(content) if isinstance(content, dict | list) else content
        content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        headers = {"content-type": "application/json"} | answer.headers
        headers |= {"transfer-encoding": "chunked"} if answer.chunked else {"content-length": str(len(content))}
        head = f"HTTP/1.1 {answer.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(head.encode() + b"\r\n")
        if answer.chunked:
            content = (
                b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:7], content[7:])) + b"0\r\n\r\n"
            )
        step = 1 if answer.pause else len(content)
        for at in range(0, len(content[: answer.cut]), max(step, 1)):
            writer.write(content[: answer.cut][at : at + step])
            await writer.drain()
            await asyncio.sleep(answer.pause)
        await writer.drain()


def usage(prompt: int = PROMPT, completion: int = COMPLETION) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def good(
    call: Call, message: dict[str, Any] | str | None = None, finish: Any = "stop", use: Any = None, **more: Any
) -> Answer:
    """A charged answer; `message` is its message or content, `use` its usage, `more` further fields of `Answer`."""
    content = json.dumps({"posts": call.posts}) if message is None else message
    said = content if isinstance(content, dict) else {"role": "assistant", "content": content}
    body = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": said, "finish_reason": finish}]}
    if use != "missing":
        body["usage"] = usage() if use is None else use
    fields = {"content": body, "tokens": (PROMPT, COMPLETION), "posts": len(call.labels)} | more
    return Answer(**fields)
