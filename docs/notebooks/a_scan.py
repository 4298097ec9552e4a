# %% [markdown]
# # A scan in its own units
#
# This notebook decomposes a scan on its own grid and in its own unit, through the preprocessing: the chain rule goes through
# network and preprocessing together. (The notebook "An image and its components" decomposes the resampled, normalised image
# that the network sees.) The volume is generated and has a lesion.

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
# The eigenvalue is in nats per squared unit of the scan. The network sees the scan divided by its standard deviation, which is
# another unit, so the eigenvalue differs by the variance:

# %%
seen = bundle.prepare(bundle.read(path), path).as_tensor()[None]
as_seen = decompose(bundle.network, seen)
print("as the network sees it: ", round(float(as_seen.eigenvalues[0, 0]), 4))
print("in the scan's own unit: ", round(float(d.eigenvalues[0, 0]), 4))
print("the first / variance:   ", round(float(as_seen.eigenvalues[0, 0] / values.var()), 4))

# %% [markdown]
# ## The effect of normalisation
#
# The preprocessing subtracts the mean and divides by the standard deviation. A brighter scan, or one with more contrast, gives
# the network the same image. The sensitive directions are therefore orthogonal to a constant and to the scan itself, and `high`
# is empty.

# %%
leading = d.eigenvectors[:, 0]
print("with a constant: ", f"{float(leading.sum() / values.numel() ** 0.5):.1e}")
print("with the scan:   ", f"{float((leading * values).sum() / values.norm()):.1e}")
print("length of high:  ", f"{float(d.high.norm() / values.norm()):.1e} of the scan's")

# %% [markdown]
# This is correct for network and preprocessing together. Use sensitivity and directions instead of `high`. To treat mean and
# standard deviation as constants, freeze them:

# %%
frozen = decompose_scan(bundle.network, bundle.preprocessing, scan, statistics="freeze")
print("length of high:  ", f"{float(frozen.high.norm() / values.norm()):.4f} of the scan's")
print("high + low is the scan:", bool(torch.allclose(frozen.high + frozen.low, values, atol=1e-5)))

# %% [markdown]
# ## Resolution
#
# So far a change may be as fine as the voxels. `resolution` restricts changes to those that survive a blur of so many
# millimetres. The decrease of the leading eigenvalue shows how much of the sensitivity was to finer detail.

# %%
for millimetres in (None, 4.0, 8.0, 12.0):
    coarse = decompose_scan(bundle.network, bundle.preprocessing, scan, resolution=millimetres)
    print(f"{millimetres or 0:4.0f} mm: leading eigenvalue {float(coarse.eigenvalues[0, 0]):.4f}")

# %% [markdown]
# On the command line, use `--space scanner`; it writes files on the scan's own grid, without interpolation. The page "Scanner
# space" has the details.
