"""Questions to an index: conditions and nothing else, clear answers, a sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from s5mars.classes import Class, Taxonomy
from s5mars.cli import main
from s5mars.errors import UserError
from s5mars.predict.archive import predict_images
from s5mars.predict.find import find
from s5mars.predict.index import class_columns, read_index
from s5mars.predict.predictor import Predictor

from .folders import save
from .standin import THREE, Brightness

NAMES = ('big "dark" rock', "sol", "bright sand")
NAMED = Taxonomy(
    "named", tuple(Class(n, c.colour) for n, c in zip(NAMES, THREE.classes, strict=True))
)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six Mastcam products of sols 40..45, brighter from sol to sol, and a broken one."""
    folder = tmp_path_factory.mktemp("find")
    for step, grey in enumerate((10, 60, 128, 200, 250, 255)):
        name = f"{40 + step:04}ML0001930000102057E01_DXXX.jpg"
        save(folder / f"in/{name}", size=(60 + 20 * step, 40), grey=grey)
    (folder / "in/0050ML0001930000102057E01_DXXX.jpg").write_bytes(b"no image")
    predict_images(
        Predictor(Brightness(), NAMED), [folder / "in"], out=folder / "maps", skip_bad=True
    )
    return folder / "maps"


def sols(maps: Path, condition: str, **settings: object) -> list[int]:
    return [row["sol"] for row in find(maps, condition, **settings).rows]


def test_the_index_says_what_is_known_and_what_was_found(maps: Path) -> None:
    rows = pq.read_table(maps / "index.parquet").to_pylist()
    assert len(rows) == 7
    assert [row["sol"] for row in rows] == [40, 41, 42, 43, 44, 45, 50]
    assert {row["camera"] for row in rows} == {"Mastcam Left"}
    assert {row["mission"] for row in rows} == {"MSL"}
    last = rows[-2]
    assert (last["status"], last["width"], last["height"]) == ("done", 160, 40)
    assert last["bright sand"] == pytest.approx(53 / 160, abs=0.02)
    assert last["largest_bright sand"] == pytest.approx(53 * 40, rel=0.05)
    assert last["no_data"] == last["abstained"] == 0
    shares = [last[column] for column in class_columns(NAMED)]
    assert sum(shares) == pytest.approx(1)
    assert rows[-1]["status"] == "failed" and "0050ML" in rows[-1]["reason"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("sol between 41 and 43", [41, 42, 43]),
        ("sol >= 44 and status = 'done'", [44, 45]),
        ("status <> 'done'", [50]),
        ("bright sand > 0.2", [43, 45, 44]),
        ("bright_sand > 0.2 and largest bright sand > 900", [43, 45, 44]),
        ('"bright sand" > 0.2 AND NOT width > 130', [43]),
        ('"big ""dark"" rock" > 0.2', [40, 41]),
        ("largest_bright sand > 900 and camera like 'Mast%'", [45, 44, 43]),
        ("lower(camera) = 'mastcam left' and sol in (40, 42)", [40, 42]),
        ("case when sol = 40 then true else false end", [40]),
        ("reason is not null", [50]),
        ("name = 'bright sand'", []),
        ("class sol > 0.99 -- a comment", [42]),
        ("true", [40, 41, 42, 43, 44, 45, 50]),
    ],
)
def test_conditions(maps: Path, condition: str, expected: list[int]) -> None:
    assert sols(maps, condition) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            "brigth_sand > 0.2",
            r"unknown column 'brigth_sand'; nearest first: bright sand, ",
        ),
        ("index.sol > 1", r"unknown column 'index.sol'"),
        ("sol >", "is not a condition"),
        ("sol > 1; drop table products", "is not a condition"),
        ("true) union select * from products where (true", "is not a condition"),
        ("true) group by (sol", "is not a condition"),
        ("true) limit (1", "is not a condition"),
        ("sol > 1 order by sol", "is not a condition"),
        ("sol > 1, sol > 2", "is not a condition"),
        ("current_setting('threads') > '1'", "unknown function current_setting"),
        ("sol > ?", "is not allowed"),
        ("sol in (select sol from products)", "subquery is not allowed"),
        ("exists(select 1 from read_csv('/etc/passwd'))", "subquery is not allowed"),
        ("sum(sol) over () > 1", "window is not allowed"),
        ("max(sol) > 1", "unknown function max; nearest first: "),
        ("sol & 1 = 1", "unknown function &"),
        ("getenv('HOME') = 'x'", "unknown function getenv"),
        ("read_text('/etc/passwd') = 'x'", "unknown function read_text"),
        ("columns(*) > 1", "is not allowed"),
        ("sol > 'many'", "many"),
        ("name like 1030", "uses a text as a number, or a number as a text"),
        ("round(name) > 1", "uses a text as a number, or a number as a text"),
        ("sol > 20% and sol < 50 %", 'shares are fractions: "sol > 0.2 and sol < 0.5"'),
        ("", "condition is empty"),
    ],
)
def test_what_is_no_condition_is_refused(maps: Path, condition: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        find(maps, condition)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("condition", "suggested"),
    [
        ("camera = MCAM", "camera = 'MCAM'"),
        ('camera = "MCAM" or mission like "M%"', "camera = 'MCAM' or mission like 'M%'"),
        ('camera = "" or mission = "MSL"', "camera = '' or mission = 'MSL'"),
        ("camera == Mastcam Left", "camera == 'Mastcam Left'"),
        ("sol > 41 and (Camera <> MCAM or mission=MSL)",
         "sol > 41 and (Camera <> 'MCAM' or mission='MSL')"),
        ("bright sand > 0.1 and camera like Mast", "bright sand > 0.1 and camera like 'Mast'"),
    ],
)  # fmt: skip
def test_texts_without_quotes(maps: Path, condition: str, suggested: str) -> None:
    with pytest.raises(ValueError, match="needs single quotes") as raised:
        find(maps, condition)
    assert str(raised.value).endswith(f'a text needs single quotes: "{suggested}"')
    find(maps, suggested)


def test_a_text_that_no_product_has(maps: Path) -> None:
    assert find(maps, "camera = 'MCAM'").summary == "0 of 7 products; camera is 'Mastcam Left'"
    assert find(maps, "name = 'x'").summary == "0 of 7 products; name is " + " or ".join(
        repr(f"{sol:04}ML0001930000102057E01_DXXX") for sol in (40, 41, 42, 43, 44, 45, 50)
    )
    assert find(maps, "sol > 99").summary == "0 of 7 products"


def test_top_and_sort(maps: Path) -> None:
    found = find(maps, "sol < 46", top=2, sort="width")
    assert [row["sol"] for row in found.rows] == [45, 44]
    assert found.summary == "6 of 7 products, largest width first, showing the first 2"
    assert sols(maps, "sol < 46", sort="WIDTH", ascending=True, top=1) == [40]
    with pytest.raises(ValueError, match="nearest first: width"):
        find(maps, "true", sort="widht")
    with pytest.raises(ValueError, match=r"--top must be at least 1 \(got 0\)"):
        find(maps, "true", top=0)


def test_answers_as_table_csv_json_and_sheet(
    maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["find", str(maps), "bright sand > 0.2", "--sheet", str(sheet)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split("  ")[0] == "name" and len(shown.out.splitlines()) == 4
    assert shown.err == f"3 of 7 products, largest bright sand first; {sheet}\n"
    with Image.open(sheet) as picture:
        assert picture.width > 2 * 320 and picture.height > 2 * 320
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
    assert main([*words, "--format", "json"]) == 0
    assert [row["sol"] for row in json.loads(capsys.readouterr().out)] == [43, 45, 44]
    assert main([*words, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("name,image,path,status")


def test_a_sheet_of_the_queried_class_alone(
    maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = [entry.colour for entry in NAMED.classes]

    def shown(*options: str) -> list[bool]:
        path = tmp_path / "sheet.png"
        words = ["find", str(maps), "bright sand > 0.2 or sol > 39", "--sheet", str(path), *options]
        assert main(words) == 0
        with Image.open(path) as picture:
            pixels = np.asarray(picture).reshape(-1, 3)
        return [bool((pixels == colour).all(-1).sum() > 40) for colour in colours]  # its swatch

    assert shown() == [True, True, True]
    assert shown("--only") == [False, False, True]
    assert shown("--only", 'big "dark" rock', "class sol") == [True, True, False]
    assert shown("--only", "SOL") == [False, True, False]  # also the name of another column
    capsys.readouterr()
    for condition, options, said in (
        ("sol > 40", ["--only"], '--only needs a class: big "dark" rock, sol, bright sand'),
        ("sol > 40", ["--only", "camera"], "--only needs a class"),
        ("sol > 40", ["--only", "bright snd"], "nearest first: bright sand"),
    ):
        sheet = ["--sheet", str(tmp_path / "no.png")]
        assert main(["find", str(maps), condition, *sheet, *options]) == 2
        assert said in capsys.readouterr().err
    assert main(["find", str(maps), "sol > 40", "--only"]) == 2
    assert "--only needs --sheet" in capsys.readouterr().err


def test_a_sheet_overwrites_no_product_or_map(maps: Path, tmp_path: Path) -> None:
    name = "0044ML0001930000102057E01_DXXX"
    image = maps.parent / f"in/{name}.jpg"
    (tmp_path / "link").symlink_to(maps.parent)
    before = image.read_bytes()
    for sheet in (image, tmp_path / f"link/in/{name}.jpg", maps / f"{name}_confidence.png"):
        with pytest.raises(UserError, match="is a product or map of the index and would be overw"):
            find(maps, "true", sheet=sheet)
    assert image.read_bytes() == before


def test_a_cast_is_a_part_of_a_condition(maps: Path) -> None:
    assert sols(maps, "cast(sol as varchar) = '42'") == [42]
    assert sols(maps, "sol::varchar like '%3' and try_cast(camera as int) is null") == [43]
    for condition in ("cast((select 1) as int) = 1", "cast(getenv('HOME') as varchar) = ''"):
        with pytest.raises(UserError, match=r"not allowed|unknown function getenv"):
            find(maps, condition)


def test_a_sheet_without_overlays_or_products(maps: Path, tmp_path: Path) -> None:
    for overlay in list(maps.glob("004[1-5]*_overlay.jpg")):
        overlay.rename(tmp_path / overlay.name)
    find(maps, "true", sheet=tmp_path / "sheet.jpg")
    assert (tmp_path / "sheet.jpg").is_file()
    with pytest.raises(ValueError, match=r"a \.png or \.jpg"):
        find(maps, "true", sheet=tmp_path / "sheet.txt")
    nothing = find(maps, "sol > 1000", sheet=tmp_path / "none.png")
    assert nothing.summary == "0 of 7 products" and not (tmp_path / "none.png").exists()
    assert nothing.text("json") == "[]"
    assert nothing.text("csv") == find(maps, "true").text("csv").splitlines()[0]


def test_what_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; `s5mars predict` writes it"):
        find(tmp_path, "true")
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="damaged index"):
        find(tmp_path, "true")


def test_an_index_with_other_columns_than_its_classes(maps: Path, tmp_path: Path) -> None:
    table = pq.read_table(maps / "index.parquet")
    metadata = pq.read_metadata(maps / "index.parquet").metadata
    for hurt, said in (
        (table.append_column("NAME", table["name"]), None),
        (table.drop_columns(["sol"]), "sol"),
        (table.set_column(8, "sol", table["name"]), "damaged index"),
    ):
        path = tmp_path / "index.parquet"
        pq.write_table(hurt.replace_schema_metadata(metadata), path)
        if said is None:
            assert len(find(path, "true").rows) == 7
        else:
            with pytest.raises(UserError, match=rf"index\.parquet: .*{said}"):
                find(path, "true")


def test_a_class_whose_name_is_a_number_leaves_numbers_alone(tmp_path: Path) -> None:
    names = ("1", "0.5", "yes")
    numbered = Taxonomy(
        "numbered", tuple(Class(n, c.colour) for n, c in zip(names, THREE.classes, strict=True))
    )
    for step, grey in enumerate((10, 128, 250)):
        save(tmp_path / f"in/{step}ML0001930000102057E01_DXXX.jpg", grey=grey)
    predict_images(Predictor(Brightness(), numbered), [tmp_path / "in"], out=tmp_path / "maps")
    names = [row["name"] for row in find(tmp_path / "maps", "width > 1").rows]
    assert len(names) == 3
    assert len(find(tmp_path / "maps", '"1" > 0.2').rows) == 1
    assert find(tmp_path / "maps", "yes > 0.2 and 1 = 1").order == "yes"


def test_a_class_with_the_name_of_a_column_of_text_is_named(tmp_path: Path) -> None:
    classes = (Class("Camera", (9, 9, 9)), *THREE.classes[1:])
    save(tmp_path / "in/a.png", grey=10)
    predictor = Predictor(Brightness(), Taxonomy("odd", classes))
    predict_images(predictor, [tmp_path / "in"], out=tmp_path / "maps")
    with pytest.raises(ValueError, match=r"classes with the name of another are 'class Camera'$"):
        find(tmp_path / "maps", "camera > 0.5")
    assert len(find(tmp_path / "maps", "class camera >= 0").rows) == 1


def test_class_names_never_hide_other_columns() -> None:
    names = ("sol", "SOL", "a", "A", "class a", "largest_a")
    columns = class_columns(Taxonomy("odd", tuple(Class(name, (0, 0, 0)) for name in names)))
    assert columns[:4] == ["class sol", "class class SOL", "a", "class A"]
    both = [name.lower() for column in columns for name in (column, f"largest_{column}")]
    assert len(set(both)) == len(both)


def test_abstaining_has_a_column_and_shares_leave_room_for_it(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey=75)
    predictor = Predictor(Brightness(), THREE, abstain=0.95)
    predict_images(predictor, [tmp_path / "a.png"], out=tmp_path / "maps")
    table, taxonomy = read_index(tmp_path / "maps")
    (row,) = table.to_pylist()
    assert taxonomy == THREE
    assert row["abstained"] > 0 and row["no_data"] == 0
    assert row["abstained"] + sum(row[name] for name in THREE.names) == pytest.approx(1)
