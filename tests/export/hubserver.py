"""A stand-in for the model hub on this machine: the few endpoints that upload and download use."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_standin"


class Hub:
    """Repositories by name: file → content; and what was asked for."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.downloads: list[str] = []
        self.address = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            if "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def say(self, status: int, value: object, code: str = "") -> None:
            headers = {"Content-Type": "application/json"} | (
                {"X-Error-Code": code} if code else {}
            )
            self.answer(status, json.dumps(value).encode(), headers)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            if parts[2:3] != ["resolve"]:
                self.say(404, {"error": self.path})
                return
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            if name not in hub.models:
                self.say(404, {"error": "Repository not found"}, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.say(404, {"error": "Revision not found"}, "RevisionNotFound")
            elif file not in hub.models[name]:
                self.say(404, {"error": "Entry not found"}, "EntryNotFound")
            else:
                content = hub.models[name][file]
                if self.command == "GET":
                    hub.downloads.append(file)
                etag = hashlib.sha1(content).hexdigest()
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
                self.answer(200, content, headers | {"Content-Length": str(len(content))})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlparse(self.path).path
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.say(401, {"error": "Invalid username or password."})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                owner = asked.get("organization") or "me"
                if owner != "me":
                    self.say(403, {"error": f"You don't have the rights to create under {owner}"})
                    return
                name = f"{owner}/{asked['name']}"
                hub.models.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(name)
                self.say(200, {"url": f"{hub.address}/{name}", "name": name})
            elif "/preupload/" in path:
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                self.say(200, {"files": files})
            elif "/commit/" in path:
                name = "/".join(path.split("/")[3:5])
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        value = entry["value"]
                        hub.models[name][value["path"]] = base64.b64decode(value["content"])
                address = f"{hub.address}/{name}/commit/{COMMIT}"
                self.say(200, {"commitUrl": address, "commitOid": COMMIT, "pullRequestUrl": None})
            else:
                self.say(200, {})

    return Handler
