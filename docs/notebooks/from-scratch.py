# %% [markdown]
# # A CapsNet from scratch
#
# The whole network of the paper in about 80 lines of PyTorch, without this library. Then the library's
# trained weights are copied into it, and both must give the same numbers. So you can read here what the
# library computes.

# %%
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% [markdown]
# ## Squash, equation 1
#
# The direction of a vector stays. Its length becomes a number between 0 and 1.


# %%
def squash(s: Tensor) -> Tensor:
    length = s.norm(dim=-1, keepdim=True)
    return length**2 / (1 + length**2) * s / length.clamp(min=1e-12)


# %% [markdown]
# ## Routing, Procedure 1
#
# In the names of the axes, `b` is the image, `i` the child capsule, `j` the parent capsule; `c` and `d`
# count the numbers in a child and in a parent.


# %%
def route(u: Tensor, weight: Tensor, iterations: int = 3) -> Tensor:
    votes = torch.einsum("bic,icjd->bijd", u, weight)  # û_j|i = W_ij u_i, equation 2
    logits = torch.zeros(votes.shape[:3])
    for _ in range(iterations):
        couplings = logits.softmax(dim=2)  # over the parents, equation 3
        v = squash(torch.einsum("bij,bijd->bjd", couplings, votes))
        logits = logits + torch.einsum("bijd,bjd->bij", votes, v)  # agreement
    return v


# %% [markdown]
# ## The network, figures 1 and 2


# %%
class CapsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 256, 9)  # 28×28 → 256 maps of 20×20
        self.conv2 = nn.Conv2d(256, 32 * 8, 9, stride=2)  # → 32 types of 8 numbers at 6×6 places
        self.weight = nn.Parameter(0.1 * torch.randn(32 * 6 * 6, 8, 10, 16))
        self.decoder = nn.Sequential(
            nn.Linear(10 * 16, 512),
            nn.ReLU(),
            nn.Linear(512, 1024),
            nn.ReLU(),
            nn.Linear(1024, 784),
            nn.Sigmoid(),
        )

    def primary(self, images: Tensor) -> Tensor:
        maps = self.conv2(self.conv1(images).relu())
        capsules = maps.view(-1, 32, 8, 36).transpose(2, 3)  # the 8 numbers of a capsule share a place
        return squash(capsules.reshape(-1, 32 * 36, 8))

    def forward(self, images: Tensor) -> Tensor:
        return route(self.primary(images), self.weight)

    def decode(self, capsules: Tensor, labels: Tensor) -> Tensor:
        chosen = F.one_hot(labels, 10)[:, :, None]  # all other capsules become zero
        return self.decoder((capsules * chosen).flatten(1)).view(-1, 1, 28, 28)


# %% [markdown]
# ## The loss, equation 4 and section 4.1


# %%
def loss_of(model: CapsNet, images: Tensor, labels: Tensor) -> Tensor:
    capsules = model(images)
    lengths, present = capsules.norm(dim=2), F.one_hot(labels, 10)
    too_short, too_long = (0.9 - lengths).clamp(min=0) ** 2, (lengths - 0.1).clamp(min=0) ** 2
    margin = (present * too_short + 0.5 * (1 - present) * too_long).sum(dim=1)
    squares = (model.decode(capsules, labels) - images).square().sum(dim=(1, 2, 3))
    return (margin + 0.0005 * squares).mean()


# %% [markdown]
# ## The same numbers as the library
#
# The library's network was trained on MNIST. Its weights have the same shapes, so they can be copied.

# %%
import capsnet

library = capsnet.load_model("capsnet-mnist")
mine = CapsNet()
print(f"{sum(p.numel() for p in mine.parameters()):,} weights")

parts = {
    mine.conv1: library.primary.conv1,
    mine.conv2: library.primary.conv2,
    mine.decoder: library.decoder.layers,
}
for own, theirs in parts.items():
    own.load_state_dict(theirs.state_dict())
mine.weight.data.copy_(library.class_capsules.weight)

test = capsnet.load_dataset("mnist5k").test
images, labels = test.images[:100].float() / 255, test.labels[:100]

# %% [markdown]
# The parts are compared on 100 test digits. A difference above 0.00001 would stop the notebook here.

# %%
with torch.no_grad():
    capsules = library(images)
    pairs = {
        "primary capsules": (mine.primary(images), library.primary(images)),
        "class capsules": (mine(images), capsules),
        "reconstructions": (mine.decode(capsules, labels), library.decode(capsules, labels)),
    }
for name, (ours, wanted) in pairs.items():
    difference = float((ours - wanted).abs().max())
    print(f"{name:18} {tuple(wanted.shape)!s:20} largest difference {difference:.1e}")
    assert difference < 1e-5

# %% [markdown]
# The loss and its gradient must agree too, because training follows them. The gradient flows through all
# three routing iterations.

# %%
ours = loss_of(mine, images, labels)
present = F.one_hot(labels, 10)
capsules = library(images)
wanted = capsnet.margin_loss(capsules.norm(dim=2), present) + 0.0005 * capsnet.reconstruction_loss(
    library.decode(capsules, labels), images
)
ours.backward()
wanted.backward()
gradient = library.class_capsules.weight.grad
gap = float((mine.weight.grad - gradient).abs().max() / gradient.abs().max())
print(f"loss {ours.item():.6f} and {wanted.item():.6f}; largest difference of gradients, relative: {gap:.1e}")
assert abs(ours.item() - wanted.item()) < 1e-5
assert gap < 1e-5

# %% [markdown]
# ## What the library adds
#
# This version stores every vote: 184,320 numbers for each image of MNIST, and autograd keeps several
# copies. The library computes the same without storing them ([how](../routing.md)), which makes a training
# step several times faster ([measured](../speed.md)). It also has the data, the experiments and the
# controls.
