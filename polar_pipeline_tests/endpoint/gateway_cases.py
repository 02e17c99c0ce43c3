"""Behaviours of real endpoints and gateways, as cases of `gateway`: what is answered, and what is to come of it.

What stands in place of an answer is in refusals.yaml, how answers are wrapped is here, and in gateway_wire.py what
addresses, keys, headers and connections do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from polar_pipeline_tests.endpoint.gateway import COMPLETION, PROMPT, Answer, Call, good, usage

Respond = Callable[[Call], Answer | None]
POSTS = 36  # of the plan that each case is asked for
NOTHING = "every request|no request brought"


@dataclass(frozen=True)
class Case:
    """One behaviour: all posts are kept and the ledger has what the server's books have, unless it says otherwise."""

    name: str
    make: Callable[[], Respond]  # an answerer with a memory of its own
    keeps: str = "all"  # all: each post of the plan, written once; some: any right ones; none
    exact: bool = True  # otherwise the ledger has more than the books, as the endpoint does not say what it took
    says: str = ""  # pattern of the sentence with which it stops
    calls: int = 100  # at most, of the first run
    settings: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def area(self) -> str:
        return self.name.partition(":")[0]


def case(name: str, respond: Respond, **more: Any) -> Case:
    return Case(name, lambda: respond, **more)


def content(call: Call) -> str:
    return json.dumps({"posts": call.posts})


_WHEN: dict[str, Callable[[Call], bool]] = {
    "schema": lambda call: call.format == "json_schema",
    "format": lambda call: bool(call.format),
    "sizes": lambda call: "minItems" in json.dumps(call.body),
    "sizes or object": lambda call: "minItems" in json.dumps(call.body) or call.format == "json_object",
    "temperature": lambda call: call.body.get("temperature", 1) != 1 or "temperature" in call.body,
    "max_tokens": lambda call: "max_tokens" in call.body,
    "max_completion_tokens": lambda call: "max_completion_tokens" in call.body,
    "over 400 tokens": lambda call: call.limit > 400,
    "now and then": lambda call: bool(call.format) and call.number % 3 == 2,
}


def _refusals() -> list[Case]:
    listed = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text("utf-8"))

    def refused(row: dict[str, Any], applies: Callable[[Call], bool]) -> Respond:
        return lambda call: Answer(row["body"], row["status"]) if applies(call) else good(call)

    found = [
        case(f"refused: {row['name']}", refused(row, _WHEN[row["when"]]), settings=row.get("settings", {}))
        for row in listed["refusals"]
    ]
    found += [
        case(f"too large: {row['name']}", refused(row, lambda call: len(call.labels) > 3))
        for row in listed["too many posts"]
    ]
    found += [
        case(f"inside 200: {row['name']}", refused(row | {"status": 200}, lambda call: call.number % 3 == 1))
        for row in listed["inside"]
    ]
    return found + [
        case(f"stops: {row['name']}", refused(row, lambda _: True), keeps="none", says=row["says"],
             calls=row.get("calls", 1))
        for row in listed["stops"]
    ]  # fmt: skip


def _objects(call: Call, **names: str) -> list[dict[str, Any]]:
    return [{"label": name, "text": post} for name, post in zip(_words(call), call.posts, strict=True)]


def _words(call: Call) -> list[str]:
    return ["polarized" if label else "not polarized" for label in call.labels]


def _draft(call: Call) -> str:
    return json.dumps({"posts": ["a draft"] * len(call.posts)})


def _counted(call: Call, form: str) -> list[str]:
    return [form.format(at, post) for at, post in enumerate(call.posts, start=1)]


# texts that bring every post
_TEXTS: dict[str, Callable[[Call], str]] = {
    "a fence in prose": lambda c: f"Sure!\n```json5\n{content(c)}\n```\nLet me know!",
    "a fence that stays open": lambda c: f"```json\n{content(c)}",
    "fences of a draft and of the answer": lambda c: f"```json\n{_draft(c)}\n```\nFinal:\n```json\n{content(c)}\n```",
    "labels after it": lambda c: f"{content(c)}\nLabels: {c.labels}",
    "labels before it": lambda c: f"The labels {c.labels} are followed.\n{content(c)}",
    "channels of gpt-oss": lambda c: f"<|channel|>analysis<|message|>{_draft(c)}<|end|><|start|>assistant"
                                     f"<|channel|>final<|message|>{content(c)}",
    "thoughts of Kimi": lambda c: f"◁think▷{_draft(c)}◁/think▷{content(c)}",
    "thoughts of Magistral": lambda c: f"[THINK]{_draft(c)}[/THINK]{content(c)}",
    "thoughts with a budget": lambda c: f'<thinking budget="3">{_draft(c)}</thinking >{content(c)}',
    "thoughts of Seed": lambda c: f"<seed:think>{_draft(c)}</seed:think>{content(c)}",
    "a tag around it": lambda c: f"<response>{content(c)}</response>",
    "a special token after it": lambda c: f"{content(c)}<|im_end|>",
    "JSON in a string": lambda c: json.dumps(content(c)),
    "posts in a string": lambda c: json.dumps({"posts": json.dumps(c.posts)}),
    "each post as JSON in a string": lambda c: json.dumps({"posts": [json.dumps({"text": p}) for p in c.posts]}),
    "posts in posts": lambda c: json.dumps({"posts": {"posts": c.posts}}),
    "wrapped twice": lambda c: json.dumps({"result": {"data": {"posts": c.posts}}, "status": "ok"}),
    "capitals, and labels beside": lambda c: json.dumps({"Posts": c.posts, "Labels": c.labels}),
    "words of labels beside": lambda c: json.dumps({"texts": c.posts, "labels": _words(c)}),
    "numbered objects backwards": lambda c: json.dumps(
        [{"id": str(at), "text": post} for at, post in enumerate(c.posts, start=1)][::-1]),
    "fields by number backwards": lambda c: json.dumps(dict(reversed([(f"{n}", p) for n, p in enumerate(c.posts)]))),
    "objects with their labels": lambda c: json.dumps({"posts": _objects(c)}),
    "pairs": lambda c: json.dumps({"posts": [c.posts[at : at + 2] for at in range(0, len(c.posts), 2)]}),
    "each in a list": lambda c: json.dumps({"posts": [[post] for post in c.posts]}),
    "escapes, a mark and CRLF": lambda c: "\ufeff" + json.dumps({"posts": c.posts}, indent=1).replace("\n", "\r\n"),
    "comments": lambda c: content(c).replace('", "', '", // next\n "'),
    "commas too many": lambda c: content(c).replace("]}", ",\n]\n,}"),
    "a comma too few": lambda c: content(c).replace('", "', '"\n "'),
    "curly quotes": lambda c: content(c).replace('["', "[“").replace('", "', "”, “").replace('"]', "”]"),
    "a key without quotes": lambda c: content(c).replace('"posts"', "posts"),
    "Python": lambda c: repr({"posts": tuple(c.posts), "note": None}),
    "numbers before posts": lambda c: json.dumps({"posts": _counted(c, "{}. {}")}),
    "a word and numbers before posts": lambda c: json.dumps({"posts": _counted(c, "Post {}: {}")}),
    "quotes around posts": lambda c: json.dumps({"posts": [f'"{post}"' for post in c.posts]}),
    "two objects": lambda c: json.dumps({"posts": c.posts[:1]}) + json.dumps({"posts": c.posts[1:]}),
    "twice the same": lambda c: f"{content(c)}\n\nHere again:\n{content(c)}",
    "a JSON object a line": lambda c: "\n".join(json.dumps({"text": post}) for post in c.posts),
    "a JSON string a line": lambda c: "\n".join(map(json.dumps, c.posts)),
    "a list a line": lambda c: "\n".join(json.dumps({"posts": [post]}) for post in c.posts),
    "a bracket too many": lambda c: content(c) + "}",
    "a numbered list in bold": lambda c: "\n\n".join(_counted(c, "**{}.** {}")),
    "NUL characters": lambda c: content(c).replace("post ", "\\u0000post "),
}  # fmt: skip

# texts that bring none
_NO_TEXTS: dict[str, Callable[[Call], Any]] = {
    "placeholders": lambda c: json.dumps({"posts": [f"text{at}" for at in range(len(c.posts))]}),
    "places for posts": lambda c: json.dumps({"posts": ["<your post here>", "..."] * (len(c.posts) // 2)}),
    "empty posts": lambda c: json.dumps({"posts": ["", " \n"] * (len(c.posts) // 2)}),
    "a refusal": lambda _: "I'm sorry, but I can't help with creating polarizing content.",
    "a refusal with reasons": lambda c: "I can't help because:\n" + "\n".join(_counted(c, "{}. It is harmful")),
    "a refusal for each post": lambda c: json.dumps({"posts": ["I'm sorry, I can't assist."] * len(c.posts)}),
    "reasons": lambda c: json.dumps({"error": "cannot", "reasons": [f"harm {at}" for at in range(len(c.posts))]}),
    "an error in JSON": lambda _: json.dumps({"error": "I can't help with that"}),
    "nothing": lambda _: "",
    "a deep list": lambda _: "[" * 5000 + "]" * 5000,
    "numbers": lambda c: json.dumps({"posts": c.labels}),
    "names of labels": lambda c: json.dumps({"posts": _words(c)}),
}

# texts of which some posts are sure
_SOME_TEXTS: dict[str, Callable[[Call], str]] = {
    "posts by label": lambda c: json.dumps(
        {word: [p for p, own in zip(c.posts, _words(c), strict=True) if own == word] for word in set(_words(c))}),
    "objects in the order of labels": lambda c: json.dumps(sorted(_objects(c), key=lambda one: one["label"])),
    "true and false in another order": lambda c: json.dumps(
        sorted([{"polarized": p.endswith("1"), "text": p} for p in c.posts], key=lambda one: one["polarized"])),
    "dots after the first": lambda c: json.dumps({"posts": [c.posts[0]] + ["..."] * (len(c.posts) - 1)}),
    "some empty": lambda c: json.dumps({"posts": [p if at % 3 else "" for at, p in enumerate(c.posts)]}),
    "half a character": lambda c: content(c).replace(" 1 L", " \\ud83d 1 L"),
    "two too many": lambda c: json.dumps({"posts": [*c.posts, "one more post", "and one more"]}),
}  # fmt: skip

_MESSAGES: dict[str, Callable[[Call], dict[str, Any]]] = {
    "a draft in reasoning": lambda c: {"content": content(c), "reasoning": _draft(c)},
    "the answer in thoughts": lambda c: {"content": None, "reasoning_content": f"I will answer {content(c)}"},
    "thoughts as a part": lambda c: {"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "{"}]}, {"type": "text", "text": content(c)}]},
    "reasoning as a part": lambda c: {"content": [
        {"type": "reasoning", "text": _draft(c)}, {"type": "output_text", "text": content(c)}]},
    "function_call": lambda c: {"content": None, "function_call": {"name": "f", "arguments": content(c)}},
    "tool_calls with an object": lambda c: {"content": "", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"posts": c.posts}}}]},
    "an object": lambda c: {"content": {"posts": c.posts}, "refusal": None, "annotations": []},
    "parsed": lambda c: {"content": None, "parsed": {"posts": c.posts}},
}  # fmt: skip

_WHOLES: dict[str, Callable[[Call], dict[str, Any]]] = {
    "text completion": lambda c: {"choices": [{"text": content(c), "finish_reason": "stop"}], "usage": usage()},
    "Ollama": lambda c: {"message": {"content": content(c)}, "done": True, "prompt_eval_count": PROMPT,
                         "eval_count": COMPLETION},
    "Anthropic": lambda c: {"content": [{"type": "text", "text": content(c)}], "stop_reason": "end_turn",
                            "usage": {"input_tokens": PROMPT, "output_tokens": COMPLETION}},
    "Cloudflare": lambda c: {"result": {"response": content(c), "usage": usage()}, "success": True, "errors": []},
    "choices in data": lambda c: {"code": 0, "data": good(c).content},
}  # fmt: skip


def _answers() -> list[Case]:
    found = [case(f"answer: {name}", lambda c, text=text: good(c, text(c))) for name, text in _TEXTS.items()]
    found += [case(f"message: {name}", lambda c, said=said: good(c, said(c))) for name, said in _MESSAGES.items()]
    found += [case(f"message: {name}", lambda c, b=body: good(c, content=b(c))) for name, body in _WHOLES.items()]
    found += [
        case(f"no post: {name}", lambda c, text=text: good(c, text(c), posts=0), keeps="none", says=NOTHING)
        for name, text in _NO_TEXTS.items()
    ]
    return found + [
        case(f"some posts: {name}", lambda c, text=text: good(c, text(c)), keeps="some",
             settings={"shares": (1.0, 0.0, 0.0)})
        for name, text in _SOME_TEXTS.items()
    ]  # fmt: skip


# usage, and the tokens that are meant; None where it does not say
_USAGES: dict[str, tuple[Any, tuple[int, int] | None]] = {
    "missing": ("missing", None),
    "null": ({"prompt_tokens": None, "completion_tokens": None}, None),
    "negative": ({"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}, None),
    "a list": ([usage()], None),
    "strings": ({"prompt_tokens": "100", "completion_tokens": "50"}, (100, 50)),
    "floats": ({"prompt_tokens": 100.0, "completion_tokens": 50.0, "total_tokens": 150.0}, (100, 50)),
    "zero": (usage(0, 0), (0, 0)),
    "a total alone": ({"total_tokens": 150}, (0, 150)),
    "a total and the prompt": ({"prompt_tokens": 100, "total_tokens": 150}, (100, 50)),
    "thoughts within": (usage() | {"completion_tokens_details": {"reasoning_tokens": 40}}, (100, 50)),
    "thoughts on top": (usage() | {"total_tokens": 450}, (100, 350)),
    "cached tokens and a cost": (usage() | {"prompt_tokens_details": {"cached_tokens": 64}, "cost": 0.5}, (100, 50)),
    "other names": ({"input_tokens": 100, "output_tokens": 50}, (100, 50)),
}


def _ends() -> list[Case]:
    found = [
        case(f"usage: {name}", lambda c, use=use, meant=meant: good(c, use=use, tokens=meant or (PROMPT, COMPLETION)),
             exact=meant is not None)
        for name, (use, meant) in _USAGES.items()
    ]  # fmt: skip
    for finish in (None, "stop_sequence", "eos", "end_turn", "COMPLETE", "weird", 7, "", "length"):
        found.append(case(f"finish: {finish!r}", lambda c, why=finish: good(c, finish=why)))
    for finish in ("length", "max_tokens", "MAX_TOKENS", "model_length"):
        found.append(case(f"finish: cut, {finish}", lambda c, why=finish: good(c, content(c)[:150], why), keeps="some",
                          settings={"shares": (1.0, 0.0, 0.0)}))  # fmt: skip
    for finish in ("content_filter", "SAFETY", "refusal"):
        found.append(case(f"finish: {finish}", lambda c, why=finish: good(c, "", why, posts=0), keeps="none",
                          says=NOTHING, calls=8))  # fmt: skip
    return found


CASES = [*_refusals(), *_answers(), *_ends()]
