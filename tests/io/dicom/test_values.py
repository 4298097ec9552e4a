"""Values and units of DICOM images: rescaling, Modality LUT, real-world values, MONOCHROME1, as other readers have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from monai.transforms import Compose, LoadImage, LoadImaged
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import RLELossless, generate_uid

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source, register_dicom_reader
from monai_ifim.io.case_folder import is_input_of
from monai_ifim.io.dicom.reader import INVERTED, known_volume
from monai_ifim.io.source import ValueChoice
from monai_ifim.io.units import HOUNSFIELD, SCANNER_UNITS
from monai_ifim.run.cases import find_cases
from synthetic_series import ORIENTATIONS, Series, write

Array = npt.NDArray[Any]
Change = Callable[[int, Dataset], None]
HEADER, RESCALE, REAL_WORLD = ValueChoice(), ValueChoice("rescale"), ValueChoice("real-world")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")


def series(folder: Path, change: Change, slices: int = 4, least: int = 0) -> Path:
    """An oblique series whose k-th slice is changed by `change`, with stored values from `least` to 999."""
    made = Series(ORIENTATIONS["oblique"], slices=slices)
    made.values = np.random.default_rng(3).integers(least, 1000, made.values.shape).astype(np.int16)
    images = made.slices()
    for number, image in enumerate(images):
        for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
            image.pop(keyword, None)
        change(number, image)
    return write(folder, images)


def single(path: Path, **changed: Any) -> Path:
    """A file of one slice with other attributes; None: without."""

    def change(number: int, image: Dataset) -> None:
        for keyword, value in changed.items():
            if value is None:
                image.pop(keyword, None)
            else:
                setattr(image, keyword, value)

    folder = series(path, change, slices=1)
    return next(folder.iterdir())


def read(path: Path, choice: ValueChoice | None = None, **reader: Any) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader(choice=choice, **reader))
    return loader(str(path))


def by_pydicom(path: Path) -> Array:
    """Values [columns, rows, slices] as pydicom gives them, in the order of the slices' places."""
    images = [pydicom.dcmread(path)] if path.is_file() else [pydicom.dcmread(file) for file in path.iterdir()]
    normal = np.cross(images[0].ImageOrientationPatient[:3], images[0].ImageOrientationPatient[3:])
    images.sort(key=lambda image: float(np.dot(image.ImagePositionPatient, normal)))
    return np.stack([apply_modality_lut(image.pixel_array, image) for image in images]).T


def opened(path: Path, choice: ValueChoice = HEADER) -> OpenedSource:
    found = OpenedSource(Source(path, choice=choice))
    found.check(channels=1)
    return found


def coded(value: str, scheme: str = "UCUM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, "a unit"
    return code


def real_world(slope: float = 0.5, intercept: float = 7.0, unit: str = "mm2/s") -> Dataset:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, intercept
    item.add_new("RealWorldValueFirstValueMapped", "US", 0)
    item.add_new("RealWorldValueLastValueMapped", "US", 999)
    item.LUTExplanation, item.LUTLabel = "SECRET^NAME", "SECRET"
    item.MeasurementUnitsCodeSequence = [coded(unit)]
    return item


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    def change(number: int, image: Dataset) -> None:
        image.Modality, image.Units = "PT", "BQML"
        image.RescaleSlope, image.RescaleIntercept = str(0.37 + 0.21 * number), str(-3 * number)

    folder = series(tmp_path / "pet", change)
    np.testing.assert_allclose(read(folder).numpy(), by_pydicom(folder), rtol=1e-6, atol=1e-4)
    assert opened(folder).unit == "Bq/ml"


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM"])
@pytest.mark.parametrize(("signed", "bits"), [(1, 16), (1, 12), (0, 12)])
def test_measured_values_are_the_stored_ones_with_rescale_whichever_is_shown_white(
    modality: str, signed: int, bits: int, tmp_path: Path
) -> None:
    def change(number: int, image: Dataset) -> None:
        image.Modality, image.PhotometricInterpretation = modality, "MONOCHROME1"
        image.PixelRepresentation, image.BitsStored, image.HighBit = signed, bits, bits - 1
        image.RescaleSlope, image.RescaleIntercept = 1.5 + number, -1000

    folder = series(tmp_path / "scan", change, slices=3, least=-900 if (signed, bits) == (1, 16) else 0)
    for choice in (None, ValueChoice(monochrome1="inverted")):  # which is for what is not measured
        np.testing.assert_allclose(read(folder, choice).numpy(), by_pydicom(folder), rtol=1e-6, atol=1e-4)
    file = next(folder.iterdir())
    np.testing.assert_allclose(read(file).numpy(), by_pydicom(file), rtol=1e-6, atol=1e-4)
    if (signed, bits) != (1, 12):  # which ITK does not decode by itself
        np.testing.assert_allclose(read(file).affine.numpy(), itk_affine(file), rtol=0, atol=1e-4)
    assert opened(folder).reading.inverted is False


def test_white_and_black_are_swapped_within_the_stored_bits_of_each_slice(tmp_path: Path) -> None:
    def change(number: int, image: Dataset) -> None:
        image.Modality, image.PhotometricInterpretation, image.PixelRepresentation = "DX", "MONOCHROME1", 0
        image.BitsStored, image.HighBit = 11 + number, 10 + number

    folder = series(tmp_path / "views", change, slices=3, least=0)
    stored = by_pydicom(folder)
    inverted = read(folder, ValueChoice(monochrome1="inverted")).numpy()
    for number in range(3):
        [largest] = np.unique(inverted[..., number] + stored[..., number])
        assert largest in (2**11 - 1, 2**12 - 1, 2**13 - 1)
    assert len(np.unique(inverted + stored)) == 3


def itk_affine(file: Path) -> Array:
    image = LoadImage(reader="ITKReader", image_only=True)(str(file))
    return image.affine.numpy()


def radiograph(path: Path, **changed: Any) -> Path:
    facts: dict[str, Any] = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 0}
    facts |= {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 2, "RescaleIntercept": 5}
    return single(path, **(facts | changed))


@pytest.mark.parametrize("compressed", [False, True])
def test_radiograph_is_as_the_bundle_s_reader_has_it_unless_told_otherwise(compressed: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(0, 4096, (48, 40)).astype(np.uint16)  # ITK does not decode very small RLE
    path = radiograph(tmp_path / "dx", Rows=48, Columns=40, PixelData=pixels.tobytes())
    if compressed:
        image = pydicom.dcmread(path)
        image.compress(RLELossless)
        image.save_as(path)
    stored = by_pydicom(path)
    inverted = 2 * 4095 + 10 - stored  # white and black swapped within the 12 bits stored, then rescaled
    if not compressed:
        np.testing.assert_array_equal(inverted, itk.array_from_image(itk.imread(str(path), itk.F)).T)
    for reader, expected in ((None, inverted), ("ITKReader", inverted), ("PydicomReader", stored[:, :, 0])):
        pipeline = Compose([LoadImaged("image", reader=reader)])
        register_dicom_reader(pipeline)
        found = pipeline({"image": str(path)})["image"]
        np.testing.assert_array_equal(found.numpy(), expected)
        assert bool(found.meta[INVERTED]) == (reader != "PydicomReader")
        for word, asked in (("stored", stored), ("inverted", inverted)):
            source = opened(path, ValueChoice(monochrome1=word))  # type: ignore[arg-type]
            assert source.reading.inverted == (word == "inverted")
            with known_volume(path, source.readable_volume):
                np.testing.assert_array_equal(pipeline({"image": str(path)})["image"].numpy(), asked.reshape(expected.shape))
    assert opened(path).reading.inverted is True


def test_radiograph_whose_zero_is_black_is_left_alone(tmp_path: Path) -> None:
    path = radiograph(tmp_path / "dx", PhotometricInterpretation="MONOCHROME2")
    np.testing.assert_array_equal(read(path, ValueChoice(monochrome1="inverted")).numpy(), by_pydicom(path))
    assert opened(path, ValueChoice(monochrome1="inverted")).reading.inverted is None
    assert opened(path, ValueChoice(monochrome1="inverted")).choice == {}


def table(first: int, entries: Array, kind: str = "HU", words: bool = False, bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.ModalityLUTType = kind
    if words:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    else:
        item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize(("first", "count"), [(0, 1000), (100, 300), (-200, 2000)])
def test_modality_lut_is_applied_as_pydicom_does(first: int, count: int, words: bool, tmp_path: Path) -> None:
    entries = np.random.default_rng(5).integers(0, 60000, count)

    def change(number: int, image: Dataset) -> None:
        del image.RescaleSlope, image.RescaleIntercept
        image.ModalityLUTSequence = [table(first, (entries + 7 * number) % 65536, words=words)]

    folder = series(tmp_path / "lut", change, least=-150)
    np.testing.assert_array_equal(read(folder).numpy(), by_pydicom(folder))
    source = opened(folder)
    assert (source.unit, source.reading.values) == (HOUNSFIELD, "Modality LUT")
    file = next(folder.iterdir())
    np.testing.assert_array_equal(read(file).numpy(), by_pydicom(file))


def test_modality_lut_replaces_the_slope_that_a_header_should_not_state_too(tmp_path: Path) -> None:
    path = single(tmp_path / "both", RescaleSlope=3, RescaleIntercept=-7, ModalityLUTSequence=[table(0, np.arange(1000) * 5)])
    np.testing.assert_array_equal(read(path).numpy(), by_pydicom(path))


def test_packed_table_of_bytes_is_read(tmp_path: Path) -> None:
    item = table(0, np.arange(256), bits=8)
    item.LUTData = bytes(range(255, -1, -1))  # two entries in a word
    path = single(tmp_path / "bytes", ModalityLUTSequence=[item])
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read(path).numpy()[:, :, 0], 255 - np.clip(stored, 0, 255).T)


@pytest.mark.parametrize("entries", [3, 0])
def test_broken_table_is_refused(entries: int, tmp_path: Path) -> None:
    item = table(0, np.arange(1000))
    item.LUTData = np.arange(entries, dtype="<u2").tobytes()
    path = single(tmp_path / "broken", ModalityLUTSequence=[item])
    with pytest.raises(InputError, match="a table of values in its DICOM header is broken: export the image again"):
        opened(path)


def test_real_world_values_are_taken_where_no_others_are_stated_and_it_is_said(tmp_path: Path) -> None:
    def change(number: int, image: Dataset) -> None:
        image.Modality = "MR"
        image.RealWorldValueMappingSequence = [real_world(0.5 + number, 7.0)]

    folder = series(tmp_path / "adc", change)
    expected = by_pydicom(folder) * (0.5 + np.arange(4)) + 7.0
    np.testing.assert_allclose(read(folder).numpy(), expected, rtol=1e-6)
    source = opened(folder)
    assert source.unit == "mm2/s"
    assert source.reading.values == "real-world values, as no others are stated"
    (word,) = source.reading.words()
    assert "as does --values rescale" in word
    np.testing.assert_array_equal(read(folder, RESCALE).numpy(), by_pydicom(folder))
    stored = opened(folder, RESCALE)
    assert (stored.unit, stored.reading.values) == (SCANNER_UNITS, "stored values with rescale")
    assert stored.reading.words() == ()


def test_real_world_values_of_a_philips_scan_are_those_of_dcm2niix(
    tmp_path: Path, dcm2niix: Callable[[Path, Path], nib.Nifti1Image]
) -> None:
    path = single(
        tmp_path / "mr",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        Modality="MR",
        Manufacturer="Philips Medical Systems",
        RescaleSlope=None,
        RescaleIntercept=None,
        RealWorldValueMappingSequence=[real_world()],
    )
    theirs = dcm2niix(path, tmp_path / "theirs")
    np.testing.assert_allclose(np.sort(theirs.get_fdata(), axis=None), np.sort(read(path).numpy(), axis=None), rtol=1e-6)


def test_real_world_values_that_are_the_rescaled_ones_name_the_unit(tmp_path: Path) -> None:
    facts = {"Modality": "MR", "RescaleSlope": "0.333333", "RescaleIntercept": "2"}
    path = single(tmp_path / "same", **facts, RealWorldValueMappingSequence=[real_world(1 / 3, 2.0, "ms")])
    source = opened(path)
    assert (source.unit, source.reading.values, source.reading.words()) == ("ms", "stored values with rescale", ())
    np.testing.assert_allclose(read(path).numpy(), by_pydicom(path), rtol=1e-6)


def test_two_values_of_a_voxel_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    facts = {"Modality": "PT", "Units": "BQML", "RescaleSlope": 2}
    path = single(tmp_path / "suv", **facts, RealWorldValueMappingSequence=[real_world(0.01, 0.0, "g/ml{SUVbw}")])
    with pytest.raises(
        InputError, match=r"\(in Bq/ml\).*\(in g/ml\): choose with --values rescale or --values real-world"
    ) as told:
        opened(path)
    assert "SECRET" not in str(told.value)
    with pytest.raises(InputError, match="choose with --values"):
        read(path)
    stored = pydicom.dcmread(path).pixel_array.T[:, :, None]
    for choice, expected, unit in ((RESCALE, 2.0 * stored, "Bq/ml"), (REAL_WORLD, 0.01 * stored, "g/ml")):
        source = opened(path, choice)
        assert source.unit == unit
        with known_volume(path, source.readable_volume):
            np.testing.assert_allclose(read(path).numpy(), expected, rtol=1e-6)
        assert source.choice == {"values": choice.values}


def test_several_real_world_values_are_refused_with_a_cure(tmp_path: Path) -> None:
    path = single(tmp_path / "two", RealWorldValueMappingSequence=[real_world(), real_world(0.25, 1.0)])
    for choice in (HEADER, REAL_WORLD):
        with pytest.raises(InputError, match="several real-world values of a voxel.*use --values rescale"):
            opened(path, choice)
    opened(path, RESCALE)
    np.testing.assert_array_equal(read(path, RESCALE).numpy(), by_pydicom(path))


def test_real_world_values_that_are_written_twice_are_one(tmp_path: Path) -> None:
    path = single(tmp_path / "twice", RealWorldValueMappingSequence=[real_world(), real_world()])
    alone = single(tmp_path / "once", RealWorldValueMappingSequence=[real_world()])
    np.testing.assert_array_equal(read(path, REAL_WORLD).numpy(), read(alone, REAL_WORLD).numpy())
    assert opened(path, REAL_WORLD).unit == opened(alone, REAL_WORLD).unit


def test_real_world_values_that_are_not_there_are_not_chosen(tmp_path: Path) -> None:
    path = single(tmp_path / "none")
    with pytest.raises(InputError, match="its header states no real-world values: leave --values out"):
        opened(path, REAL_WORLD)
    opened(path)


def test_table_of_real_world_values_is_applied_and_maps_what_it_holds(tmp_path: Path) -> None:
    entries = np.linspace(-1.0, 1.0, 1000)
    item = real_world(unit="ms")
    del item.RealWorldValueSlope, item.RealWorldValueIntercept
    item.RealWorldValueLUTData = [float(entry) for entry in entries]
    path = single(tmp_path / "whole", RealWorldValueMappingSequence=[item])
    np.testing.assert_allclose(read(path).numpy(), entries[by_pydicom(path).astype(int)], rtol=1e-5, atol=1e-6)
    item.RealWorldValueLUTData = [5.0, 7.0]
    path = single(tmp_path / "short", RealWorldValueMappingSequence=[item])
    with pytest.raises(InputError, match="maps stored values from 0 to 1, and it has .*use --values rescale"):
        read(path)
    np.testing.assert_array_equal(read(path, RESCALE).numpy(), by_pydicom(path))


def test_frames_have_their_own_real_world_values(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", lambda number, image: None)
    slices = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda image: float(image.ImagePositionPatient[2]))
    made = LegacyConvertedEnhancedCTImage(slices, generate_uid(), 3, generate_uid(), 1, include_dimension_index=False)
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        group.RealWorldValueMappingSequence = [real_world(1.0 + number, -2.0 * number, "[hnsf'U]")]
    made.save_as(tmp_path / "enhanced.dcm")
    stored = np.stack([image.pixel_array for image in slices]).T
    expected = stored * (1.0 + np.arange(4)) - 2.0 * np.arange(4)
    found = read(tmp_path / "enhanced.dcm").numpy()
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(expected, axis=None), rtol=1e-6)
    assert opened(tmp_path / "enhanced.dcm").unit == HOUNSFIELD


ORIGINAL = {"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}


@pytest.mark.parametrize(
    ("facts", "unit"),
    [
        (ORIGINAL, HOUNSFIELD),
        (ORIGINAL | {"RescaleSlope": None, "RescaleIntercept": None}, SCANNER_UNITS),
        (ORIGINAL | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SCANNER_UNITS),
        (ORIGINAL | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "RescaleType": "HU"}, HOUNSFIELD),
        (ORIGINAL | {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, SCANNER_UNITS),
        (ORIGINAL | {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "RescaleType": "HU"}, HOUNSFIELD),
        (ORIGINAL | {"MultienergyCTAcquisition": "YES"}, SCANNER_UNITS),
        (ORIGINAL | {"MultienergyCTAcquisition": "YES", "RescaleType": "MGML"}, "mg/ml"),
        (ORIGINAL | {"RescaleType": "Z_EFF"}, "effective atomic number"),
        (ORIGINAL | {"RescaleType": "US"}, SCANNER_UNITS),
        (ORIGINAL | {"RescaleType": "SECRET"}, SCANNER_UNITS),
        ({"Modality": "MR", "RescaleType": "HU"}, SCANNER_UNITS),
        ({"Modality": "CR", "RescaleType": "OD"}, "thousandths of optical density"),
        ({"Modality": "PT", "Units": "GML"}, "g/ml"),
        ({"Modality": "PT", "Units": "PROPCNTS"}, SCANNER_UNITS),
        ({"Modality": "PT", "Units": "CNTS", "RescaleSlope": None, "RescaleIntercept": None}, "counts"),
    ],
)
def test_unit_is_claimed_where_the_header_gives_it(facts: dict[str, Any], unit: str, tmp_path: Path) -> None:
    assert opened(single(tmp_path / "one", **facts)).unit == unit


def test_unit_that_is_free_text_is_not_taken_over(tmp_path: Path) -> None:
    path = single(tmp_path / "one", Modality="MR", RealWorldValueMappingSequence=[real_world(2.0, 0.0, "SECRET")])
    assert opened(path).unit == SCANNER_UNITS


def test_irregular_volume_is_resampled_in_its_own_values(tmp_path: Path) -> None:
    def change(number: int, image: Dataset) -> None:
        image.PhotometricInterpretation = "MONOCHROME1"
        image.RescaleSlope, image.RescaleIntercept = 1, 10 * number
        image.PixelData = np.full(35, 100, np.int16).tobytes()
        image.ImagePositionPatient = [
            *(np.array(image.ImagePositionPatient, float) + (number == 3) * ORIENTATIONS["oblique"][:, 2])
        ]

    [case] = find_cases([series(tmp_path / "uneven", change)], fix_geometry=True)
    source = OpenedSource(case.source)
    source.check(channels=1)
    (tmp_path / "scratch").mkdir()
    found = np.asarray(nib.load(source.readable_path(tmp_path / "scratch")).dataobj)
    np.testing.assert_allclose(found[3, 2, :3], [100, 110, 120], rtol=1e-5)


def test_another_choice_is_another_result_where_it_decides(tmp_path: Path) -> None:
    path, plain = radiograph(tmp_path / "dx"), single(tmp_path / "ct")
    asked = ValueChoice(monochrome1="stored")
    for file, decides in ((path, True), (plain, False)):
        [first], [second] = find_cases([file]), find_cases([file], choice=asked)
        recorded = {"sha256": OpenedSource(first.source).digest, "choice": OpenedSource(first.source).choice}
        assert recorded["choice"] == {}
        assert is_input_of(recorded, OpenedSource(first.source))
        assert is_input_of(recorded, OpenedSource(second.source)) is not decides
        again = {**recorded, "choice": OpenedSource(second.source).choice}
        assert is_input_of(again, OpenedSource(second.source))


def test_unknown_word_is_refused() -> None:
    with pytest.raises(InputError, match="unknown monochrome1 'white': choose one of 'reader', 'stored', 'inverted'"):
        ValueChoice(monochrome1="white")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["monochrome1", "modality_lut"])
def test_small_case_has_the_values_of_pydicom(name: str, small_cases: Path) -> None:
    folder = small_cases / "dicom" / name
    np.testing.assert_array_equal(read(folder).numpy(), by_pydicom(folder))
