"""The data of the page's form: the fields of the recipe with their bounds, and the presets."""

from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt

from impasto.recipe.recipe import CHANGEABLE, PRESETS, Recipe, implied_by, make_recipe

# The fields in groups, in the order of the form. Masks, files and the preset are elsewhere on the page.
GROUPS = {
    "main": ("size", "beta", "composition", "quality", "color", "seed"),
    "style": (
        "style_weights",
        "style_scale",
        "style_crop",
        "style_rotation",
        "style_costs",
        "style_layers",
        "style_edit",
        "style_norm",
        "strokes",
    ),
    "content": ("alpha", "calm", "content_costs", "content_layers", "content_norm", "detail"),
    "colour": ("clean_color", "color_when", "color_space", "match_light"),
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
    "impasto": "The default, tuned by eye: the strokes of the style on the shapes of the photograph.",
    "gatys": "The settings of the code that the authors of the method published.",
    "gatys2015": "The first paper: from white noise, at one scale.",
    "course": "The deeplearning.ai assignment: Adam, from the photograph mixed with noise.",
    "textbook": "The first version in the course: plain gradient descent on a small picture.",
    "single-layer": "The style of one layer only.",
    "neural-style": "Johnson's neural-style: from noise, at one scale, smoothed.",
    "crowsonkb": "After Crowson's style-transfer-pytorch: optimal transport, coarse to fine.",
    "spst": "After Galerne and others, for large pictures: Gram matrices, means and deviations.",
    "strotss": "After Kolkin and others: self-similarity of the content, with the colours and textures of the style.",
    "mrf": "After Li and Wand: patches of the style picture, put together in a new way.",
    "texture": "A texture: the style without a content.",
    "inversion": "The photograph reconstructed from one layer, without a style.",
}

PRESETS_TITLES = {
    "impasto": "Impasto (impasto)",
    "gatys": "The original (gatys)",
    "gatys2015": "The first paper, from noise (gatys2015)",
    "course": "The course's assignment (course)",
    "textbook": "The textbook's plain descent (textbook)",
    "single-layer": "One layer's texture (single-layer)",
    "neural-style": "From noise, smoothed (neural-style)",
    "crowsonkb": "Crisp, deep colours (crowsonkb)",
    "spst": "Fine strokes, for large pictures (spst)",
    "strotss": "The whole palette, forms dissolved (strotss)",
    "mrf": "Patches of the painting, put together anew (mrf)",
    "texture": "Pattern: the style alone (texture)",
    "inversion": "What a layer keeps of the photograph (inversion)",
}


def form() -> dict[str, Any]:
    """The fields, the presets with their descriptions, and what each quality of them implies."""
    qualities = Recipe.model_fields["quality"].annotation
    presets = {name: make_recipe(name).model_dump(mode="json") for name in PRESETS}
    fields = [_field(name, group) for group, names in GROUPS.items() for name in names]
    about = {
        "fields": fields,
        "presets": presets,
        "presets_about": PRESETS_ABOUT,
        "presets_titles": PRESETS_TITLES,
        "changeable": list(CHANGEABLE),
    }
    steps = {name: {quality: implied_by(name, quality) for quality in get_args(qualities)} for name in PRESETS}
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
