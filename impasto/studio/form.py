"""What the page's form is made of: the recipe's fields with their bounds, and what each preset sets."""

from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt

from impasto.recipe.recipe import CHANGEABLE, PRESETS, QUALITIES, Recipe, make_recipe, steps_of

# The fields by what they are about, in the order in which they are shown. Masks, files and the preset have places of their own.
GROUPS = {
    "main": ("size", "beta", "quality", "color", "seed"),
    "style": (
        "style_weights",
        "style_scale",
        "style_rotation",
        "style_costs",
        "style_layers",
        "style_edit",
        "style_norm",
        "strokes",
    ),
    "content": ("alpha", "content_costs", "content_layers", "content_norm", "detail"),
    "colour": ("color_when", "color_space", "match_light"),
    "frame": ("shape", "seamless"),
    "start": ("init", "init_noise", "noise_width"),
    "descent": ("optimizer", "lr", "history", "falloff", "coarsest", "steps", "fine_steps", "tv"),
    "network": ("net", "pooling", "padding", "normalize_net"),
}
ELSEWHERE = ("preset", "regions", "protect", "changes")
KINDS = {
    "content_layers": "weights",
    "style_layers": "weights",
    "style_costs": "weights",
    "content_costs": "weights",
    "style_weights": "numbers",
    "style_edit": "edit",
}
SIMPLE = {int: "int", float: "float", bool: "bool", str: "text"}
PRESETS_ABOUT = {
    "impasto": "The default, tuned by eye: strokes of the painting on the forms of the photograph.",
    "gatys": "The published code of the method's authors, to the letter.",
    "gatys2015": "The first paper: from white noise, at one scale.",
    "course": "The deeplearning.ai assignment: Adam, from the photograph mixed with noise.",
    "textbook": "The course's first statement of it: plain gradient descent on a small picture.",
    "single-layer": "The style of one layer alone.",
    "neural-style": "Johnson's neural-style: from noise, at one scale, smoothed.",
    "crowsonkb": "After Crowson's style-transfer-pytorch: optimal transport, coarse to fine.",
    "spst": "After Galerne and others, for large pictures: Gram matrices, means and deviations.",
    "strotss": "After Kolkin and others: how the photograph's places relate, in the painting's colours and textures.",
    "mrf": "After Li and Wand: pieces of the painting, put together anew.",
    "texture": "The painting's style alone, without a photograph.",
    "inversion": "What a layer knows of the photograph, without a painting.",
}


def form() -> dict[str, Any]:
    """The fields, the presets, what each is for, and how many steps it takes in which quality."""
    presets = {name: make_recipe(name).model_dump(mode="json") for name in PRESETS}
    fields = [_field(name, group) for group, names in GROUPS.items() for name in names]
    about = {"fields": fields, "presets": presets, "presets_about": PRESETS_ABOUT, "changeable": list(CHANGEABLE)}
    steps = {name: {quality: steps_of(name, quality) for quality in QUALITIES} for name in PRESETS}
    return about | {"default": "impasto", "steps": steps}


def _field(name: str, group: str) -> dict[str, Any]:
    field = Recipe.model_fields[name]
    choices = list(get_args(field.annotation)) if "Literal" in str(field.annotation) else None
    kind = KINDS.get(name) or ("choice" if choices else SIMPLE[field.annotation])  # type: ignore[index]
    limits = {"minimum": (Ge, "ge"), "maximum": (Le, "le"), "above": (Gt, "gt"), "below": (Lt, "lt")}
    bounds = {of: _limit(field.metadata, *limit) for of, limit in limits.items()}
    return {"name": name, "group": group, "kind": kind, "choices": choices, "description": field.description, **bounds} | {
        "default": make_recipe().model_dump(mode="json")[name]
    }


def _limit(metadata: list[Any], of: type, name: str) -> float | None:
    return next((getattr(it, name) for it in metadata if isinstance(it, of)), None)
