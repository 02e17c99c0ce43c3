"""What many endpoints and gateways do, one case each: posts, calls and money are compared with the server's books.

`python -m polar_pipeline_tests.endpoint.test_gateway [--all]` prints the table of docs/synthesis.md, or every case.
"""

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polar_pipeline.endpoint import rate_limit
from polar_pipeline.endpoint.ledger import Account, read_account
from polar_pipeline.errors import InputError
from polar_pipeline_tests.endpoint.gateway import Books, Gateway
from polar_pipeline_tests.endpoint.gateway_cases import CASES, POSTS, Case
from polar_pipeline_tests.endpoint.gateway_wire import WIRE_CASES
from polar_pipeline_tests.synthesis import made

pytestmark = pytest.mark.slow
ALL = [*CASES, *WIRE_CASES]
TABLE = made.make_posts(80)
RIGHT = re.compile(r"post [0-9a-f]{10} \d+ L([01])")


class Outcome(NamedTuple):
    right: int  # posts with the label that the server wrote them for
    wrong: int
    says: str  # what ended the run, "" if nothing did
    account: Account
    books: Books
    kept_secret: bool


def run(case: Case, gateway: Gateway, ledgers: Path) -> Outcome:
    """The plan of a case as one run asks for it."""
    own: dict[str, Any] = {"base_url": "http://127.0.0.1:PORT/v1", "posts": POSTS, "timeout": 5.0, "concurrency": 4}
    own |= {"attempts": 4} | case.settings
    own["base_url"] = own["base_url"].replace("PORT", str(gateway.port))
    said, says, labelled = list[str](), "", list[tuple[str, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_limit, "_FIRST_BACKOFF", 0.02)
        for name, value in ({"OPENAI_API_KEY": "sk-very-secret"} | case.variables).items():
            patch.setenv(name, value)
        try:
            done = made.generated(TABLE, "deu", made.CARD, made.settings(**own), 0, ledgers, said.append)
            labelled, says = list(zip(done.posts["text"], done.posts["label"], strict=True)), done.stopped
        except InputError as error:
            says = str(error)
    told = [(RIGHT.fullmatch(" ".join(text.split())), label) for text, label in labelled]
    right = sum(found is not None and int(found[1]) == label for found, label in told)
    files = [file.read_bytes() for file in ledgers.rglob("*") if file.is_file()]
    kept = b"very-secret" not in b"".join(files) and "very-secret" not in " ".join([*said, says])
    return Outcome(right, len(labelled) - right, says, read_account(ledgers), gateway.books, kept)


def problems(case: Case, gateway: Gateway, ledgers: Path) -> tuple[Outcome, list[str]]:
    """How a case went, and what of it should not be."""
    gateway.begin(case.make())
    first = run(case, gateway, ledgers)
    books, calls, settled = first.books, first.books.calls, first.account.settled
    found = []
    if first.wrong or not first.kept_secret:
        found.append(f"{first.wrong} posts with a wrong label or text, secrets kept: {first.kept_secret}")
    if not {"all": first.right == books.posts == POSTS, "some": first.right > 0, "none": not first.right}[case.keeps]:
        found.append(f"{first.right} of {books.posts} posts: {first.says}")
    if abs(settled - books.tokens / 1e6) > 1e-9 and (case.exact or settled < books.tokens / 1e6):
        found.append(f"${settled:.6f} in the ledger, ${books.tokens / 1e6:.6f} in the books")
    if first.account.open or calls > case.calls:
        found.append(f"${first.account.open} open, {calls} calls")
    if not re.search(case.says or "^$", first.says):
        found.append(f"it says {first.says!r}")
    if case.keeps == "all":
        charged = books.charged
        if run(case, gateway, ledgers).right != POSTS or books.charged != charged:
            found.append("another run pays again")
    return first, found


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    running = Gateway()
    yield running
    running.stop()


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_posts_calls_and_money_are_those_of_the_servers_books(case: Case, gateway: Gateway, tmp_path: Path) -> None:
    _, found = problems(case, gateway, tmp_path / "ledgers")
    assert not found


def main() -> None:
    """Print the cases, or their sums by area."""
    gateway, sums = Gateway(), defaultdict[str, list[int]](lambda: [0] * 6)
    print("| behaviours | cases | as they should be | posts kept | of written | calls | paid |")
    print("|---|---|---|---|---|---|---|")
    for case in ALL:
        with tempfile.TemporaryDirectory() as folder:
            gateway.begin(case.make())
            done, found = problems(case, gateway, Path(folder))
        figures = [1, not found, done.right, done.books.posts, done.books.calls, done.books.charged]
        sums[case.area] = [one + more for one, more in zip(sums[case.area], figures, strict=True)]
        if sys.argv[1:] == ["--all"]:
            cells = [case.name, *figures[:1], "; ".join(found) or "yes", *figures[2:]]
            print("| " + " | ".join(map(str, cells)) + f" | {done.says} |")
    if sys.argv[1:] != ["--all"]:
        for area, figures in sums.items():
            print(f"| {area} | " + " | ".join(map(str, figures)) + " |")
    gateway.stop()


if __name__ == "__main__":
    main()
