"""Any torch module as a net for the lens, read by forward hooks that exist for one pass only.

The module is in eval mode during that pass; its modes are restored afterwards. A layer is a submodule's output: of `conv1` the map
before the ReLU, if the ReLU is a submodule or function of its own; of `layer1.0` the output of the block. A submodule that is
called several times has a name for each call: `relu`, `relu@2`, `relu@3`.
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
from impasto.lens.trace import NOTHING, FieldTracer
from impasto.nets.geometry import Field, field_of
from impasto.nets.nets import INPUTS, Input, Net, channels, layer_name, map_size, preprocess, walk


@dataclass(frozen=True)
class LayerInfo:
    """A layer: its units, its receptive field (None if unknown), its filters if it reads the pixels."""

    units: int
    field: Field | None
    filters: Tensor | None


@dataclass(frozen=True)
class ModuleNet:
    """A module for the lens. `known` has its layers in the order in which the module computes them."""

    name: str
    module: nn.Module
    input: Input
    known: Mapping[str, LayerInfo]

    @property
    def convs(self) -> tuple[str, ...]:
        """The layers that are convolutions."""
        return tuple(name for name in self.known if isinstance(part_of(self.module, name), nn.Conv2d))


AnyNet = Net | ModuleNet


def module_net(module: nn.Module, input: Input = INPUTS["torchvision"], size: int = 224, name: str | None = None) -> ModuleNet:
    """The module as a net for the lens, after one pass over a picture of `size` x `size` that traces the receptive fields.

    Layers are the outputs of named submodules: maps (1, C, h, w), or vectors (1, C), which count as maps of 1 x 1. `input` is the
    module's input normalisation, `name` its name (by default its class).
    """
    net = ModuleNet(name or type(module).__name__, module, input, {})
    known: dict[str, LayerInfo] = {}

    def receive(layer: str, inputs: Any, a: Tensor) -> None:
        field = tracer.of(a)
        if a.dim() in (2, 4) and field != NOTHING:
            known[layer] = LayerInfo(a.shape[1], field, _filters(part_of(module, layer), inputs, pixels))

    pixels = pixels_of(net, torch.zeros(1, 3, size, size))
    with torch.no_grad(), watched(module, receive), FieldTracer(pixels) as tracer:
        module(pixels)
    return replace(net, known=known)


def part_of(module: nn.Module, layer: str) -> nn.Module:
    """The submodule whose output the layer is."""
    return module.get_submodule(layer.partition("@")[0])


def _filters(part: nn.Module, inputs: Any, pixels: Tensor) -> Tensor | None:
    """The filters (C, 3, k, k) of a convolution that reads the pixels; None for any other submodule."""
    return part.weight.detach() if isinstance(part, nn.Conv2d) and inputs and inputs[0] is pixels and part.groups == 1 else None


def pixels_of(net: ModuleNet, image: Tensor) -> Tensor:
    """(1, 3, H, W) in [0, 1] -> the module's normalised input, in the precision of its weights."""
    x = preprocess(image, net.input)
    return x.to(next(net.module.parameters(), x).dtype)


@contextmanager
def watched(module: nn.Module, receive: Callable[[str, Any, Tensor], None]) -> Iterator[None]:
    """Call `receive(layer, inputs, output)` for every named submodule whose output is a tensor; the module is in eval mode."""
    calls: Counter[str] = Counter()
    modes = {part: part.training for part in module.modules()}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def on_output(_: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1
            if isinstance(output, Tensor):
                receive(name if calls[name] == 1 else f"{name}@{calls[name]}", inputs, output)

        return on_output

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
    """(1, C, h, w) as it is, (1, C) as a map of 1 x 1."""
    return a if a.dim() == 4 else a[..., None, None]


def shuffled_module(net: ModuleNet, shuffle: Callable[[Tensor], Tensor]) -> ModuleNet:
    """A copy with every parameter's values shuffled."""
    module = copy.deepcopy(net.module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(shuffle(parameter))
    return replace(net, module=module)


# For both kinds of net


def visit(net: AnyNet, image: Tensor, wanted: Collection[str], receive: Callable[[str, Tensor], None]) -> None:
    """Run a picture (1, 3, H, W) in [0, 1] through the net; call `receive(layer, map (1, C, h, w))` for each wanted layer.

    One pass, which ends at the last wanted layer of a Net. A map is valid during the call only: later layers may write into it.
    Raises BadRecipe for layers that a module did not compute.
    """
    left = set(wanted)
    if isinstance(net, ModuleNet):
        _visit_module(net, image, left, receive)
        return
    for name, a in walk(net, image, wanted):
        if name in left:
            left.remove(name)
            receive(name, a)
        if not left:
            return


def _visit_module(net: ModuleNet, image: Tensor, left: set[str], receive: Callable[[str, Tensor], None]) -> None:
    def on_output(layer: str, _: Any, a: Tensor) -> None:
        if layer in left:
            left.remove(layer)
            receive(layer, as_map(a))

    with watched(net.module, on_output):
        net.module(pixels_of(net, image))
    if left:
        raise BadRecipe(f"{net.name} did not compute {', '.join(sorted(left))} for this picture")


def name_of(net: AnyNet, layer: str) -> str:
    """The canonical name of a layer. Raises BadRecipe, which lists the net's layers."""
    if isinstance(net, Net):
        return layer_name(net, layer)
    if layer not in net.known:
        raise BadRecipe(f"{net.name} has no layer {layer!r}, its layers are {', '.join(net.known)}")
    return layer


def layers_of(net: AnyNet, layers: Sequence[str]) -> dict[str, tuple[int, Field | None]]:
    """{layer: its units and receptive field}, in the net's order; by default of all convolutions."""
    if isinstance(net, ModuleNet):
        names = {name_of(net, layer) for layer in layers or net.convs}
        return {name: (known.units, known.field) for name, known in net.known.items() if name in names}
    names = {layer_name(net, layer) for layer in layers or [conv.name for conv in net.convs]}
    in_order = [name for x in net.layers for name in (f"{x.name}:pre", x.name) if name in names]
    return {name: (channels(net, name), field_of(net.layers, name)) for name in in_order}


def field_in(net: AnyNet, layer: str) -> Field | None:
    """The receptive field of a layer; None if it is unknown."""
    return net.known[layer].field if isinstance(net, ModuleNet) else field_of(net.layers, layer)


def weights_of(net: AnyNet) -> dict[str, Tensor]:
    """{name: tensor} of all weights."""
    if isinstance(net, ModuleNet):
        return {name: tensor.detach() for name, tensor in net.module.state_dict().items()}
    return {f"{conv.name}.{kind}": getattr(conv, kind) for conv in net.convs for kind in ("weight", "bias")}


@torch.no_grad()
def check_size(net: AnyNet, layers: Collection[str], size: int) -> None:
    """Raise BadRecipe for a size at which a layer's map is empty."""
    if isinstance(net, ModuleNet):
        try:
            visit(net, torch.zeros(1, 3, size, size), layers, lambda *_: None)
        except RuntimeError as error:
            raise BadRecipe(f"size is {size}, which {net.name} does not take: {error}") from error
        return
    for layer in layers:
        if min(map_size(net, layer, (size, size))) < 1:
            raise BadRecipe(f"size is {size}: too small, the map of {layer} would be empty")
