"""Small modules for the lens: one straight net written in five ways, a residual net, and one whose branches are joined."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.nets.nets import INPUTS, Conv, ConvShape, Net, Pool, assemble

ALEX = (
    ConvShape("conv1", 3, 6, 5, 2, 2),
    Pool("pool1", 3),
    ConvShape("conv2", 6, 8, 5, 1, 2),
    Pool("pool2", 3),
    ConvShape("conv3", 8, 7),
)


def straight(dtype: torch.dtype = torch.float64) -> Net:
    """AlexNet's shape, with pools that overlap, in small."""
    generator, weights = torch.Generator().manual_seed(3), {}
    for x in ALEX:
        if isinstance(x, ConvShape):
            shape = (x.channels, x.channels_in, x.size, x.size)
            weights[f"{x.name}.weight"] = (torch.randn(shape, generator=generator) / (x.channels_in * x.size) ** 0.5).to(dtype)
            weights[f"{x.name}.bias"] = (0.1 * torch.randn(x.channels, generator=generator)).to(dtype)
    return assemble("alex", ALEX, weights, INPUTS["torchvision"])


def conv2d(layer: Conv) -> nn.Conv2d:
    out, into, size, _ = layer.weight.shape
    conv = nn.Conv2d(into, out, size, layer.stride, layer.padding, dtype=layer.weight.dtype)
    conv.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return conv


def sequential(net: Net, in_place: bool = False) -> nn.Sequential:
    parts = nn.Sequential()
    for layer in net.layers:
        if isinstance(layer, Pool):
            parts.add_module(layer.name, nn.MaxPool2d(layer.size, layer.stride))
        else:
            parts.add_module(layer.name, conv2d(layer))
            parts.add_module(layer.name.replace("conv", "relu"), nn.ReLU(in_place))
    return parts


class Functional(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (conv2d(layer) for layer in net.convs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2)
        x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), kernel_size=3, stride=2)
        return torch.relu(self.conv3(x))


class Methods(Functional):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.conv1(x).relu_(), 3, 2)
        x, _ = F.max_pool2d(torch.relu_(self.conv2(x)), 3, 2, return_indices=True)
        return self.conv3(x).relu()


class Reused(Functional):
    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        return self.relu(self.conv3(x))


WAYS = {
    "modules": sequential,
    "in place": lambda net: sequential(net, True),
    "functions": Functional,
    "methods": Methods,
    "one ReLU": Reused,
}


class Block(nn.Module):
    """The basic block of He et al. 2015, its second ReLU in place."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and into == out
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        inner += self.skip(x)
        return self.relu(inner)


class Residual(nn.Module):
    """ResNet in small: a stem, two stages, a mean over the map, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.pool = nn.Conv2d(3, 6, 5, 2, 2, bias=False), nn.BatchNorm2d(6), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = nn.Sequential(Block(6, 6, 1), Block(6, 6, 1)), nn.Sequential(Block(6, 8, 2))
        self.mean, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.pool(F.relu(self.bn(self.stem(x))))))
        return self.fc(self.mean(x).flatten(1))


class Joined(nn.Module):
    """Branches of several sizes beside one another, dilated, pooled, padded; then one of another stride, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.narrow, self.wide = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=2, dilation=2)
        self.even, self.pool = nn.Conv2d(3, 4, 2), nn.AvgPool2d(3, 1, 1)
        self.joined, self.behind = nn.Identity(), nn.Conv2d(18, 5, 3, 2)
        self.mixed = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.stem(x))
        left, right = a.chunk(2, 1)
        even = self.even(F.pad(left, (1, 0, 1, 0)))
        a = self.joined(torch.cat([self.narrow(a), self.wide(a), even, self.pool(a)], 1))
        b = self.behind(a)
        return self.mixed(F.interpolate(b, a.shape[-2:]) + a[:, :5] * right.mean())


def settled(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """With seeded weights, and the statistics of its batch norms as if trained."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5)
    return module.to(dtype)
