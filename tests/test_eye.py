"""What a painter sees: measures whose value is known, by arithmetic or because the picture is what they look for."""

import io
from math import pi

import pytest
import torch
from PIL import Image

from bench.eye import fine_energy, forms_kept, grain, lattice, leak, specks, ycbcr
from bench.judge import judge_net
from impasto.images.images import read_picture, resize, scaled_size, to_pillow
from impasto.pictures import picture_path


def noise(seed: int, height: int = 256, width: int = 320, deviation: float = 0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + deviation * torch.randn((1, 3, height, width), generator=generator)


def test_white_noise_has_the_share_of_its_variance_above_a_circle_of_frequencies():
    expected = 1 - pi * 0.35**2  # the spectrum is flat over a square with sides of 1 cycle a pixel
    light, chroma = fine_energy(noise(0))
    variances = ycbcr(noise(0))[0].var((1, 2))
    assert light == pytest.approx(expected * float(variances[0]), rel=0.02)
    assert chroma == pytest.approx(expected * float(variances[1] + variances[2]), rel=0.02)


def test_slow_waves_and_grey_noise_have_no_fine_chroma():
    x = torch.arange(320) / 320
    wave = (0.5 + 0.4 * torch.sin(2 * pi * 20 * x)).expand(1, 3, 256, 320)
    assert max(fine_energy(wave)) < 1e-9
    grey = noise(1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    light, chroma = fine_energy(grey)
    assert light > 1e-4 and chroma < 1e-12


def test_grain_is_the_ratio_of_variances():
    assert grain(noise(2, deviation=0.2), noise(3, deviation=0.1)) == pytest.approx({"luminance": 4, "chroma": 4}, rel=0.05)


def test_a_jpeg_has_lost_fine_chroma_and_kept_fine_luminance():
    pixels, file = to_pillow(noise(6)), io.BytesIO()
    pixels.save(file, "JPEG", quality=95, subsampling="4:2:0")
    found = grain(read_picture(Image.open(file)).image, noise(6))
    assert found["chroma"] < 0.15 and found["luminance"] == pytest.approx(1, abs=0.1)


def test_specks_are_counted_where_the_neighbourhood_is_flat():
    flat = torch.full((1, 3, 104, 204), 0.5)
    dots = torch.randperm(20 * 40, generator=torch.Generator().manual_seed(0))[:30]
    speckled = flat.clone()
    speckled[0, 1, 5 * (dots // 40) + 2, 5 * (dots % 40) + 2] += 0.2
    assert specks(flat) == 0 and specks(noise(4)) == 0
    assert specks(speckled) == pytest.approx(1000 * 30 / (100 * 200), rel=1e-6)


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_lattice_stands_out_of_the_spectrum(period):
    assert lattice(noise(5)) < 1.35
    with_lines = noise(5)
    with_lines[..., ::period] += 0.1
    assert lattice(with_lines) > 2.5


@pytest.mark.weights
def test_things_leak_from_the_style_picture_and_forms_are_the_photographs():
    net = judge_net()
    photograph, painting = (read_picture(picture_path(name)).image for name in ("astronaut", "hokusai-great-wave"))
    photograph = resize(photograph, scaled_size(photograph, 512))
    painting = resize(painting, tuple(photograph.shape[-2:]))
    assert leak(photograph, photograph, painting, net) == 0
    assert leak(painting, photograph, painting, net) == 1
    pasted = photograph.clone()
    pasted[..., :256, :256] = painting[..., 128:384, 128:384]
    assert 0.12 < leak(pasted, photograph, painting, net) < 0.4  # a quarter of the picture
    assert forms_kept(photograph, photograph, net) == pytest.approx(1)
    assert forms_kept(painting, photograph, net) < 0.5 < forms_kept(pasted, photograph, net) < 0.95
