"""The routes: who may ask, what they refuse, and that nothing leaves the folder."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels.loop_folder import BY, open_store, paint, rectangle, write_images
from s5mars.cli import main
from s5mars.data.resolution import Resolution
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.features import StartModel
from s5mars.labels.loop.run_maps import RunMaps
from s5mars.labels.loop.trainer import Trainer

TOKEN = "secret"
HOSTS = {"127.0.0.1", "localhost"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """The application without a server: a request is a call."""

    app: Any
    root: Path

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: object = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "host": "127.0.0.1:8765",
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/json",
            "content-length": str(len(content)),
            **(headers or {}),
        }
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "path": path, "raw_path": path.encode("utf-8", "surrogateescape"), "root_path": "",
            "scheme": "http", "query_string": urlencode(query or {}).encode(),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items() if v != ""],
            "server": ("127.0.0.1", 8765), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        start = sent[0]
        found = {k.decode(): v.decode() for k, v in start["headers"]}
        return Answer(start["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = write_images(tmp_path_factory.mktemp("site") / "folder", count=2)
    pytest.importorskip("starlette", reason="the extra label is not installed")
    from s5mars.labels.loop.server import LabelServer

    store = open_store(root)
    cpu = torch.device("cpu")
    model = StartModel("none", "k", lambda pixels: [pixels[..., ::8, ::8]], Resolution(), cpu)
    assistant = Assistant(store, model)
    trainer = Trainer(store, [])
    server = LabelServer(store, assistant, trainer, RunMaps(trainer, assistant, device="cpu"))
    yield Site(server.app(token=TOKEN, hosts=HOSTS), root)


GETS = (
    "setup",
    "state",
    "images",
    "image",
    "mask",
    "superpixels",
    "suggestion",
    "thumbnail",
    "log",
)
POSTS = ("paint", "undo", "redo", "status", "train", "stop")
API = [*((("GET"), name) for name in GETS), *(("POST", name) for name in POSTS)]


def test_these_are_all_the_routes(site: Site) -> None:
    app = site.app
    paths = {route.path.removeprefix("/api/") for route in app.routes if "/api/" in route.path}
    assert paths == {*GETS, *POSTS}


@pytest.mark.parametrize(("method", "name"), API)
def test_every_route_wants_the_token(site: Site, method: str, name: str) -> None:
    for token in ("", "Bearer", "Bearer wrong", f"bearer {TOKEN}", TOKEN, f"Bearer {TOKEN}x"):
        answer = site.ask(method, f"/api/{name}", body={}, headers={"authorization": token})
        assert answer.status == 401, token
        assert "token" in answer.json["error"]


@pytest.mark.parametrize(("method", "name"), API)
def test_every_route_refuses_other_sites(site: Site, method: str, name: str) -> None:
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},  # another server on this machine
        {"origin": "null"},
        {"host": "evil.example"},  # DNS rebinding
        {"host": "127.0.0.1.evil.example:8765"},
        {"host": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert site.ask(method, f"/api/{name}", body={}, headers=headers).status == 403, headers


def test_a_tunnel_may_use_another_port(site: Site) -> None:
    headers = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert site.ask("GET", "/api/setup", headers=headers).status == 200


@pytest.mark.parametrize("name", POSTS)
def test_bodies_are_checked(site: Site, name: str) -> None:
    from s5mars.labels.loop.guard import MAX_BODY

    path = f"/api/{name}"
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/json; x"):
        assert site.ask("POST", path, body={}, headers={"content-type": kind}).status == 415
    for length in (str(MAX_BODY + 1), "-1", "many"):
        assert site.ask("POST", path, body={}, headers={"content-length": length}).status == 413
    too_much = b" " * (MAX_BODY + 1)  # which the header may hide
    assert site.ask("POST", path, body=too_much, headers={"content-length": "2"}).status == 413
    for body in (b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 99 + b"1" + b"}" * 99):
        assert site.ask("POST", path, body=body).status == 400, body[:20]


def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    page = site.ask("GET", "/", headers={"authorization": ""})
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    links = [w for part in page.body.decode().split('src="')[1:] for w in [part.split('"')[0]]]
    for path in ("label.css", *links, "view.js", "tools.js", "pixels.js", "panels.js", "chart.js"):
        answer = site.ask("GET", f"/{path}")
        assert answer.status == 200
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text
    assert "--accent" in site.ask("GET", "/label.css").body.decode()  # the colours of the report


@pytest.mark.parametrize(
    "name", ["", "../sol0", "/etc/passwd", "sol0.png", "images/sol0", "sol0\0", "%2e%2e/x", "SOL0"]
)
def test_only_names_of_images_are_known(site: Site, name: str) -> None:
    for path in ("image", "mask", "superpixels", "suggestion", "thumbnail"):
        assert site.ask("GET", f"/api/{path}", query={"image": name, "level": "0"}).status == 404
    assert site.ask("GET", "/api/log", query={"run": name}).status == 404
    stroke = {"image": name, "version": 0, "by": BY, "tool": "brush", **rectangle(0, 0, 2, 2, 1)}
    assert site.ask("POST", "/api/paint", body=stroke).status == 404
    for path in ("/../pyproject.toml", "/page/index.html", "/api/../index.html", "/label.css/x"):
        assert site.ask("GET", path).status == 404


def test_a_stroke_is_answered_with_its_version(site: Site) -> None:
    mask = site.ask("GET", "/api/mask", query={"image": "sol1"})
    assert mask.headers["x-width"] == "64" and mask.headers["x-height"] == "48"
    version = int(mask.headers["x-version"])
    stroke = {"image": "sol1", "version": version, "by": BY, "tool": "polygon",
              **rectangle(1, 2, 3, 4, 2)}  # fmt: skip
    answer = site.ask("POST", "/api/paint", body=stroke)
    assert answer.json == {"version": version + 1}
    again = site.ask("GET", "/api/mask", query={"image": "sol1"})
    pixels = np.frombuffer(gzip.decompress(again.body), np.uint8).reshape(48, 64)
    assert (pixels[2:6, 1:4] == 2).all()
    conflict = site.ask("POST", "/api/paint", body=stroke)
    assert conflict.status == 409 and conflict.json["conflict"] is True
    undone = site.ask("POST", "/api/undo", body={"image": "sol1", "version": version + 1, "by": BY})
    assert undone.json["patch"]["box"] == [1, 2, 3, 4]


def test_an_image_that_is_done_is_not_the_next_one(tmp_path: Path) -> None:
    """The ranking is made again only after the features and the head that are in hand."""
    pytest.importorskip("starlette", reason="the extra label is not installed")
    from s5mars.labels.loop.server import LabelServer

    store = open_store(write_images(tmp_path / "folder", count=3))
    model = StartModel("none", "k", lambda pixels: [pixels], Resolution(), torch.device("cpu"))
    assistant, trainer = Assistant(store, model), Trainer(store, [])
    server = LabelServer(store, assistant, trainer, RunMaps(trainer, assistant, device="cpu"))
    assistant._rank()
    server.mark({"image": "sol0", "status": "done", "by": BY})
    paint(store, "sol1", 0, 0, 4, 4, 1)
    state = json.loads(bytes(server.state({}).body))
    assert [each["name"] for each in state["queue"]] == ["sol2"]


WORDS = st.sampled_from(
    ["sol0", "sol1", "../sol0", "..", "/etc/passwd", "brush", "accept", "done", "skipped", "seen",
     "s5mars", "supervised", "head", "0", "1", "9", "-1", "me", "", "a\0b", "é", "x" * 300]
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-3, 70), st.sampled_from([2**31, 2**70, -(2**70)]))
VALUES = st.recursive(
    st.one_of(WORDS, NUMBERS, st.floats(), st.booleans(), st.none(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
KEYS = (
    "image", "version", "by", "tool", "box", "runs", "status", "method", "steps", "run", "level",
    "source",
)  # fmt: skip
BODIES = st.one_of(
    st.fixed_dictionaries(
        {"image": WORDS, "version": NUMBERS, "by": WORDS},
        optional=dict.fromkeys(KEYS[3:], VALUES),
    ),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8),
    st.binary(max_size=60),
)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(API),
    st.dictionaries(st.sampled_from(KEYS), st.one_of(WORDS, st.text(max_size=8)), max_size=4),
    BODIES,
)
def test_no_request_crashes_the_server_or_touches_another_file(
    site: Site, route: tuple[str, str], query: dict[str, str], body: Any
) -> None:
    method, name = route
    query = {k: v.encode("utf-8", "replace").decode() for k, v in query.items()}
    before = tree(site.root.parent)
    answer = site.ask(method, f"/api/{name}", query=query, body=body)
    assert answer.status in (200, 202, 400, 404, 409), answer.body
    if answer.status >= 400:
        assert answer.json["error"]
    after = tree(site.root.parent)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    allowed = ("folder/masks/sol", "folder/labelling/history.jsonl", "folder/splits/")
    assert all(path.startswith(allowed) for path in changed), changed


# The command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would serve until it is interrupted."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra label is not installed")
    apps: list[Any] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        # The address is printed before this: whoever opens it must get a connection already.
        socket.create_connection(sockets[0].getsockname()[:2]).close()
        apps.append(self.config.app)
        time.sleep(0.1)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return apps


def test_the_printed_address_opens_the_page(
    tmp_path: Path,
    served: list[Any],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = write_images(tmp_path / "folder", count=2)
    assert main(["label", str(root), "--classes", "soil,sky", "--port", "0"]) == 0
    printed = capsys.readouterr()
    address = re.search(r"http://127\.0\.0\.1:\d+/#(\S{32,})", printed.out)
    assert address is not None
    assert printed.err == "" and not caplog.messages
    headers = {"authorization": f"Bearer {address[1]}"}
    setup = Site(served[0], root).ask("GET", "/api/setup", headers=headers)
    assert [each["name"] for each in setup.json["classes"]] == ["soil", "sky"]
    assert setup.json["methods"][0] == "s5mars"

    options = ["--host", "0.0.0.0", "--method", "fixmatch", "--batch=3"]
    assert main(["label", str(root), "--port", "0", *options]) == 0
    printed = capsys.readouterr()
    assert caplog.messages[-1].startswith("--host 0.0.0.0 lets every machine")
    other = re.search(r"/#(\S+)", printed.out)
    assert other is not None and other[1] != address[1]
    headers = {"authorization": f"Bearer {other[1]}", "host": "rover.example:1"}
    setup = Site(served[1], root).ask("GET", "/api/setup", headers=headers)
    assert setup.json["methods"][0] == "fixmatch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start-from", "nowhere"], "nowhere does not exist"),
        (["--stpes", "3"], "unknown option --stpes"),
        (["--steps", "3"], "--steps is set by the label page"),
        (["--port", "99999"], "--port 99999"),
        (["--classes", "a,,b"], "--classes must be names"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path: Path,
    served: list[Any],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    root = write_images(tmp_path / "folder", count=1)
    given = {"--classes": "soil,sky", "--port": "0"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    assert main(["label", str(root), *(word for pair in given.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert served == []


def test_a_port_in_use(
    tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "folder", count=1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["label", str(root), "--classes", "a,b", "--port", port]) == 2
    assert f"--port {port}: address already in use" in capsys.readouterr().err
