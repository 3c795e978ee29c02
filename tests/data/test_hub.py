"""Public data sets, against a stand-in of the hub's files: a folder, and a server on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from s5mars.cli import main
from s5mars.data.hub import SOURCES, fetch
from s5mars.data.hub.convert import convert
from s5mars.data.layouts import open_dataset
from s5mars.data.read import open_hidden, read_image, read_label

CARD = "---\nlicense: cc0-1.0\npretty_name: stand-in\n---\n# Stand-in\n"
SIDE = 8


def picture(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def image_of(number: int) -> bytes:
    return picture(np.full((SIDE, SIDE, 3), number * 9 % 250, np.uint8), "JPEG")


def mask_of(number: int, top: int) -> bytes:
    return picture(np.full((SIDE, SIDE), number % top, np.uint8), "PNG")


def write_shards(root: Path, split: str, rows: list[dict[str, object]], *, count: int) -> None:
    size = -(-len(rows) // count)
    for number in range(count):
        path = root / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = rows[number * size : (number + 1) * size]
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=2)


def struct(content: bytes | None, path: str | None) -> dict[str, object] | None:
    return None if content is None else {"bytes": content, "path": path}


def s5mars_copy(root: Path, *, named: bool = True) -> Path:
    number = 0
    for split, count in (("train", 7), ("val", 2), ("test", 3)):
        rows = []
        for _ in range(count):
            name = f"{number:04d}MR0000000000000000E01_DXXX" if named else None
            rows.append(
                {
                    "image": struct(image_of(number), name and f"{name}.jpg"),
                    "mask": struct(mask_of(number, 10), name and f"{name}.png"),
                }
            )
            number += 1
        write_shards(root, split, rows, count=3 if split == "train" else 1)
    (root / "README.md").write_text(CARD)
    return root


def ai4mars_name(number: int) -> str:
    return f"NLA_3976{number:05d}EDR_F{number * 10:07d}NCAM00419M1"


def ai4mars_copy(root: Path) -> Path:
    def row(number: int, *, labels: bool, masks: bool) -> dict[str, object]:
        name = ai4mars_name(number)
        hidden = picture(np.eye(SIDE, dtype=np.uint8), "PNG") if masks else None
        return {
            "image": struct(image_of(number), f"{name}.JPG"),
            "label_mask": struct(mask_of(number, 4) if labels else None, f"{name}.png"),
            "rover_mask": struct(hidden, f"{name.replace('EDR', 'MXY')}.png"),
            "range_mask": struct(hidden, f"{name.replace('EDR', 'RNG')}.png"),
            "has_masks": masks,
            "has_labels": labels,
        }

    train = [row(n, labels=n != 5, masks=n != 1) for n in range(12)]
    write_shards(root, "train", train, count=2)
    for gold in (1, 2, 3):
        rows = [row(n, labels=True, masks=True) for n in (50, 51)]
        write_shards(root, f"test_min{gold}", rows, count=1)
    (root / "README.md").write_text(CARD)
    return root


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "fetched.json"
    }


def test_s5mars_becomes_a_folder_that_data_reads(tmp_path: Path, capsys):
    copy, out = s5mars_copy(tmp_path / "copy"), tmp_path / "out"
    assert main(["fetch", "s5mars", "--from", str(copy), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "licence cc0-1.0" in said and "5 files, 0.00 GB" in said
    assert SOURCES["s5mars"].published in said
    dataset = open_dataset(out)
    assert dataset.layout == "mars-bench"
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {
        "train": 7, "val": 2, "test": 3,
    }  # fmt: skip
    sample = dataset.split("val")[0]  # the eighth row of all
    assert sample.name == "0007MR0000000000000000E01_DXXX"
    assert (read_image(sample.image) == 63).all()
    assert (read_label(sample, dataset.coding) == 6).all()  # id 7 is the class of index 6
    facts = json.loads((out / "fetched.json").read_text())
    assert facts["complete"] and facts["files"] == {"image": 12, "mask": 12}
    assert not (out / ".shards").exists()
    assert main(["fetch", "s5mars", "--from", str(copy), "--out", str(out)]) == 0
    assert "complete; next: s5mars stats" in capsys.readouterr().out


def test_ai4mars_becomes_a_folder_that_data_reads(tmp_path: Path):
    out = fetch("ai4mars", out=tmp_path / "out", local=ai4mars_copy(tmp_path / "copy"))
    dataset = open_dataset(out)
    assert dataset.layout == "ai4mars"
    assert sum(len(dataset.splits.get(split, ())) for split in ("train", "val")) == 11
    assert [sample.name for sample in dataset.unlabelled] == [ai4mars_name(5)]
    for gold in ("test_min1", "test_min2", "test_min3", "test"):
        assert [s.name for s in dataset.split(gold)] == [ai4mars_name(50), ai4mars_name(51)]
    hidden = np.asarray(open_hidden(dataset.split("test")[0], size=(SIDE, SIDE)))
    assert (hidden == 255 * np.eye(SIDE)).all()
    assert dataset.sample(ai4mars_name(1)).hide == ()


def test_without_names_rows_are_numbered_and_that_is_said(tmp_path: Path, capsys):
    out = fetch("s5mars", out=tmp_path / "out", local=s5mars_copy(tmp_path / "c", named=False))
    assert "have no names of their own and are numbered" in capsys.readouterr().out
    names = [sample.name for sample in open_dataset(out).split("train")]
    assert names == [f"train-{i:06d}" for i in range(7)]


def test_equal_names_of_two_splits_are_replaced_by_numbers(tmp_path: Path, capsys):
    copy = tmp_path / "copy"
    for split in ("train", "val", "test"):
        rows = [
            {"image": struct(image_of(i), f"{i}.jpg"), "mask": struct(mask_of(i, 9), f"{i}.png")}
            for i in range(2)
        ]
        write_shards(copy, split, rows, count=1)
    (copy / "README.md").write_text(CARD)
    dataset = open_dataset(fetch("s5mars", out=tmp_path / "out", local=copy))
    assert [sample.name for sample in dataset.split("train")] == ["0", "1"]
    assert [sample.name for sample in dataset.split("val")] == ["val-000000", "val-000001"]
    assert "the images of val, test have no names of their own" in capsys.readouterr().out


def test_frames_of_several_gold_sets_are_counted_once(tmp_path: Path):
    out = fetch("ai4mars", out=tmp_path / "out", local=ai4mars_copy(tmp_path / "copy"))
    written = json.loads((out / "fetched.json").read_text())["files"]
    assert written["image"] == len(list((out / "images" / "edr").iterdir()))
    assert written["rover_mask"] == len(list((out / "images" / "mxy").iterdir()))


def test_a_dry_run_shows_and_stops(tmp_path: Path, capsys):
    copy = s5mars_copy(tmp_path / "copy")
    command = ["fetch", "s5mars", "--from", str(copy), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(command) == 0
    assert "licence cc0-1.0" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_stopped_conversion_goes_on_with_the_next_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy, out = s5mars_copy(tmp_path / "copy"), tmp_path / "out"
    whole = files_of(fetch("s5mars", out=tmp_path / "whole", local=copy))
    begun: list[str] = []

    def stopping(shard: Path, *arguments: object, **more: object) -> object:
        begun.append(shard.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return convert(shard, *arguments, **more)

    monkeypatch.setattr("s5mars.data.hub.fetching.convert", stopping)
    with pytest.raises(KeyboardInterrupt):
        fetch("s5mars", out=out, local=copy)
    assert not json.loads((out / "fetched.json").read_text())["complete"]
    fetch("s5mars", out=out, local=copy)
    assert begun.count("train-00000-of-00003.parquet") == 1
    assert files_of(out) == whole


def test_what_is_wrong_is_said(tmp_path: Path, capsys):
    copy = s5mars_copy(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"one of s5mars, ai4mars \(got 's5mrs'\); did you mean"):
        fetch("s5mrs", out=tmp_path / "out", local=copy)
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder"):
        fetch("s5mars", out=tmp_path / "out", local=tmp_path / "gone")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(
        ValueError, match="not empty and not from an earlier fetch: choose another --out"
    ):
        fetch("s5mars", out=tmp_path / "mine", local=copy)
    done = fetch("s5mars", out=tmp_path / "done", local=copy)
    with pytest.raises(ValueError, match="contains 's5mars', not 'ai4mars'"):
        fetch("ai4mars", out=done, local=copy)
    shard = copy / "data" / "train-00001-of-00003.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"00001-of-00003\.parquet: damaged"):
        fetch("s5mars", out=tmp_path / "a", local=copy)
    shard.unlink()
    with pytest.raises(ValueError, match=r"2 of 3 shards of 'train'.*download the missing"):
        fetch("s5mars", out=tmp_path / "b", local=copy)


def test_a_mask_as_jpeg_is_refused(tmp_path: Path):
    copy = s5mars_copy(tmp_path / "copy")
    rows = [{"image": struct(image_of(0), "a.jpg"), "mask": struct(image_of(1), "a.jpg")}]
    write_shards(copy, "test", rows, count=1)
    with pytest.raises(
        ValueError, match=r"'mask' of 'a' is JPEG, which changes ids: use another copy"
    ):
        fetch("s5mars", out=tmp_path / "out", local=copy)


# the hub's protocol, on loopback ---------------------------------------------------------------


class Hub:
    """As much of the hub as its client asks for; it can break a download off once."""

    def __init__(self, root: Path, repo: str) -> None:
        self.files = files_of(root)
        self.repo = repo
        self.break_off: dict[str, int] = {}  # file → how often only half of the rest is sent
        self.ranges: list[str] = []
        self.sent: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        if path.startswith(f"/api/datasets/{self.repo}"):
            self.send(
                request, json.dumps(self.info()).encode(), {"Content-Type": "application/json"}
            )
            return
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in self.files:
            request.send_error(404)
            return
        content = self.files[name]
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": "c" * 40,
            "Accept-Ranges": "bytes",
        }  # fmt: skip
        if not body:
            self.send(request, content, headers, body=False)
            return
        asked = request.headers.get("Range")
        start = 0
        if asked:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.ranges.append(f"{name} from {start}")
        self.sent.append(name)
        half = self.break_off.get(name, 0) > 0
        if half:
            self.break_off[name] -= 1
        self.send(request, content[start:], headers, status=206 if asked else 200, half=half)

    def send(
        self, request: BaseHTTPRequestHandler, content: bytes, headers: dict[str, str], *,
        status: int = 200, body: bool = True, half: bool = False,
    ) -> None:  # fmt: skip
        request.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(content[: len(content) // 2] if half else content)
            request.close_connection = half

    def info(self) -> dict[str, object]:
        return {
            "id": self.repo, "sha": "c" * 40, "private": False, "downloads": 0, "likes": 0,
            "tags": [], "cardData": {"license": "cc0-1.0"},
            "siblings": [{"rfilename": n, "size": len(c)} for n, c in self.files.items()],
        }  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    hub = Hub(s5mars_copy(tmp_path / "copy"), SOURCES["s5mars"].repo)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def test_a_fetch_from_the_hub(hub: Hub, tmp_path: Path, capsys):
    whole = files_of(fetch("s5mars", out=tmp_path / "whole", local=tmp_path / "copy"))
    capsys.readouterr()
    out = fetch("s5mars", out=tmp_path / "out", endpoint=hub.url)
    said = capsys.readouterr().out
    assert f"datasets/{SOURCES['s5mars'].repo} (revision cccccccccccc): 5 files" in said
    assert "licence cc0-1.0" in said
    assert files_of(out) == whole
    assert json.loads((out / "fetched.json").read_text())["revision"] == "c" * 40


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes small chunks at once, and does not pause before it tries again."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 512)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_breaks_goes_on_within_the_file(hub: Hub, tmp_path: Path):
    whole = files_of(fetch("s5mars", out=tmp_path / "whole", local=tmp_path / "copy"))
    hub.break_off = {"data/train-00001-of-00003.parquet": 2}
    fetch("s5mars", out=tmp_path / "out", endpoint=hub.url)
    assert files_of(tmp_path / "out") == whole
    assert len(hub.ranges) == 2
    assert all("00001-of-00003" in asked and not asked.endswith(" 0") for asked in hub.ranges)


@pytest.mark.usefixtures("impatient")
def test_a_download_that_was_given_up_goes_on_with_its_shard(hub: Hub, tmp_path: Path):
    whole = files_of(fetch("s5mars", out=tmp_path / "whole", local=tmp_path / "copy"))
    hub.break_off = {"data/train-00001-of-00003.parquet": 1000}
    with pytest.raises(ConnectionError, match=r"cannot be reached.*--from.*published at"):
        fetch("s5mars", out=tmp_path / "out", endpoint=hub.url)
    hub.break_off = {}
    fetch("s5mars", out=tmp_path / "out", endpoint=hub.url)
    assert files_of(tmp_path / "out") == whole
    assert hub.sent.count("data/train-00000-of-00003.parquet") == 1


def test_no_hub_is_one_line(tmp_path: Path):
    with pytest.raises(ConnectionError) as caught:
        fetch("ai4mars", out=tmp_path / "out", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
    assert "published at https://doi.org/10.5281/zenodo.15995036" in str(caught.value)
    assert not (tmp_path / "out").exists()
