"""Mutations of inputs, part by part where a format has parts, so that most results are read to the end.

A mutation takes bytes and a random generator and returns bytes; the same seed gives the same bytes.
"""

from __future__ import annotations

import copy
import io
import json
import random
import warnings
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

BETWEEN = b"\n--next file--\n"
MOST_CHANGES = 4

TEXTS = (
    "", " ", ".", "..", "../x", "/etc/passwd", "..\\x", "a/b", "x\0y", "x\ny", "x\u2028y", "\ud800", "\u202egnp.exe", "é" * 9,
    "a" * 300, "a" * 600, "%2e%2e%2f", "<&\"'>", "]]>", "{{ 7*7 }}", "{}", "%s", "con", "NaN", "1e999", "-1", "0x10", "1.2.3",
    "2", "1.1", "None", "input", "high", "source", "eigenvector", "eigenvector 0", "eigenvector 99999999999999999999",
    "eigenvector -1", "high, channel 2", "sensitivity, channel x", "high, channel 0", "case.nii.gz", "list.json", "scanner",
    "exact", "Gaussian low-pass", "noise level", "map", "cuda:7", "\x1b[2J", "case_ifim_input.nii.gz", "case.mrml", "gaussian",
    "mean",
)  # fmt: skip
NUMBERS = (
    0, -0.0, 1, -1, 2, 3, 0.5, 1e-320, 1e308, -1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400, float("nan"),
    float("inf"), -float("inf"),
)  # fmt: skip
ODD_VALUES = (None, True, False, [], {}, [[]], [None], {"": None}, *TEXTS, *NUMBERS)
ODD_BYTES = (b"", b"\0", b"\xff", b"\n", b"\\", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"DICM", b"{", b"[", b'"', b"nan", b"9" * 20)
ODD_TYPES = ("u1", "i8", "f4", "c16", "?")
ODD_SHAPES = ((), (0,), (3,), (0, 4), (1, 1), (1, 300), (2, 3, 3), (4, 5))
ELEMENTS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID", "SOPInstanceUID", "Rows", "Columns",
    "NumberOfFrames", "InstanceNumber", "AcquisitionNumber", "EchoTime", "EchoNumbers", "TemporalPositionIdentifier",
    "TriggerTime", "AcquisitionTime", "ContentTime", "DiffusionBValue", "RescaleSlope", "RescaleIntercept", "Modality",
    "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation", "SOPClassUID", "FrameOfReferenceUID", "StudyInstanceUID",
    "SpecificCharacterSet", "PlanePositionSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
)  # fmt: skip
ELEMENT_VALUES = (
    b"", b" ", b"0", b"-1", b"0\\0", b"0\\0\\0", b"0\\0\\2.5", b"nan\\nan\\nan", b"inf\\0\\0", b"1e400\\0\\0",
    b"1e300\\1e300\\1e300", b"1\\0\\0\\0\\1\\0", b"1\\0\\0\\1\\0\\0", b"0\\0\\0\\0\\0\\0", b"0.5\\0.5", b"1e-320\\1e-320",
    b"0\\0.5", b"\0", b"\0\0", b"\x03\0", b"\xff\xff", b"\xff\xff\xff\xff", b"1.2.3", b"1.2.3\\4", b"../../x", b"\xe9\xff",
    b"9" * 17, b"9" * 400, b"CT", b"XX\nYY", b"EINS", b"YBR_FULL_422", b"\\", b"\\\\\\\\\\", b"ISO_IR 192", b"ISO 2022 IR 87",
    b"\0" * 7, b"12\0", b"0x10", b"1_0", b"2\\2", b"1.2.840.10008.5.1.4.1.1.88.33", b"1.2.840.10008.5.1.4.1.1.481.2",
)  # fmt: skip


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits turned, pieces cut out, doubled or overwritten, odd bytes put in, the end cut off."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((1, 1, 2, 4, 8, 64)))
        kind = chance.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            changed[start:start] = changed[start:end]
        elif kind == 3:
            changed[start:start] = chance.choice(ODD_BYTES)
        elif kind == 4:
            changed[start:end] = chance.randbytes(end - start)
        else:
            del changed[start : start + (0 if chance.random() < 0.7 else len(changed))]
    return bytes(changed)


def mutate_text(content: bytes, chance: random.Random) -> bytes:
    """Odd texts put in the place of words; else as `mutate_bytes`."""
    if chance.random() < 0.4:
        return mutate_bytes(content, chance)
    words = content.split(b'"')
    for _ in range(chance.randint(1, MOST_CHANGES)):
        words[chance.randrange(len(words))] = chance.choice(TEXTS).encode("utf-8", "surrogatepass")
    return b'"'.join(words)


def mutate_json(content: bytes, chance: random.Random) -> bytes:
    """Values replaced, left out, doubled, exchanged; now and then as `mutate_bytes`."""
    if chance.random() < 0.1:
        return mutate_bytes(content, chance)
    try:
        tree = [json.loads(content)]
        for _ in range(chance.randint(1, MOST_CHANGES)):
            _change(tree, chance)
        return json.dumps(tree[0], ensure_ascii=chance.random() < 0.9).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return mutate_bytes(content, chance)


def mutate_planes(content: bytes, chance: random.Random) -> bytes:
    """Of a numpy archive the description, as `mutate_json`, or an array exchanged for another; now and then as `mutate_bytes`."""
    if chance.random() < 0.1:
        return mutate_bytes(content, chance)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if chance.random() < 0.7:
            arrays["description"] = np.frombuffer(mutate_json(arrays["description"].tobytes(), chance), np.uint8)
        else:
            arrays[chance.choice(list(arrays))] = np.zeros(chance.choice(ODD_SHAPES), chance.choice(ODD_TYPES))
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
    except Exception:  # bytes alone were changed before
        return mutate_bytes(content, chance)
    return buffer.getvalue()


def mutate_dicom(content: bytes, chance: random.Random) -> bytes:
    """Files told apart by BETWEEN: elements of one or of all given other values or taken out, a file doubled or left out."""
    files = content.split(BETWEEN)
    chosen = chance.randrange(len(files))
    kind = chance.randrange(12)
    if kind == 0:
        files[chosen] = mutate_bytes(files[chosen], chance)
    elif kind == 1:
        files.insert(chosen, files[chance.randrange(len(files))])
    elif kind == 2 and len(files) > 1:
        del files[chosen]
    else:
        seed, everywhere = chance.randrange(2**32), chance.random() < 0.4
        files = [
            _mutate_elements(file, random.Random(seed)) if everywhere or i == chosen else file for i, file in enumerate(files)
        ]
    return BETWEEN.join(files)


def _mutate_elements(file: bytes, chance: random.Random) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = pydicom.dcmread(io.BytesIO(file), force=True)
            for _ in range(chance.randint(1, MOST_CHANGES)):
                _change_element(image, chance)
            buffer = io.BytesIO()
            image.save_as(buffer, enforce_file_format=False)
    except Exception:  # what pydicom neither reads nor writes is changed as bytes
        return mutate_bytes(file, chance)
    return buffer.getvalue()


def _change_element(image: pydicom.Dataset, chance: random.Random) -> None:
    """One element of the image, or of an item of one of its sequences."""
    sequences = [element for element in image if element.VR == "SQ" and len(element.value)]
    if sequences and chance.random() < 0.6:
        sequence = chance.choice(sequences).value
        if chance.random() < 0.1:
            del sequence[chance.randrange(len(sequence))]
        else:
            _change_element(chance.choice(sequence), chance)
        return
    keyword = chance.choice(ELEMENTS)
    if chance.random() < 0.2:
        image.pop(keyword, None)
        return
    value = chance.choice(ELEMENT_VALUES) if chance.random() < 0.9 else chance.randbytes(chance.randrange(12))
    put_element(image, keyword, value)


def put_element(image: pydicom.Dataset, keyword: str, value: bytes) -> None:
    """Set an element to these raw bytes, valid for its VR or not."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    image[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True, True)


def _change(tree: list[Any], chance: random.Random) -> None:
    """One place of the tree below its only item."""
    places = list(_places(tree))
    holder, key = chance.choice(places)
    kind = chance.randrange(8)
    if kind == 0 and holder is not tree:
        del holder[key]
    elif kind == 1 and isinstance(holder, list) and holder is not tree:
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 2:
        other, name = chance.choice(places)
        holder[key] = copy.deepcopy(other[name])
    elif kind == 3 and isinstance(holder, dict):
        holder[chance.choice(TEXTS)] = holder.pop(key)
    elif kind == 4 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = chance.choice(NUMBERS)
    elif kind == 5 and isinstance(holder[key], str):
        holder[key] = chance.choice(TEXTS)
    else:
        holder[key] = copy.deepcopy(chance.choice(ODD_VALUES))


def _places(tree: Any) -> Any:
    """(list or mapping, index or key) of everything in a tree."""
    for key in range(len(tree)) if isinstance(tree, list) else list(tree):
        yield tree, key
        if isinstance(tree[key], (list, dict)):
            yield from _places(tree[key])
