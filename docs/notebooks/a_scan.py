# %% [markdown]
# # A scan in its own units
#
# So far an image was decomposed as the network saw it: resampled, normalised. Here it is the scan itself, on its own grid and
# in its own unit. The network is preceded by its preprocessing, and the chain rule goes through both. The volume is drawn on
# the spot; it has a lesion.

# %%
import torch

from monai_ifim import decompose, decompose_scan
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.evaluation.demonstration import demo_volume
from monai_ifim.io.installation import resolve_bundle

bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
path = demo_volume(".")
scan = bundle.read(path)["image"]  # as the file has it, before any step that changes it
values = scan.as_tensor()[None]
print(tuple(scan.shape), f"mean {float(values.mean()):.2f}, standard deviation {float(values.std()):.2f}")

# %%
d = decompose_scan(bundle.network, bundle.preprocessing, scan)
print("steps:", ", ".join(d.record["preprocessing"]["steps"]))
d.plot()

# %% [markdown]
# The eigenvalue is in nats per squared unit of the scan. As the network sees it, after division by the standard deviation, the
# unit is another one, and the eigenvalue with it:

# %%
seen = bundle.prepare(bundle.read(path), path).as_tensor()[None]
as_seen = decompose(bundle.network, seen)
print("as the network sees it: ", round(float(as_seen.eigenvalues[0, 0]), 4))
print("in the scan's own unit: ", round(float(d.eigenvalues[0, 0]), 4))
print("the first / variance:   ", round(float(as_seen.eigenvalues[0, 0] / values.var()), 4))

# %% [markdown]
# ## What the preprocessing takes off, nobody can see
#
# The preprocessing subtracts the mean and divides by the standard deviation. Brighten the whole scan, or raise its contrast,
# and the network sees the same image as before. So the sensitive directions are at right angles to a constant, and to the scan
# itself: the scan has no part in them.

# %%
leading = d.eigenvectors[:, 0]
print("with a constant: ", f"{float(leading.sum() / values.numel() ** 0.5):.1e}")
print("with the scan:   ", f"{float((leading * values).sum() / values.norm()):.1e}")
print("length of high:  ", f"{float(d.high.norm() / values.norm()):.1e} of the scan's")

# %% [markdown]
# That is a true statement about network and preprocessing together, and `high` is empty because of it; sensitivity and
# directions are what to look at. To ask what the network would notice if mean and deviation were constants, freeze them:

# %%
frozen = decompose_scan(bundle.network, bundle.preprocessing, scan, statistics="freeze")
print("length of high:  ", f"{float(frozen.high.norm() / values.norm()):.4f} of the scan's")
print("high + low is the scan:", bool(torch.allclose(frozen.high + frozen.low, values, atol=1e-5)))

# %% [markdown]
# ## How coarse may a change be?
#
# Voxel by voxel a network sees a lot of texture. `resolution` asks for changes that survive a blur of so many millimetres
# alone. What is left of the sensitivity says how much of it was fine detail.

# %%
for millimetres in (None, 4.0, 8.0, 12.0):
    coarse = decompose_scan(bundle.network, bundle.preprocessing, scan, resolution=millimetres)
    print(f"{millimetres or 0:4.0f} mm: leading eigenvalue {float(coarse.eigenvalues[0, 0]):.4f}")

# %% [markdown]
# The command line does all this with `--space scanner`, and writes files that lie on the scan without interpolation. See
# "scanner space" among the pages.
