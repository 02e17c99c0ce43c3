"""A chat-completions server that misbehaves as it is told, and keeps a count of all that it did.

Run as a process: `python -m polar_pipeline_tests.endpoint.server PORT_FILE RULES_JSON`. A rule is a share of the calls
and what happens to them: a status (429, 500, 401, ...), 429_after and 503_after (with Retry-After), quota, hang, drip
(a body byte by byte), newer (a model that takes neither max_tokens nor a temperature), half, missing (from a batch),
malformed, schema, surrogate, nested, huge (a token count), dear (more tokens than there can be), refusal, length,
no_usage, duplicate, foreign (another language), german (which a filter for German lets pass); of batches no_batches,
batch_breaks, lists_refused (the first list after that), batch_failed, batch_expired; and those of behaviours.py. With
`per_second` it refuses what is over that rate and says when to come back.
"""

import asyncio
import base64
import hashlib
import json
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from polar_pipeline_tests.endpoint import behaviours

PROMPT, COMPLETION = 100, 50  # tokens that every answer is charged


class Server:
    """Answers calls; `rules` maps what goes wrong to the share of calls that it happens to."""

    def __init__(self, rules: dict[str, float], delay: float, per_second: float) -> None:
        self._rules, self._delay, self._per_second, self._free_at = rules, delay, per_second, 0.0
        self.calls: list[dict[str, Any]] = []
        self.good: list[dict[str, Any]] = []
        self._files: dict[str, list[str]] = {}
        self._jobs: list[dict[str, Any]] = []  # newest last
        self.count = {"calls": 0, "charged": 0, "batched": 0, "posts": 0}  # batched: charged in batches
        self.application = Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/embeddings", self.embed, methods=["POST"]),
                Route("/v1/files", self.upload, methods=["POST"]),
                Route("/v1/files/{name}/content", self.download, methods=["GET"]),
                Route("/v1/batches", self.batch, methods=["POST"]),
                Route("/v1/batches", self.batches, methods=["GET"]),
                Route("/v1/batches/{name}", self.look, methods=["GET"]),
                Route("/v1/batches/{name}/cancel", self.cancel, methods=["POST"]),
                Route("/count", self.counted, methods=["GET"]),
                Route("/answered", self.answered, methods=["GET"]),
                Route("/calls", self.called, methods=["GET"]),
            ]
        )

    async def counted(self, request: Request) -> Response:
        """What was done so far."""
        return JSONResponse(self.count)

    async def embed(self, request: Request) -> Response:
        """Vectors of two numbers: a text's length, and one."""
        body = await request.json()
        if body["model"] != "small":
            return JSONResponse({"error": {"message": f"no, {request.headers.get('authorization')}"}}, 404)
        texts = body["input"]
        self.count["calls"] += 1
        if (fate := self._fate(self.count["calls"])).isdigit():
            return JSONResponse({"error": {"message": "no"}}, int(fate))
        if len(texts) > self._rules.get("most_texts", len(texts)):
            return JSONResponse({"error": f"batch size {len(texts)} > maximum allowed batch size", "code": 413}, 413)
        if max(map(len, texts)) > self._rules.get("longest_text", 10**6):
            return JSONResponse({"error": {"message": "input is too large to process, increase the batch size"}}, 500)
        self.count["embedded"] = self.count.get("embedded", 0) + len(texts)
        vectors: list[Any] = [[len(text), 1.0] for text in texts]
        if "base64" in self._rules:
            vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]
        rows = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        if "no_index" in self._rules:
            rows = [{"embedding": vector} for vector in vectors]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"object": "list", "model": "small", "data": rows, "usage": usage})

    async def upload(self, request: Request) -> Response:
        """A file, of the lines of a form's part that are JSON."""
        if "no_batches" in self._rules:
            return JSONResponse({"error": {"message": "no such route"}}, 404)
        name = f"file-{len(self._files)}"
        self._files[name] = [line for line in (await request.body()).decode().splitlines() if line.startswith("{")]
        about = {"bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch", "status": "processed"}
        return JSONResponse({"id": name, "object": "file", **about})

    async def batch(self, request: Request) -> Response:
        """A batch, done after `delay` seconds; one whose answer breaks off was made all the same."""
        body = await request.json()
        job = {
            "id": f"batch-{len(self._jobs)}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "created_at": time.time(),
            "metadata": body["metadata"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "in_progress",
        }
        self._jobs.append(job)
        if "batch_breaks" in self._rules and len(self._jobs) == 1:
            return StreamingResponse(_half("{}"), headers={"content-length": "100"})
        return JSONResponse(job)

    async def batches(self, request: Request) -> Response:
        """All batches."""
        if "no_batches" in self._rules:
            return JSONResponse({"error": {"message": "no such route"}}, 404)
        if self._jobs and self._rules.pop("lists_refused", None) is not None:
            return JSONResponse({"error": {"message": "no"}}, 401)
        return JSONResponse({"object": "list", "data": self._jobs[::-1], "has_more": False})

    async def look(self, request: Request) -> Response:
        """One batch; it is worked on when it is looked at after its time."""
        job = next(job for job in self._jobs if job["id"] == request.path_params["name"])
        if job["status"] == "in_progress" and time.time() >= job["created_at"] + self._delay:
            self._work(job, self._files[job["input_file_id"]])
        return JSONResponse(job)

    async def cancel(self, request: Request) -> Response:
        """End a batch with the first half of its requests done."""
        job = next(job for job in self._jobs if job["id"] == request.path_params["name"])
        lines = self._files[job["input_file_id"]]
        self._work(job, lines[: len(lines) // 2])
        left = [{"custom_id": json.loads(line)["custom_id"], "response": None} for line in lines[len(lines) // 2 :]]
        self._files[f"{job['id']}-error_file_id"] += [json.dumps(line) for line in left]
        job["status"] = "cancelled"
        return JSONResponse(job)

    async def download(self, request: Request) -> Response:
        """A file."""
        return Response("\n".join(self._files[request.path_params["name"]]))

    def _work(self, job: dict[str, Any], requests: list[str]) -> None:
        for how in ("failed", "expired"):
            if f"batch_{how}" in self._rules and len(self._jobs) == 1:
                job |= {
                    "status": how,
                    "errors": {"data": [{"message": "line 1 is wrong"}]} if how == "failed" else None,
                }
                return
        lines: dict[str, list[str]] = {"output_file_id": ["what is this?"], "error_file_id": []}
        for line in map(json.loads, requests):
            self.calls.append(line["body"])
            self.count["calls"] += 1
            fate = self._fate(self.count["calls"])
            if fate == "missing":
                continue
            status = int(fate) if fate.isdigit() else 200
            inside = behaviours.error_in_200(fate)
            failed = {"error": {"message": "no"}} if status != 200 else inside
            answer = failed or self._answer(line["body"], fate)
            self.count["charged"] += not failed
            self.count["batched"] += not failed
            if fate == "ok":
                self.good.append(line["body"])
            kind = "output_file_id" if status == 200 else "error_file_id"
            lines[kind].append(
                json.dumps({"custom_id": line["custom_id"], "response": {"status_code": status, "body": answer}})
            )
        for kind, content in lines.items():
            self._files[f"{job['id']}-{kind}"] = content
            job[kind] = f"{job['id']}-{kind}"
        total = len(self._files[job["input_file_id"]])
        job |= {"status": "completed", "request_counts": {"total": total, "completed": total, "failed": 0}}

    async def called(self, request: Request) -> Response:
        """The bodies of all calls."""
        return JSONResponse(self.calls)

    async def answered(self, request: Request) -> Response:
        """The bodies of those calls that got what they asked for."""
        return JSONResponse(self.good)

    async def complete(self, request: Request) -> Response:
        """One call."""
        body = await request.json()
        self.calls.append(body)
        self.count["calls"] += 1
        fate = self._fate(self.count["calls"])
        if self._per_second and (wait := self._over_the_rate()):
            return Response(status_code=429, headers={"retry-after": str(wait)})
        await asyncio.sleep(self._delay)
        if fate.endswith("_after"):
            return Response(status_code=int(fate[:3]), headers={"retry-after": "0.2"})
        if fate == "quota":
            return JSONResponse({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429)
        if fate.isdigit():
            return JSONResponse({"error": {"message": f"no, {request.headers.get('authorization')}"}}, int(fate))
        if fate.endswith("_later") and self.count["charged"] < 3:
            fate = "ok"
        if fate == "echo":
            return JSONResponse({"headers": dict(request.headers)})
        if refused := behaviours.refusal(fate, body):
            return JSONResponse({"error": {"message": refused[1], "type": "invalid_request_error"}}, refused[0])
        if inside := behaviours.error_in_200(fate):
            return Response(inside, media_type="text/html") if isinstance(inside, str) else JSONResponse(inside)
        if fate == "newer" and not {"max_tokens", "temperature"}.isdisjoint(body):
            return JSONResponse({"error": {"message": "Unsupported parameter: 'max_tokens'"}}, 400)
        if fate == "hang":
            await asyncio.sleep(3600)
        answer = self._answer(body, fate)
        self.count["charged"] += 1
        if fate in _GOOD:
            self.good.append(body)
        if fate in behaviours.BODIES:
            return Response(
                behaviours.BODIES[fate](answer["choices"][0]["message"]["posts"]), media_type="text/event-stream"
            )
        if fate == "remaining_0":
            return JSONResponse(
                answer, headers={"x-ratelimit-remaining-requests": "0"} if self.count["calls"] == 1 else {}
            )
        if fate == "drip":
            return StreamingResponse(_dripping(json.dumps(answer)), media_type="application/json")
        if fate == "half":
            return StreamingResponse(
                _half(json.dumps(answer)),
                media_type="application/json",
                headers={"content-length": str(len(json.dumps(answer)))},
            )
        return JSONResponse(answer)

    def _over_the_rate(self) -> float:
        """Seconds until the next call is taken; 0 takes this one."""
        now = time.monotonic()
        if now < self._free_at:
            self.count["refused"] = self.count.get("refused", 0) + 1
            return round(self._free_at - now, 3) + 0.001
        self._free_at = now + 1 / self._per_second
        return 0.0

    def _fate(self, number: int) -> str:
        """By the number of the call, so that a run has the same fates every time."""
        draw = int(hashlib.sha256(str(number).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        for fate, share in self._rules.items():
            if draw < share:
                return fate
            draw -= share
        return "ok"

    def _answer(self, body: dict[str, Any], fate: str) -> dict[str, Any]:
        wanted = "Answer with JSON" in body["messages"][0]["content"]  # otherwise a single post as plain text
        size = _asked(body) if wanted else 1
        self.count["posts"] += size
        stem = "always the same" if fate == "duplicate" else hashlib.sha256(json.dumps(body).encode()).hexdigest()[:12]
        content = json.dumps({"posts": [f"post {stem} {place}" for place in range(size)]})
        content = content if wanted else f"post {stem}"
        if fate == "foreign":
            foreign = "The river was high this morning and number {} of the boats could not leave the harbour"
            content = json.dumps({"posts": [foreign.format(self.count["posts"] + place) for place in range(size)]})
        if fate in ("german", "duplicate"):
            content = json.dumps({"posts": [_german(stem, place) for place in range(size)]}, ensure_ascii=False)
        task = body["messages"][-1]["content"]
        if task.endswith("Give each text its probability."):
            content = json.dumps({"posts": ["1" if "eins" in text else "0" for text in _fenced(task)]})
        elif "Translate each text" in task:  # a faithful translator, but for one word
            content = json.dumps({"posts": [text.replace("treu", "anders und ganz neu") for text in _fenced(task)]})
        if fate == "schema":
            content = json.dumps({"texts": ["x"]})
        if fate == "surrogate":
            content = json.dumps({"posts": ["\ud800"] * size})
        if fate == "nested":
            content = "[" * 200_000
        if fate == "malformed":
            content = content[:-4]
        message: dict[str, Any] = {"role": "assistant", "content": content}
        posts = json.loads(content)["posts"] if wanted and fate in (*behaviours.MESSAGES, *behaviours.BODIES) else []
        if fate in behaviours.MESSAGES:
            message |= behaviours.MESSAGES[fate](posts)
        if fate in behaviours.BODIES:
            message["posts"] = posts
        if fate == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if fate == "length" else "stop"}],
        }
        if fate != "no_usage":
            answer["usage"] = {
                "prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION,
            }  # fmt: skip
        if fate == "huge":
            answer["usage"] = {"prompt_tokens": 10**400, "completion_tokens": 1}
        if fate == "dear":
            answer["usage"] = {"prompt_tokens": 50_000, "completion_tokens": 50_000}
        return answer


_GOOD = ("ok", "german", "duplicate", "foreign", "newer", *behaviours.MESSAGES, *behaviours.BODIES)


def _asked(body: dict[str, Any]) -> int:
    """How many texts a request is for, as its schema or its words say."""
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
    if size := schema.get("properties", {}).get("posts", {}).get("minItems"):
        return int(size)
    task = body["messages"][-1]["content"]
    if pairs := re.search(r"Write (\d+) pairs", task):
        return 2 * int(pairs.group(1))
    number = re.search(r"(?:Write|each of the) (\d+) (?:new )?posts", task)
    return int(number.group(1)) if number else len(_fenced(task))


def _fenced(task: str) -> list[str]:
    inner = task.split("<data>\n")[1].split("\n</data>")[0]
    return [row["text"] for row in json.loads(inner)]


def _german(stem: str, place: int) -> str:
    """A sentence that a filter for German lets pass, another one each time."""
    draw = hashlib.sha256(f"{stem} {place}".encode()).digest()
    who = (
        "Der Bürgermeister",
        "Unsere Regierung",
        "Die Opposition",
        "Mein Nachbar",
        "Der ganze Stadtrat",
        "Diese Partei",
    )
    does = ("verspricht schon wieder", "fordert jetzt lautstark", "verhindert seit Jahren", "versteht einfach nicht")
    what = ("mehr Geld für die Schulen", "neue Wohnungen am Bahnhof", "den Umbau der alten Brücke", "sichere Radwege")
    end = (
        "und keiner hört mehr zu",
        "das ist doch ein Witz",
        "und wir bezahlen es am Ende",
        "ich kann es nicht mehr hören",
    )
    parts = (words[draw[at] % len(words)] for at, words in enumerate((who, does, what, end)))
    return " ".join(parts) + (" 😡" if draw[5] % 2 else "!")


async def _dripping(content: str) -> Any:
    for character in content:
        yield character.encode()
        await asyncio.sleep(0.05)


async def _half(content: str) -> Any:
    yield content[: len(content) // 2].encode()
    raise ConnectionResetError  # the connection breaks in the middle of the body


def main() -> None:
    """Serve until killed, on a free port that is written to a file."""
    import uvicorn

    port_file, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    server = Server(settings.get("rules", {}), settings.get("delay", 0.0), settings.get("per_second", 0.0))
    port = settings.get("port", 0)
    config = uvicorn.Config(server.application, host="127.0.0.1", port=port, log_level="critical", backlog=1024)
    running = uvicorn.Server(config)

    async def serve() -> None:
        task = asyncio.create_task(running.serve())
        while not running.started:
            await asyncio.sleep(0.01)
        port_file.write_text(str(running.servers[0].sockets[0].getsockname()[1]))
        await task

    asyncio.run(serve())


if __name__ == "__main__":
    main()
