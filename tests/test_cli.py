"""The command line: quick help, one line for a mistake, and commands that do what they say."""

from __future__ import annotations

import errno
import importlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from s5mars import __version__
from s5mars.__main__ import start
from s5mars.cli import COMMANDS, USER_ERROR, exit_code, main
from s5mars.errors import UserError
from s5mars.files import numbered

ALL = [*COMMANDS, "train"]
HEAVY = {
    "torch", "torchvision", "timm", "lightning_fabric", "numpy", "PIL", "scipy", "skimage",
    "matplotlib", "pyarrow", "pycocotools", "safetensors", "jinja2",
}  # fmt: skip

LIST_MODULES = """
import sys
from s5mars.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("MODULES", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *arguments], capture_output=True, text=True, check=True
    )
    shown, _, modules = done.stdout.partition("MODULES")
    assert "s5mars" in shown
    assert not HEAVY & set(modules.split())


def test_a_folder_that_is_no_data_set_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    for name in ("empty", "other/a", "lone/images", "lone/masks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lone/masks/x.png").touch()
    (tmp_path / "lone/images/y.png").touch()
    (tmp_path / "lone/dataset.yaml").write_text("classes: [{name: soil}]")
    refused = {
        "train empty": "the folder is empty",
        "train --method supervised --data other": "other has no known layout; found a/",
        "train lone": "x.png has no image in",
        "stats nowhere --out o": "nowhere: no such folder",
        "evaluate navcam --data other": "no known layout",
        "calibrate runs/a --data other": "no known layout",
        "report runs/a --data other": "no known layout",
        "show other --out x.png": "no known layout",
        "split other --labelled 0.5 --out o": "no known layout",
        "compare --methods all --data lone --steps 1 --out o": "x.png has no image in",
    }
    code = f"""
import sys
from s5mars.cli import main
for command in {list(refused)}:
    assert main(command.split()) == 2, command
heavy = {{"torch", "scipy", "matplotlib"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stderr.splitlines(), refused.values(), strict=True):
        assert said in line
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "other", "lone"}


def test_listing_models_and_importing_labels_do_not_wait_for_torch(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("L", (40, 30), 90).save(tmp_path / "photos" / "a.png")
    export = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "rock"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 30, 2, 30, 20]]}
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(export))
    code = """
import sys
from s5mars.cli import main
for command in ("models", "models navcam", "import coco.json --images photos --out data"):
    assert main(command.split()) == 0, command
heavy = {"torch", "scipy", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "import.html").is_file()


@pytest.mark.parametrize(
    ("name", "near"),
    [("imprt", "import"), ("lable", "label"), ("eval", "evaluate"), ("import-labels", "import"),
     ("segment", None), ("x", None)],
)  # fmt: skip
def test_an_unknown_command_is_near_to_what_was_meant_or_to_none(
    name: str, near: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    hint = f"; nearest: {near}" if near else ""
    assert f"unknown command {name!r}{hint}; all: demo, " in capsys.readouterr().err


@pytest.mark.parametrize("command", ALL)
def test_every_command_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as ended:
        assert not ended.code
    shown = capsys.readouterr().out
    assert re.search("^examples?:$", shown, re.MULTILINE)
    assert shown.count(f"s5mars {command} ") >= 2


def test_overview_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ALL:
        assert f"s5mars {command} " in shown
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"s5mars {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; nearest: train; all: demo, demo-data"),
        (["synth"], "required: out; see s5mars synth --help"),
        (["synth", "x", "--image", "5"], "unknown option --image; did you mean '--images'"),
        (["synth", "x", "--images", "five"], "--images: invalid int value: 'five'"),
        (["evaluate", "r", "--data", "d", "--protocol", "half"], "choose from 'full', 'paper'"),
        (["predict", "r", "i", "--out", "o", "--overlapp", "1"], "did you mean '--overlap'"),
        (["stats", "nowhere", "--out", "o"], "nowhere"),
        (["train", "--stepz", "5"], "unknown option --stepz; did you mean '--steps'"),
        (["train", "--resume"], "use --resume RUN, and --data DATA if the data was moved"),
        (["train", "--resume="], "use --resume RUN, and --data DATA if the data was moved"),
        (["train", "--resume=a", "--skip-bad=true"], "argument --skip-bad: ignored explicit"),
        (["train", "--resume=a", "--seed=1"], "--resume accepts only the run folder, --data"),
        (["train", "--resume", "a", "--steps", "5"], "a resumed run keeps its settings"),
        (["train", "--steps", "5", "--resume=a"], "a resumed run keeps its settings"),
        (["train", "--resume", "no where"], "no where is not a training run"),
        (["report", "a", "b"], "a report of several runs needs --out"),
        (["evaluate", ""], "argument run: the path is empty: give one, or . for the current"),
        (["find", "", "soil > 0"], "argument maps: the path is empty"),
        (["predict", "i", "--out", ""], "argument --out: the path is empty"),
        (["predict", "r", "", "--out", "o"], "s5mars: the path is empty"),
        (["predict", "", "i", "--out", "o"], "s5mars: the path is empty"),
        (["train", ""], "s5mars: the path is empty"),
        (["train", "--data="], "s5mars: the path is empty"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == USER_ERROR == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("s5mars: ") and shown.err.count("\n") == 1
    assert message in shown.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["train"], ["compare", "--out=x", "--methods=supervised"]])
@pytest.mark.parametrize("data", ["[a]", "3"])
def test_data_of_another_type_in_a_settings_file_is_one_line(
    command: list[str], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"data: {data}\n")
    assert main([*command, f"--config={file}", "--steps=2"]) == USER_ERROR
    assert ": expected the path of a folder" in capsys.readouterr().err


def test_ctrl_c_during_the_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    def failed_import() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("multiarray failed to import") from error

    assert exit_code(failed_import) == 130
    monkeypatch.setitem(sys.modules, "s5mars.cli", Interrupted("s5mars.cli"))
    assert start() == 130
    assert capsys.readouterr().err == "s5mars: interrupted\n" * 2
    with pytest.raises(ImportError):
        exit_code(lambda: bool(importlib.import_module("s5mars.nothing")))
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"s5mars": f"{start.__module__}:start"}


def test_exit_code_of_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "s5mars", "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Caught UserError in worker 0.\nTraceback:\n  x\nUserError: a.jpg: bad", "a.jpg: bad"),
        ("first\n  second", "first second"),
        ("", "UserError"),
    ],
)
def test_errors_of_several_lines_become_one(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise UserError(text)

    monkeypatch.setitem(COMMANDS, "synth", replace(COMMANDS["synth"], run=fail))
    assert main(["synth", "x"]) == 2
    assert capsys.readouterr().err == f"s5mars: {shown}\n"


def test_a_fault_of_the_program_is_not_called_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        list(zip([1], [1, 2], strict=True))

    monkeypatch.setitem(COMMANDS, "synth", replace(COMMANDS["synth"], run=fail))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        main(["synth", "x"])


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, None])
def test_an_error_of_the_system_without_a_remedy_is_a_fault_of_the_program(
    number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("closed") if number is None else OSError(number, "closed")

    monkeypatch.setitem(COMMANDS, "synth", replace(COMMANDS["synth"], run=fail))
    with pytest.raises(OSError, match="closed"):
        main(["synth", "x"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system", "x"),
        PermissionError("Caught PermissionError in DataLoader worker process 0.\nx: no access"),
        numbered(errno.EIO, "a.sqlite: disk I/O error"),
        ConnectionError("the hub cannot be reached"),
    ],
)
def test_an_error_of_the_system_that_the_user_can_remedy_is_one_line(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setitem(COMMANDS, "synth", replace(COMMANDS["synth"], run=fail))
    assert main(["synth", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_in_the_way_of_a_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").touch()
    for out in ("notes/scenes", "notes/deep/er/scenes"):
        assert main(["synth", str(tmp_path / out)]) == 2
        assert capsys.readouterr().err == (
            f"s5mars: {tmp_path / 'notes'} exists and is a file: remove it, or choose another "
            "name\n"
        )


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "synth", replace(COMMANDS["synth"], run=interrupt))
    assert main(["synth", "x"]) == 130
    assert capsys.readouterr().err == "s5mars: interrupted\n"


def test_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    assert main(["synth", str(out), "--images", "4", "--size", "64", "--seed", "1"]) == 0
    assert len(list((out / "masks").iterdir())) == 4
    capsys.readouterr()
    assert main(["synth", str(out), "--images", "4", "--size", "64"]) == 2
    assert str(out) in capsys.readouterr().err


def test_split_and_stats(
    fake_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(fake_data.plain(tmp_path / "data", images=16))
    lists = tmp_path / "lists"
    assert main(["split", data, "--labelled", "0.5", "1", "--out", str(lists)]) == 0
    half, whole = sorted((set(path.read_text().split()) for path in lists.rglob("*.txt")), key=len)
    assert len(half) == 4 and len(whole) == 8 and half < whole
    assert "bedrock" in capsys.readouterr().out

    out = tmp_path / "stats"
    assert main(["stats", data, "--out", str(out)]) == 0
    written = {path.suffix for path in out.iterdir()}
    assert {".json", ".png"} <= written
    for path in out.glob("*.json"):
        assert json.loads(path.read_text())
    assert "soil" in capsys.readouterr().out
