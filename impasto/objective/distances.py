"""Other distances between styles, and between contents, than the Gram matrices': tensors in, scalars out.

Activations are (B, C, H, W). `p` (H, W) are weights over the places that sum to 1, those of a region; None is the whole picture.
What a distance between styles compares knows nothing of where things are, or (patches_cost) only what lies next to what.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.nets.kernels import wrapped
from impasto.objective.losses import gram_matrix, unroll

VARIANCE = 1e-5  # added to a variance before its root, as in AdaIN (arXiv:1703.06868)
RIDGE = 1e-4  # of the mean variance, added to a covariance


def exact(x: Tensor) -> Tensor:
    """In float64; Apple's GPUs have none, from them it comes to the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


# Of styles


def weighted_gram(a: Tensor, p: Tensor) -> Tensor:
    """(B, C, H, W) and (H, W) -> (B, C, C): sum_k p_k a_k a_k^T, the guided Gram matrix of Gatys et al. 2017 (arXiv:1611.07865)."""
    return gram_matrix(a * p.sqrt())


def covariance(mean: Tensor, gram: Tensor) -> Tensor:
    """(B, C), (B, C, C) -> (B, C, C): the mean Gram matrix without what the means alone give."""
    return gram - mean[:, :, None] * mean[:, None, :]


def moments_cost(mean_S: Tensor, square_S: Tensor, mean_G: Tensor, square_G: Tensor) -> Tensor:
    """(B, C) each, means and mean squares -> 1/n_C sum (mu_S - mu_G)^2 + (sigma_S - sigma_G)^2: each channel by itself.

    Li et al. 2017, "Demystifying Neural Style Transfer" (arXiv:1701.01036), the statistics of batch normalisation.
    """
    sigma_S, sigma_G = _deviation(mean_S, square_S), _deviation(mean_G, square_G)
    return ((mean_S - mean_G).square() + (sigma_S - sigma_G).square()).sum() / mean_G.shape[-1]


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    return ((square - mean.square()).clamp(min=0) + VARIANCE).sqrt()


def root(matrix: Tensor) -> Tensor:
    """(B, C, C), symmetric, no eigenvalue below 0 -> its square root, float64."""
    values, vectors = torch.linalg.eigh(exact(matrix))
    found: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return found


def trace_root(matrix: Tensor) -> Tensor:
    """(B, C, C), symmetric, no eigenvalue below 0 -> (B,): the trace of its square root, float64."""
    return _TraceRoot.apply(matrix)  # type: ignore[no-untyped-call, no-any-return]


class _TraceRoot(torch.autograd.Function):
    """Its gradient is half the inverse root, whatever eigenvalues coincide; autograd would divide by their differences."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        roots = values.clamp(min=1e-14 * float(values.max().clamp(min=1e-300))).sqrt()
        ctx.save_for_backward(roots, vectors)
        trace: Tensor = roots.sum(-1)
        return trace

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        gradient: Tensor = grad[:, None, None] / 2 * (vectors / roots[:, None, :]) @ vectors.mT
        return gradient


@dataclass(frozen=True)
class Normal:
    """A normal distribution: `mean` (1, C); `covariance` (1, C, C) with `ridge` (C, C) on it, and its `root`, float64."""

    mean: Tensor
    covariance: Tensor
    ridge: Tensor
    root: Tensor


def normal(mean: Tensor, covariance: Tensor) -> Normal:
    """The ridge, RIDGE of the mean variance, keeps roots and gradients finite."""
    C = exact(covariance)
    ridge = RIDGE * C.diagonal(dim1=1, dim2=2).mean() * torch.eye(C.shape[-1]).to(C)
    return Normal(mean, C + ridge, ridge, root(C + ridge))


def gaussian_cost(S: Normal, mean_G: Tensor, covariance_G: Tensor) -> Tensor:
    """1/n_C (|mu_S - mu_G|^2 + tr(C_S + C_G - 2 (C_S^1/2 C_G C_S^1/2)^1/2)): mean (1, C), covariance (1, C, C); float64 inside.

    The squared 2-Wasserstein distance of two normal distributions (Dowson & Landau 1982); for style first by V. Marron and
    K. Crowson. S's ridge is on both covariances.
    """
    C_G = exact(covariance_G) + S.ridge
    traces = (S.covariance + C_G).diagonal(dim1=1, dim2=2).sum(-1) - 2 * trace_root(S.root @ C_G @ S.root)
    return ((exact(S.mean - mean_G).square().sum(-1) + traces).sum() / mean_G.shape[-1]).to(mean_G)


@dataclass(frozen=True)
class Sorted:
    """Distributions over the places, one a row: `values` (N, K), rising, with `weights` (N or 1, K) that sum to 1 in each row."""

    values: Tensor
    weights: Tensor

    @cached_property
    def ends(self) -> Tensor:
        """(N or 1, K + 1), float64: the share of weight up to each value, from 0."""
        return F.pad(exact(self.weights).cumsum(1), (1, 0))

    @cached_property
    def sums(self) -> Tensor:
        """(N, K + 1), float64: the weighted sum of the values up to each, from 0."""
        return F.pad(exact(self.weights * self.values).cumsum(1), (1, 0))


def sort_places(x: Tensor, p: Tensor | None = None) -> Sorted:
    """(N, K) and (K,) -> the rows' distributions; all places count alike unless `p` says."""
    values, order = x.sort(1)
    return Sorted(values, x.new_full((1, x.shape[1]), 1 / x.shape[1]) if p is None else p[order])


def means_between(of: Sorted, ends: Tensor) -> Tensor:
    """Shares of weight (N or 1, K + 1), rising -> (N, K): the means of the values between them, as the weights count."""
    rows = max(len(of.values), len(ends))
    known = of.ends
    known, wanted = (shares.expand(rows if len(known) > 1 else len(ends), -1).contiguous() for shares in (known, ends))
    above = torch.searchsorted(known, wanted).clamp(1, known.shape[1] - 1)
    low, high = known.gather(1, above - 1), known.gather(1, above)
    share = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
    above, share = above.expand(rows, -1), share.expand(rows, -1)
    integral = torch.lerp(of.sums.gather(1, above - 1), of.sums.gather(1, above), share)
    return (integral.diff(dim=1) / wanted.diff(dim=1).clamp(min=1e-300)).to(of.values)


def transport_cost(target: Sorted, x: Tensor, p: Tensor | None = None) -> Tensor:
    """Distributions of N numbers a place, and x (N, K) -> 1/N sum of their squared 2-Wasserstein distances, in one dimension each.

    Along random directions this is the sliced Wasserstein distance (Heitz et al. 2021, arXiv:2006.07229), along the channels
    themselves a histogram cost (Risser, Wilmot & Barnes 2017, arXiv:1701.08893). Exact for any weights: each place is compared
    with the mean of the target's values that it is moved to, and what those spread around it is added.
    """
    own = sort_places(x, p)
    with torch.no_grad():
        wanted = means_between(target, own.ends)
        spread = (target.weights * target.values.square()).sum(1) - (own.weights * wanted.square()).sum(1)
    return ((own.weights * (own.values - wanted).square()).sum(1) + spread).mean()


@cache
def directions(n_C: int, seed: int) -> Tensor:
    """(n_C, n_C): random orthonormal directions, uniform over all (QR of normal numbers)."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(n_C, n_C, generator=generator, dtype=torch.float64))
    rows: Tensor = (q * r.diagonal().sign()).T
    return rows.float()


def patches_of(a: Tensor) -> Tensor:
    """(1, C, h, w) -> (K, 9 C): its 3 x 3 patches."""
    return F.unfold(a, 3)[0].T


def thinned(patches: Tensor, most: int) -> Tensor:
    """(K, 9 C), evenly fewer where there are more than `most`."""
    return patches if len(patches) <= most else patches[torch.linspace(0, len(patches) - 1, most).long()]


def patches_cost(patches: Tensor, a: Tensor, p: Tensor | None = None, wraps: tuple[bool, bool] = (False, False)) -> Tensor:
    """(N, 9 C) and (1, C, h, w) -> the mean square between each 3 x 3 patch and the one of S that is most like it, by cosine.

    Where the map wraps there are patches across its edges too.

    The Markov random field of Li & Wand 2016 (arXiv:1601.04589): local pieces of the painting, not its statistics.
    """
    a, p = wrapped(a, wraps, 1, 1), None if p is None else wrapped(p[None, None], wraps, 1, 1)[0, 0]
    filters = F.normalize(patches, dim=1).view(len(patches), a.shape[1], 3, 3)
    with torch.no_grad():
        nearest = torch.cat([F.conv2d(rows, filters)[0].flatten(1).argmax(0) for rows in _bands(a)])
    squares = (patches_of(a) - patches[nearest]).square().mean(1)
    if p is None:
        return squares.mean()
    inner = p[1:-1, 1:-1].flatten()
    return (inner * squares).sum() / inner.sum().clamp(min=1e-12)


def _bands(a: Tensor, rows: int = 16) -> Iterator[Tensor]:
    """A map in bands of rows that overlap by two, so that every 3 x 3 patch is in one."""
    for first in range(0, a.shape[2] - 2, rows):
        yield a[:, :, first : first + rows + 2]


def cross_gram(a: Tensor, deeper: Tensor, p: Tensor | None = None) -> Tensor:
    """(1, C, H, W), (1, D, h, w) -> (1, C, D): which channels of one layer occur together with which of a deeper one.

    The finer map is averaged over what each place of the coarser has in common with it. Novak & Nikulin 2016 (arXiv:1605.04603).
    """
    finer, coarser = unroll(F.adaptive_avg_pool2d(a, (deeper.shape[-2], deeper.shape[-1]))), unroll(deeper)
    return finer @ (coarser / coarser.shape[-1] if p is None else coarser * p.flatten()).mT


def cross_cost(cross_S: Tensor, cross_G: Tensor) -> Tensor:
    """(1, C, D) twice -> 1/(4 C D) of the sum of squares: style_layer_cost between two layers."""
    return (cross_S - cross_G).square().sum() / (4 * cross_G.shape[-2] * cross_G.shape[-1])


# Of contents


def laplacian_cost(
    content: Tensor, image: Tensor, weights: Tensor | None = None, wraps: tuple[bool, bool] = (False, False)
) -> Tensor:
    """(1, 3, H, W) twice -> the mean square between their edges, at 4 and at 16 pixels: Li et al. 2017 (arXiv:1707.01253).

    `weights` (1, 1, H, W) say where how much it matters. Where the pictures wrap, their sides are multiples of 16.
    """
    costs = []
    for size in (4, 16):
        if min(image.shape[-2:]) < 3 * size:
            continue
        squares = (_edges(image, size, wraps) - _edges(content, size, wraps)).square()
        inner = None if weights is None else wrapped(F.avg_pool2d(weights, size), wraps, 1, 1)[..., 1:-1, 1:-1]
        costs.append((squares if inner is None else inner * squares).mean())
    return torch.stack(costs).mean() if costs else image.new_zeros(())


def _edges(image: Tensor, size: int, wraps: tuple[bool, bool]) -> Tensor:
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).to(image).expand(image.shape[1], 1, 3, 3)
    return F.conv2d(wrapped(F.avg_pool2d(image, size), wraps, 1, 1), kernel, groups=image.shape[1])


def self_similarity(a: Tensor) -> Tensor:
    """(C, K) -> (K, K): cosine distances between places, each column over its sum: how places relate, whatever they look like."""
    unit = F.normalize(a, dim=0)
    distances = (1 - unit.T @ unit).clamp(min=0)
    return distances / distances.sum(0).clamp(min=1e-12)


def self_similarity_cost(of_C: Tensor, of_G: Tensor) -> Tensor:
    """(K, K) twice -> the sum of squared differences, after Kolkin, Salavon & Shakhnarovich 2019 (arXiv:1904.12785, eq. 7).

    They take absolute values; those have a kink at the photograph itself, where L-BFGS would stay.
    """
    return (of_C - of_G).square().sum()
