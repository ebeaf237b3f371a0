# %% [markdown]
# # Your own images
#
# All that is needed is a folder with one subfolder for each class. Here we make one from the small digits
# of scikit-learn, so that the notebook runs anywhere. Replace it by your own pictures.

# %%
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import capsnet

folder = Path("pictures")
digits = load_digits()  # 8×8 pixels, values from 0 to 16
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    picture = Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((20, 20), Image.Resampling.BICUBIC)
    place = folder / f"digit-{label}"
    place.mkdir(parents=True, exist_ok=True)
    picture.save(place / f"{number:04}.png")
print(len(list(folder.rglob("*.png"))), "images in", sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# ## Load
#
# The folders `train/` and `test/` are not there, so about a fifth of each class is held out for testing.

# %%
dataset = capsnet.load_dataset("folder:pictures")
print(len(dataset.train), "images to train on,", len(dataset.test), "to test on,", dataset.image_shape)

# %% [markdown]
# ## Train and predict

# %%
config = capsnet.CapsNetConfig.for_dataset(dataset, stem_channels=32, primary_types=4)
model = capsnet.CapsNet(config)
print(capsnet.train(model, dataset, out="runs/pictures", epochs=3, batch_size=32, shift=1))

# %% [markdown]
# The command line does the same: `capsnet train --data folder:pictures`. Here it reads three files with the
# run from above.

# %% language="bash"
# export FORCE_COLOR=  # plain lines
# capsnet predict runs/pictures pictures/digit-0/0000.png pictures/digit-1/0001.png pictures/digit-2/0002.png

# %% [markdown]
# ## Does a capsule network help here?
#
# `compare` trains a CapsNet and three controls with the same data and steps, and tests the difference. This
# one is short: two trainings of 100 steps for each model. So the networks have not learned all they can,
# and two trainings rarely show a difference beyond chance. For a real answer leave out `--steps`, `--seeds`
# and `--lr`. Then it takes minutes, and each model gets a learning rate of its own.

# %% language="bash"
# export FORCE_COLOR=
# capsnet compare --data folder:pictures --seeds 2 --steps 100 --lr 0.003 2> progress.txt

# %% [markdown]
# The table has the mean error of each model with its interval. The last sentence is the answer. "Undecided"
# means that these trainings cannot tell; it is not evidence for either side. [The guide](../own-images.md)
# explains the other answers.
