"""The table of pseudonyms: one input one pseudonym, for its owner only, beside OUT."""

from __future__ import annotations

import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monai_ifim.io import InputError, OpenedSource, OutputError, Source
from monai_ifim.io.hidden_names import untold_names, without_names
from monai_ifim.io.key_table import PSEUDONYM, KeyTable


def opened(path: Path, content: str | None = None, **how: int) -> OpenedSource:
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return OpenedSource(Source(path, **how))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "out"


@pytest.fixture
def table(out: Path) -> KeyTable:
    out.parent.mkdir()
    return KeyTable.beside(out)


def test_it_lies_beside_out_and_is_its_owner_s_alone(out: Path, table: KeyTable, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        other = KeyTable.beside(tmp_path / "open")
    finally:
        os.umask(before)
    assert table.path == out.with_name("out.case-names.jsonl")
    for each in (table, other):
        assert stat.S_IMODE(each.path.stat().st_mode) == 0o600
    assert not out.exists()
    assert len({json.loads(each.path.read_text())["key"] for each in (table, other)}) == 2


def test_an_input_has_one_pseudonym_in_every_run_wherever_it_is_moved(out: Path, table: KeyTable, tmp_path: Path) -> None:
    path = tmp_path / "Mustermann" / "scan.png"
    name = table.pseudonym(opened(path, "content"))
    assert PSEUDONYM.fullmatch(name)
    assert KeyTable.beside(out).pseudonym(opened(path)) == name
    moved = Path(shutil.move(path, tmp_path / "Musterfrau.png"))
    assert KeyTable.beside(out).pseudonym(opened(moved)) == name
    lines = [json.loads(line) for line in table.path.read_text().splitlines()]
    assert lines[1:] == [{"case": name, "input": str(path)}, {"case": name, "input": str(moved)}]


def test_another_key_gives_other_pseudonyms(table: KeyTable, tmp_path: Path) -> None:
    image = opened(tmp_path / "scan.png", "content")
    assert KeyTable.beside(tmp_path / "another").pseudonym(image) != table.pseudonym(image)


def test_two_inputs_of_one_content_have_two_and_keep_them(out: Path, table: KeyTable, tmp_path: Path) -> None:
    images = [opened(tmp_path / name / "scan.png", "content") for name in ("a", "b", "c")]
    found = [table.pseudonym(image) for image in images]
    assert len(set(found)) == 3
    assert [KeyTable.beside(out).pseudonym(image) for image in reversed(images)] == found[::-1]
    assert table.pseudonym(opened(tmp_path / "a" / "scan.png", frame=1)) not in found
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert table.pseudonym(opened(tmp_path / "link" / "scan.png")) == found[0]


def test_many_at_once_agree(out: Path, table: KeyTable, tmp_path: Path) -> None:
    images = [opened(tmp_path / f"{i}.png", "content" if i % 2 else str(i)) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: KeyTable.beside(out).pseudonym(image), images))
    assert len(set(found)) == 20
    assert [KeyTable.beside(out).pseudonym(image) for image in images] == found


def test_it_is_refused_where_others_may_read_it(out: Path, table: KeyTable) -> None:
    table.path.chmod(0o640)
    with pytest.raises(OutputError, match="others may read the table of case names: `chmod 600` it"):
        KeyTable.beside(out)
    table.path.chmod(0o600)
    KeyTable.beside(out)


def test_a_link_or_a_folder_in_its_place_is_refused(out: Path, table: KeyTable, tmp_path: Path) -> None:
    table.path.rename(tmp_path / "elsewhere")
    table.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"cannot be kept there .* choose an --output beside which you can write"):
        KeyTable.beside(out)
    table.path.unlink()
    table.path.mkdir()
    with pytest.raises(OutputError, match="cannot be kept there"):
        KeyTable.beside(out)


def test_it_cannot_lie_beside_the_root() -> None:
    with pytest.raises(OutputError, match="cannot lie beside this folder"):
        KeyTable.beside(Path("/"))


@pytest.mark.parametrize("content", [b"{", b"[]\n", b'{"key": "00"}\n', b'{"key": 3}\n', b"\xff\n", b'{"key": "zz"}\n'])
def test_a_damaged_one_is_refused_and_not_replaced(content: bytes, out: Path, table: KeyTable) -> None:
    table.path.write_bytes(content)
    with pytest.raises(OutputError, match="damaged: restore it from a backup"):
        KeyTable.beside(out)
    assert table.path.read_bytes() == content


def test_a_line_that_a_killed_process_did_not_finish_is_dropped(out: Path, table: KeyTable, tmp_path: Path) -> None:
    name = table.pseudonym(opened(tmp_path / "a.png", "a"))
    with table.path.open("a") as file:
        file.write('{"case": "case-12')
    again = KeyTable.beside(out)
    other = again.pseudonym(opened(tmp_path / "b.png", "b"))
    assert [json.loads(line).get("case") for line in table.path.read_text().splitlines()] == [None, name, other]


def test_out_with_cases_named_after_their_files_is_refused(out: Path) -> None:
    (out / "scan").mkdir(parents=True)
    (out / "scan" / "scan_ifim.json").write_text("{}")
    with pytest.raises(OutputError, match=r"named after their files: choose another --output") as caught:
        KeyTable.beside(out)
    assert "scan" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{path}: no such file",
        "{name}: the file is empty.",
        "cannot read '{name}' (nibabel: File {path} is not a Nifti file)",
        "folder/{name}: Permission denied",
        "Mustermann_Max: no DICOM file in this folder; Mustermann_Max/{name}",
        "no {stem} here",
    ],
)
def test_no_message_tells_a_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "Mustermann_Max" / "Mustermann_1970-01-01.nii.gz"
    opened(path, "x")
    said = text.format(path=path, name=path.name, stem="Mustermann_1970-01-01")
    told = without_names(said, Source(path), "case-1")
    assert "Mustermann" not in told
    assert "case-1" in told


def test_names_of_files_beside_and_inside_are_not_told(tmp_path: Path) -> None:
    opened(tmp_path / "Mustermann.mhd", "x")
    opened(tmp_path / "Max Mustermann.raw", "x")
    opened(tmp_path / "series" / "Erika.dcm", "x")
    assert "Mus" not in without_names("Max Mustermann.raw: short", Source(tmp_path / "Mustermann.mhd"), "case-1")
    assert without_names("Erika.dcm: broken", Source(tmp_path / "series"), "case-1") == "one of its files: broken"


def test_what_a_user_named_wrongly_is_told_by_its_number(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "Mustermann"]
    with pytest.raises(InputError) as caught, untold_names(paths):
        raise InputError(f"{paths[1]}: no such file or folder.")
    assert str(caught.value) == "input 2: no such file or folder."
    assert caught.value.__cause__ is None
