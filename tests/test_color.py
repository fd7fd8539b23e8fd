"""Whose colours: spaces against published values, luminance and statistics against what they are said to be."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from impasto.images.images import quantize
from impasto.objective.color import (
    EPSILON,
    MAPS,
    SPACES,
    XYZ,
    encoded,
    keep_color,
    lab,
    linear,
    luminance,
    match_color,
    match_light,
    moments,
    oklab,
    yiq,
)
from tests.conftest import picture


def colors(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)


def muted(height: int, width: int, seed: int) -> torch.Tensor:
    """Colours so far from black and white that no match has to be cut."""
    return 0.4 + 0.2 * picture(height, width, seed)


def mask(height: int, width: int) -> torch.Tensor:
    return torch.linspace(0, 1, width).expand(1, 1, height, width).clone()


# Spaces


@pytest.mark.parametrize("name", SPACES)
def test_a_space_leads_there_and_back(name):
    image = torch.rand(1, 3, 40, 50, dtype=torch.float64)
    space = SPACES[name]
    torch.testing.assert_close(space.encode(space.back(space.there(image))), image, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SPACES)
def test_grey_has_no_chroma_and_white_is_white(name):
    greys = torch.linspace(0, 1, 11, dtype=torch.float64).expand(1, 3, 1, 11)
    found = SPACES[name].there(greys)
    assert found[:, 1:].abs().max() < 1e-6 * SPACES[name].white
    assert found[0, 0, 0, 0].abs() < 1e-12 and found[0, 0, 0, -1] == pytest.approx(SPACES[name].white)
    assert (found[0, 0, 0].diff() > 0).all()


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 1, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 1), (32.2970, 79.1875, -107.8602)),
        ((1, 1, 0), (97.1393, -21.5537, 94.4780)),
    ],
)
def test_lab_has_the_published_values_of_the_primaries(rgb, expected):
    """Lindbloom's calculator, whose matrix has more digits than the standard's."""
    torch.testing.assert_close(lab(colors(*rgb)), colors(*expected), atol=0.03, rtol=0)


def test_lab_has_cies_lightness_of_the_grey_of_18_percent():
    """L* = 116 (Y/Yn)^(1/3) - 16 and, below (6/29)^3, (29/3)^3 Y/Yn (CIE 15)."""
    for Y, L in ((0.18418651851, 50.0), (0.1, 37.8424), (0.008, 7.2264), (0.001, 0.90330)):
        assert float(lab(encoded(colors(Y, Y, Y)))[0, 0]) == pytest.approx(L, abs=1e-3)


@pytest.mark.parametrize(
    ("xyz", "expected"),
    [
        ((0.950, 1.000, 1.089), (1.000, 0.000, 0.000)),
        ((1.000, 0.000, 0.000), (0.450, 1.236, -0.019)),
        ((0.000, 1.000, 0.000), (0.922, -0.671, 0.263)),
        ((0.000, 0.000, 1.000), (0.153, -1.415, -0.449)),
    ],
)
def test_oklab_has_its_authors_values(xyz, expected):
    """Ottosson's table, to his three digits but for those of the matrix from XYZ to sRGB."""
    rgb = torch.linalg.solve(torch.tensor(XYZ, dtype=torch.float64), torch.tensor(xyz, dtype=torch.float64))
    torch.testing.assert_close(oklab(encoded(rgb.view(1, 3, 1, 1))), colors(*expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 1, 0), (0.86644, -0.23389, 0.17950)),
        ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_oklab_has_the_values_of_css_colors(rgb, expected):
    torch.testing.assert_close(oklab(colors(*rgb)), colors(*expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("rgb", "expected"), [((1, 0, 0), (0.299, 0.5959, 0.2115)), ((0, 0, 1), (0.114, -0.3213, 0.3112)), ((1, 1, 1), (1, 0, 0))]
)
def test_yiq_is_ntscs(rgb, expected):
    torch.testing.assert_close(yiq(colors(*rgb)), colors(*expected), atol=1e-4, rtol=0)


def test_srgb_is_linear_at_its_foot_and_a_power_above():
    for stored, light in ((0.0, 0.0), (0.04, 0.04 / 12.92), (0.5, 0.21404114), (1.0, 1.0)):
        assert float(linear(colors(stored, stored, stored))[0, 0]) == pytest.approx(light, abs=1e-8)
        assert float(encoded(colors(light, light, light))[0, 0]) == pytest.approx(stored, abs=1e-8)


# By luminance


@pytest.mark.parametrize("space", SPACES)
def test_luminance_is_the_paintings_everywhere(space):
    """Of extreme colours too, where the chroma does not fit."""
    painting, content = torch.rand(1, 3, 30, 40), torch.rand(1, 3, 30, 40).round()
    kept = keep_color(painting, content, space)
    assert 0 <= kept.min() <= kept.max() <= 1
    torch.testing.assert_close(luminance(kept, space), luminance(painting, space), atol=2e-4 * SPACES[space].white, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_chroma_is_the_photographs_where_it_fits_and_less_on_the_line_to_grey_where_not(space):
    painting, content = torch.rand(1, 3, 30, 40), torch.rand(1, 3, 30, 40)
    there = SPACES[space].there
    got, wanted = (there(it.double())[0, 1:].flatten(1) for it in (keep_color(painting, content, space), content))
    whole = torch.cat([luminance(painting, space).double(), there(content.double())[:, 1:]], 1)
    fits = ((SPACES[space].back(whole) >= 0) & (SPACES[space].back(whole) <= 1)).all(1).flatten()
    assert 0.2 < fits.double().mean() < 1
    near = partial(torch.testing.assert_close, atol=1e-4 * SPACES[space].white, rtol=0)
    near(got[:, fits], wanted[:, fits])
    share = got.norm(dim=0) / wanted.norm(dim=0)
    near(got[:, ~fits], share[~fits] * wanted[:, ~fits])
    assert share.max() < 1 + 1e-3


@pytest.mark.parametrize("space", SPACES)
def test_a_paintings_own_chroma_changes_nothing(space):
    image = torch.rand(1, 3, 30, 40)
    torch.testing.assert_close(keep_color(image, image, space), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_matched_light_has_mean_and_deviation_of_the_photograph(space):
    light, to = luminance(muted(30, 40, 1), space), luminance(muted(20, 50, 2), space)
    w, to_w = mask(30, 40), mask(20, 50)
    for weights in ((None, None), (w, to_w)):
        found, wanted = moments(match_light(light, to, space, *weights), weights[0]), moments(to, weights[1])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_an_even_surface_takes_the_mean_of_light():
    light = match_light(torch.full((1, 1, 9, 9), 0.2), luminance(picture(9, 9), "yiq"), "yiq")
    torch.testing.assert_close(light, luminance(picture(9, 9), "yiq").mean().expand(1, 1, 9, 9))


# By statistics


@pytest.mark.parametrize("how", MAPS)
def test_mean_and_covariance_are_the_others(how):
    image, to = muted(30, 40, 1), muted(25, 50, 2)
    mean, covariance = moments(match_color(image, to, how))
    torch.testing.assert_close(mean, moments(to)[0], atol=1e-7, rtol=0)
    torch.testing.assert_close(covariance, moments(to)[1], atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("how", MAPS)
def test_a_map_brings_one_covariance_to_the_other_exactly(how):
    S, T = moments(muted(30, 40, 1))[1], moments(picture(25, 50, 2))[1]
    A = MAPS[how](S, T)
    torch.testing.assert_close(A @ S @ A.T, T, atol=1e-15, rtol=1e-11)


def test_moments_are_numpys():
    image, w = picture(30, 40).double(), mask(30, 40)
    mean, covariance = moments(image, w)
    x, weights = image.flatten(2)[0].numpy(), w.flatten().double().numpy()
    np.testing.assert_allclose(mean, np.average(x, 1, weights))
    np.testing.assert_allclose(covariance, np.cov(x, aweights=weights, ddof=0))


def test_moments_do_not_depend_on_the_bands(monkeypatch):
    image, w = picture(30, 40), mask(30, 40)
    whole, light = moments(image, w), keep_color(image, picture(30, 40, 3), "oklab")
    monkeypatch.setattr("impasto.objective.color.BAND", 100)
    torch.testing.assert_close(moments(image, w), whole)
    assert torch.equal(keep_color(image, picture(30, 40, 3), "oklab"), light)


def test_the_monge_map_is_the_closed_form_symmetric_and_positive():
    S, T = moments(muted(30, 40, 1))[1], moments(picture(25, 50, 2))[1]
    A = MAPS["monge"](S, T)
    root = sqrtm(S.numpy())
    closed = np.linalg.inv(root) @ sqrtm(root @ T.numpy() @ root) @ np.linalg.inv(root)
    torch.testing.assert_close(A, torch.from_numpy(closed.real), rtol=1e-8, atol=0)
    torch.testing.assert_close(A, A.T, rtol=1e-10, atol=1e-12)
    assert torch.linalg.eigvalsh(A).min() > 0


def test_the_monge_map_moves_colours_least():
    image, to = muted(30, 40, 1), muted(25, 50, 2)
    moved = {how: float((match_color(image, to, how) - image).square().mean()) for how in MAPS}
    assert moved["monge"] == min(moved.values())


def test_the_cholesky_map_is_the_textbooks():
    S, T = moments(muted(30, 40, 1))[1], moments(picture(25, 50, 2))[1]
    expected = torch.linalg.cholesky(T) @ torch.linalg.cholesky(S).inverse()
    torch.testing.assert_close(MAPS["cholesky"](S, T), expected, rtol=1e-8, atol=1e-12)


def test_the_histogram_is_the_others_sorted_values():
    """With as many places, all of them different, the value of rank r is the other's of rank r."""
    image, to = (torch.stack([torch.randperm(1200) / 1200 for _ in range(3)]).view(1, 3, *size) for size in ((30, 40), (24, 50)))
    expected = torch.empty(1, 3, 1200)
    expected.scatter_(2, image.flatten(2).argsort(2), to.flatten(2).sort(2).values)
    assert torch.equal(match_color(image, to, "histogram").flatten(2), expected)


def test_a_histogram_of_another_size_is_the_same_up_to_a_level():
    """Quantiles of 1,200 places against those of 8,000."""
    image, to = quantize(picture(30, 40, 1)), quantize(picture(80, 100, 2))
    q = torch.linspace(0.01, 0.99, 50)
    found, wanted = (it.flatten(2)[0].quantile(q, 1) for it in (match_color(image, to, "histogram"), to))
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)


def test_what_is_even_stays_even_under_a_histogram():
    image = quantize(picture(30, 40))
    image[..., :10, :] = 0.5
    matched = match_color(image, picture(20, 20, 4), "histogram")[..., :10, :]
    assert torch.equal(matched, matched[..., :1, :1].expand_as(matched))


@pytest.mark.parametrize("how", [*MAPS, "histogram"])
def test_statistics_are_those_of_what_counts(how):
    """A half that does not count may be anything."""
    w, image, to = mask(30, 40).round(), muted(30, 40, 1), muted(30, 40, 2)
    junk, other_junk = (torch.where(w > 0, it, torch.rand(1, 3, 30, 40)) for it in (image, to))
    expected = match_color(image[..., 20:], to[..., 20:], how)
    torch.testing.assert_close(match_color(junk, other_junk, how, w, w)[..., 20:], expected, atol=1e-6, rtol=0)
    assert torch.equal(match_color(image, to, how, torch.zeros_like(w)), match_color(image, to, how))


@pytest.mark.parametrize("how", [*MAPS, "histogram"])
def test_a_grey_picture_becomes_colours_and_not_noise(how):
    """Its rounding to 8 bits, which differs between the channels here, is stretched by no more than a tenth of a level's sense."""
    light = muted(30, 40, 1)[:, :1]
    rough = (light + torch.tensor([0.0, 0.2, -0.2]).view(1, 3, 1, 1) / 255).expand(1, 3, 30, 40)
    found = match_color(rough, picture(25, 50, 2), how)
    assert found.isfinite().all() and 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(found, match_color(light.expand(1, 3, 30, 40), picture(25, 50, 2), how), atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", [*MAPS, "histogram"])
def test_in_the_colours_of_a_grey_picture_a_picture_is_grey(how):
    to = picture(25, 50, 2)[:, :1].expand(1, 3, 25, 50)
    found = match_color(muted(30, 40, 1), to, how)
    if how != "histogram":  # which takes each channel on its own
        torch.testing.assert_close(found, found.mean(1, keepdim=True).expand_as(found), atol=1e-6, rtol=0)
    torch.testing.assert_close(moments(found)[0], moments(to)[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("how", [*MAPS, "histogram"])
def test_constant_pictures_take_and_give_a_colour(how):
    even, image = colors(0.2, 0.4, 0.6).float().expand(1, 3, 9, 8), picture(30, 40)
    torch.testing.assert_close(match_color(image, even, how), even[..., :1, :1].expand_as(image), atol=1e-5, rtol=0)
    found = match_color(even, image, how)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
    if how != "histogram":
        torch.testing.assert_close(found[0, :, 0, 0].double(), moments(image)[0], atol=1e-5, rtol=0)


def test_an_axis_with_little_variance_is_not_stretched_beyond_bounds():
    S, T = torch.diag(torch.tensor([1e-2, 1e-12, 0.0], dtype=torch.float64)), torch.eye(3, dtype=torch.float64) / 20
    for how in MAPS:
        assert MAPS[how](S, T).abs().max() < (1 / 20 / EPSILON) ** 0.5 * 1.001
