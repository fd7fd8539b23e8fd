"""Style and content costs: tensors in, scalars out.

Sources: Gatys, Ecker & Bethge 2015 (arXiv:1508.06576), here "the paper"; deeplearning.ai, "Art Generation with Neural Style
Transfer", here "the course". Activations are (B, C, H, W): C = n_C channels over H = n_H rows and W = n_W columns.

G names two things in the literature: the generated picture, and the Gram matrix. Here a_G are the activations of the generated
picture, and gram_matrix(a_G) is its Gram matrix. The style cost compares the style picture S with the generated picture G.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from impasto.errors import BadInput
from impasto.nets.kernels import Gram, wrapped
from impasto.recipe.edit import LayerEdit, pair_of

Cost = Callable[[Tensor], dict[str, Tensor]]  # of pictures (B, 3, H, W): named scalars, "total" among them
Scalar = TypeVar("Scalar", float, Tensor)
Activations = Tensor | Mapping[str, Tensor]


def check_activations(taker: str, *given: Any, dimensions: tuple[int, ...] = (4,)) -> None:
    """Raise BadInput, in one line, for what is no tensor (B, C, H, W); `taker` is who was given it."""
    for a in given:
        if not isinstance(a, Tensor) or a.dim() not in dimensions:
            got = tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__
            advice = ": a[None] adds the batch" if isinstance(a, Tensor) and a.dim() == 3 else ""
            wanted = "(B, C, H, W)" + (" or the course's (C, H W)" if 2 in dimensions else "")
            raise BadInput(f"{taker} takes torch tensors {wanted}, got {got}{advice}")


def unroll(a: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H W): the volume as a matrix, one row a channel. Raises BadInput for another shape."""
    check_activations("unroll", a)
    return a.flatten(2)


def gram_matrix(a: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): how the channels occur together, wherever they do. Unnormalised, as in the paper (eq. 3).

    The diagonal says how active a filter is, entry (i, j) how often filters i and j are active in the same place. The course's
    unrolled (C, H W) gives (C, C). Raises BadInput for another shape.
    """
    check_activations("gram_matrix", a, dimensions=(2, 4))
    if a.dim() == 2:
        return gram_matrix(a[None, ..., None])[0]
    return Gram.apply(unroll(a))  # type: ignore[no-untyped-call, no-any-return]


def mean_gram(a: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): the Gram matrix over the number of places, G / (H W), so that pictures of two sizes compare."""
    check_activations("a style cost", a)
    return gram_matrix(a) / (a.shape[-2] * a.shape[-1])


def content_cost(a_C: Tensor, a_G: Tensor, constant: float | None = None) -> Tensor:
    """(B, C, H, W) twice -> scalar: constant * sum (a_C - a_G)^2.

    The constant is 1 / (4 n_H n_W n_C) as in the course; 1/2 is the paper's (eq. 1), 1 / (n_H n_W n_C) the mean of squares.
    Raises BadInput when the shapes differ.
    """
    check_activations("content_cost", a_C, a_G)
    if a_C.shape != a_G.shape:
        raise BadInput(f"content_cost compares activations of one shape, got {tuple(a_C.shape)} and {tuple(a_G.shape)}")
    if constant is None:
        constant = 1 / (4 * a_G[0].numel())
    return constant * (a_C - a_G).square().sum()


def gram_cost(gram_S: Tensor, gram_G: Tensor, weights: Tensor | None = None) -> Tensor:
    """style_layer_cost with S and G given by their mean_gram (B, C, C); `weights` (C, C) say how much each entry matters."""
    n_C = gram_G.shape[-1]
    if gram_S.shape[-1] != n_C:
        raise BadInput(f"a style cost compares as many channels, got {gram_S.shape[-1]} and {n_C}")
    squares = (gram_S - gram_G).square()
    return (squares if weights is None else weights * squares).sum() / (4 * n_C**2)


def style_layer_cost(a_S: Tensor, a_G: Tensor) -> Tensor:
    """(B, C, H, W) twice, of any two sizes -> scalar: 1 / (4 n_C^2) sum_ij (G_S / M_S - G_G / M_G)^2 with M = n_H n_W of each.

    For equal sizes this is 1 / (4 n_C^2 (n_H n_W)^2) sum_ij (G_S - G_G)^2: E_l of the paper (eq. 4), J_style^[l] of the course.
    Raises BadInput when the channels differ.
    """
    return gram_cost(mean_gram(a_S), mean_gram(a_G))


def style_cost(a_S: Activations, a_G: Activations, weights: Mapping[str, float] | None = None) -> Tensor:
    """{layer: (B, C, H, W)} twice and {layer: lambda} -> scalar: sum_l lambda_l style_layer_cost (paper eq. 5).

    Without weights every layer of a_G has lambda = 1 / number of layers. One layer alone also works: two tensors.
    Raises BadInput when a weighted layer is not among the activations.
    """
    if isinstance(a_G, Tensor) and isinstance(a_S, Tensor):
        return style_layer_cost(a_S, a_G)
    if isinstance(a_G, Tensor) or isinstance(a_S, Tensor):
        raise BadInput("style_cost takes two tensors, or two dicts of tensors")
    weights = weights or dict.fromkeys(a_G, 1 / len(a_G))
    missing = [layer for layer in weights if layer not in a_S or layer not in a_G]
    if missing:
        raise BadInput(f"style_cost has no activations of {', '.join(missing)}")
    return torch.stack([weight * style_layer_cost(a_S[layer], a_G[layer]) for layer, weight in weights.items()]).sum()


def total_cost(J_content: Scalar, J_style: Scalar, alpha: float = 10, beta: float = 40) -> Scalar:
    """J = alpha J_content + beta J_style (paper eq. 7); 10 and 40 are the course's."""
    return alpha * J_content + beta * J_style


def total_variation(image: Tensor, wraps: tuple[bool, bool] = (False, False)) -> Tensor:
    """(B, C, H, W) -> scalar: the mean square of the steps between neighbours, across plus down; where it wraps the seam has one.

    A mean, not a sum, so that a weight means the same at every size. Not in the paper; Mahendran & Vedaldi 2015 (eq. 4, beta = 2).
    """
    check_activations("total_variation", image)
    image, places = wrapped(image, wraps, 0, 1), image.numel()
    (rows, columns), (height, width) = wraps, image.shape[-2:]
    across = image[..., : height - rows, 1:] - image[..., : height - rows, :-1]
    down = image[..., 1:, : width - columns] - image[..., :-1, : width - columns]
    return (across.square().sum() + down.square().sum()) / places


def temporal_cost(image: Tensor, w: Tensor, c: Tensor) -> Tensor:
    """1/D sum c (x - w)^2 of x and w (1, 3, H, W), c (1, 1, H, W); D = 3 H W (Ruder, Dosovitskiy & Brox 2016)."""
    return (c * (image - w).square()).sum() / image.numel()


# A style that is changed before it is painted: the target A becomes A'


def edited_gram(gram: Tensor, edit: LayerEdit) -> Tensor:
    """(B, C, C) -> (B, C, C): the target A as the edit wants it, computed in float64.

    First gains, A' = D A D, then directions, A' = T A T^T: both are Gram matrices of changed activations. Then pairs, each entry by
    itself, which leaves the Gram matrices: what comes out is the nearest_gram to it.
    """
    changed = gram.cpu().double()
    gains = changed.new_full(changed.shape[-1:], edit.gain)
    for unit, part in edit.units.items():
        gains[unit] *= part.gain
    changed = scaled_gram(changed, gains)
    for direction in edit.directions:
        changed = stretched_gram(changed, _vector(direction.units, changed), direction.gain)
    if any(part.gain != 1 for part in edit.pairs.values()):
        changed = torch.stack([nearest_gram(one) for one in paired_gram(changed, edit)])
    return changed.to(gram)


def scaled_gram(gram: Tensor, gains: Tensor) -> Tensor:
    """(B, C, C) and (C,) -> D A D with D = diag(gains): the Gram matrix where each unit is so many times as active."""
    return gains[:, None] * gram * gains


def stretched_gram(gram: Tensor, direction: Tensor, gain: float) -> Tensor:
    """(B, C, C) and (C,) -> T A T^T, T = 1 + (gain - 1) v v^T / v^T v: activations so many times as large along the direction."""
    v = direction / direction.norm()
    T = torch.eye(len(v)).to(gram) + (gain - 1) * v[:, None] * v
    stretched: Tensor = T @ gram @ T.mT
    return stretched


def paired_gram(gram: Tensor, edit: LayerEdit) -> Tensor:
    """(B, C, C) -> (B, C, C): A with the entries of the edit's pairs times their gains; seldom a Gram matrix any more."""
    changed = gram.clone()
    for key, part in edit.pairs.items():
        i, j = pair_of(key)
        changed[:, [i, j], [j, i]] *= part.gain
    return changed


def nearest_gram(matrix: Tensor, steps: int = 300, tolerance: float = 1e-7) -> Tensor:
    """(C, C) -> the symmetric matrix nearest to it, by sum of squares, with no negative eigenvalue and no negative entry.

    The Gram matrix of rectified activations has neither. (Up to 4 channels every such matrix is one; beyond, these are necessary
    and not sufficient: to tell is NP-hard, Berman & Shaked-Monderer 2003.) Projects on either in turn with Dykstra's corrections
    (Boyle & Dykstra 1986), until the two differ by `tolerance` of the matrix. float64.
    """
    x = (matrix + matrix.mT) / 2
    left, over = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(steps):
        values, vectors = torch.linalg.eigh(x + left)
        y = (vectors * values.clamp(min=0)) @ vectors.mT
        left = x + left - y
        x = (y + over).clamp(min=0)
        over = y + over - x
        if torch.dist(x, y) <= tolerance * y.norm():
            break
    return x


def entry_weights(edit: LayerEdit, n_C: int) -> Tensor:
    """(C, C), float64: how much each entry of a layer's Gram matrix matters. Entry (i, j) of units that matter w_i and w_j weighs
    sqrt(w_i w_j), times the weight of the pair and of the layer."""
    own = torch.ones(n_C, dtype=torch.float64)
    for unit, part in edit.units.items():
        own[unit] = part.weight
    weights = edit.weight * (own[:, None] * own).sqrt()
    for key, part in edit.pairs.items():
        i, j = pair_of(key)
        weights[[i, j], [j, i]] *= part.weight
    return weights


def _vector(components: Mapping[int, float], like: Tensor) -> Tensor:
    """{unit: component} -> (C,)."""
    found = like.new_zeros(like.shape[-1])
    for unit, component in components.items():
        found[unit] = component
    return found
