"""What verification adds to a decomposition, and to a run of many images."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.networks import densenet121
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.io.installation import resolve_bundle

IMAGES = 100
MOST_OF_ONE, MOST_OF_MANY = 1.35, 1.05


def verification(setting: Setting) -> list[Row]:
    """With over without verification: one image that is verified, and a run of images of which the first and every 20th are."""
    return [_one_image(setting), _many_images(setting)]


def _one_image(setting: Setting) -> Row:
    subject = densenet121(6, setting.size(224, 32), setting.device)
    setting.note(subject.title)

    def run(verify: Any) -> None:
        decompose(subject.network, subject.image, head="categorical", method="exact", verify=verify)

    timings = setting.measure({"verified": lambda: run("always"), "not verified": lambda: run("never")})
    ratio = timings.ratio("verified", "not verified")
    bar = Bar(MOST_OF_ONE, False)
    return Row("verified / not verified, one image", subject.title, ratio, bar, "", timings.describe(), timings.seconds)


def _many_images(setting: Setting) -> Row:
    bundle = load_bundle(resolve_bundle("mednist_classification"), setting.device)
    count = setting.size(IMAGES, 3)
    title = f"MedNIST bundle, 64^2, {count} images"
    setting.note(title)
    images = torch.rand(count, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(setting.device)

    def run(verify: Any) -> None:
        for i in range(count):
            decompose(bundle.network, images[i : i + 1], head="categorical", verify=verify)

    timings = setting.measure({"sample": lambda: run("sample"), "never": lambda: run("never")})
    ratio = timings.ratio("sample", "never")
    return Row("sample / never", title, ratio, Bar(MOST_OF_MANY, False), "", timings.describe(), timings.seconds)
