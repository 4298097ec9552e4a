"""The verification of a batch as plain data for its record, and the warning about a disagreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.core.errors import GradientWarning, warn_caller
from monai_ifim.core.verification.comparison import Verification

ITSELF = "itself"  # the image was verified itself
NEVER = "never"  # nor was any other of the same network, shape and setting
WORST = ("disagrees", "inconclusive", "agrees", NEVER)


def described(
    found: Mapping[int, Verification], names: Sequence[str], earlier: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(record of the batch, figures of its last verified image for the records of later ones).

    found: outcomes by the number of the image in the batch. names: of the images. earlier: figures of the latest image of the
    same network, shape and setting that was verified before them.
    The record is that of the worst image, with one entry for each under "images"; "by" names the image that was verified.
    """
    images: list[dict[str, Any]] = []
    latest = None if earlier is None else dict(earlier)
    for number, name in enumerate(names):
        if number in found:
            own = found[number].describe()
            images.append({"by": ITSELF} | own)
            latest = {"by": name} | own
        else:
            images.append(dict(latest) if latest is not None else {"by": NEVER, "outcome": NEVER})
    worst = min(images, key=lambda image: (WORST.index(image["outcome"]), -(image.get("deviation") or 0.0)))
    return worst | {"images": images}, latest


def of_image(record: Mapping[str, Any], number: int) -> dict[str, Any] | None:
    """The entry of one image of a batch, from the record of the batch."""
    verification = record.get("verification")
    if verification is None:
        return None
    return dict(verification["images"][number]) | {"not_restored": verification.get("not_restored", [])}


def warn_of_disagreement(found: Mapping[int, Verification], names: Sequence[str]) -> None:
    """GradientWarning for the worst image whose derivatives disagree with differences."""
    wrong = {number: one for number, one in found.items() if one.outcome == "disagrees"}
    if not wrong:
        return
    number, one = max(wrong.items(), key=lambda item: item[1].deviation or 0.0)
    warn_caller(
        f"{names[number]}: the network's derivatives deviate by {one.deviation:.0%} from differences of its output (tolerance "
        f"{one.tolerance:.0%}), so eigenvalues and components are not those of its answer. {one.reason}",
        GradientWarning,
    )
