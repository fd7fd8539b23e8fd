"""Recipe: every knob of a painting, defined once, checked, with its help. The presets are recipes.

A recipe holds everything that changes the result and nothing else. The command line, the record inside a painting and the
documentation are made from its fields.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from impasto.errors import BadRecipe
from impasto.files import path_in, read_toml
from impasto.recipe.edit import LayerEdit, fields_at
from impasto.recipe.regions import FILE, MaskName, Region, Rule, in_folder, is_made, mask_in

# The style layers with their numbers of channels n_C, and the content layer of each net.
STYLE_LAYERS = {
    "vgg19": {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256, "conv4_1": 512, "conv5_1": 512},
    "vgg16": {"conv1_1": 64, "conv2_1": 128, "conv3_1": 256, "conv4_1": 512, "conv5_1": 512},
    "alexnet": {"conv1": 64, "conv2": 192, "conv3": 384, "conv4": 256, "conv5": 256},
}
STYLE_COSTS = ("gram", "covariance", "moments", "w2", "sliced", "histogram", "patches", "cross")
CONTENT_COSTS = ("features", "laplacian", "self-similarity")
CONTENT_LAYER = {"vgg19": "conv4_2", "vgg16": "conv4_2", "alexnet": "conv4"}


def parse_weights(value: Any) -> Any:
    """A text, "conv1_1=0.5,conv2_1" -> {"conv1_1": 0.5, "conv2_1": 1.0}; any other value passes."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.replace(" ", "").split(",") if part]
    return {name: weight if equals else 1.0 for name, equals, weight in parts}


def parse_numbers(value: Any) -> Any:
    """A text, "2,1" -> ["2", "1"]; any other value passes."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def check_shape(shape: str) -> str:
    """The shape itself, if it is like 16:9 or 1024x512. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)[:x](\d+(?:\.\d+)?)", shape)
    if shape and not (found and float(found[1]) and float(found[2])):
        raise ValueError("must be width:height, as 16:9 or 1024x512")
    return shape


def check_style_crop(crop: str) -> str:
    """The value itself, if it is none, auto or a box, or several of these with ";" between. Raises ValueError."""
    for part in crop.split(";"):
        box = re.fullmatch(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})", part.strip())
        if part.strip() not in ("none", "auto") and not (box and int(box[1]) < int(box[3]) and int(box[2]) < int(box[4])):
            raise ValueError('must be none, auto or left,top,right,bottom in pixels, one for each style picture with ";" between')
    return crop


FORMED = 512  # pixels: a scale of this longer side or more is fine, composition does not change the weight of its content
PROTECTED = "protected"  # the region of --protect
PROTECT_WEIGHTS: dict[str, Any] = {"style_weight": 0.03, "content_weight": 6.0}  # chosen by eye: still painted, in its own colours
PROTECT_COLOR: Rule = "luminance"  # if colours are applied after painting; measured: bench/LOG.md
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LayerWeights = Annotated[dict[str, Weight], BeforeValidator(parse_weights), Field(max_length=100)]
Numbers = Annotated[tuple[Weight, ...], BeforeValidator(parse_numbers)]
Shape = Annotated[str, Field(max_length=40), AfterValidator(check_shape)]
StyleCrop = Annotated[str, Field(max_length=400), AfterValidator(check_style_crop)]
Scales = list[tuple[int, int]]  # longer side and steps of each, coarse to fine


NetName = Literal["vgg19", "vgg16", "alexnet"]
# Knobs that can change while painting: size, steps and net do not depend on them.
CHANGEABLE = ("alpha", "beta", "tv", "style_weights", "content_layers", "style_layers", "style_edit")


MOST_REGIONS = 32  # each needs its own masks and statistics
MOST_CHANGES = 10_000
Changes = Annotated[dict[Annotated[int, Field(ge=1)], dict[str, Any]], Field(max_length=MOST_CHANGES)]


class Recipe(BaseModel):
    """Everything that determines the result except the input pictures and the weights of the net. Made by `make_recipe`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("impasto", max_length=60, pattern=r"^[\w.-]+$", description="named settings, which other options override")
    quality: Literal["instant", "draft", "standard", "fine"] = Field(
        "standard", description="number of steps, from the preset; instant paints in one pass of a net, without steps"
    )
    size: int = Field(512, ge=16, le=16384, description="longer side of the result, in pixels")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed of the noise")
    alpha: Weight = Field(1.0, description="weight of the content cost")
    beta: Weight = Field(1.0, description="weight of the style cost")
    composition: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how strictly things stay the photograph's: content counts more at coarse scales",
    )
    calm: float = Field(0.0, ge=0, le=1, description="how much less style there is where the photograph is calm, as sky and skin")
    tv: Weight = Field(0.0, description="weight of the total variation cost, which smooths the result")
    style_weights: Numbers = Field((), description="one weight for each style picture, as 2,1")
    style_scale: float = Field(
        1.0, ge=0.1, le=10, description="size of the style pictures relative to the result: larger values give larger strokes"
    )
    style_rotation: float = Field(
        0.0, ge=-360, le=360, description="degrees to rotate the style pictures, and so the strokes, counter-clockwise"
    )
    style_crop: StyleCrop = Field(
        "none", description="auto leaves out margins and frames of style pictures; or left,top,right,bottom in pixels, none"
    )
    shape: Shape = Field("", description="width:height of the result, as 16:9; the photograph is cropped around its centre")
    seamless: Literal["none", "x", "y", "both"] = Field(
        "none", description="make the result tile: x left to right, y top to bottom"
    )
    init: Literal["content", "noise", "picture", "instant"] = Field(
        "content", description="start picture; picture means that of --init-image, instant that of quality instant"
    )
    init_noise: float = Field(0.0, ge=0, le=1, description="share of white noise mixed into the start picture, 0 to 1")
    noise_width: float = Field(1.0, ge=0, le=1, description="range of the white noise around grey: 1 is black to white")
    net: NetName = Field("vgg19", description="network whose activations are compared")
    pooling: Literal["max", "avg"] = Field("max", description="pooling of the network")
    padding: Literal["zeros", "replicate", "reflect"] = Field("zeros", description="padding of the network at the picture's edges")
    normalize_net: bool = Field(False, description="rescale the network to a mean activation of 1, as in the 2015 paper")
    content_layers: LayerWeights = Field({}, description="layers of the content cost and their weights, as conv4_2=1")
    style_layers: LayerWeights = Field(
        {},
        description="layers of the style cost and weights, as conv1_1=0.2,conv2_1=0.2; ..conv3_1 is the preset's up to conv3_1",
    )
    style_edit: dict[str, LayerEdit] = Field({}, description="file of changes to the style: gains, weights and directions by layer")
    style_costs: LayerWeights = Field(
        {"gram": 1.0}, description=f"distances between styles and their weights, as gram=1,w2=0.5; {', '.join(STYLE_COSTS)}"
    )
    content_costs: LayerWeights = Field(
        {"features": 1.0}, description=f"distances between contents and their weights; {', '.join(CONTENT_COSTS)}"
    )
    regions: dict[str, Region] = Field(
        {},
        max_length=MOST_REGIONS,
        description="file of regions: parts of the photograph with their own mask, style picture, weights and colours",
    )
    protect: MaskName = Field("", description="mask that is white where the photograph must stay recognisable, as a face")
    content_norm: Literal["course", "paper", "mean", "relative"] = Field(
        "mean",
        description="sum of squares times: course 1/(4 n_H n_W n_C), paper 1/2, mean 1/(n_H n_W n_C), relative 1/sum a_C^2",
    )
    style_norm: Literal["paper", "mean"] = Field(
        "mean", description="sum of squared differences of G/M times: paper 1/(4 n_C^2), mean 1/n_C^2"
    )
    optimizer: Literal["lbfgs", "adam", "gd"] = Field("lbfgs", description="L-BFGS, Adam, or gradient descent G := G - lr dJ/dG")
    lr: float = Field(1.0, gt=0, allow_inf_nan=False, description="step size; pixels are in [0, 1]")
    history: int = Field(10, ge=1, le=200, description="number of earlier steps that L-BFGS uses")
    falloff: float = Field(0.0, ge=0, le=2, description="what L-BFGS changes first (1/frequency^falloff): 0 grain, 1 shapes")
    clean_color: bool = Field(False, description="smooth colour, not light, at the finest scale, against coloured specks")
    detail: float = Field(0.0, ge=0, le=2, description="how much of the photograph's finest detail each finer scale adds")
    strokes: float = Field(
        0.0, ge=0, le=2, description="how much of the style picture's finest detail each finer scale adds, where the two look alike"
    )
    color: Rule = Field(
        "style", description="keep the style's colours, or the photograph's by luminance, a linear match or histograms"
    )
    color_when: Literal["before", "after"] = Field(
        "before", description="apply the photograph's colours to the style pictures before painting, or to the result after it"
    )
    color_space: Literal["yiq", "lab", "oklab"] = Field("yiq", description="colour space of color=luminance")
    match_light: bool = Field(True, description="with color=luminance, first match the photograph's mean and contrast")
    coarsest: int = Field(256, ge=16, le=16384, description="longer side of the coarsest scale; one scale if size is not larger")
    steps: int = Field(100, ge=1, le=1_000_000, description="optimiser steps at the coarsest scale")
    fine_steps: int = Field(50, ge=1, le=1_000_000, description="optimiser steps at the finest scale; others interpolate")
    changes: Changes = Field({}, description="file of knobs that change while painting: [60] with beta = 30 applies after step 60")

    def alpha_at(self, side: int) -> float:
        """The weight of the content cost at a scale of this longer side in pixels: alpha (size / side)^(4 composition).

        Here size is at most FORMED. What a painting shows arises at coarse scales, where a place of a deep layer sees half of it.
        """
        factor: float = max(1.0, min(FORMED, self.size) / side) ** (4 * self.composition)
        return self.alpha * factor

    @property
    def is_instant(self) -> bool:
        """Whether it is painted in one pass of the instant net, without a descent."""
        return self.quality == "instant"

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether the result tiles (top to bottom, left to right)."""
        return self.seamless in ("y", "both"), self.seamless in ("x", "both")

    @property
    def proportions(self) -> tuple[float, float] | None:
        """The proportions height, width of the shape; None without a shape."""
        width, _, height = self.shape.replace("x", ":").partition(":")
        return (float(height), float(width)) if height else None

    @property
    def has_content(self) -> bool:
        """Whether the content cost has a weight above 0."""
        return self.alpha * sum(self.content_layers.values()) > 0

    @property
    def has_style(self) -> bool:
        """Whether the style cost has a weight above 0."""
        return self.beta * sum(self.style_layers.values()) > 0

    @model_validator(mode="after")
    def _some_cost(self) -> "Recipe":
        if not (self.has_content or self.has_style):
            raise ValueError("nothing to minimise: the content and the style cost both have weight 0")
        if self.style_weights and not sum(self.style_weights):
            raise ValueError("style_weights are all 0")
        if self.color == "luminance" and not self.has_content:
            raise ValueError("color is luminance, and without a content cost there is no photograph to take colours from")
        for name, known in (("style_costs", STYLE_COSTS), ("content_costs", CONTENT_COSTS)):
            costs = getattr(self, name)
            if unknown := [cost for cost in costs if cost not in known]:
                raise ValueError(f"{name} has {', '.join(unknown)}, there are {', '.join(known)}")
            if not sum(costs.values()):
                raise ValueError(f"{name} are all 0")
        if self.style_edit and not self.style_costs.get("gram"):
            raise ValueError("style_edit needs gram among the style_costs")
        if PROTECTED in self.regions:
            raise ValueError(f"a region cannot be called {PROTECTED}: that is the name of --protect")
        if unknown := [layer for layer in self.style_edit if layer not in self.style_layers]:
            raise ValueError(f"style_edit changes {', '.join(unknown)}, the style layers are {', '.join(self.style_layers)}")
        return self

    @model_validator(mode="after")
    def _colors_of_regions(self) -> "Recipe":
        for name, region in self.regions.items():
            if region.color == "luminance" and not self.has_content:
                raise ValueError(f"the region {name} has color luminance, and without a content cost there is no photograph")
            if region.color not in (None, "luminance") and self.paints_light:
                clash = f"the region {name} has color {region.color}, which color=luminance allows only after painting"
                raise ValueError(f"{clash}: color_when must be after")
        return self

    @property
    def paints_light(self) -> bool:
        """Whether only luminance is painted: all pictures are grey, and the colour is added at the end."""
        return self.color == "luminance" and self.color_when == "before"

    def comes_after(self, rule: Rule) -> bool:
        """Whether this rule is applied after painting, as the chroma of the photograph always is."""
        return rule == "luminance" or (rule != "style" and self.color_when == "after")

    def before(self, rule: Rule) -> Rule:
        """The rule for the style pictures before painting; "style" if this rule is applied after it."""
        return "style" if self.comes_after(rule) else rule

    @model_validator(mode="after")
    def _changeable(self) -> "Recipe":
        changed = self
        for _, knobs in sorted(self.changes.items()):
            if fixed := set(knobs) - set(CHANGEABLE):
                raise ValueError(
                    f"changes has {', '.join(sorted(fixed))}, but only {', '.join(CHANGEABLE)} can change while painting"
                )
            changed = changed._with(knobs)  # not at(i), which starts from the first change: that would be quadratic
            for name in ("content_layers", "style_layers"):
                if set(getattr(changed, name)) != set(getattr(self, name)):
                    raise ValueError(
                        f"changes can set other weights of the {name}, not other layers: {', '.join(getattr(self, name))}"
                    )
        return self

    def at(self, i: int) -> "Recipe":
        """The recipe after step i, with the changes until then. Raises BadRecipe for a change out of bounds."""
        made = {name: value for step in sorted(self.changes) if step <= i for name, value in self.changes[step].items()}
        return self._with(made) if made else self

    def _with(self, knobs: dict[str, Any]) -> "Recipe":
        return checked_recipe({**dict(self), **knobs, "changes": {}})

    def at_last(self) -> "Recipe":
        """The recipe after the last change."""
        return self.at(max(self.changes, default=0))

    def all_regions(self) -> dict[str, Region]:
        """The regions, with the protected area as one of them."""
        color = PROTECT_COLOR if self.comes_after(self.color) else None
        protected = {PROTECTED: Region(mask=self.protect, color=color, **PROTECT_WEIGHTS)} if self.protect else {}
        return {**self.regions, **protected}

    def mask_files(self) -> dict[str, Path]:
        """The masks that are files, as {"sky": path, "sky, style": path}."""
        regions = self.all_regions()
        named = {name: it.mask for name, it in regions.items()} | {f"{name}, style": it.style_mask for name, it in regions.items()}
        return {name: Path(mask) for name, mask in named.items() if mask and mask != FILE and not is_made(mask)}

    def scales(self) -> Scales:
        """(longer side in pixels, steps) of each scale, coarse to fine; the sides grow by one factor of at most 2."""
        if self.coarsest >= self.size:
            return [(self.size, self.steps)]
        finer = 1
        while self.coarsest * 2**finer < self.size:
            finer += 1
        factor = (self.size / self.coarsest) ** (1 / finer)
        sides = [round(self.coarsest * factor**i) for i in range(finer)] + [self.size]
        fall = (self.fine_steps / self.steps) ** (1 / finer)
        return [(side, round(self.steps * fall**i)) for i, side in enumerate(sides)]


def work_left(scales: Scales, i: int) -> float:
    """The work left after step i, in steps times pixels."""
    work = 0.0
    for side, steps in scales:
        done = min(i, steps)
        work, i = work + (steps - done) * side**2, i - done
    return work


def time_left(scales: Scales, i: int, scale: int, seconds: float) -> float:
    """Seconds left after step i, if every pixel takes as long as in that step, which took `seconds` at this scale."""
    return seconds / scale**2 * work_left(scales, i)


# Median costs between two different bundled pictures at 512 px: mean squares of conv4_2 (conv4), and of G/M of the style layers.
# A cost divided by its entry is about 1 between unrelated pictures, in every net and layer.
TYPICAL = {
    "vgg19": {"content": 9.0e5, "conv1_1": 1.1e6, "conv2_1": 3.8e8, "conv3_1": 6.2e8, "conv4_1": 1.5e11, "conv5_1": 1.1e7},
    "vgg16": {"content": 14.0, "conv1_1": 0.028, "conv2_1": 0.77, "conv3_1": 7.5, "conv4_1": 4.0, "conv5_1": 0.65},
    "alexnet": {"content": 5.0, "conv1": 0.43, "conv2": 0.87, "conv3": 0.75, "conv4": 0.47, "conv5": 0.10},
}
SHARES = (0.1, 0.25, 0.4, 0.2, 0.05)  # of the five style layers, tuned by eye: the middle layers hold the brush strokes


Layers = Callable[[str], dict[str, Any]]  # net -> its content layers and style layers with their weights


def _weighted(content: float, weight: Callable[[int, int], float]) -> Layers:
    """The content layer with this weight, and the n-th style layer, of n_C channels, with weight(n, n_C), if that is not 0."""

    def layers(net: str) -> dict[str, Any]:
        weights = {layer: weight(n, n_C) for n, (layer, n_C) in enumerate(STYLE_LAYERS[net].items())}
        return {"content_layers": {CONTENT_LAYER[net]: content}, "style_layers": {k: it for k, it in weights.items() if it}}

    return layers


def _by_shares(content: float, shares: Sequence[float]) -> Layers:
    """Layers with these typical costs: ours, or the weights of another program, converted through their effect."""

    def layers(net: str) -> dict[str, Any]:
        typical = TYPICAL[net]
        style = {layer: share / typical[layer] for layer, share in zip(STYLE_LAYERS[net], shares, strict=True) if share}
        return {"content_layers": {CONTENT_LAYER[net]: content / typical["content"]} if content else {}, "style_layers": style}

    return layers


AUTHORS = _weighted(1.0, lambda n, n_C: 1e3 / n_C**2)  # as in the authors' code
FIFTHS = _weighted(1.0, lambda n, n_C: 0.2)  # as in the paper and the course


# Name -> the layers with their weights for a net, and the other knobs. docs/presets.md says where each comes from.
PRESETS: dict[str, tuple[Layers, dict[str, Any]]] = {
    # Ours, tuned by eye.
    "impasto": (
        _by_shares(1.0, SHARES),
        {
            "beta": 10.0,
            "composition": 0.35,
            "style_crop": "auto",
            "clean_color": True,
            "pooling": "avg",
            "falloff": 0.5,
            "detail": 0.6,
            "strokes": 0.8,
            "coarsest": 128,
            "steps": 25,
            "fine_steps": 40,
        },
    ),
    # github.com/leongatys/PytorchNeuralStyleTransfer: 500 evaluations at 512, 200 at the high resolution.
    "gatys": (AUTHORS, {"coarsest": 512, "steps": 500, "fine_steps": 200, "history": 100}),
    # arXiv:1508.06576: alpha/beta = 1e-3 on the normalised net, average pooling, white noise, one scale.
    "gatys2015": (
        FIFTHS,
        {
            "alpha": 1e-3,
            "content_norm": "paper",
            "style_norm": "paper",
            "pooling": "avg",
            "normalize_net": True,
            "init": "noise",
            "coarsest": 16384,
            "steps": 500,
        },
    ),
    # deeplearning.ai, the programming assignment: Adam, noise mixed into the content picture.
    "course": (
        FIFTHS,
        {
            "alpha": 10,
            "beta": 40,
            "content_norm": "course",
            "style_norm": "paper",
            "pooling": "avg",
            "init_noise": 0.6,
            "noise_width": 40 / 255,
            "optimizer": "adam",
            "lr": 2 / 255,
            "size": 400,
            "coarsest": 16384,
            "steps": 200,
        },
    ),
    # The course's first statement of the algorithm: G = noise of 100 x 100 x 3, then G := G - lr dJ/dG.
    "textbook": (
        FIFTHS,
        {
            "alpha": 10,
            "beta": 40,
            "content_norm": "course",
            "style_norm": "paper",
            "init": "noise",
            "optimizer": "gd",
            "lr": 5e-12,
            "size": 100,
            "coarsest": 16384,
            "steps": 500,
        },
    ),
    # The course's style cost of one layer alone.
    "single-layer": (_weighted(1.0, lambda n, n_C: float(n == 2)), {"style_norm": "paper"}),
    # github.com/jcjohnson/neural-style at 512 x 384, where the sum in its total variation is 1.9e7 times our mean.
    "neural-style": (
        _weighted(5.0, lambda n, n_C: 1e2 / n_C**2),
        {"tv": 1.9e7, "init": "noise", "noise_width": 0.01, "coarsest": 16384, "steps": 1000, "history": 100},
    ),
    # github.com/crowsonkb/style-transfer-pytorch: W2 in 256:64:16:4:1, content 0.015, Adam 0.02, scales from 128.
    "crowsonkb": (
        _by_shares(0.21, (0.105, 0.31, 0.43, 0.28, 0.034)),
        {
            "style_costs": {"w2": 1.0},
            "padding": "replicate",
            "optimizer": "adam",
            "lr": 0.02,
            "coarsest": 128,
            "steps": 1000,
            "fine_steps": 500,
        },
    ),
    # github.com/bgalerne/scaling_painting_style_transfer (Galerne et al. 2023): the authors' Gram cost, with means and deviations.
    "spst": (
        AUTHORS,
        {"style_costs": {"gram": 1.0, "moments": 5.0}, "coarsest": 512, "steps": 600, "fine_steps": 200, "history": 100},
    ),
    # After Kolkin, Salavon & Shakhnarovich 2019 (arXiv:1904.12785): self-similarity for content, distributions for style.
    "strotss": (
        _by_shares(1.0, SHARES),
        {
            "beta": 1.0,
            "content_costs": {"self-similarity": 1.0},
            "style_costs": {"sliced": 1.0, "covariance": 1.0},
            "pooling": "avg",
            "falloff": 1.0,
            "coarsest": 64,
            "steps": 60,
            "fine_steps": 60,
        },
    ),
    # After Li & Wand 2016 (arXiv:1601.04589): patches of the style picture, in two layers, coarse to fine.
    "mrf": (
        _by_shares(1.0, (0, 0, 0.5, 0.5, 0)),
        {"beta": 1.0, "style_costs": {"patches": 1.0}, "falloff": 0.5, "coarsest": 96, "steps": 60, "fine_steps": 60},
    ),
    # Style and no content (arXiv:1505.07376). At 128 px there are so few positions that their order would be reproduced.
    "texture": (
        _by_shares(0.0, SHARES),
        {"alpha": 0.0, "init": "noise", "pooling": "avg", "falloff": 0.5, "coarsest": 256, "steps": 100, "fine_steps": 60},
    ),
    # Content and no style (arXiv:1412.0035), at one scale: a coarser one would add information that the layer does not have.
    "inversion": (
        _weighted(1.0, lambda n, n_C: 0.0),
        {
            "beta": 0.0,
            "content_norm": "relative",
            "tv": 1.0,
            "init": "noise",
            "noise_width": 0.1,
            "pooling": "avg",
            "falloff": 0.5,
            "size": 256,
            "coarsest": 16384,
            "steps": 100,
        },
    ),
}


def make_recipe(preset: str = "impasto", **knobs: Any) -> Recipe:
    """A preset (a name, or a .toml file of knobs) with changed knobs. Raises BadRecipe, naming knob, value and bounds."""
    if isinstance(preset, str) and preset.endswith(".toml"):
        file = path_in(Path(), preset)
        knobs = {**in_files(read_toml(file, "recipe"), file.parent), **knobs}
        preset = knobs.pop("preset", "impasto")
    knobs = in_files(knobs)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise BadRecipe(f"preset is {preset!r}, must be one of {', '.join(PRESETS)} or a .toml file that starts from one")
    layers, start = PRESETS[preset]
    net = knobs.get("net")
    known = net if isinstance(net, str) and net in STYLE_LAYERS else "vgg19"
    own = layers(known)
    if isinstance(named := knobs.get("style_layers"), str) and ".." in named:
        knobs["style_layers"] = layers_between(own["style_layers"], named)
    return checked_recipe({"preset": preset, **own, **start, **implied_by(preset, knobs.get("quality")), **knobs})


def in_files(knobs: Mapping[str, Any], folder: Path = Path()) -> dict[str, Any]:
    """The knobs with the contents of the TOML files that they name, and whole paths of masks. Raises BadRecipe.

    Paths start at this folder. Only for knobs from the user: a record or a request must never open a file.
    """
    return {name: NAMED[name](value, folder) if name in NAMED else value for name, value in knobs.items()}


def _table(value: Any, folder: Path, what: str) -> tuple[Any, Path]:
    """The contents of a file and its folder; a value that is no path passes."""
    if not isinstance(value, str | Path):
        return value, folder
    file = path_in(folder, str(value))
    return read_toml(file, what), file.parent


def _changes(value: Any, folder: Path) -> Any:
    found, inside = _table(value, folder, "changes")
    if not isinstance(found, dict):
        return found
    return {step: in_files(knobs, inside) if isinstance(knobs, dict) else knobs for step, knobs in found.items()}


NAMED: dict[str, Callable[[Any, Path], Any]] = {
    "style_edit": lambda value, folder: _table(value, folder, "style edit")[0],
    "regions": lambda value, folder: in_folder(*_table(value, folder, "regions")),
    "changes": _changes,
    "protect": lambda value, folder: mask_in(folder, value),
}


def layers_between(weights: dict[str, float], named: str) -> dict[str, float]:
    """{layer: lambda} of the layers "first..last", scaled to the same sum: 1/5 becomes 1/n, as in the paper.

    Without a first or last layer the range goes to the end of the list. Raises BadRecipe for layers without a weight.
    """
    layers = list(weights)
    first, last = (side.strip() for side in named.split("..", 1))
    known = {first, last} <= {"", *layers}
    kept = layers[layers.index(first) if first else 0 : layers.index(last) + 1 if last else None] if known else []
    if not kept:
        raise BadRecipe(f"style_layers is {named!r}, must go from one of {', '.join(layers)} to another: conv1_1..conv3_1")
    return {layer: weights[layer] * len(layers) / len(kept) for layer in kept}


# Quality -> factors for the preset's steps at the coarsest and at the finest scale.
QUALITIES = {"draft": (1.0, 0.1), "standard": (1.0, 1.0), "fine": (1.5, 3.0)}
# What the one pass of quality instant is: one scale, one step; the photograph's colours come after it.
ONE_PASS = {"steps": 1, "fine_steps": 1, "coarsest": 16384, "color_when": "after"}
LEARNING_STEPS = 200  # in which quality instant learns a style


def implied_by(preset: str, quality: Any) -> dict[str, Any]:
    """The knobs that a quality of a preset implies; {} for an unknown quality."""
    given = {name: PRESETS[preset][1].get(name, Recipe.model_fields[name].default) for name in ONE_PASS}
    if quality == "instant":
        return ONE_PASS
    if not isinstance(quality, str) or quality not in QUALITIES:
        return {}
    coarse, fine = QUALITIES[quality]
    return {**given, "steps": _share(given["steps"], coarse), "fine_steps": _share(given["fine_steps"], fine)}


def _share(steps: int, share: float) -> int:
    return max(1, round(steps * share))


def changed_recipe(recipe: Recipe, knobs: Mapping[str, Any]) -> Recipe:
    """The recipe with other knobs. Another quality also changes what the one before implied."""
    implied, wanted = (implied_by(recipe.preset, it) for it in (recipe.quality, knobs.get("quality")))
    changed = {name: value for name, value in wanted.items() if implied.get(name) == getattr(recipe, name)}
    return checked_recipe({**dict(recipe), **changed, **in_files(knobs)})


def checked_recipe(knobs: dict[str, Any]) -> Recipe:
    """A recipe from untrusted knobs; opens no file. Raises BadRecipe with one line for the first error."""
    try:
        return Recipe(**knobs)
    except ValidationError as error:
        first = error.errors()[0]
        name, reason = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise BadRecipe(_unknown(first["loc"])) from error
        if first["type"] == "missing":
            raise BadRecipe(f"{name} is missing") from error
        if first["type"] in ("model_type", "dict_type"):
            reason = "must be a table"
        if first["type"] == "too_long":
            raise BadRecipe(f"{name} has more than {first['ctx']['max_length']} entries, the limit") from error
        raise BadRecipe(f"{name} is {first['input']!r}: {reason}" if name else reason) from error


def _unknown(loc: tuple[str | int, ...]) -> str:
    """A message about an unknown knob, or an unknown field of a region or a style edit, with those that exist."""
    *place, name = loc
    if not place:
        return f"there is no knob {name!r}, the knobs are {', '.join(Recipe.model_fields)}"
    fields = Region.model_fields if place[0] == "regions" else fields_at(place[1:])
    return f"there is no {name!r} in {'.'.join(map(str, place))}, the fields are {', '.join(fields)}"
