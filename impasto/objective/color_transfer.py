"""Colour rules applied to pictures: to the style pictures before painting, or to the painting after it, region by region."""

from collections.abc import Callable, Sequence

from torch import Tensor

from impasto.images.images import resize, size_of
from impasto.objective.color import grey, keep_color, luminance, match_color, match_light
from impasto.objective.framing import framed
from impasto.objective.masks import NO_MASKS, Masks, content_masks, product, shares
from impasto.recipe.recipe import Recipe
from impasto.recipe.regions import Rule

# Before


def recolored_inputs(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    alphas: Sequence[Tensor | None] | None = None,
    masks: Masks = NO_MASKS,
) -> tuple[Tensor, list[Tensor]]:
    """The content and style pictures that G is compared with, after the colour rules that apply before painting.

    Style pictures recoloured for a region follow the given ones, numbered as in `masks.recolored`. `alphas` are the alpha channels
    of the content picture and of each style picture; colour statistics ignore transparent pixels. All inputs are as they were
    read; the content picture is returned framed.
    """
    alpha, *style_alphas = alphas or (None,) * (1 + len(styles))
    content, alpha = framed(content, recipe), framed(alpha, recipe)
    if recipe.paints_light:
        return as_compared(content, recipe), _luminances(content, styles, recipe, alpha, style_alphas)
    rule = recipe.before(recipe.color)
    mask_of = shares({name: framed(mask, recipe) for name, mask in masks.content.items()})
    found = [_matched(style, content, rule, w, alpha) for style, w in zip(styles, style_alphas, strict=True)]
    for name in masks.recolored:
        region, part = recipe.regions[name], product(mask_of[name], alpha)
        for n in region.style_numbers(len(styles)):
            w = product(masks.style.get(name), style_alphas[n])
            found.append(_matched(styles[n], content, recipe.before(region.color or recipe.color), w, part))
    return content, found


def _matched(style: Tensor, content: Tensor, rule: Rule, weights: Tensor | None, to_weights: Tensor | None) -> Tensor:
    return style if rule == "style" else match_color(style, content, rule, weights, to_weights)


def _luminances(
    content: Tensor, styles: Sequence[Tensor], recipe: Recipe, alpha: Tensor | None, style_alphas: Sequence[Tensor | None]
) -> list[Tensor]:
    space = recipe.color_space
    lights = [luminance(style, space) for style in styles]
    if recipe.match_light:
        light = luminance(content, space)
        lights = [match_light(own, light, space, w, alpha) for own, w in zip(lights, style_alphas, strict=True)]
    return [grey(light, space) for light in lights]


def as_compared(image: Tensor, recipe: Recipe) -> Tensor:
    """(1, 3, H, W) as the costs compare it: grey, by its luminance, if only luminance is painted; else unchanged."""
    return grey(luminance(image, recipe.color_space), recipe.color_space) if recipe.paints_light else image


def luminance_cost(cost: Callable[[Tensor], dict[str, Tensor]], image: Tensor) -> dict[str, Tensor]:
    """The cost of the mean of G's channels, for painting luminance alone: a grey start stays grey."""
    return cost(_channel_mean(image))


# After


def recolored(image: Tensor, content: Tensor, recipe: Recipe, alpha: Tensor | None = None, masks: Masks | None = None) -> Tensor:
    """G as it is shown and saved: with the colour rules that apply after painting, in each region its own.

    `content`, its `alpha` channel and `masks` are as they were read; without `masks` those of the recipe's regions are made here.
    """
    parts = _parts_after(image, content, recipe, masks)
    if not (parts or recipe.paints_light):
        return image
    size = size_of(image)
    photograph = resize(framed(content, recipe), size, recipe.wraps, image)
    if recipe.paints_light:
        return keep_color(_channel_mean(image), photograph, recipe.color_space)  # the photograph's hue and chroma
    alpha = None if alpha is None else resize(framed(alpha, recipe), size, recipe.wraps, image).to(image)
    found = image
    for rule, mask in parts:
        changed = _recolored(image, photograph, rule, recipe, mask, alpha)
        found = changed if mask is None else found + mask * (changed - image)
    return found.clamp(0, 1)


def _parts_after(image: Tensor, content: Tensor, recipe: Recipe, masks: Masks | None) -> list[tuple[Rule, Tensor | None]]:
    """(rule, mask) of each colour rule that applies after painting; the recipe's own applies wherever no region has another."""
    own = {name: region.color for name, region in recipe.all_regions().items() if region.color}
    if not own or not any(map(recipe.comes_after, (recipe.color, *own.values()))):
        return [(recipe.color, None)] if recipe.comes_after(recipe.color) else []
    found = content_masks(recipe, content) if masks is None else masks.content
    size = size_of(image)
    scaled = {name: resize(framed(mask, recipe), size, recipe.wraps, image) for name, mask in found.items()}
    mask_of = shares({name: mask.to(image) for name, mask in scaled.items()})
    rest = (1 - sum((mask_of[name] for name in own), image.new_zeros(()))).clamp(min=0)
    parts = [*((rule, mask_of[name]) for name, rule in own.items()), (recipe.color, rest)]
    return [(rule, mask) for rule, mask in parts if recipe.comes_after(rule)]


def _recolored(image: Tensor, content: Tensor, rule: Rule, recipe: Recipe, mask: Tensor | None, alpha: Tensor | None) -> Tensor:
    """The whole picture recoloured by a rule with the statistics under the mask."""
    weights = product(mask, alpha)
    if rule == "luminance":
        return keep_color(image, content, recipe.color_space, matched=recipe.match_light, weights=weights)
    return match_color(image, content, rule, weights if recipe.has_content else mask, weights)


def _channel_mean(image: Tensor) -> Tensor:
    return image.mean(1, keepdim=True).expand_as(image)
