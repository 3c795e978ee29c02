"""The page in a real browser: one start of chromium for all tests."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import label

from labels.loop_folder import CLASSES, open_store, scene
from s5mars.data.layouts import open_dataset
from s5mars.data.resolution import Resolution
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.features import StartModel
from s5mars.labels.loop.run_maps import RunMaps
from s5mars.labels.loop.trainer import Trainer

TOKEN = "token"
TRAINING = [
    "--model=test_resnet", "--weights=none", "--crop=32", "--batch=2", "--workers=0",
    "--accelerator=cpu", "--devices=1",
]  # fmt: skip
LARGE = (1600, 1200)
PATIENCE = 60.0


def colours(pixels: torch.Tensor) -> list[torch.Tensor]:
    """A start model that is ready at once."""
    return [torch.nn.functional.avg_pool2d(pixels.float(), 4, ceil_mode=True)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("browser") / "folder"
    (folder / "images").mkdir(parents=True)
    for number in range(10):
        Image.fromarray(scene(number, (160, 120))[0]).save(folder / "images" / f"s{number}.png")
    Image.fromarray(scene(9, LARGE)[0]).save(folder / "images/large.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def address(root: Path, browser: Any) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn", reason="the extra label is not installed")
    from s5mars.labels.loop.server import LabelServer

    store = open_store(root)
    model = StartModel("colours", "colours", colours, Resolution(), torch.device("cpu"))
    trainer, assistant = Trainer(store, TRAINING), Assistant(store, model)
    maps = RunMaps(trainer, assistant, device="cpu")
    app = LabelServer(store, assistant, trainer, maps).app(token=TOKEN, hosts={"127.0.0.1"})
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assistant.start()
    maps.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    trainer.close()
    maps.stop()
    assistant.stop()
    thread.join()


class Tab:
    """A page with one image open."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.errors: list[str] = []
        self.address = address
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}?image={name}#{TOKEN}")
        self.wait_for_image(name)

    def close(self) -> None:
        self.page.close()
        assert self.errors == []

    def until(self, what: Callable[[], object]) -> Any:
        limit = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < limit, self.page.inner_text("body")
            self.page.wait_for_timeout(40)
        return found

    def wait_for_image(self, name: str) -> None:
        self.until(lambda: self.page.title().startswith(f"{name} "))
        self.saved()

    def saved(self) -> None:
        self.until(lambda: self.text("#saved") == "saved")

    def text(self, where: str) -> str:
        return str(self.page.inner_text(where))

    def state(self) -> Any:
        name = self.page.title().split(" ")[0]
        return self.page.evaluate(
            "([name, token]) => fetch(`api/state?image=${name}`, {headers: {Authorization: "
            "`Bearer ${token}`}}).then((r) => r.json())",
            [name, TOKEN],
        )

    def suggestion(self, name: str) -> tuple[str, np.ndarray]:
        """The newest suggestion for an image of 160×120: its key and (120, 160) class indices."""
        answer = self.page.context.request.get(
            f"{self.address}api/suggestion?image={name}",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        if answer.status != 200:  # not made yet
            return "", np.full((120, 160), 255, np.uint8)
        labels, _ = np.frombuffer(answer.body(), np.uint8).reshape(2, 120, 160)
        return answer.headers["x-key"], labels

    def place(self, x: float, y: float, size: tuple[int, int] = (160, 120)) -> tuple[float, float]:
        """A place of the image (pixels) in the window, while the image fits the canvas."""
        box = self.page.locator("#canvas").bounding_box()
        scale = min((box["width"] - 24) / size[0], (box["height"] - 24) / size[1])
        left = box["x"] + (box["width"] - size[0] * scale) / 2
        top = box["y"] + (box["height"] - size[1] * scale) / 2
        return left + x * scale, top + y * scale

    def drag(self, *places: tuple[float, float], steps: int = 8, **given: Any) -> None:
        mouse = self.page.mouse
        mouse.move(*self.place(*places[0], **given))
        mouse.down()
        for place in places[1:]:
            mouse.move(*self.place(*place, **given), steps=steps)
        mouse.up()
        self.saved()

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.place(x, y))
        self.saved()

    def set(self, where: str, value: float) -> None:
        self.page.evaluate(
            "([where, value]) => {const input = document.querySelector(where); input.value = value;"
            "input.dispatchEvent(new Event('input'))}",
            [where, value],
        )


@pytest.fixture
def open_tab(browser: Any, address: str) -> Iterator[Callable[[str], Tab]]:
    tabs: list[Tab] = []

    def opened(name: str) -> Tab:
        tabs.append(Tab(browser, address, name))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()


def mask(root: Path, name: str) -> np.ndarray:
    with Image.open(root / "masks" / f"{name}.png") as file:
        return np.array(file)


def test_paint_erase_undo_and_reload(open_tab: Callable[[str], Tab], root: Path) -> None:
    tab = open_tab("s0")
    tab.page.keyboard.press("2")
    tab.set("#size", 10)
    tab.drag((40, 90), (120, 90))
    first = mask(root, "s0")
    assert (first[90, 40:120] == 1).all() and (first[85:95, 80] == 1).all()
    assert (first[:84] == 255).all() and (first[96:] == 255).all()
    tab.page.keyboard.press("3")
    tab.drag((80, 80), (80, 100))
    assert mask(root, "s0")[90, 80] == 2  # one class a pixel
    tab.page.keyboard.press("e")
    tab.drag((40, 90), (60, 90))
    assert mask(root, "s0")[90, 50] == 255
    tab.page.keyboard.press("Control+z")
    tab.page.keyboard.press("Control+z")
    tab.until(lambda: (mask(root, "s0") == first).all())
    tab.page.keyboard.press("Control+Shift+z")
    tab.until(lambda: mask(root, "s0")[90, 80] == 2)
    tab.page.reload()
    tab.wait_for_image("s0")
    tab.page.click("#undo")
    tab.until(lambda: (mask(root, "s0") == first).all())
    tab.page.click("#undo")
    tab.until(lambda: not (root / "masks/s0.png").exists())
    tab.until(lambda: tab.page.is_disabled("#undo"))


def test_the_text_of_a_disabled_button_is_visible(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("s9")
    for button in ("#undo", "#start"):
        colour, paper = tab.page.evaluate(
            """(which) => {
                const button = document.querySelector(which);
                button.disabled = true;
                return [button, document.body].map((each, i) =>
                    getComputedStyle(each)[i ? "backgroundColor" : "color"]);
            }""",
            button,
        )
        assert colour != paper, button


def test_polygon_and_keyboard(open_tab: Callable[[str], Tab], root: Path) -> None:
    tab = open_tab("s1")
    tab.page.keyboard.press("p")
    for place in ((20, 8), (80, 8), (80, 36), (20, 36)):  # in the sky, as the head learns it
        tab.page.mouse.click(*tab.place(*place))
        tab.page.wait_for_timeout(20)
    assert not (root / "masks/s1.png").exists()
    tab.page.click("#zoom-fit")  # the button has the keyboard now, and Enter still closes
    tab.page.locator("#canvas").focus()
    tab.page.keyboard.press("Shift+Enter")
    tab.until(lambda: (root / "masks/s1.png").exists())
    tab.saved()
    painted = mask(root, "s1") == 0
    assert abs(int(painted.sum()) - 60 * 28) < 120
    assert painted[20, 50] and not painted[4, 50]
    tab.page.keyboard.press("b")
    tab.page.keyboard.press("2")
    tab.page.locator("#canvas").focus()
    for _ in range(3):
        tab.page.keyboard.press("Shift+ArrowDown")
    tab.page.keyboard.press("Enter")
    tab.until(lambda: (mask(root, "s1") == 1).any())


def test_a_key_during_a_stroke_loses_nothing_of_it(
    open_tab: Callable[[str], Tab], root: Path
) -> None:
    tab = open_tab("s9")
    tab.page.locator("#canvas").focus()
    tab.page.mouse.move(*tab.place(20, 30))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(120, 30), steps=8)
    tab.page.keyboard.press("Enter")  # begins strokes, too
    tab.page.mouse.up()
    tab.until(lambda: (root / "masks/s9.png").exists())
    tab.saved()
    assert (mask(root, "s9")[30, 22:118] == 0).all()


def _filled(tab: Tab, root: Path, place: tuple[int, int], value: int) -> bool:
    tab.click(*place)  # again, until the superpixels are there
    return (root / "masks/s2.png").exists() and mask(root, "s2")[place[::-1]] == value


def test_superpixels_and_suggestions(open_tab: Callable[[str], Tab], root: Path) -> None:
    _, truth = scene(2, (160, 120))
    tab = open_tab("s2")
    shown: list[str] = []
    tab.page.on("response", lambda answer: shown.append(answer.headers.get("x-key", "")))
    tab.until(lambda: tab.state()["current"]["superpixels"])
    tab.page.keyboard.press("s")
    with tab.page.expect_response(lambda answer: "superpixels?image=s2&level=0" in answer.url):
        tab.set("#level", 0)
    for value, place in ((0, (80, 10)), (1, (80, 110))):
        tab.page.keyboard.press(str(value + 1))
        tab.until(lambda place=place, value=value: _filled(tab, root, place, value))
    painted = mask(root, "s2")
    labelled = painted != 255
    assert labelled.mean() > 0.05
    assert (painted == truth)[labelled].mean() > 0.95
    # The head learns in a moment, and its suggestion becomes a label where it is accepted.
    tab.page.keyboard.press("a")
    tab.set("#confident", 60)
    ground = (painted == 255) & (truth != 2)

    def learned() -> bool:
        key, suggestion = tab.suggestion("s2")
        return key in shown and bool((suggestion == truth)[ground].mean() > 0.9)

    tab.until(learned)
    tab.page.wait_for_timeout(300)
    # The page keeps this suggestion, however soon the head learns from the next stroke.
    tab.page.route("**/api/suggestion*", lambda route: route.abort())
    tab.page.keyboard.press("b")
    tab.page.keyboard.press("3")
    tab.drag((30, 8), (60, 8), steps=2)  # against the suggestion
    painted = mask(root, "s2")
    labelled = painted != 255
    assert (painted == 2).sum() > 100
    tab.page.keyboard.press("c")
    tab.until(lambda: (mask(root, "s2") != 255).sum() > labelled.sum() + 500)
    tab.saved()
    accepted = mask(root, "s2")
    assert (accepted[labelled] == painted[labelled]).all()  # what a person painted stays
    assert (accepted == truth)[ground & (accepted != 255) & (painted != 2)].mean() > 0.8


def test_two_tabs_do_not_overwrite_each_other(open_tab: Callable[[str], Tab], root: Path) -> None:
    one, two = open_tab("s3"), open_tab("s3")
    # Without polls the second tab cannot know.
    two.page.route("**/api/state*", lambda route: route.abort())
    one.drag((20, 20), (60, 20))
    painted = mask(root, "s3")
    two.page.keyboard.press("2")
    two.page.mouse.click(*two.place(100, 100))
    two.until(lambda: "another tab" in two.text("#notice"))
    assert (mask(root, "s3") == painted).all()
    two.page.unroute("**/api/state*")
    two.page.click("#notice button")

    def paint_again() -> bool:  # a click before the image is read again changes nothing
        two.page.mouse.click(*two.place(100, 100))
        return bool(mask(root, "s3")[100, 100] == 1)

    two.until(paint_again)
    assert mask(root, "s3")[20, 40] == 0
    one.until(lambda: "another tab or by another person" in one.text("#notice"))


def test_a_server_that_answers_again_is_told(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("s5")
    tab.page.route("**/api/state*", lambda route: route.abort())
    tab.until(lambda: "no answer" in tab.text("#saved"))
    tab.page.unroute("**/api/state*")
    tab.saved()


def test_no_stroke_or_undo_reaches_the_image_that_is_being_opened(
    open_tab: Callable[[str], Tab], root: Path
) -> None:
    tab = open_tab("s6")
    held: list[Any] = []
    tab.page.route(re.compile(r"/api/image\?"), lambda route: held.append(route))
    tab.drag((20, 20), (60, 20))
    painted = mask(root, "s6")
    tab.until(lambda: tab.page.locator("#queue button").count())
    tab.page.keyboard.press("n")
    tab.until(lambda: held)
    tab.page.keyboard.press("Control+z")
    tab.page.wait_for_timeout(500)  # for its answer
    tab.page.mouse.move(*tab.place(30, 90))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(60, 90))
    tab.page.locator("#canvas").focus()
    tab.page.keyboard.press("Enter")
    held[0].continue_()
    tab.until(lambda: not tab.page.title().startswith("s6 "))
    name = tab.page.title().split(" ")[0]
    size = LARGE if name == "large" else (160, 120)
    tab.page.mouse.move(*tab.place(90, 90))
    tab.page.mouse.up()
    tab.saved()
    assert (mask(root, "s6") == painted).all()
    assert not (root / "masks" / f"{name}.png").exists()
    assert tab.state()["current"]["version"] == 0
    tab.drag((20, 20), (60, 20), size=size)
    assert tab.page.is_hidden("#notice")
    assert mask(root, name)[20, 40] == 0


def test_a_stroke_on_a_refused_version_is_dropped(
    open_tab: Callable[[str], Tab], root: Path
) -> None:
    one, two = open_tab("s6"), open_tab("s6")
    two.page.route("**/api/state*", lambda route: route.abort())
    held: list[Any] = []
    two.page.route("**/api/paint", lambda route: held.append(route))
    two.page.mouse.click(*two.place(100, 100))
    two.until(lambda: held)
    two.page.mouse.move(*two.place(30, 60))
    two.page.mouse.down()
    one.drag((20, 40), (60, 40))
    painted = mask(root, "s6")
    two.page.unroute("**/api/paint")
    held[0].continue_()
    two.until(lambda: "another tab" in two.text("#notice"))
    two.page.mouse.up()
    two.page.wait_for_timeout(500)
    assert (mask(root, "s6") == painted).all()

    def paint_again() -> bool:  # a click before the image is read again changes nothing
        two.page.mouse.click(*two.place(100, 100))
        return bool(mask(root, "s6")[100, 100] == 0)

    two.until(paint_again)


def test_an_error_of_the_server_does_not_lock_the_page(
    open_tab: Callable[[str], Tab], root: Path
) -> None:
    tab = open_tab("s7")
    tab.page.route("**/api/paint", lambda route: route.fulfill(status=500, body="no JSON"))
    tab.page.mouse.click(*tab.place(20, 20))
    tab.until(lambda: "Not saved: the server answered 500" in tab.text("#notice"))
    tab.saved()
    tab.page.unroute("**/api/paint")

    def painted() -> bool:  # a click before the image is read again changes nothing
        tab.page.mouse.click(*tab.place(60, 60))
        return (root / "masks/s7.png").exists()

    tab.until(painted)
    assert mask(root, "s7")[60, 60] == 0 and mask(root, "s7")[20, 20] == 255


def stroke_times(tab: Tab) -> list[float]:
    """Milliseconds until each part of a stroke was drawn, since the last call."""
    times: list[float] = tab.page.evaluate(
        "() => {const found = performance.getEntriesByName('stroke').map((e) => e.duration);"
        "performance.clearMeasures('stroke'); return found}"
    )
    return times


@pytest.mark.slow  # a limit in milliseconds that a slow or busy machine misses
def test_strokes_answer_within_50_ms_on_a_large_image(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("large")
    tab.set("#size", 40)
    tab.drag((200, 300), (1400, 500), (300, 900), steps=40, size=LARGE)
    times = stroke_times(tab)
    assert len(times) > 40
    assert np.percentile(times, 95) < 50, sorted(times)
    tab.page.keyboard.press("2")
    tab.drag((200, 100), (1400, 100), steps=2, size=LARGE)
    tab.until(lambda: tab.state()["current"]["suggestion"])
    tab.until(lambda: tab.state()["current"]["superpixels"])
    # A region of about a million pixels. A single click waits for other programs of the machine, so
    # this is processor time, and the quickest of three: the engine compiles at the first.
    tab.page.keyboard.press("a")
    tab.page.select_option("#accept-what", "region")
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_ms() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(1000 * m["value"] for m in metrics if m["name"] == "TaskDuration")

    tab.page.wait_for_timeout(1500)  # the suggestion of both strokes
    strokes, pixels = tab.state()["current"]["undo"], sum(tab.state()["pixels"])
    spent = []
    for _ in range(3):
        tab.page.mouse.move(*tab.place(200, 1150, LARGE))
        start = busy_ms()
        tab.page.mouse.down()
        tab.page.mouse.up()
        spent.append(busy_ms() - start)
        tab.until(lambda: tab.state()["current"]["undo"] == strokes + 1)
        assert sum(tab.state()["pixels"]) - pixels > 800_000
        tab.saved()
        tab.page.keyboard.press("Control+z")
        tab.until(lambda: tab.state()["current"]["undo"] == strokes)
        tab.saved()
    assert min(spent) < 50, spent
    # Superpixels of most of the image.
    tab.page.keyboard.press("s")
    with tab.page.expect_response(lambda answer: "superpixels?image=large&level=0" in answer.url):
        tab.set("#level", 0)
    tab.page.wait_for_timeout(300)
    stroke_times(tab)
    tab.drag((800, 200), (800, 1000), steps=40, size=LARGE)
    times = stroke_times(tab)
    assert np.percentile(times, 90) < 50, sorted(times)


PIXELS = """async ([width, height, mask, suggestion, confidence, start, least]) => {
  const pixels = await import("/pixels.js");
  const [before, values] = [Uint8Array.from(mask), Uint8Array.from(suggestion)];
  const given = {suggestion: values, confidence: Uint8Array.from(confidence)};
  const painted = (runs, paint) => {
    const now = before.slice();
    const stroke = new pixels.Stroke(now, width, height);
    paint(stroke, runs);
    const patch = stroke.patch();
    const again = before.slice();
    if (patch) pixels.applyPatch(again, width, patch);
    return {now: [...now], again: [...again]};
  };
  const region = pixels.connected(values, width, start, new Uint8Array(values.length));
  const same = Array.from(values.keys()).filter((at) => values[at] === values[start]);
  return {
    region: painted(region, (stroke, runs) => pixels.paintRuns(stroke, runs, 7)),
    same: painted(pixels.runsOf(same, width), (stroke, runs) => pixels.paintRuns(stroke, runs, 7)),
    accepted: painted([], (stroke) => {
      const rows = Array.from({length: height}, (_, y) => [y * width, (y + 1) * width]).flat();
      pixels.acceptRuns(stroke, rows, given, least);
    }),
  };
}"""


def test_regions_and_suggestions_are_painted_to_the_pixel(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("s5")
    random = np.random.default_rng(0)
    width, height = 13, 9
    for _ in range(20):
        before = random.choice([0, 1, 255, 255, 255], (height, width))
        suggestion = random.choice([0, 1, 1, 255], (height, width))
        confidence = random.integers(0, 256, (height, width))
        y, x, least = int(random.integers(height)), int(random.integers(width)), 99.5
        arrays = (before, suggestion, confidence)
        given = [width, height, *(a.ravel().tolist() for a in arrays), y * width + x, least]
        found = tab.page.evaluate(PIXELS, given)
        same = suggestion == suggestion[y, x]
        parts, _ = label(same)
        sure = (before == 255) & (suggestion != 255) & (confidence >= least)
        expected = {
            "region": np.where(parts == parts[y, x], 7, before),
            "same": np.where(same, 7, before),
            "accepted": np.where(sure, suggestion, before),
        }
        for name, pixels in expected.items():
            assert found[name] == {"now": pixels.ravel().tolist(), "again": pixels.ravel().tolist()}


def test_next_done_train_and_maps(open_tab: Callable[[str], Tab], root: Path) -> None:
    tab = open_tab("s4")
    seen = []
    for _ in range(3):
        name = tab.page.title().split(" ")[0]
        seen.append(name)
        size = LARGE if name == "large" else (160, 120)
        for key, y in (("1", 0.12), ("2", 0.9)):
            tab.page.keyboard.press(key)
            tab.drag((size[0] * 0.2, size[1] * y), (size[0] * 0.8, size[1] * y), size=size)
        tab.until(lambda: tab.page.locator("#queue button").count())
        tab.page.keyboard.press("d")
        tab.until(lambda name=name: not tab.page.title().startswith(f"{name} "))
        tab.saved()
    assert len(set(seen)) == 3
    tab.until(lambda: tab.state()["done"] == 3 and tab.state()["held_back"] >= 1)
    data = open_dataset(root)
    assert data.taxonomy.names == CLASSES.names and data.split("train") and data.split("val")
    tab.until(lambda: tab.state()["scores"])
    tab.until(lambda: re.search(r"[\d.]+ %\nmIoU", tab.text("#numbers")))
    assert "held-back image" in tab.text("#chart-caption")

    tab.page.select_option("#method", "supervised")
    tab.page.fill("#steps", "2")
    tab.page.click("#start")
    tab.until(lambda: "Run 1" in tab.text("#training-state"))
    tab.until(lambda: "on the held-back" in tab.text("#training-state"))
    tab.until(lambda: tab.page.input_value("#source") == "1")
    tab.until(lambda: tab.page.locator("#maps img[src]").count() > 0)
    tab.page.click("#log-box summary")
    tab.until(lambda: "mIoU" in tab.text("#log"))
    training = tab.state()["training"]
    assert (training["step"], training["steps"]) == (2, 2)  # what the bar shows while it runs
    assert (root / "labelling/runs/1/best.safetensors").is_file()
    lines = (root / "labelling/history.jsonl").read_text().splitlines()
    assert {json.loads(line)["do"] for line in lines} >= {"paint", "open", "status", "score"}


def test_a_wrong_token_says_what_to_do(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}#wrong")
    page.wait_for_selector("#notice:not([hidden])")
    assert "open the address that s5mars label printed" in page.inner_text("#notice")
    page.close()


def test_every_control_has_a_name(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("s5")
    nameless = tab.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, progress")]
          .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.title
            || e.querySelector("img[alt]")))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    reached = set()
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {
        "class",
        "tool",
        "size",
        "opacity",
        "overlay",
        "source",
        "canvas",
        "done",
        "skip",
    } <= reached
