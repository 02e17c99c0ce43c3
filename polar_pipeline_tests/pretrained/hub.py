"""A model hub on this machine."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs: one model with a pickle and a picture beside its weights.

    A model that ends in /gated is gated, and no other is there.
    """

    name: str
    folder: Path
    commit = "c" * 40

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *given: object) -> None:
        pass

    def _answer(self, body: bool = False) -> None:
        path = self.path.partition("?")[0]
        names = [file.name for file in self.folder.iterdir()]
        if "/gated/" in path:
            return self._refuse(403, "GatedRepo", "Access to the model is restricted.")
        if path.startswith(f"/api/models/{self.name}"):
            every = [*names, "pytorch_model.bin", "picture.png"]
            siblings = {"id": self.name, "sha": self.commit, "siblings": [{"rfilename": name} for name in every]}
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in every]
            content = json.dumps(tree if "/tree/" in path else siblings).encode()
        elif f"/{self.name}/resolve/" not in path:
            return self._refuse(401, "RepoNotFound", "Invalid username or password.")
        elif path.rpartition("/")[2] in names:
            content = (self.folder / path.rpartition("/")[2]).read_bytes()
        else:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def hub(name: str, folder: Path) -> Iterator[str]:
    """Serve the model in `folder` under this name; gives the hub's address."""
    handler = type("Filled", (Hub,), {"name": name, "folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def at(address: str, cache: Path) -> dict[str, str]:
    """Environment variables of a process that knows no other hub."""
    return {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
