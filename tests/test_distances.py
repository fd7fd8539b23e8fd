"""The other distances against their definitions spelled out in numpy and scipy, finite differences and their identities."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
import torch.nn.functional as F

from impasto.objective.distances import (
    RIDGE,
    VARIANCE,
    covariance,
    cross_cost,
    cross_gram,
    directions,
    gaussian_cost,
    laplacian_cost,
    moments_cost,
    normal,
    patches_cost,
    patches_of,
    root,
    self_similarity,
    self_similarity_cost,
    sort_places,
    thinned,
    trace_root,
    transport_cost,
    weighted_gram,
)
from impasto.objective.losses import gram_cost, gram_matrix, mean_gram


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(*shape: int, seed: int = 5) -> torch.Tensor:
    p = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return p / p.sum()


def moments(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return a.mean((2, 3)), mean_gram(a)


S, G = activations(1, 4, 6, 5, seed=1) + 0.3, activations(1, 4, 5, 7, seed=2)


def gaussian(a: torch.Tensor) -> torch.Tensor:
    (mean_S, gram_S), (mean_G, gram_G) = moments(S), moments(a)
    return gaussian_cost(normal(mean_S, covariance(mean_S, gram_S)), mean_G, covariance(mean_G, gram_G))


def second(a: torch.Tensor) -> torch.Tensor:
    (mean_S, gram_S), (mean_G, gram_G) = moments(S), moments(a)
    return gram_cost(covariance(mean_S, gram_S), covariance(mean_G, gram_G))


def channelwise(a: torch.Tensor) -> torch.Tensor:
    return moments_cost(*(x for b in (S, a) for x in (b.mean((2, 3)), b.square().mean((2, 3)))))


P = shares(5, 7)
COSTS = {
    "guided gram": lambda a: gram_cost(mean_gram(S), weighted_gram(a, P)),
    "covariance": second,
    "moments": channelwise,
    "w2": gaussian,
    "histogram": lambda a: transport_cost(sort_places(S[0].flatten(1)), a[0].flatten(1)),
    "guided histogram": lambda a: transport_cost(sort_places(S[0].flatten(1)), a[0].flatten(1), P.flatten()),
    "sliced": lambda a: transport_cost(
        sort_places(directions(4, 0).double() @ S[0].flatten(1)), directions(4, 0).double() @ a[0].flatten(1)
    ),
    "patches": lambda a: patches_cost(patches_of(S), a),
    "guided patches": lambda a: patches_cost(patches_of(S), a, P),
    "cross": lambda a: cross_cost(cross_gram(S, S[..., ::2, ::2]), cross_gram(a, a[..., :4, :6])),
    "guided cross": lambda a: cross_cost(cross_gram(S, S[..., ::2, ::2]), cross_gram(activations(1, 4, 10, 14), a, P)),
    "self-similarity": lambda a: self_similarity_cost(
        self_similarity(activations(4, 35, seed=7)), self_similarity(a[0].flatten(1))
    ),
}


@pytest.mark.parametrize("name", COSTS)
def test_gradients_agree_with_finite_differences(name):
    assert torch.autograd.gradcheck(COSTS[name], G.clone().requires_grad_())


@pytest.mark.parametrize("name", ["covariance", "moments", "w2", "histogram", "sliced", "patches"])
def test_a_style_is_no_way_from_itself_and_some_way_from_another(name):
    scale = float(COSTS[name](G))
    assert scale > 1e-3 and float(COSTS[name](S.clone())) < 1e-12 * scale


@pytest.mark.parametrize("name", ["covariance", "moments", "w2", "histogram", "sliced"])
def test_a_statistic_forgets_where_things_are(name):
    shuffled = G.flatten(2)[..., torch.randperm(35, generator=torch.Generator().manual_seed(3))].view_as(G)
    torch.testing.assert_close(COSTS[name](shuffled), COSTS[name](G))


def test_a_weighted_gram_is_the_sum_over_places():
    expected = np.einsum("hw,ihw,jhw->ij", P.numpy(), G[0].numpy(), G[0].numpy())
    np.testing.assert_allclose(weighted_gram(G, P)[0].numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(weighted_gram(G, torch.full_like(P, 1 / 35)), mean_gram(G))


def test_regions_grams_add_up_to_the_whole_pictures():
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    parts = [mask.mean() * weighted_gram(G, mask / mask.sum()), (1 - mask).mean() * weighted_gram(G, (1 - mask) / (1 - mask).sum())]
    torch.testing.assert_close(sum(parts), mean_gram(G))


def test_covariance_is_numpys():
    expected = np.cov(G[0].flatten(1).numpy(), bias=True)
    np.testing.assert_allclose(covariance(*moments(G))[0].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_adding_a_constant_changes_the_gram_and_not_the_covariance():
    torch.testing.assert_close(second(G + 3), second(G))
    assert not torch.allclose(mean_gram(G + 3), mean_gram(G))


def test_moments_are_means_and_deviations():
    x, y = S[0].flatten(1).numpy(), G[0].flatten(1).numpy()
    sigma = [np.sqrt(np.var(z, 1) + VARIANCE) for z in (x, y)]
    expected = (((x.mean(1) - y.mean(1)) ** 2) + (sigma[0] - sigma[1]) ** 2).mean()
    assert float(channelwise(G)) == pytest.approx(expected, rel=1e-12)


def test_the_gaussian_distance_is_the_formula_by_scipy():
    x, y = S[0].flatten(1).numpy(), G[0].flatten(1).numpy()
    C, D = np.cov(x, bias=True), np.cov(y, bias=True)
    ridge = RIDGE * np.trace(C) / 4 * np.eye(4)
    C, D = C + ridge, D + ridge
    half = scipy.linalg.sqrtm(C)
    expected = ((x.mean(1) - y.mean(1)) ** 2).sum() + np.trace(C + D - 2 * scipy.linalg.sqrtm(half @ D @ half).real)
    assert float(gaussian(G)) == pytest.approx(expected / 4, rel=1e-9)


def test_the_gaussian_distance_of_a_shift_is_the_shift():
    shift = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    assert float(gaussian(S + shift.view(1, 4, 1, 1))) == pytest.approx(float(shift.square().mean()), rel=1e-6)


def test_roots_of_coinciding_and_vanishing_eigenvalues_have_gradients():
    same = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(trace_root(same).sum(), same)
    torch.testing.assert_close(gradient, same.detach() / 2)
    flat = torch.full((1, 4, 6, 5), 0.7, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian(flat), flat)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(root(same.detach() * 4), same.detach() * 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_transport_between_equally_many_places_is_scipys(weighted):
    x, y = activations(3, 40, seed=1), activations(3, 40, seed=2)
    p = torch.full((40,), 1 / 40, dtype=torch.float64) if weighted else None
    expected = np.mean([((np.sort(a) - np.sort(b)) ** 2).mean() for a, b in zip(x.numpy(), y.numpy(), strict=True)])
    assert float(transport_cost(sort_places(x, p), y, p)) == pytest.approx(expected, rel=1e-10)


def test_transport_between_many_places_comes_near_the_wasserstein_distance():
    x, y = activations(1, 3000, seed=1), 2 * activations(1, 5000, seed=2) + 1  # W2^2 of N(0, 1) and N(1, 4) is 1 + 1
    assert float(transport_cost(sort_places(x), y)) == pytest.approx(2.0, rel=0.1)


def test_weights_are_copies_of_places():
    """A place that weighs three times as much is three places, to the last digit."""
    x, y = activations(2, 50, seed=4), activations(2, 41, seed=5)
    p = torch.ones(50, dtype=torch.float64)
    p[:10] = 3
    copies = torch.cat([x, x[:, :10], x[:, :10]], 1)
    torch.testing.assert_close(transport_cost(sort_places(y), x, p / p.sum()), transport_cost(sort_places(y), copies))
    torch.testing.assert_close(transport_cost(sort_places(x, p / p.sum()), y), transport_cost(sort_places(copies), y))


def test_transport_between_any_two_is_the_integral_between_quantiles():
    """The squares between two quantile functions, summed over fine shares."""
    x, y, p = activations(1, 30, seed=1), activations(1, 17, seed=2), shares(17)
    at = (np.arange(200_000) + 0.5) / 200_000
    quantiles = []
    for values, weights in ((x[0].numpy(), np.full(30, 1 / 30)), (y[0].numpy(), p.numpy())):
        order = np.argsort(values)
        quantiles.append(values[order][np.searchsorted(weights[order].cumsum(), at).clip(max=len(values) - 1)])
    expected = ((quantiles[0] - quantiles[1]) ** 2).mean()
    assert float(transport_cost(sort_places(x), y, p)) == pytest.approx(expected, rel=1e-3)


def test_ties_make_no_jump():
    """Rectified maps are full of zeros: which of them comes first must not matter."""
    x = torch.zeros(1, 40, dtype=torch.float64)
    x[:, ::3] = activations(1, 14, seed=3).abs()
    p, target = shares(40), sort_places(activations(1, 25, seed=6).abs())
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(transport_cost(target, x[:, order], p[order]), transport_cost(target, x, p))


def test_places_without_weight_do_not_count():
    x = activations(2, 30, seed=1)
    p = torch.zeros(30, dtype=torch.float64)
    p[:20] = 1 / 20
    target = sort_places(S[0].flatten(1)[:2])
    torch.testing.assert_close(transport_cost(target, x, p), transport_cost(target, x[:, :20]))


def test_directions_are_orthonormal_and_repeat():
    torch.testing.assert_close(directions(16, 3) @ directions(16, 3).T, torch.eye(16), atol=1e-6, rtol=0)
    assert torch.equal(directions(16, 3), directions(16, 3)) and not torch.equal(directions(16, 3), directions(16, 4))


def test_the_nearest_patch_is_the_one_of_brute_force():
    pool, own = patches_of(S).numpy(), patches_of(G).numpy()
    cosines = (own @ pool.T) / np.linalg.norm(pool, axis=1) / np.linalg.norm(own, axis=1)[:, None]
    expected = ((own - pool[cosines.argmax(1)]) ** 2).mean(1)
    assert float(patches_cost(patches_of(S), G)) == pytest.approx(expected.mean(), rel=1e-12)
    inner = P[1:-1, 1:-1].flatten().numpy()
    assert float(patches_cost(patches_of(S), G, P)) == pytest.approx((inner * expected).sum() / inner.sum(), rel=1e-12)


def test_a_tall_map_is_searched_in_bands_and_loses_nothing():
    tall = activations(1, 4, 40, 5, seed=6)
    assert float(patches_cost(patches_of(tall), tall)) < 1e-20
    assert len(thinned(patches_of(tall), 7)) == 7


def test_a_cross_gram_is_the_gram_of_layers_over_one_another():
    fine, coarse = activations(1, 3, 8, 12), activations(1, 2, 4, 6, seed=1)
    enlarged = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    whole = gram_matrix(torch.cat([fine, enlarged], 1)) / 96
    torch.testing.assert_close(cross_gram(fine, coarse), whole[:, :3, 3:])
    p = shares(4, 6)
    finer_p = p.repeat_interleave(2, 0).repeat_interleave(2, 1) / 4
    torch.testing.assert_close(cross_gram(fine, coarse, p), weighted_gram(torch.cat([fine, enlarged], 1), finer_p)[:, :3, 3:])


def test_self_similarity_cares_for_relations_alone():
    a = activations(6, 12).abs()
    rotation = directions(6, 0).double()
    torch.testing.assert_close(self_similarity(5 * rotation @ a), self_similarity(a))
    assert float(self_similarity_cost(self_similarity(a), self_similarity(a[:, torch.arange(11, -1, -1)]))) > 0.01


def test_the_laplacian_cost_sees_edges_and_no_plain_colour():
    image, weights = torch.rand(1, 3, 64, 60, dtype=torch.float64), torch.ones(1, 1, 64, 60, dtype=torch.float64)
    assert float(laplacian_cost(image, image + 0.2)) < 1e-25
    other = torch.rand(1, 3, 64, 60, dtype=torch.float64)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).view(1, 1, 3, 3)
    expected = 0.0
    for size in (4, 16):
        edges = [F.conv2d(F.avg_pool2d(x, size).transpose(0, 1), kernel) for x in (image, other)]
        expected += float((edges[0] - edges[1]).square().mean()) / 2
    assert float(laplacian_cost(image, other)) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(laplacian_cost(image, other, weights), laplacian_cost(image, other))
    assert float(laplacian_cost(image[..., :8], other[..., :8])) == 0  # too small for any edge
    small, start = image[..., :20, :20], other[..., :20, :20].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: laplacian_cost(small, x), start)


class OnApple(torch.Tensor):
    """A tensor that stands for one on Apple's GPU: float64 cannot be there, and nothing but `to` takes it beside one of the CPU."""

    @property
    def device(self):
        return torch.device("mps")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        with torch._C.DisableTorchFunctionSubclass():
            tensors = [it for it in args if isinstance(it, torch.Tensor) and it.dim()]
            is_double = isinstance(found, cls) and found.dtype == torch.float64
        if func is not torch.Tensor.to and {type(it) for it in tensors} == {torch.Tensor, cls}:
            raise RuntimeError(f"{func}: tensors on the CPU and on mps")
        if is_double:
            raise TypeError(f"{func}: MPS has no float64")
        return found


def test_the_stand_in_for_apples_gpu_refuses_what_it_does():
    x = torch.rand(3).as_subclass(OnApple)
    with pytest.raises(TypeError, match="no float64"):
        x.double()
    with pytest.raises(RuntimeError, match="on the CPU and on mps"):
        x + torch.rand(3)


def test_where_there_is_no_float64_distances_are_the_same():
    S, G = torch.rand(1, 4, 6, 5), torch.rand(1, 4, 6, 5)

    def distances(kind: type) -> list[float]:
        a_S, a_G = S.as_subclass(kind), G.clone().requires_grad_().as_subclass(kind)
        means = [a.mean((2, 3)) for a in (a_S, a_G)]
        covariances = [covariance(mean, gram_matrix(a) / 30) for mean, a in zip(means, (a_S, a_G), strict=True)]
        w2 = gaussian_cost(normal(means[0], covariances[0]), means[1], covariances[1])
        sliced = transport_cost(sort_places(a_S[0].flatten(1)), a_G[0].flatten(1))
        return [float(w2.detach()), float(sliced.detach())]

    assert distances(OnApple) == pytest.approx(distances(torch.Tensor), rel=1e-6)
