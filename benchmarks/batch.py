"""Speed of batches compared with single images."""

from __future__ import annotations

from benchmarks.networks import small_densenet
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import decompose

BATCH = 8


def batches(setting: Setting) -> list[Row]:
    """Images a second of exact with batches of eight over those of exact with single images, the same eight images."""
    subject = small_densenet(6, setting.size(64, 32), setting.device)
    setting.note(subject.title)
    images = subject.batch(BATCH)

    def together() -> None:
        decompose(subject.network, images, head="categorical", method="exact")

    def alone() -> None:
        for i in range(BATCH):
            decompose(subject.network, images[i : i + 1], head="categorical", method="exact")

    timings = setting.measure({"batch 8": together, "batch 1": alone})
    rates = ", ".join(f"{name} {BATCH / timings.median(name):.3g} images/s" for name in timings.seconds)
    details = f"{rates}; {timings.describe()}"
    ratio = timings.ratio("batch 1", "batch 8")
    return [Row("images/s, batch 8 / batch 1", subject.title, ratio, Bar(1.5, True), "", details, timings.seconds)]
