"""A net of your own: any module, with the names of its parts, looked at by hooks that live no longer than one pass.

The module is in eval mode for that pass and afterwards again what it was. A layer is what a part gives: of `conv1` the map before
its ReLU, if that is a part of its own or a function; of `layer1.0` what the block gives. A part that is called more than once has
a name a call: `relu`, `relu@2`, `relu@3`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import BadRecipe
from impasto.lens.trace import NOTHING, Sight
from impasto.nets.geometry import Field, field_of
from impasto.nets.nets import INPUTS, Input, Net, channels, layer_name, map_size, preprocess, walk


@dataclass(frozen=True)
class Known:
    """What one pass told of a layer: its units; what a place of it sees, None if unknown; its filters, if it reads the pixels."""

    units: int
    field: Field | None
    filters: Tensor | None


@dataclass(frozen=True)
class ModuleNet:
    """A module as the lens looks at it: what it `known`s of the layers is in the order in which the module computes them."""

    name: str
    module: nn.Module
    input: Input
    known: Mapping[str, Known]

    @property
    def convs(self) -> tuple[str, ...]:
        """The layers that are convolutions."""
        return tuple(name for name in self.known if isinstance(part_of(self.module, name), nn.Conv2d))


AnyNet = Net | ModuleNet


def module_net(module: nn.Module, input: Input = INPUTS["torchvision"], size: int = 224, name: str | None = None) -> ModuleNet:
    """The module for the lens, after one pass over a picture of `size` x `size` that follows what each layer sees.

    Layers are the outputs of named parts: maps (1, C, h, w), or vectors (1, C), which are maps of one place. `input` says how
    the module wants its pixels, `name` what to call it, its class unless given.
    """
    net = ModuleNet(name or type(module).__name__, module, input, {})
    known: dict[str, Known] = {}

    def see(layer: str, taken: Any, a: Tensor) -> None:
        field = sight.of(a)
        if a.dim() in (2, 4) and field != NOTHING:
            known[layer] = Known(a.shape[1], field, _filters(part_of(module, layer), taken, pixels))

    pixels = pixels_of(net, torch.zeros(1, 3, size, size))
    with torch.no_grad(), watched(module, see), Sight(pixels) as sight:
        module(pixels)
    return replace(net, known=known)


def part_of(module: nn.Module, layer: str) -> nn.Module:
    """The part of a module whose output the layer is."""
    return module.get_submodule(layer.partition("@")[0])


def _filters(part: nn.Module, taken: Any, pixels: Tensor) -> Tensor | None:
    """Those of a convolution of the pixels themselves, (C, 3, k, k); None for any other part."""
    return part.weight.detach() if isinstance(part, nn.Conv2d) and taken and taken[0] is pixels and part.groups == 1 else None


def pixels_of(net: ModuleNet, image: Tensor) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> what the module takes, in the precision of its weights."""
    x = preprocess(image, net.input)
    return x.to(next(net.module.parameters(), x).dtype)


@contextmanager
def watched(module: nn.Module, see: Callable[[str, Any, Tensor], None]) -> Iterator[None]:
    """Call `see` with name, what was taken and what was given, of every named part that gives a tensor; the module in eval mode."""
    calls: Counter[str] = Counter()
    modes = {part: part.training for part in module.modules()}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_: nn.Module, taken: Any, given: Any) -> None:
            calls[name] += 1
            if isinstance(given, Tensor):
                see(name if calls[name] == 1 else f"{name}@{calls[name]}", taken, given)

        return look

    hooks = [part.register_forward_hook(hook(name)) for name, part in module.named_modules() if name]
    try:
        module.eval()
        yield
    finally:
        for each in hooks:
            each.remove()
        for part, mode in modes.items():
            part.training = mode


def as_map(a: Tensor) -> Tensor:
    """(1, C, h, w), or (1, C) as a map of one place."""
    return a if a.dim() == 4 else a[..., None, None]


def shuffled_module(net: ModuleNet, shuffle: Callable[[Tensor], Tensor]) -> ModuleNet:
    """A copy with every parameter in another order."""
    module = copy.deepcopy(net.module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(shuffle(parameter))
    return replace(net, module=module)


# Of either kind of net


def visit(net: AnyNet, image: Tensor, wanted: Collection[str], see: Callable[[str, Tensor], None]) -> None:
    """Put a picture (1, 3, H, W) in [0, 1] through the net and call `see` with each wanted layer's name and map (1, C, h, w).

    One pass, that of a straight net no further than it must go. A map is shown when it is made and not kept: what comes next may
    write into it. Raises BadRecipe for layers of a module that it did not come by.
    """
    left = set(wanted)
    if isinstance(net, ModuleNet):
        _visit_module(net, image, left, see)
        return
    for name, a in walk(net, image, wanted):
        if name in left:
            left.remove(name)
            see(name, a)
        if not left:
            return


def _visit_module(net: ModuleNet, image: Tensor, left: set[str], see: Callable[[str, Tensor], None]) -> None:
    def look(layer: str, _: Any, a: Tensor) -> None:
        if layer in left:
            left.remove(layer)
            see(layer, as_map(a))

    with watched(net.module, look):
        net.module(pixels_of(net, image))
    if left:
        raise BadRecipe(f"{net.name} did not come by {', '.join(sorted(left))} with this picture")


def name_of(net: AnyNet, layer: str) -> str:
    """The one name of a layer. Raises BadRecipe, naming the net's layers."""
    if isinstance(net, Net):
        return layer_name(net, layer)
    if layer not in net.known:
        raise BadRecipe(f"{net.name} has no layer {layer!r}, its layers are {', '.join(net.known)}")
    return layer


def layers_of(net: AnyNet, layers: Sequence[str]) -> dict[str, tuple[int, Field | None]]:
    """{layer: its units and what a place of it sees}, in the net's order; of its convolutions where none are named."""
    if isinstance(net, ModuleNet):
        names = {name_of(net, layer) for layer in layers or net.convs}
        return {name: (known.units, known.field) for name, known in net.known.items() if name in names}
    names = {layer_name(net, layer) for layer in layers or [conv.name for conv in net.convs]}
    in_order = [name for x in net.layers for name in (f"{x.name}:pre", x.name) if name in names]
    return {name: (channels(net, name), field_of(net.layers, name)) for name in in_order}


def field_in(net: AnyNet, layer: str) -> Field | None:
    """What a place of a layer sees; None if that is unknown."""
    return net.known[layer].field if isinstance(net, ModuleNet) else field_of(net.layers, layer)


def weights_of(net: AnyNet) -> dict[str, Tensor]:
    """All that was learned, by name."""
    if isinstance(net, ModuleNet):
        return {name: tensor.detach() for name, tensor in net.module.state_dict().items()}
    return {f"{conv.name}.{kind}": getattr(conv, kind) for conv in net.convs for kind in ("weight", "bias")}


@torch.no_grad()
def check_size(net: AnyNet, layers: Collection[str], size: int) -> None:
    """Raise BadRecipe for a size at which a layer has no places."""
    if isinstance(net, ModuleNet):
        try:
            visit(net, torch.zeros(1, 3, size, size), layers, lambda *_: None)
        except RuntimeError as error:
            raise BadRecipe(f"size is {size}, which {net.name} does not take: {error}") from error
        return
    for layer in layers:
        if min(map_size(net, layer, (size, size))) < 1:
            raise BadRecipe(f"size is {size}: too small, nothing is left of a picture at {layer}")
