"""A painting in one pass: every part of the photograph with its style, as strong as the recipe says."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.feedforward.net import STRIDE, Style, Transformer
from impasto.feedforward.styles import PLAIN, TrainedNet, bundled, numbers_of
from impasto.images.images import size_of
from impasto.objective.masks import NO_MASKS, Masks, busyness
from impasto.objective.targets import Part, parts_of
from impasto.recipe.recipe import Recipe, make_recipe

WHOLE = 0.5  # strength from which on every pixel is painted
BYTES, BYTES_A_PIXEL = 150e6, 300  # that the net takes at least, and of the maps that it holds at once: measured
# The knobs that quality instant follows; clean_color is in the net, and videos switch it off. seed is in every record.
FOLLOWED = {
    *("preset", "quality", "size", "seed", "beta", "calm", "style_weights", "style_crop", "shape", "seamless", "clean_color"),
    *("regions", "protect", "color", "color_space", "match_light"),
}


def check_instant(recipe: Recipe) -> None:
    """Raise BadRecipe for knobs that quality instant does not follow."""
    plain = make_recipe(quality="instant")
    if recipe.preset != plain.preset:
        raise BadRecipe(f"quality instant has only the preset {plain.preset}, not {recipe.preset}")
    changed = [name for name in Recipe.model_fields if name not in FOLLOWED and getattr(recipe, name) != getattr(plain, name)]
    if changed:
        raise BadRecipe(f"quality instant does not follow {', '.join(changed)}: leave them out, or use quality draft")
    if any(region.style_mask for region in recipe.regions.values()):
        raise BadRecipe("quality instant takes whole style pictures: crop one instead of giving it a style_mask")


@dataclass(frozen=True)
class StyledPart:
    """A part of the picture by its mask (1, 1, H, W), None for all of it, with numbers (2, NUMBERS) and the style's strength."""

    mask: Tensor | None
    numbers: Tensor
    strength: float


class InstantPainter:
    """Paints photographs in the manner of style pictures (1, 3, H, W), as they were read, in one pass each.

    beta is the strength: the preset's is full, 0 is the photograph. Down to WHOLE the numbers go to those that give the photograph
    back, below it also its pixels come back. `inertia` is for frames of a video (Transformer).
    """

    def __init__(self, styles: Sequence[Tensor], recipe: Recipe, trained: TrainedNet | None = None, inertia: float = 0.0) -> None:
        self.recipe, self.trained = recipe, trained or bundled()
        self.known = [numbers_of(style, self.trained) for style in styles]
        self.transformer = Transformer(self.trained.weights, recipe.wraps, inertia)

    @classmethod
    def needed_by(cls, recipe: Recipe, styles: Sequence[Tensor]) -> "InstantPainter | None":
        """The painter of quality instant, and of a descent that starts from its picture; None for other recipes."""
        return cls(styles, recipe) if recipe.is_instant or recipe.init == "instant" else None

    def following(self, recipe: Recipe) -> "InstantPainter":
        """A painter of the same styles by another recipe."""
        other = copy(self)
        other.recipe, other.transformer = recipe, Transformer(self.trained.weights, recipe.wraps, self.transformer.inertia)
        return other

    @property
    def used(self) -> dict[str, Any]:
        """What the bytes of its pictures depend on, for records: the digests of the net and of each style's numbers."""
        return {"instant": self.trained.digest, "numbers": [known.digest for known in self.known]}

    def paint(self, content: Tensor, masks: Masks = NO_MASKS) -> Tensor:
        """(1, 3, H, W) in [0, 1], as `content`, which is framed and scaled; masks are as they were read."""
        self.transformer.weights = {name: tensor.to(content) for name, tensor in self.transformer.weights.items()}
        parts = self.parts(content, masks)
        style = Style(tuple((None if part.mask is None else _padded(part.mask), part.numbers) for part in parts))
        with torch.no_grad():
            painted = self.transformer.paint(content, style)
        if all(part.strength >= WHOLE for part in parts):
            return painted
        share = sum(min(1.0, part.strength / WHOLE) * (1 if part.mask is None else part.mask) for part in parts)
        return torch.lerp(content, painted, share)

    def parts(self, content: Tensor, masks: Masks) -> list["StyledPart"]:
        """The parts of the picture: those of the recipe; with `calm`, each where it is busy and where it is not."""
        plain, busy = self.trained.numbers[PLAIN].to(content), busyness(content, self.recipe)
        full = make_recipe().beta
        found = []
        for part in parts_of(content, len(self.known), self.recipe, masks):
            strength = min(1.0, part.style_weight * self.recipe.beta / full)
            styled = StyledPart(part.mask, plain.lerp(self._mixed(part, plain), strength), strength)
            if busy is None:
                found.append(styled)
            else:
                mask = busy.new_ones(()) if part.mask is None else part.mask
                found += [replace(styled, mask=mask * busy), StyledPart(mask * (1 - busy), plain, 0.0)]
        return found

    def _mixed(self, part: Part, plain: Tensor) -> Tensor:
        """The part's styles by their weights."""
        if not part.styles:
            return plain
        shares = part.shares(self.recipe)
        numbers = [share * self.known[n].numbers.to(plain) for share, (n, _) in zip(shares, part.styles, strict=True)]
        return torch.stack(numbers).sum(0)


def _padded(mask: Tensor) -> Tensor:
    height, width = size_of(mask)
    return F.pad(mask, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def instant_memory(size: tuple[int, int]) -> float:
    """Bytes that the net takes for a picture of this size (H, W)."""
    return BYTES + BYTES_A_PIXEL * size[0] * size[1]
