"""Seconds of a large volume, and images a second by the size of the batch."""

from __future__ import annotations

from functools import partial

from monai.networks.nets import DenseNet121

from benchmarks.baselines import bare_passes
from benchmarks.memory import Peak
from benchmarks.networks import Subject, densenet121, frozen, small_densenet, subject
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import decompose

GIBIBYTE = 2**30
AIM = 0.25  # seconds of the volume
BATCHES = (1, 8, 32, 128)


def volume(setting: Setting) -> list[Row]:
    """DenseNet121 on 128^3 voxels with two classes: seconds, their ratio to those of the passes, and both peaks."""
    edge = setting.size(128, 32)
    build = partial(DenseNet121, spatial_dims=3, in_channels=1, out_channels=2)
    one = subject(f"DenseNet121 3D {edge}^3", build, (edge,) * 3, 2, setting.device)
    setting.note(one.title)
    bare = frozen(one.network)
    run = partial(decompose, one.network, one.image, head="categorical", method="exact", energy=0.99)
    plain = partial(bare_passes, bare, one.image, 2)
    timings = setting.measure({"exact": run, "passes": plain})
    peaks = {}
    for name, call in (("exact", run), ("passes", plain)):
        with Peak(setting.device) as peak:
            call()
        peaks[name] = peak.above / GIBIBYTE
    ratio, details = timings.ratio("exact", "passes"), timings.describe()
    return [
        Row("exact", one.title, timings.median("exact"), Bar(AIM, False), "s", details, timings.seconds),
        Row("exact / bare passes", one.title, ratio, Bar(1.10, False), "", details),
        Row("peak of exact", one.title, peaks["exact"], None, "GiB", f"of the passes {peaks['passes']:.3g} GiB"),
    ]


def throughput(setting: Setting) -> list[Row]:
    """Images a second of exact by the size of the batch, over those of single images."""
    small = small_densenet(6, setting.size(64, 32), setting.device)
    if setting.quick:
        return _rates(setting, small, BATCHES[:2])
    return [*_rates(setting, small, BATCHES), *_rates(setting, densenet121(6, 224, setting.device), BATCHES[:3])]


def _rates(setting: Setting, one: Subject, batches: tuple[int, ...]) -> list[Row]:
    setting.note(one.title)
    images = {size: one.batch(size) for size in batches}
    calls = {
        f"batch {size}": partial(decompose, one.network, image, head="categorical", method="exact", verify="never")
        for size, image in images.items()
    }
    timings = setting.measure(calls)
    rates = {size: size / timings.median(f"batch {size}") for size in batches}
    return [
        Row(f"images/s, batch {size} / batch 1", one.title, rate / rates[1], details=f"{rate:.4g} images/s")
        for size, rate in rates.items()
    ]
