"""Words of a Parametric Map that need no map."""

from __future__ import annotations

from monai_ifim.io.maps import MapContent
from monai_ifim.io.parametric_map.codes import LONG_STRING, content_description, derivation_description


def test_description_of_a_map_of_a_saturated_answer_says_so_first_and_fits() -> None:
    said = content_description(MapContent("eigenvector", 12, 3), saturated=True)
    assert said == "Saturated: nothing moves the answer; eigenvector 12, channel 3"
    assert len(said) <= LONG_STRING
    assert "Saturated" not in content_description(MapContent("high"))


def test_derivation_states_the_number_that_decided_in_ascii() -> None:
    said = derivation_description({"saturation": {"nats": 1.5e-14, "saturated": True}})
    assert said.isascii()
    assert "would cost 1.50e-14 nats" in said
    assert len(said) < 1024  # of DICOM's ST
    usual = derivation_description({"saturation": {"nats": 2.0, "saturated": False}})
    assert usual == derivation_description({})
    assert said.startswith(usual)
