"""The costs against the course's published values, a float64 einsum, finite differences and their identities."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from impasto.errors import BadInput
from impasto.objective.losses import (
    content_cost,
    gram_cost,
    gram_matrix,
    mean_gram,
    style_cost,
    style_layer_cost,
    total_cost,
    total_variation,
    unroll,
)

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "costs.json").read_text())
COURSE = FIXTURE["tf1_graph"]


def nchw(name: str) -> torch.Tensor:
    """A tensor of the course's unit tests, from its NHWC."""
    return torch.tensor(COURSE[name]).permute(0, 3, 1, 2)


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_content_cost_is_the_published_one():
    assert content_cost(nchw("a_C"), nchw("a_G")).item() == pytest.approx(COURSE["J_content_published"], rel=1e-5)
    assert content_cost(nchw("a_C"), nchw("a_G")).item() == pytest.approx(COURSE["J_content"], rel=1e-6)


def test_style_layer_cost_is_the_published_one():
    assert style_layer_cost(nchw("a_C"), nchw("a_G")).item() == pytest.approx(COURSE["J_style_layer_published"], rel=1e-5)
    assert style_layer_cost(nchw("a_C"), nchw("a_G")).item() == pytest.approx(COURSE["J_style_layer"], rel=1e-6)


def test_gram_matrix_is_the_published_one():
    rows = torch.tensor(COURSE["gram_A"]).view(1, 3, 1, 2)
    torch.testing.assert_close(gram_matrix(rows)[0], torch.tensor(COURSE["gram_published"]), rtol=1e-5, atol=1e-5)


def test_total_costs_are_the_published_ones():
    for case in (FIXTURE["total_cost"]["tf1"], *FIXTURE["total_cost"]["tf2"], FIXTURE["total_cost"]["tf2_printed"]):
        J = total_cost(case["J_content"], case["J_style"], case.get("alpha", 10), case.get("beta", 40))
        assert pytest.approx(case["J"], rel=1e-5) == J


def test_total_cost_defaults_to_the_course():
    assert total_cost(0.2, 0.8) == pytest.approx(34)


def test_unrolled_has_one_row_a_channel():
    a = activations(2, 3, 4, 5)
    assert unroll(a).shape == (2, 3, 20)
    torch.testing.assert_close(unroll(a)[1, 2], a[1, 2].reshape(-1))


def test_gram_agrees_with_a_float64_einsum():
    a = activations(2, 6, 7, 5)
    expected = np.einsum("bihw,bjhw->bij", a.numpy(), a.numpy())
    np.testing.assert_allclose(gram_matrix(a).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(gram_matrix(a.float()).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_gram_of_a_rectified_map_is_nowhere_negative_and_positive_semidefinite():
    gram = gram_matrix(activations(1, 6, 4, 5).relu())[0]
    assert (gram >= 0).all() and torch.linalg.eigvalsh(gram).min() > -1e-9 * gram.trace()


def test_gram_forgets_where_things_are():
    a = activations(1, 4, 6, 5)
    shuffled = a.flatten(2)[..., torch.randperm(30)].view_as(a)
    torch.testing.assert_close(gram_matrix(a), gram_matrix(shuffled))


def test_the_grams_diagonal_says_how_active_a_filter_is():
    a = activations(1, 4, 6, 5)
    torch.testing.assert_close(gram_matrix(a)[0].diagonal(), a.square().sum((0, 2, 3)))


def test_style_layer_cost_is_the_papers_formula_for_equal_sizes():
    a_S, a_G = activations(1, 6, 7, 5), activations(1, 6, 7, 5, seed=1)
    G_S, G_G = (np.einsum("bihw,bjhw->ij", a.numpy(), a.numpy()) for a in (a_S, a_G))
    expected = ((G_S - G_G) ** 2).sum() / (4 * 6**2 * (7 * 5) ** 2)
    assert style_layer_cost(a_S, a_G).item() == pytest.approx(expected, rel=1e-12)


def test_pictures_of_two_sizes_compare():
    a = activations(1, 4, 6, 5)
    assert style_layer_cost(a, torch.cat([a, a, a], 2)).item() == pytest.approx(0, abs=1e-20)


def test_a_known_gram_costs_the_same_as_its_activations():
    a_S, a_G = activations(1, 6, 7, 5), activations(1, 6, 9, 4, seed=1)
    torch.testing.assert_close(gram_cost(mean_gram(a_S), mean_gram(a_G)), style_layer_cost(a_S, a_G))


def test_style_cost_weighs_its_layers():
    a_S = {"conv1_1": activations(1, 4, 8, 8), "conv2_1": activations(1, 6, 4, 4, seed=1)}
    a_G = {"conv1_1": activations(1, 4, 6, 8, seed=2), "conv2_1": activations(1, 6, 3, 4, seed=3)}
    one, two = (style_layer_cost(a_S[layer], a_G[layer]) for layer in a_S)
    torch.testing.assert_close(style_cost(a_S, a_G, {"conv1_1": 0.2, "conv2_1": 3.0}), 0.2 * one + 3 * two)
    torch.testing.assert_close(style_cost(a_S, a_G), (one + two) / 2)
    torch.testing.assert_close(style_cost(a_S["conv2_1"], a_G["conv2_1"]), two)


def test_the_content_constant_is_free():
    a_C, a_G = activations(1, 3, 4, 5), activations(1, 3, 4, 5, seed=1)
    squares = (a_C - a_G).square().sum()
    torch.testing.assert_close(content_cost(a_C, a_G), squares / (4 * 3 * 4 * 5))
    torch.testing.assert_close(content_cost(a_C, a_G, 0.5), squares / 2)


def test_content_and_style_gradients_are_the_papers():
    """Equations 2 and 6: F - P, and (F^T (G - A))^T / (N^2 M^2)."""
    P, F = activations(1, 3, 4, 5), activations(1, 3, 4, 5, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(content_cost(P, F, 0.5), F)
    torch.testing.assert_close(gradient, F - P)
    (gradient,) = torch.autograd.grad(style_layer_cost(P, F), F)
    expected = (gram_matrix(F) - gram_matrix(P)) @ unroll(F) / (3**2 * 20**2)
    torch.testing.assert_close(unroll(gradient), expected)


@pytest.mark.parametrize(
    "cost",
    [
        lambda a: content_cost(activations(1, 3, 4, 5, seed=9), a),
        lambda a: style_layer_cost(activations(1, 3, 2, 5, seed=9), a),
        lambda a: style_cost({"x": activations(1, 3, 2, 5, seed=9)}, {"x": a}, {"x": 0.3}),
        lambda a: total_cost(a.square().mean(), a.sum()),
        total_variation,
    ],
)
def test_gradients_agree_with_finite_differences(cost):
    assert torch.autograd.gradcheck(cost, activations(1, 3, 4, 5).requires_grad_())


def test_total_variation_of_a_ramp_is_its_slope():
    ramp = (0.25 * torch.arange(4.0)).expand(1, 3, 5, 4)
    assert total_variation(ramp).item() == pytest.approx(0.25**2 * 3 / 4)
    assert total_variation(torch.full((1, 3, 5, 4), 0.7)).item() == 0


def test_shapes_that_cannot_be_compared_are_refused():
    with pytest.raises(BadInput, match="one shape"):
        content_cost(activations(1, 3, 4, 5), activations(1, 3, 5, 4))
    with pytest.raises(BadInput, match="channels"):
        style_layer_cost(activations(1, 3, 4, 5), activations(1, 4, 4, 5))
    with pytest.raises(BadInput, match="conv9"):
        style_cost({"a": activations(1, 3, 4, 5)}, {"a": activations(1, 3, 4, 5)}, {"conv9": 1.0})
    with pytest.raises(BadInput, match="two tensors, or two dicts"):
        style_cost({"a": activations(1, 3, 4, 5)}, activations(1, 3, 4, 5))


def test_the_courses_unrolled_activations_give_the_same_matrix():
    a = activations(1, 3, 4, 5)
    torch.testing.assert_close(gram_matrix(a[0].flatten(1)), gram_matrix(a)[0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: gram_matrix(torch.rand(64, 32, 32)),
            r"takes .*\(C, H W\), got \(64, 32, 32\): a\[None\] adds",
        ),
        (lambda: gram_matrix(np.zeros((1, 3, 4, 4))), "gram_matrix takes torch tensors .*, got ndarray"),
        (lambda: content_cost(torch.rand(3, 4, 4), torch.rand(3, 4, 4)), r"content_cost takes .*got \(3, 4, 4\)"),
        (lambda: style_layer_cost(torch.rand(3, 16), torch.rand(3, 16)), r"a style cost takes .*got \(3, 16\)"),
        (lambda: total_variation(torch.rand(3, 4, 4)), r"total_variation takes .*got \(3, 4, 4\)"),
        (lambda: unroll(torch.rand(4)), r"unroll takes torch tensors \(B, C, H, W\), got \(4,\)"),
    ],
)
def test_what_is_no_activation_gives_a_one_line_error(call, said):
    with pytest.raises(BadInput, match=said):
        call()
