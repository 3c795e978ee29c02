"""The routes of the label page. They parse and answer; everything else is done elsewhere."""

from __future__ import annotations

import gzip
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from s5mars.errors import UserError
from s5mars.files import encoded_picture
from s5mars.files.reading import parse_object
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.guard import Guard
from s5mars.labels.loop.run_maps import RunMaps
from s5mars.labels.loop.store import STATUSES, ConflictError, Store
from s5mars.labels.loop.superpixels import LEVELS, enlarged
from s5mars.labels.loop.trainer import STEPS, Trainer
from s5mars.predict.overlay import overlay
from s5mars.report.pictures import legend

SCRIPTS = ("main.js", "api.js", "pixels.js", "view.js", "tools.js", "panels.js", "chart.js")
TOOLS = ("brush", "eraser", "superpixel", "polygon", "accept")
QUEUE_SHOWN = 8
THUMBNAIL = 192
"""Longer side of small pictures in pixels."""

_KEPT_THUMBNAILS = 500


class NotFoundError(UserError):
    """An image, run or level that does not exist."""


class LabelServer:
    """The answers, from the store, the assistant and the trainer."""

    def __init__(self, store: Store, assistant: Assistant, trainer: Trainer, maps: RunMaps) -> None:
        self.store = store
        self.assistant = assistant
        self.trainer = trainer
        self.maps = maps
        self._thumbnails: OrderedDict[tuple[str, str | None], bytes] = OrderedDict()
        self._thumbnails_lock = threading.Lock()

    def app(self, *, token: str, hosts: Collection[str] | None) -> Starlette:
        """The ASGI application."""
        routes = [
            *(_static(path, *found) for path, found in _static_files().items()),
            Route("/api/setup", _get(self.setup)),
            Route("/api/state", _get(self.state)),
            Route("/api/images", _get(self.images)),
            Route("/api/image", _get(self.image)),
            Route("/api/mask", _get(self.mask)),
            Route("/api/superpixels", _get(self.superpixels)),
            Route("/api/suggestion", _get(self.suggestion)),
            Route("/api/thumbnail", _get(self.thumbnail)),
            Route("/api/log", _get(self.log)),
            Route("/api/paint", _post(self.paint), methods=["POST"]),
            Route("/api/undo", _post(self.undo), methods=["POST"]),
            Route("/api/redo", _post(self.redo), methods=["POST"]),
            Route("/api/status", _post(self.mark), methods=["POST"]),
            Route("/api/train", _post(self.train), methods=["POST"]),
            Route("/api/stop", _post(self.stop), methods=["POST"]),
        ]
        guard = Middleware(Guard, token=token, hosts=hosts)
        return Starlette(routes=routes, middleware=[guard])

    # What is read.

    def setup(self, query: dict[str, str]) -> Response:
        """What does not change while the server runs."""
        return JSONResponse(
            {
                "folder": self.store.folder.root.resolve().name,
                "classes": legend(self.store.folder.taxonomy),
                "levels": LEVELS,
                "model": self.assistant.model.name,
                "methods": self.trainer.methods,
                "start_from": self.trainer.start_from,
                "steps": STEPS,
            }
        )

    def state(self, query: dict[str, str]) -> Response:
        """What changes: asked for about once a second."""
        store, assistant = self.store, self.assistant
        pixels = sum(store.counts.values(), np.zeros(len(assistant.classes), np.int64))
        training = self.trainer.state()
        # Those that were painted or marked since the ranking would come back as the next ones.
        queue = [r for r in assistant.queue if store.is_open(r.name)]
        state: dict[str, Any] = {
            "images": len(assistant.names),
            "painted": len(store.counts),
            "done": list(store.status.values()).count("done"),
            "pixels": pixels.tolist(),
            "minutes": store.history.minutes,
            "scores": [[s["minutes"], s["miou"]] for s in list(store.history.scores)],
            "held_back": len(store.splits.lists["val"]),
            "learned": assistant.head is not None,
            "featured": len(assistant.featured),
            "waiting": assistant.waiting,
            "queue": [{"name": r.name, "reason": r.reason} for r in queue[:QUEUE_SHOWN]],
            "training": training,
            "maps": self.maps.shown(training["finished"][-1]) if training["finished"] else [],
        }
        if "image" in query:
            name = self._name(query)
            undo, redo = store.undoable(name)
            state["current"] = {
                "version": store.version(name),
                "status": store.status.get(name, "open"),
                "split": store.splits.of(name),
                "undo": undo,
                "redo": redo,
                "superpixels": name in assistant.segmented,
                "suggestion": assistant.suggestion_key(name),
                "failed": assistant.failed.get(name),
            }
        return JSONResponse(state)

    def images(self, query: dict[str, str]) -> Response:
        """All images with what is known of each."""
        store = self.store
        listed = [
            {
                "name": name,
                "sol": store.sols[name],
                "painted": int(np.sum(store.counts.get(name, 0))),
                "status": store.status.get(name, "open"),
                "split": store.splits.of(name),
                "failed": self.assistant.failed.get(name),
            }
            for name in self.assistant.names
        ]
        return JSONResponse({"images": listed})

    def image(self, query: dict[str, str]) -> Response:
        """The pixels of an image as JPEG."""
        name = self._name(query)
        self.assistant.look_at(name)
        picture = Image.fromarray(self.assistant.picture(name).image)
        return Response(_jpeg(picture, quality=95), media_type="image/jpeg")

    def mask(self, query: dict[str, str]) -> Response:
        """The class indices of an image, (H, W) bytes, and their version."""
        name = self._name(query)
        mask = self.store.open(name, self.assistant.picture(name).size)
        height, width = mask.ids.shape
        undo, redo = self.store.undoable(name)
        headers = {"version": mask.version, "width": width, "height": height, "undo": undo,
                   "redo": redo}  # fmt: skip
        return _packed([self.store.indices(mask)], headers)

    def superpixels(self, query: dict[str, str]) -> Response:
        """One level of superpixels, (H, W) uint16 in the byte order of x86 and ARM."""
        name = self._name(query)
        level = query.get("level", "")
        if level not in map(str, range(LEVELS)):
            raise NotFoundError(f"level must be in 0..{LEVELS - 1}")
        regions = self.assistant.regions(name)
        if regions is None:
            return JSONResponse({"waiting": "superpixels"}, 202)
        whole = enlarged(regions[int(level)], self.assistant.picture(name).size)
        return _packed([whole.astype("<u2")], {})

    def suggestion(self, query: dict[str, str]) -> Response:
        """Class indices, then confidences, (H, W) bytes each, of the head or of a run."""
        name = self._name(query)
        source = query.get("source", "head")
        if source == "head":
            found = self.assistant.suggestion(name)
        else:
            made = self.maps.get(self._run({"run": source}), name)
            found = None if made is None else (source, made)
        if found is None:
            return JSONResponse({"waiting": "head" if source == "head" else "map"}, 202)
        key, suggestion = found
        return _packed([suggestion.labels, suggestion.confidence], {"key": key})

    def thumbnail(self, query: dict[str, str]) -> Response:
        """A small picture of an image, with the map of a run over it if one is named."""
        name = self._name(query)
        run = self._run(query) if "run" in query else None
        with self._thumbnails_lock:
            known = self._thumbnails.get((name, run))
        if known is None:
            known = self._thumbnail(name, run)
            if known is None:
                return JSONResponse({"waiting": "map"}, 202)
            with self._thumbnails_lock:
                self._thumbnails[name, run] = known
                while len(self._thumbnails) > _KEPT_THUMBNAILS:
                    self._thumbnails.popitem(last=False)
        return Response(known, media_type="image/jpeg")

    def log(self, query: dict[str, str]) -> Response:
        """The end of a run's output."""
        return JSONResponse({"text": self.trainer.log(self._run(query))})

    # What is written.

    def paint(self, body: dict[str, Any]) -> Response:
        """Save a stroke."""
        name, version, by = self._name(body), _whole(body, "version"), _by(body)
        if body.get("tool") not in TOOLS:
            raise UserError(f"tool must be one of {', '.join(TOOLS)}")
        version = self.store.paint(
            name, version, box=body.get("box"), runs=body.get("runs"), tool=body["tool"], by=by
        )
        self.assistant.painted(name)
        return JSONResponse({"version": version})

    def undo(self, body: dict[str, Any]) -> Response:
        """Take back the last stroke on an image."""
        return self._turned(body, self.store.undo)

    def redo(self, body: dict[str, Any]) -> Response:
        """Repeat the last stroke that was taken back."""
        return self._turned(body, self.store.redo)

    def mark(self, body: dict[str, Any]) -> Response:
        """Set the status of an image."""
        name, by = self._name(body), _by(body)
        status = body.get("status")
        if status == "seen":
            self.store.opened(name, by=by)
            return JSONResponse({})
        if status not in STATUSES:
            raise UserError(f"status must be one of seen, {', '.join(STATUSES)}")
        self.store.mark(name, status, by=by)
        self.assistant.marked()
        return JSONResponse({})

    def train(self, body: dict[str, Any]) -> Response:
        """Start a training."""
        method = body.get("method")
        if not isinstance(method, str):
            raise UserError("method must be text")
        return JSONResponse({"run": self.trainer.start(method, _whole(body, "steps"))})

    def stop(self, body: dict[str, Any]) -> Response:
        """Stop the training."""
        self.trainer.stop()
        return JSONResponse({})

    def _turned(self, body: dict[str, Any], turn: Callable[..., Any]) -> Response:
        name = self._name(body)
        version, patch = turn(name, _whole(body, "version"), by=_by(body))
        if patch is not None:
            self.assistant.painted(name)
        undo, redo = self.store.undoable(name)
        answer = {"version": version, "patch": patch.to_dict() if patch else None,
                  "undo": undo, "redo": redo}  # fmt: skip
        return JSONResponse(answer)

    def _thumbnail(self, name: str, run: str | None) -> bytes | None:
        picture = self.assistant.picture(name)
        drawn = Image.fromarray(picture.image)
        if run is not None:
            made = self.maps.get(run, name)
            if made is None:
                return None
            drawn = overlay(picture.image, made.labels, self.store.folder.taxonomy, legend=False)
        drawn.thumbnail((THUMBNAIL, THUMBNAIL))
        return _jpeg(drawn, quality=85)

    def _name(self, given: dict[str, Any]) -> str:
        """The name of an image: looked up, and never made a part of a path before."""
        name = given.get("image")
        if not isinstance(name, str) or name not in self.store.folder.images:
            raise NotFoundError("there is no image of this name")
        return name

    def _run(self, given: dict[str, str]) -> str:
        run = given.get("run")
        if run not in self.trainer.runs:
            raise NotFoundError("there is no run of this name")
        return str(run)


def _get(answer: Callable[[dict[str, str]], Response]) -> Callable[[Request], Response]:
    return lambda request: _answered(answer, dict(request.query_params))


def _post(answer: Callable[[dict[str, Any]], Response]) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        try:
            body = parse_object(await request.body())
        except (ValueError, RecursionError) as error:
            return JSONResponse({"error": f"the body is not a JSON object: {error}"}, 400)
        return await run_in_threadpool(_answered, answer, body)

    return endpoint


def _answered(answer: Callable[[Any], Response], given: Any) -> Response:
    """The answer, or what was wrong with the request."""
    try:
        return answer(given)
    except NotFoundError as error:
        return JSONResponse({"error": str(error)}, 404)
    except ConflictError as error:
        return JSONResponse({"error": str(error), "conflict": True}, 409)
    except UserError as error:
        return JSONResponse({"error": str(error)}, 400)
    except OSError as error:
        return JSONResponse({"error": f"not saved: {error.strerror or error}"}, 507)


def _packed(arrays: list[NDArray[Any]], headers: dict[str, Any]) -> Response:
    """Arrays one after the other; pictures would go through the browser's colour management."""
    content = gzip.compress(b"".join(array.tobytes() for array in arrays), compresslevel=1)
    named = {f"X-{key.capitalize()}": str(value) for key, value in headers.items()}
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Content-Encoding": "gzip", **named},
    )


def _jpeg(picture: Image.Image, *, quality: int) -> bytes:
    return encoded_picture(picture, ".jpg", quality=quality, subsampling=0)


def _whole(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if type(value) is not int:
        raise UserError(f"{key} must be a whole number")
    return value


def _by(body: dict[str, Any]) -> str:
    by = body.get("by")
    if not isinstance(by, str) or not re.fullmatch("[a-z0-9]{1,16}", by):
        raise UserError("by must have 1 to 16 letters a-z and digits")
    return by


def _static_files() -> dict[str, tuple[bytes, str]]:
    """The page's files: path → content and type. All are read once; no path is ever looked up."""
    page = files("s5mars.labels.loop") / "page"
    tokens = (files("s5mars.report") / "tokens.css.j2").read_text(encoding="utf-8")
    style = tokens + (page / "label.css").read_text(encoding="utf-8")
    found = {
        "/": ((page / "index.html").read_bytes(), "text/html; charset=utf-8"),
        "/label.css": (style.encode(), "text/css; charset=utf-8"),
        "/favicon.ico": (b"", "image/x-icon"),
    }
    for script in SCRIPTS:
        content = (page / script).read_bytes()
        found[f"/{script}"] = content, "text/javascript; charset=utf-8"
    return found


def _static(path: str, content: bytes, media_type: str) -> Route:
    return Route(path, lambda request: Response(content, media_type=media_type))
