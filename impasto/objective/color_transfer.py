"""Whose colours a painting has, as its recipe and the regions in it say: given before it is painted, or when it is done."""

from collections.abc import Callable, Sequence

from torch import Tensor

from impasto.images.images import resize, size_of
from impasto.objective.color import grey, keep_color, luminance, match_color, match_light
from impasto.objective.framing import framed
from impasto.objective.masks import NO_MASKS, Masks, content_masks, shares
from impasto.recipe.recipe import Recipe
from impasto.recipe.regions import Rule

# Before


def compared_with(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    alphas: Sequence[Tensor | None] | None = None,
    masks: Masks = NO_MASKS,
) -> tuple[Tensor, list[Tensor]]:
    """The pictures that G is compared with: as they are, or in the photograph's colours, or in none where only light is painted.

    Behind the given style pictures come those of the regions with colours of their own, as `masks.matched` numbers them. `alphas`
    are what shows of the content picture and of each style picture, which their statistics are taken of. All are as they were
    read; the content picture comes back framed.
    """
    shows, *style_shows = alphas or (None,) * (1 + len(styles))
    content, shows = framed(content, recipe), framed(shows, recipe)
    if recipe.paints_light:
        return seen(content, recipe), _lights(content, styles, recipe, shows, style_shows)
    rule = recipe.before(recipe.color)
    where = shares({name: framed(mask, recipe) for name, mask in masks.content.items()})
    found = [_matched(style, content, rule, w, shows) for style, w in zip(styles, style_shows, strict=True)]
    for name in masks.matched:
        region, part = recipe.regions[name], _both(where[name], shows)
        for n in region.paintings(len(styles)):
            w = _both(masks.style.get(name), style_shows[n])
            found.append(_matched(styles[n], content, recipe.before(region.color or recipe.color), w, part))
    return content, found


def _matched(style: Tensor, content: Tensor, rule: Rule, weights: Tensor | None, to_weights: Tensor | None) -> Tensor:
    return style if rule == "style" else match_color(style, content, rule, weights, to_weights)


def _lights(
    content: Tensor, styles: Sequence[Tensor], recipe: Recipe, shows: Tensor | None, style_shows: Sequence[Tensor | None]
) -> list[Tensor]:
    lights = [luminance(style, recipe.color_space) for style in styles]
    if recipe.match_light:
        light, space = luminance(content, recipe.color_space), recipe.color_space
        lights = [match_light(own, light, space, w, shows) for own, w in zip(lights, style_shows, strict=True)]
    return [grey(light, recipe.color_space) for light in lights]


def seen(image: Tensor, recipe: Recipe) -> Tensor:
    """What of a picture is compared: its light where only light is painted, else all of it."""
    return grey(luminance(image, recipe.color_space), recipe.color_space) if recipe.paints_light else image


def cost_of_light(cost: Callable[[Tensor], dict[str, Tensor]], image: Tensor) -> dict[str, Tensor]:
    """The cost of G while only light is painted: of the mean of its channels, so that a grey start stays grey."""
    return cost(_channel_mean(image))


# After


def recolored(image: Tensor, content: Tensor, recipe: Recipe, alpha: Tensor | None = None, masks: Masks | None = None) -> Tensor:
    """G as it is shown and saved: in the photograph's colours where these come in after painting, in each region by its rule.

    `content`, `alpha` (what shows of it) and `masks` (those of the recipe's regions, made unless given) are as they were read.
    """
    parts = _parts_after(image, content, recipe, masks)
    if not (parts or recipe.paints_light):
        return image
    size = size_of(image)
    photograph = resize(framed(content, recipe), size, recipe.wraps, image)
    if recipe.paints_light:
        return keep_color(_channel_mean(image), photograph, recipe.color_space)
    alpha = None if alpha is None else resize(framed(alpha, recipe), size, recipe.wraps, image).to(image)
    found = image
    for rule, where in parts:
        changed = _recolored(image, photograph, rule, recipe, where, alpha)
        found = changed if where is None else found + where * (changed - image)
    return found.clamp(0, 1)


def _parts_after(image: Tensor, content: Tensor, recipe: Recipe, masks: Masks | None) -> list[tuple[Rule, Tensor | None]]:
    """The rules that come in after painting, each with its part of the picture; the recipe's with all that has none of its own."""
    own = {name: region.color for name, region in recipe.all_regions().items() if region.color}
    if not own or not any(map(recipe.comes_after, (recipe.color, *own.values()))):
        return [(recipe.color, None)] if recipe.comes_after(recipe.color) else []
    found = content_masks(recipe, content) if masks is None else masks.content
    size = size_of(image)
    brought = {name: resize(framed(mask, recipe), size, recipe.wraps, image) for name, mask in found.items()}
    where = shares({name: mask.to(image) for name, mask in brought.items()})
    left = (1 - sum((where[name] for name in own), image.new_zeros(()))).clamp(min=0)
    parts = [*((rule, where[name]) for name, rule in own.items()), (recipe.color, left)]
    return [(rule, part) for rule, part in parts if recipe.comes_after(rule)]


def _recolored(image: Tensor, content: Tensor, rule: Rule, recipe: Recipe, where: Tensor | None, alpha: Tensor | None) -> Tensor:
    """All of a picture by the rule of a part of it, whose statistics it takes."""
    counts = _both(where, alpha)
    if rule == "luminance":
        return keep_color(image, content, recipe.color_space, matched=recipe.match_light, weights=counts)
    return match_color(image, content, rule, counts if recipe.has_content else where, counts)


def _both(weights: Tensor | None, others: Tensor | None) -> Tensor | None:
    """What counts by both, None being all."""
    return weights if others is None else others if weights is None else weights * others


def _channel_mean(image: Tensor) -> Tensor:
    return image.mean(1, keepdim=True).expand_as(image)
