"""Personal data planted wherever DICOM, NIfTI and picture files can hold some, and a search for it in all that was written.

Every planted text holds a mark of its own: "Zw" and the tag in hexadecimal, a date of the years 1601 on, a UID below one root,
or a name without a single ASCII letter.
"""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pydicom
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

FOREIGN = ("Жданъ", "山田太郎", "Ωλκ")  # as different scripts, sets of characters and lengths
CHARACTER_SETS = {"Жданъ": "ISO_IR 144", "山田太郎": "ISO_IR 192", "Ωλκ": "ISO_IR 126"}
UID_ROOT = "1.9.7718."  # of all planted UIDs but that of the series
SERIES_ROOT = "1.9.4471."  # by which users choose: it is shown
TIME = "231907.318207"
GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4000, 0x4008)
TEXTS, NAMES, DATES = {"LO", "SH", "ST", "LT", "UT", "UC", "AE"}, {"PN"}, {"DA", "DT"}
LEFT_ALONE = {"AcquisitionDateTime", "LengthToEnd"}

# Marks begin with the group of a tag, so that a page of base64 holds none by chance.
FIRST = ("0000", "0002", "0008", "0010", "0012", "0018", "0020", "0028", "0032", "0038", "0040", "0054", "4000", "4008")
WIDE_FIRST = ("\0".join(group) for group in FIRST)
MARK = re.compile(f"zw(?:{'|'.join(FIRST)})[0-9a-f]{{4}}".encode(), flags=re.IGNORECASE)
WIDE_MARK = re.compile(f"z\0w\0(?:{'|'.join(WIDE_FIRST)})(?:\0[0-9a-f]){{4}}".encode(), flags=re.IGNORECASE)
BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")
PNG = b"\x89PNG\r\n\x1a\n"


def mark(number: int) -> str:
    """A text that nothing else holds; its last letter is no ASCII."""
    return f"Zw{number:08x}ü"


def planted_date(number: int) -> str:
    return (date(1601, 1, 3) + timedelta(days=37 * number)).strftime("%Y%m%d")


@cache
def _attributes() -> tuple[tuple[str, str], ...]:
    """Keyword and VR of all texts, names and dates that the standard has for patients, visits, studies and devices."""
    wanted = TEXTS | NAMES | DATES
    entries = [
        (int(tag), keyword, vr) for tag, (vr, _, _, _, keyword) in DicomDictionary.items() if int(tag) >> 16 in GROUPS and keyword
    ]
    return tuple((keyword, vr) for _, keyword, vr in sorted(entries) if vr in wanted and keyword not in LEFT_ALONE)


def tag_of(keyword: str) -> int:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    return int(tag)


def text_for(keyword: str, vr: str) -> str:
    """What is planted under a keyword."""
    if vr in DATES:
        number = [name for name, kind in _attributes() if kind in DATES].index(keyword)
        return planted_date(number) if vr == "DA" else planted_date(number) + "121314.5"
    core = mark(tag_of(keyword))
    return f"{core}^Xaver" if vr in NAMES else core


def plant(slices: Iterable[Dataset], name: str = FOREIGN[0], uid: int = 1) -> list[Dataset]:
    """Slices with personal data in every text, name and date, in private elements, in sequences, and before the first element."""
    planted = []
    for k, image in enumerate(slices):
        full = copy.deepcopy(image)
        _plant_texts(full, name)
        full.StudyInstanceUID, full.FrameOfReferenceUID = f"{UID_ROOT}{uid}.1", f"{UID_ROOT}{uid}.2"
        full.SeriesInstanceUID = f"{SERIES_ROOT}{uid}"
        full.SOPInstanceUID = full.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}{uid}.3.{k + 1}"
        full.file_meta.SourceApplicationEntityTitle = "Zw00020016"
        full.file_meta.PrivateInformationCreatorUID = f"{UID_ROOT}9"
        full.file_meta.PrivateInformation = b"Zw00020102"
        full.preamble = b"Zw0000000a".ljust(128, b"\0")
        planted.append(full)
    return planted


def _plant_texts(image: Dataset, name: str) -> None:
    image.SpecificCharacterSet = ["ISO_IR 192"]
    for keyword, vr in _attributes():
        setattr(image, keyword, text_for(keyword, vr))
    image.OtherPatientNames = f"{name}^{name}"
    image.StudyTime = image.ContentTime = TIME
    image.BodyPartExamined = "ZW00180015"
    image.ImageComments = f"{mark(tag_of('ImageComments'))}\n{name} {' '.join(FOREIGN)}"
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID = mark(0x10), mark(0x11)
    image.OtherPatientIDsSequence = [item]
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = mark(0x12)
    _private(issuer, 0x20)
    image.IssuerOfAccessionNumberSequence = [issuer]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", mark(0x13)
    image.PatientIdentityRemoved = "YES"
    image.DeidentificationMethodCodeSequence = [code]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", f"{UID_ROOT}8"
    image.ReferencedStudySequence = [study]
    _private(image, 0x40)


def _private(image: Dataset, first: int) -> None:
    block = image.private_block(0x0009, mark(first), create=True)
    block.add_new(0x01, "LO", mark(first + 1))
    block.add_new(0x02, "PN", f"{mark(first + 2)}^Xaver")
    block.add_new(0x03, "UT", f"{mark(first + 3)} {FOREIGN[0]}")
    block.add_new(0x04, "UN", mark(first + 4).encode())
    block.add_new(0x05, "OB", mark(first + 5).encode().ljust(16, b"\0"))
    nested = Dataset()
    nested.PatientName = f"{mark(first + 6)}^Xaver"
    block.add_new(0x06, "SQ", [nested])


def in_character_set(image: Dataset, name: str) -> Dataset:
    """The image with patient and comment in the name's own set of characters, and nothing else planted that this set lacks."""
    other = copy.deepcopy(image)
    other.SpecificCharacterSet = CHARACTER_SETS[name]
    for keyword, vr in _attributes():
        if vr in TEXTS | NAMES:
            setattr(other, keyword, f"Zw{tag_of(keyword):08x}")
    other.PatientName = other.OtherPatientNames = f"{name}^{name}"
    other.ImageComments = other.StudyDescription = name
    for keyword in ("IssuerOfAccessionNumberSequence", "OtherPatientIDsSequence", "DeidentificationMethodCodeSequence"):
        del other[keyword]
    for element in [element for element in other if element.tag.is_private]:
        del other[element.tag]
    return other


def write_nifti(path: Path, image: Any, extensions: bool = True) -> Path:
    """A NIfTI file with texts in every field of the header that takes one, and extensions: a comment, a DICOM header, XML."""
    for field, number in (("descrip", 0x51), ("db_name", 0x52), ("intent_name", 0x53), ("aux_file", 0x54)):
        if field in image.header:
            image.header[field] = f"Zw{number:08x}".encode() + "ü".encode("latin-1")
    if extensions:
        inside = Dataset()
        inside.PatientName, inside.PatientID = "Zw00000055^Xaver", "Zw00000056"
        inside.PatientBirthDate = planted_date(300)
        comment = f"{mark(0x57)} {FOREIGN[0]}".encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", comment))
        image.header.extensions.append(nib.nifti1.Nifti1Extension("afni", f"<AFNI>{mark(0x58)}</AFNI>".encode()))
        image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, inside))
    nib.save(image, path)
    return path


def write_pictures(folder: Path, values: np.ndarray) -> list[Path]:
    """PNG, JPEG and TIFF with texts of all kinds that they can hold beside their pixels."""
    from PIL import Image, PngImagePlugin, TiffImagePlugin

    folder.mkdir(parents=True)
    picture = Image.fromarray(values.astype(np.uint8))
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Zw00000061")
    info.add_text("Comment", "Zw00000062", zip=True)
    info.add_itxt("Description", f"{mark(0x63)} {FOREIGN[1]}", zip=True)
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = "Zw00000064", "Zw00000065", "Zw00000066"
    picture.save(folder / "portrait.png", pnginfo=info, exif=exif)
    picture.save(folder / "photo.jpg", exif=exif, comment="Zw00000067", quality=95)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[315], tags[33432] = "Zw00000068", "Zw00000069", "Zw0000006a"
    picture.save(folder / "plate.tif", tiffinfo=tags)
    return [folder / name for name in ("portrait.png", "photo.jpg", "plate.tif")]


def found_in(data: bytes) -> set[str]:
    """All planted data found in these bytes, in compressed parts too."""
    found: set[str] = set()
    for layer in layers(data):
        found |= {match.decode().lower() for match in MARK.findall(layer)}
        found |= {match.replace(b"\0", b"").decode().lower() for match in WIDE_MARK.findall(layer)}
        found |= {match.decode() for match in _numbers().findall(layer)}
        lower = layer.lower()
        found |= {name for name in FOREIGN if any(form in lower for form in _forms(name))}
        found |= {root for root in (UID_ROOT, SERIES_ROOT) if root.encode() in layer}
    return found


@cache
def _numbers() -> re.Pattern[bytes]:
    """Planted dates and times, plain and as people write them, but not as part of a longer number."""
    dates = [planted_date(i) for i in (*range(sum(vr in DATES for _, vr in _attributes())), 300)]
    forms = [*dates, TIME, "23:19:07"]
    forms += [f"{day[:4]}{sign}{day[4:6]}{sign}{day[6:]}" for day in dates for sign in "-/."]
    forms += [f"{day[6:]}{sign}{day[4:6]}{sign}{day[:4]}" for day in dates for sign in "-/."]
    return re.compile(rb"(?<![0-9.])(?:" + b"|".join(re.escape(form).encode() for form in forms) + rb")(?![0-9])")


@cache
def _forms(name: str) -> frozenset[bytes]:
    """How a name may stand in a file: sets of characters, and what programs escape them to."""
    whole = {form for shape in ("NFC", "NFD") for form in (unicodedata.normalize(shape, name),)}
    encoded = [form.encode(code, "ignore") for form in whole for code in ("utf-8", "utf-16-le", "utf-16-be")]
    encoded += [form.encode(code, "ignore") for form in whole for code in ("iso8859-5", "iso8859-7", "shift_jis", "latin-1")]
    encoded += [name.encode("utf-8").decode("latin-1").encode("utf-8")]  # read in the wrong set and written on
    escaped = [json.dumps(name)[1:-1], ascii(name)[1:-1], quote(name), repr(name.encode())[2:-1]]
    escaped += ["".join(f"&#{ord(letter)};" for letter in name), "".join(f"&#x{ord(letter):x};" for letter in name)]
    return frozenset(form.lower() for form in (*encoded, *(text.encode() for text in escaped)) if len(form) >= min(5, len(name)))


def layers(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and all that can be unpacked from them: gzip, zip, zlib, Parquet, texts of PNG, base64."""
    yield data
    if depth > 4:
        return
    for inner in _unpacked(data):
        yield from layers(inner, depth + 1)


def _unpacked(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                yield entry.filename.encode() + b"\n" + entry.comment + entry.extra
                yield archive.read(entry)
    elif data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield repr((table.to_pydict(), table.schema.metadata)).encode("utf-8", "backslashreplace")
    elif data.startswith(PNG):
        yield from _png_texts(data)
    elif data[:1] == b"\x78" and data[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        with_rest = zlib.decompressobj()
        try:
            yield with_rest.decompress(data)
        except zlib.error:
            return
    elif _is_text(data):
        for run in BASE64.findall(data):
            try:
                yield base64.b64decode(run + b"=" * (-len(run) % 4))
            except ValueError:
                continue


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:4096]


def _png_texts(data: bytes) -> Iterator[bytes]:
    place = len(PNG)
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        content = data[place + 8 : place + 8 + length]
        if kind in (b"tEXt", b"eXIf"):
            yield content
        elif kind == b"zTXt":
            yield zlib.decompress(content.partition(b"\0")[2][1:])
        elif kind == b"iTXt":
            flag, text = content.partition(b"\0")[2][:1], content.partition(b"\0")[2][2:].split(b"\0", 2)[2]
            yield zlib.decompress(text) if flag == b"\1" else text
        place += 12 + length


def spoilt(image: Dataset, keyword: str, value: str | bytes) -> Dataset:
    """The image with a value that its VR does not allow."""
    other = copy.deepcopy(image)
    tag = tag_of(keyword)
    raw = value if isinstance(value, bytes) else value.encode()
    with disable_value_validation():
        other[keyword] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), pydicom.datadict.dictionary_VR(tag), len(raw), raw + b" " * (len(raw) % 2), 0, False, True
        )
    return other
