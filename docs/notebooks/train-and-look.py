# %% [markdown]
# # Train a network and look into it
#
# A small CapsNet learns 4,000 handwritten digits in less than a minute on one core. Then its routing, its
# drawings and the sixteen numbers of a capsule are shown.

# %%
import matplotlib.pyplot as plt
import torch

import capsnet
from capsnet.explain import dimension_effects, dimension_sheet, routing_summary

torch.manual_seed(0)
dataset = capsnet.load_dataset("mnist5k")  # 5,000 digits that come with the package

# %% [markdown]
# ## Train
#
# The published network has 256 channels in Conv1 and 32 types of primary capsules. This one has an eighth
# of them. The folder `runs/small` will hold the weights, the metrics and the result, as after `capsnet
# train`.

# %%
config = capsnet.CapsNetConfig.for_dataset(dataset, stem_channels=32, primary_types=4)
model = capsnet.CapsNet(config)
result = capsnet.train(model, dataset, out="runs/small", epochs=5, batch_size=64)
print("test error:", result)
assert result.error < 0.2

# %% [markdown]
# The run shows its settings and curves in a notebook.

# %%
capsnet.Run("runs/small")

# %% [markdown]
# ## Routing
#
# `trace` returns every value between image and answer. In the first iteration, each primary capsule gives a
# tenth of itself to each class. Then the couplings follow the agreement.

# %%
images, labels = dataset.test.images.float() / 255, dataset.test.labels
four = int((labels == 4).nonzero()[0])
trace = model.trace(images[four : four + 1])
assert torch.allclose(trace.routing.couplings.sum(dim=3), torch.ones(()), atol=1e-5)
print("the digit is a 4, and the longest capsule is", int(trace.lengths[0].argmax()))
trace

# %%
for step in routing_summary(trace.routing, dataset.class_names):
    print(step["iteration"], "entropy of the couplings", f"{step['coupling_entropy']:.3f}")

# %% [markdown]
# An entropy of 1 means that each child is spread evenly over all classes; 0 means that each child has
# chosen one class. A network that was trained with three iterations decides little, because its matrices
# already point the right way ([chapter 9](../tutorial/9-paper.md) shows it for a larger one).
#
# ## Drawings
#
# The decoder draws each digit from the sixteen numbers of its longest capsule. Above: test images. Below:
# drawings.

# %% alt="Eight test digits, and below them their reconstructions"
with torch.no_grad():
    capsules = model(images[:8])
    drawings = model.decode(capsules)
figure, axes = plt.subplots(2, 8, figsize=(8, 2.2))
for column in range(8):
    axes[0, column].imshow(images[column, 0], cmap="gray_r")
    axes[1, column].imshow(drawings[column, 0], cmap="gray_r")
for axis in axes.flat:
    axis.axis("off")

# %% [markdown]
# ## The sixteen numbers
#
# As in figure 4 of the paper: each row changes one number of the capsule from −0.25 to 0.25. Here are the
# first six rows.

# %% alt="Six rows of eleven drawings; each row changes one number of the capsule"
sheet = dimension_sheet(model, trace.capsules[0])
print(tuple(sheet.shape), "(numbers, offsets, channels, height, width)")
strip = sheet[:6, :, 0].permute(0, 2, 1, 3).reshape(6 * 28, -1)
plt.figure(figsize=(8, 4.4))
plt.imshow(strip, cmap="gray_r")
_ = plt.axis("off")

# %% [markdown]
# Which of them has a meaning? `dimension_effects` measures the drawings of several digits of one class:
# thickness, slant, width and more. A number gets the name of the measure that it changes most, and only if
# that effect is clear. Several numbers with the same name are not yet separated; longer training with more
# types does it better.

# %%
same = images[labels == 4][:20]
with torch.no_grad():
    poses = model(same)
effects = dimension_effects(model, poses, torch.full((len(same),), 4))
for dimension, meaning in enumerate(effects.meanings()):
    if meaning:
        print(f"number {dimension}: {meaning[0]} (correlation {meaning[1]:+.2f})")
print(sum(meaning is None for meaning in effects.meanings()), "of 16 have no clear meaning")

# %% [markdown]
# ## Go on
#
# - `capsnet report runs/small` writes one page with curves, confusions, certainty and couplings.
# - `capsnet explore runs/small` opens the explorer with this run.
# - `capsnet export runs/small --site DIR` writes the explorer as a folder for any web server ([how](../explorer.md)).
