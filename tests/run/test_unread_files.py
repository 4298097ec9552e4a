"""Files that may be images and are not read are counted by kind; texts, documents and programs are not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from monai_ifim.run.unread_files import counted, kind_beside_dicom, kind_of_unread, sentence, without_names

FLOATS = struct.pack("<64f", *(0.1 * k for k in range(64)))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("study.zip", b"PK\x03\x04", ".zip"),
        ("study.TAR.GZ", b"\x1f\x8b", ".tar.gz"),
        ("scan.nii.bz2", b"BZh", ".nii.bz2"),
        ("scan.nii.zst", FLOATS, ".nii.zst"),
        ("scan.img.xz", FLOATS, ".img.xz"),
        ("scan.unknown.gz", b"\x1f\x8b", ".gz"),
        ("physio.tsv.gz", b"\x1f\x8b", None),
        ("study.7z", b"7z", ".7z"),
        ("film.mp4", FLOATS, ".mp4"),
        ("V1.REC", FLOATS, ".rec"),
        ("V1.PAR", b"# a header, which is a text\n", ".par"),
        ("volume.xyz", FLOATS, ".xyz"),
        ("volume.xyz", b"a text, \xc3\xa4\n", None),
        ("volume", FLOATS, "no suffix"),
        ("1.2.840.113619.2", FLOATS, "no suffix"),
        ("2dseq", b"\xff" * 900, "no suffix"),
        ("README", b"A text.\n" * 99, None),
        ("LIESMICH", "Größe\n".encode("latin-1") * 9, None),
        ("ПРОЧТИ", "Прочти меня".encode(), None),
        ("words", "UTF-16".encode("utf-16"), None),
        ("empty", b"", None),
        ("paper.pdf", b"%PDF-1.4\0", None),
        ("viewer.EXE", b"MZ\0", None),
        ("table.parquet", b"PAR1\0", None),
        ("scan.mat", FLOATS, ".mat"),
        ("to_standard.mat", b"1 0 0 0\n0 1 0 0\n", None),
    ],
)
def test_kind_of_a_file(name: str, content: bytes, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert kind_of_unread(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scan.nii.gz", ".nii.gz beside DICOM images"),
        ("more.zip", ".zip beside DICOM images"),
        ("IM001", None),
        ("IM001.dcm", None),
        ("MR.1.3.12.2.1107", None),
        ("notes.txt", None),
        ("scan.surname", None),
    ],
)
def test_kind_among_the_slices_of_a_series_is_told_by_the_name(name: str, kind: str | None) -> None:
    assert kind_beside_dicom(Path("nowhere", name)) == kind


def test_sentence_names_each_kind_with_its_cure() -> None:
    counts = counted([".zip", ".mgz", ".nii.gz beside DICOM images", ".mgz"])
    assert counts == {".mgz": 2, ".nii.gz beside DICOM images": 1, ".zip": 1}
    assert sentence(counts) == (
        "Not read: 2 .mgz, 1 .nii.gz beside DICOM images, 1 .zip. If they are images: unpack archives, name a file beside DICOM "
        "images itself, convert other formats to NIfTI."
    )
    assert sentence({}) == ""
    many = sentence({f".a{k}": 100 - k for k in range(40)})
    assert many.startswith("Not read: 100 .a0, 99 .a1, ")
    assert f"89 .a11 and {sum(range(61, 89))} of other kinds" in many


def test_a_suffix_that_may_be_a_name_is_not_told_where_names_are_not() -> None:
    counts = {".zip": 2, ".yamada": 3, ".tanaka": 1, "no suffix": 4, "DICOM Segmentation": 5, ".png beside DICOM images": 6}
    assert without_names(counts) == {
        ".zip": 2,
        "no suffix": 4,
        "DICOM Segmentation": 5,
        ".png beside DICOM images": 6,
        "other suffixes": 4,
    }
