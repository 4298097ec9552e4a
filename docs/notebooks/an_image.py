# %% [markdown]
# # An image and its components
#
# Which small changes of an image would change a classifier's answer? This notebook decomposes a CT slice (from pydicom) with a
# small classifier (from the package) and looks at the result.

# %%
import torch

from monai_ifim import decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.evaluation.demonstration import demo_slice
from monai_ifim.io.installation import resolve_bundle

bundle = load_bundle(resolve_bundle("mednist_classification"))
image = bundle.preprocess(demo_slice()).as_tensor()[None]
classes = bundle.identity.class_names
tuple(image.shape), classes

# %% [markdown]
# `decompose` makes one backward pass per class but one, here five. It keeps the leading components that hold 99 % of the trace
# of the Fisher information. A decomposition at the end of a cell shows a table, the spectrum, the answer and the maps.

# %%
d = decompose(bundle.network, image, locality=True)
d

# %% [markdown]
# The classifier is not confident: the slice is unlike anything in its training data. The same at full size, with all kept
# directions:

# %%
d.plot(components=4)

# %% [markdown]
# ## High and low
#
# `high` is the image's projection onto the kept directions, `low` the rest. The two add up to the image. `high` is small: to
# second order, the answer depends on a small part of the image only.

# %%
print("largest difference of high + low from the image:", float((d.high + d.low - image).abs().max()))
print("share of the image's length in high:", round(float(d.high.norm() / image.norm()), 4))

# %% [markdown]
# ## Project another image
#
# `project` splits any image of the same shape into its part inside the directions of *this* image and the rest. Here it splits
# noise. Scaled to the same norm, the inside part changes the answer much more than the outside part:

# %%
noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
inside, outside = d.project(noise)
for name, part in (("inside", inside), ("outside", outside)):
    with torch.no_grad():
        answer = bundle.network(image + 0.01 * image.norm() * part / part.norm()).softmax(1)[0]
    change = (answer - d.probabilities[0]).abs()
    print(f"{name}: the answer is {classes[int(answer.argmax())]}, a probability moves by {float(change.max()):.3f}")

# %% [markdown]
# ## Locality radius
#
# The eigenvalue predicts that the divergence of the answer grows as a parabola along a direction. The locality radius is the
# largest step for which this holds within 10 %. It is small, as for most trained networks; beyond it the effect must be
# measured.

# %%
radius = d.locality_radius[0]
for number, (value, share) in enumerate(zip(d.eigenvalues[0], radius / image.norm(), strict=True), start=1):
    print(f"direction {number}: {value:6.2f} nats per squared unit, holds up to {float(share):.5f} of |x|")

# %%
import matplotlib.pyplot as plt

leading, eigenvalue = d.eigenvectors[:, 0], d.eigenvalues[0, 0]
steps = torch.linspace(-4, 4, 81) * radius[0].float()
with torch.no_grad():
    logits = torch.cat([bundle.network(image + step * leading) for step in steps]).double()
log_p = logits.log_softmax(1)
divergence = (d.probabilities * (d.probabilities.log() - log_p)).sum(1)

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(steps, divergence, label="measured")
axes.plot(steps, steps.double() ** 2 * eigenvalue / 2, "--", label="parabola")
axes.axvspan(-float(radius[0]), float(radius[0]), alpha=0.15, label="locality radius")
axes.set(xlabel="step along the leading direction", ylabel="KL divergence in nats")
axes.legend()
plt.show()

# %% [markdown]
# A positive step raises the predicted class, a negative step lowers it. None of this says that the classifier is right, or
# where the finding is: see "What a component is, and is not" on the page about theory.
