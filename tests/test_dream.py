"""Activation maximisation: against a linear unit's optimum, a warp pixel by pixel, brute force; the file, and the real AlexNet."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
import torch.nn.functional as F

from impasto.errors import BadRecipe, CannotWrite, NoRoom
from impasto.images.images import read_picture, read_record, to_pillow
from impasto.lens import dream as module
from impasto.lens.dream import (
    CONTRAST,
    LIMIT,
    Dream,
    Objective,
    before,
    check,
    draw,
    dream,
    halfway,
    join_pictures,
    least_size,
    likeness,
    make_cost,
    natural_size,
    natural_spectrum,
    objective_value,
    split_pictures,
    summary,
    warp,
)
from impasto.lens.index import make_setup
from impasto.nets.geometry import field_of
from impasto.nets.nets import INPUTS, NETS, ConvShape, Net, Pool, assemble, build_net, features, map_size, weight_shapes
from impasto.objective.losses import gram_matrix
from impasto.pictures import picture_path
from impasto.transfer.canvas import COLOR_AXES, coefficients, fourier, fourier_noise
from impasto.weights import load_weights
from tests.conftest import check_one_line, picture, room_for, tiny_net


def alexnet() -> Net:
    loaded = load_weights("alexnet")
    return build_net("alexnet", loaded.tensors, INPUTS[loaded.input])


UNIT = Objective("conv2_1", (2,))


def last(net: Net, objective: Objective, **options):
    return list(dream(net, objective, **{"size": 24, "steps": 30, **options}))[-1]


def biased(net: Net, layer: str, channel: int, bias: float, gain: float = 1.0) -> Net:
    """The net with another bias in one channel, and its filter times `gain`."""

    def changed(x):
        if x.name != layer:
            return x
        weight, biases = x.weight.clone(), x.bias.clone()
        weight[channel] *= gain
        biases[channel] = bias
        return replace(x, weight=weight, bias=biases)

    return replace(net, layers=tuple(map(changed, net.layers)))


# What is found


def test_a_linear_unit_is_maximised_by_its_filter(monkeypatch):
    """One convolution, a still view, so little contrast that the sigmoid is straight: the optimum under a bound on the length of
    x is the unit's gradient to x, which in pixels is the filter seen through the statistics of natural pictures, A A^T and 1/f^2.
    """
    for name, value in {"ANGLE": 0.0, "ZOOM": 1.0, "SHIFT": 0.0, "LIMIT": 0.02, "CONTRAST": 0.02}.items():
        monkeypatch.setattr(module, name, value)
    generator = torch.Generator().manual_seed(7)
    weight = F.interpolate(torch.randn(4, 3, 3, 3, generator=generator), (7, 7), mode="bicubic")
    net = assemble(
        "one",
        [ConvShape("conv1", 3, 4, 7, padding=0)],
        {"conv1.weight": weight, "conv1.bias": torch.ones(4)},
        INPUTS["torchvision"],
    )
    dreamt = last(net, Objective("conv1", (1,)), size=19, steps=300).image[0] - 0.5
    placed = torch.zeros(3, 19, 19)
    placed[:, 6:13, 6:13] = weight[1] / torch.tensor(INPUTS["torchvision"].std).view(3, 1, 1)
    f = torch.hypot(torch.fft.fftfreq(19)[:, None], torch.fft.rfftfreq(19)).clamp(min=1 / 19)
    A = torch.tensor(COLOR_AXES)
    seen = torch.fft.irfft2(torch.fft.rfft2(torch.einsum("rc,chw->rhw", A @ A.T, placed)) / f.square(), s=(19, 19))
    assert F.cosine_similarity(dreamt.flatten(), seen.flatten(), dim=0) > 0.999
    others = [F.cosine_similarity(dreamt[:, 6:13, 6:13].flatten(), w.flatten(), dim=0) for w in weight]
    assert max(range(4), key=others.__getitem__) == 1


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("layer", ["conv1_2", "conv2_1", "relu2_1", "conv2_1:pre", "pool2", "conv3_1"])
def test_any_layer_is_excited(layer, everywhere):
    net, objective = tiny_net(), Objective(layer, (1,), (), everywhere)
    noise = fourier(24, 24, LIMIT).image(fourier_noise((1, 3, 24, 24), CONTRAST, 0))
    dreamt = last(net, objective, steps=30).image
    reached, begun = (float(objective_value(features(net, image, [layer])[layer], objective)) for image in (dreamt, noise))
    assert reached > max(0.0, begun) + 0.5


def test_a_unit_that_noise_leaves_silent_is_excited_by_the_map_before_its_relu():
    """Through its ReLU there is no gradient at all: no descent from there would move."""
    net = biased(tiny_net(), "conv2_1", 2, -1.0)
    x = fourier_noise((1, 3, 24, 24), CONTRAST, 0).requires_grad_()
    a = features(net, fourier(24, 24, LIMIT).image(x), ["conv2_1"])["conv2_1"][:, 2]
    (gradient,) = torch.autograd.grad(a.sum(), x)
    assert a.max() == 0 and gradient.abs().max() == 0
    for everywhere in (False, True):
        objective = Objective("conv2_1", (2,), (), everywhere)
        dreamt = last(net, objective, steps=120).image
        assert objective_value(features(net, dreamt, ["conv2_1"])["conv2_1"], objective) > 0


def test_the_later_cost_is_that_of_the_rectified_map_unless_it_is_silent():
    net, image = tiny_net(), picture(24, 24)
    objective = Objective("conv2_1", (2,), (), True)
    for i, bias, layer in ((0, 0.0, "conv2_1:pre"), (50, 0.0, "conv2_1"), (50, -50.0, "conv2_1:pre")):
        at = biased(net, "conv2_1", 2, bias)
        seen = warp(image, *draw(1, True, 0, i))
        wanted = -features(at, seen, [layer])[layer][0, 2].mean()
        torch.testing.assert_close(make_cost(at, objective, 0, i)(image)["total"], wanted)


def test_a_pair_is_excited_at_once_and_one_against_the_other_is_not():
    net = tiny_net()

    def reached(objective):
        image = last(net, objective, steps=80).image
        return [float(objective_value(features(net, image, ["conv2_1"])["conv2_1"], Objective("conv2_1", (k,)))) for k in (1, 2)]

    first, both, without = (reached(Objective("conv2_1", *ks)) for ks in (((1,),), ((1, 2),), ((1,), (2,))))
    assert min(both) > first[1] and both[0] < first[0]
    assert without[1] < 0.1 * both[1] and without[0] > both[0]


def alike(net: Net, objective: Objective, **options) -> tuple[float, float]:
    """How alike three pictures become, and the least of their activations."""
    image = last(net, objective, pictures=3, **options).image
    a = features(net, image, [objective.layer])[objective.layer]
    return float(likeness(a)), float(objective_value(a, objective).min())


def test_diversity_makes_pictures_unlike_and_all_of_them_excited(monkeypatch):
    found = {}
    for weight in (0.0, 2.0):
        monkeypatch.setattr(module, "DIVERSITY", weight)
        found[weight] = alike(tiny_net(), Objective("conv2_1", (1,), (), True), steps=60)
    assert found[2.0][0] < 0.8 * found[0.0][0] and found[2.0][1] > 0.5 * found[0.0][1] > 0


@pytest.mark.weights
def test_diversity_costs_little_activation(monkeypatch):
    net, objective = alexnet(), Objective("conv5", (40,), (), True)
    differing = alike(net, objective, steps=40, size=96)
    monkeypatch.setattr(module, "DIVERSITY", 0.0)
    free = alike(net, objective, steps=40, size=96)
    assert differing[0] < 0.6 * free[0] and differing[1] > 0.75 * free[1]


# Of what it is made


def test_the_objective_is_read_off_the_map():
    a = picture(5, 6).repeat(1, 2, 1, 1)[:, :5] - 0.5
    mean = a[0].mean((1, 2))
    assert objective_value(a, Objective("x", (3,))) == a[0, 3, 2, 3]
    assert objective_value(a, Objective("x", (3, 1))) == min(a[0, 3, 2, 3], a[0, 1, 2, 3])
    torch.testing.assert_close(objective_value(a, Objective("x", (3,), (0, 1), True))[0], mean[3] - mean[0] - mean[1])


def test_likeness_is_the_mean_cosine_of_grams():
    a = torch.cat([picture(6, 7, seed) for seed in range(3)])
    grams = [gram_matrix(a[i : i + 1]).flatten() for i in range(3)]
    pairs = [F.cosine_similarity(grams[i], grams[j], dim=0) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(likeness(a), torch.stack(pairs).mean())
    assert likeness(torch.cat([a[:1], 2 * a[:1]])) == pytest.approx(1)


def warped_by_hand(image: torch.Tensor, angle: float, zoom: float, shift: tuple[float, float]) -> torch.Tensor:
    """Each pixel from the four nearest to where it came from, on a picture without an edge."""
    _, _, height, width = image.shape
    out = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            down, right = i - (height - 1) / 2, j - (width - 1) / 2
            y = (math.cos(angle) * down + math.sin(angle) * right) / zoom + (height - 1) / 2 - shift[0] * height
            x = (math.cos(angle) * right - math.sin(angle) * down) / zoom + (width - 1) / 2 - shift[1] * width
            top, left = math.floor(y), math.floor(x)
            for row, share in ((top, top + 1 - y), (top + 1, y - top)):
                for column, part in ((left, left + 1 - x), (left + 1, x - left)):
                    out[..., i, j] += share * part * image[..., row % height, column % width]
    return out


def test_the_warp_is_that_of_each_pixel():
    image = torch.cat([picture(9, 12), picture(9, 12, 1)]).double()
    angle, zoom, shift = torch.tensor([0.4, -2.0]), torch.tensor([1.2, 0.7]), torch.tensor([[0.1, -0.6], [0.5, 0.03]])
    found = warp(image, angle, zoom, shift)
    for b in range(2):
        by_hand = warped_by_hand(image[b : b + 1], float(angle[b]), float(zoom[b]), tuple(shift[b].tolist()))
        torch.testing.assert_close(found[b : b + 1], by_hand, atol=1e-6, rtol=0)


def test_a_still_view_is_the_picture_a_shift_rolls_and_a_quarter_turn_turns_it():
    image, zero, one = picture(8, 8), torch.zeros(1), torch.ones(1)
    torch.testing.assert_close(warp(image, zero, one, torch.zeros(1, 2)), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(warp(image, zero, one, torch.tensor([[0.25, 0.5]])), image.roll((2, 4), (2, 3)), atol=1e-5, rtol=0)
    turned = warp(image, torch.tensor([math.pi / 2]), one, torch.zeros(1, 2))
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_the_gradient_through_the_warp_is_right():
    image = picture(5, 6).double().requires_grad_()
    view = (torch.tensor([0.2]), torch.tensor([1.1]), torch.tensor([[0.03, -0.31]]))
    assert torch.autograd.gradcheck(lambda x: warp(x, *view), image)


def test_views_are_seeded_bounded_and_differ_from_step_to_step():
    angle, zoom, shift = draw(500, False, 3, 8)
    assert all(torch.equal(a, b) for a, b in zip(draw(500, False, 3, 8), (angle, zoom, shift), strict=True))
    assert not torch.equal(draw(500, False, 3, 9)[0], angle) and not torch.equal(draw(500, False, 4, 8)[0], angle)
    assert 9 < angle.abs().max().rad2deg() <= 10 and 1.09 < zoom.max() <= 1.1 and 1 / 1.1 <= zoom.min() < 0.92
    assert 0.06 < shift.abs().max() <= 1 / 16 and 0.49 < draw(500, True, 3, 8)[2].abs().max() <= 0.5


def test_one_seed_one_dream():
    one, again, other = (last(tiny_net(), UNIT, steps=20, seed=seed).image for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("at", [1, 15, 17])
def test_a_dream_continues_to_the_same_picture(at):
    whole = list(dream(tiny_net(), UNIT, size=24, steps=20, pictures=2))
    rest = list(dream(tiny_net(), UNIT, size=24, steps=20, pictures=2, resume=whole[at - 1].state))
    assert [step.i for step in rest] == list(range(at + 1, 21)) and whole[0].image.shape == (2, 3, 24, 24)
    assert torch.equal(rest[-1].image, whole[-1].image)


@pytest.mark.parametrize("layer", ["conv1_1", "conv1_2", "pool1", "conv2_1", "conv3_1:pre"])
def test_the_field_is_what_a_unit_depends_on(layer):
    """With average pools, and weights that keep every unit firing, nothing hides a pixel."""
    net = tiny_net()
    open_ = replace(
        net,
        layers=tuple(
            replace(x, kind="avg") if isinstance(x, Pool) else replace(x, weight=x.weight.abs(), bias=x.bias.abs() + 100)
            for x in net.layers
        ),
    )
    image = picture(48, 48).requires_grad_()
    a = features(open_, image, [layer])[layer]
    (gradient,) = torch.autograd.grad(a[0, 0, a.shape[2] // 2, a.shape[3] // 2], image)
    rows = gradient[0].abs().sum((0, 2)).nonzero()
    assert field_of(net.layers, layer).size == int(rows.max() - rows.min()) + 1


def test_the_fields_of_alexnet_are_those_of_its_geometry():
    empty = {name: torch.empty(shape) for name, shape in weight_shapes("alexnet").items()}
    net = assemble("alexnet", NETS["alexnet"], empty, INPUTS["torchvision"])
    assert natural_size(net, Objective("conv5", (0,))) == 163 and natural_size(net, Objective("conv5", (0,), (), True)) == 224
    assert natural_size(net, Objective("conv1", (0,))) == 16


def test_the_least_size_is_the_least_of_which_something_is_left():
    net = tiny_net()
    deeper = replace(net, layers=(*net.layers, *(replace(x, name=f"{x.name}x") for x in (net.layers[2], net.layers[4]))))
    for of, layer in ((net, "conv3_1"), (deeper, "pool2x")):
        n = least_size(of, layer)
        assert min(map_size(of, layer, (n, n))) >= 1
        assert n == 16 or min(map_size(of, layer, (n - 1, n - 1))) < 1


def test_the_map_before_the_last_relu():
    net = tiny_net()
    found = [before(net, layer) for layer in ("conv1_2", "relu2_1", "conv2_1:pre", "pool1", "pool2")]
    assert found == ["conv1_2:pre", "conv2_1:pre", "conv2_1:pre", "conv1_2:pre", "conv2_1:pre"]


@pytest.mark.parametrize(
    ("objective", "size", "said"),
    [
        (Objective("conv9_1", (0,)), 24, "tiny has no layer 'conv9_1', its layers are conv1_1"),
        (Objective("conv2_1", (6,)), 24, "conv2_1 of tiny has no channel 6, it has 0 to 5"),
        (Objective("pool1", (0,), (5,)), 24, "pool1 of tiny has no channel 5, it has 0 to 4"),
        (Objective("conv2_1", ()), 24, "name at least one channel"),
        (UNIT, 15, "size is 15, must be at least 16 for conv2_1 of tiny"),
    ],
)
def test_what_the_net_does_not_have_gives_a_one_line_error(objective, size, said):
    with pytest.raises(BadRecipe, match=said):
        check(tiny_net(), objective, size)
    with pytest.raises(BadRecipe, match=said):
        next(dream(tiny_net(), objective, size=size))


# On disk


@pytest.mark.parametrize("pictures", range(1, 8))
def test_pictures_that_were_hung_can_be_taken_down(pictures):
    images = torch.cat([picture(6, 6, seed) for seed in range(pictures)])
    sheet = join_pictures(images)
    assert torch.equal(split_pictures(sheet, pictures, 6), images)
    assert sheet.sum() == pytest.approx(float(images.sum()) + sheet.numel() - images.numel(), rel=1e-5)


@pytest.fixture
def made(tmp_path):
    """A dream of the tiny net's, on disk."""

    def make(net: Net | None = None, name: str = "out.png", objective: Objective = UNIT, **options) -> Dream:
        return Dream(
            net or tiny_net(), objective, tmp_path / name, **{"size": 24, "steps": 20, "pictures": 1, "seed": 0, **options}
        )

    return make


@pytest.mark.parametrize("name", ["out.png", "out.jpg"])
def test_the_report_is_that_of_the_saved_picture(made, name):
    dreaming = made(name=name, pictures=3)
    *_, step = dreaming.steps()
    report = dreaming.report()
    images = split_pictures(read_picture(dreaming.output).image, 3, 24)
    a = features(tiny_net(), images, ["conv2_1"])["conv2_1"]
    assert report["activation"]["dream"] == pytest.approx(a[:, 2, 6, 6].tolist(), rel=1e-5)
    assert (report["width"], report["height"], report["steps"], report["ended"]) == (56, 56, 20, "finished")
    if name == "out.png":
        assert to_pillow(step.image[:1]) == to_pillow(images[:1])
    json.dumps(report)


def test_the_picture_is_compared_with_the_best_place_of_the_bundled_ones(made):
    dreaming = made()
    *_, _ = dreaming.steps()
    report = dreaming.report()
    found = {
        name: features(tiny_net(), module.picture_image(name), ["conv2_1"])["conv2_1"][:, 2].max() for name in module.CALIBRATION
    }
    assert report["picture"] == max(found, key=found.__getitem__)
    assert report["activation"]["picture"] == pytest.approx(float(max(found.values())))
    assert f"({report['picture']})" in summary(report) and report["excited"] and "not excited" not in summary(report)


def test_the_picture_carries_what_it_is(made):
    dreaming = made(seed=7, objective=Objective("conv2_1", (2,), (1,), True))
    *_, _ = dreaming.steps()
    record = read_record(dreaming.output)
    assert record["dream"] == {
        "net": "tiny", "layer": "conv2_1", "channels": [2], "against": [1], "everywhere": True,
        "size": 24, "steps": 20, "pictures": 1, "seed": 7, "prior": "fourier",
    }  # fmt: skip
    assert record["versions"]["torch"] == version("torch") and record["weights"] == {
        "sha256": make_setup(tiny_net()).weights,
        "input": "torchvision",
    }
    again = made(name="again.png", seed=7, objective=Objective("conv2_1", (2,), (1,), True))
    *_, _ = again.steps()
    assert again.output.read_bytes() == dreaming.output.read_bytes()


def test_a_unit_that_cannot_be_excited_gives_an_error(made):
    dreaming = made(net=biased(tiny_net(), "conv2_1", 2, -1.0, gain=0.0))
    *_, _ = dreaming.steps()
    report = dreaming.report()
    assert report["activation"]["dream"] == [0.0] and not report["excited"]
    assert summary(report).startswith("not excited, the dream shows nothing")


def test_an_interruption_saves_the_dream_so_far_and_spares_another_picture(made):
    dreaming = made()
    assert dreaming.set_aside() is None
    next(dreaming.steps())
    assert dreaming.set_aside() == dreaming.output and read_record(dreaming.output)["ended"] == "interrupted"
    assert dreaming.set_aside() == dreaming.output.with_name("out-so-far.png")
    assert read_record(dreaming.output)["steps"] == 1


def test_what_cannot_be_written_is_known_before_the_work(made):
    for name in ("out.gif", "absent/out.png"):
        with pytest.raises(CannotWrite):
            made(name=name)


def test_a_full_disk_gives_an_error_and_leaves_the_old_picture(made):
    dreaming = made()
    dreaming.output.write_bytes(b"old")
    with pytest.raises(NoRoom, match=r"no room on the disk for .*out.png"), room_for(500):
        list(dreaming.steps())
    assert dreaming.output.read_bytes() == b"old" and not list(dreaming.output.parent.glob(".impasto*"))


# The command, and the real net


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either --unit 17 or --pair"),
        (["--unit", 1, "--pair", "1,2"], "give either --unit 17 or --pair"),
        (["--pair", "3"], "--pair is '3', must be two channels"),
        (["--pair", "3,3"], "--pair is '3,3', must be two channels"),
        (["--pair", "3,-3"], "must be two channels"),
    ],
)
def test_what_is_no_objective_is_one_line_and_exit_2(impasto, tmp_path, options, said):
    check_one_line(impasto("lens", "dream", "--layer", "conv3", "-o", tmp_path / "x.png", *options), 2, said)


@pytest.mark.weights
def test_the_command_prints_a_path_or_one_object(impasto, tmp_path):
    out = tmp_path / "dream.png"
    common = ["lens", "dream", "--layer", "conv3", "--steps", 3, "-o", out, "--size"]
    plain = impasto(*common, 64, "--unit", 17)
    assert plain.stdout.strip() == str(out) and "best bundled picture" in plain.stderr and "step 3/3, activation" in plain.stderr
    found = json.loads(impasto(*common, 64, "--pair", "17,-23", "--channel", "--diversity", 2, "--json", "-q").stdout)
    assert found["dream"] == read_record(out)["dream"] and found["width"] == 136 and len(found["activation"]["dream"]) == 2
    assert (found["dream"]["channels"], found["dream"]["against"], found["dream"]["everywhere"]) == ([17], [23], True)
    check_one_line(impasto(*common, 64, "--unit", 384), 2, "conv3 of alexnet has no channel 384, it has 0 to 383")
    check_one_line(impasto(*common, 20, "--unit", 1), 2, "must be at least")


@pytest.mark.weights
def test_ctrl_c_leaves_the_dream_so_far(tmp_path):
    out = tmp_path / "dream.png"
    command = [sys.executable, "-m", "impasto", "lens", "dream", "--layer", "conv3", "--unit", "17", "--steps", "100000", "-o", out]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "step 1/100000" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and f"{out} is the unfinished picture" in said and "Traceback" not in said
    assert read_record(out)["ended"] == "interrupted" and read_picture(out).image.shape[-1] == 99


@pytest.mark.weights
@pytest.mark.parametrize(("layer", "times"), [("conv1", 1.0), ("conv3", 3.0), ("conv5", 6.0)])
def test_a_dream_excites_its_unit_more_than_any_bundled_picture(tmp_path, layer, times):
    """And no other unit of the layer is excited so far beyond what the bundled pictures do to it."""
    dreaming = Dream(alexnet(), Objective(layer, (17,)), tmp_path / "out.png", steps=96)
    *_, _ = dreaming.steps()
    report = dreaming.report()
    assert report["activation"]["dream"][0] > times * report["activation"]["picture"] > 0
    maps = [features(dreaming.net, module.picture_image(name), [layer])[layer].amax((0, 2, 3)) for name in module.CALIBRATION]
    a = features(dreaming.net, read_picture(dreaming.output).image, [layer])[layer]
    beyond = a[0, :, a.shape[2] // 2, a.shape[3] // 2] / torch.stack(maps).amax(0).clamp(min=1.0)
    assert int(beyond.argmax()) == 17


# With the magnitudes of photographs


def test_a_dream_of_phases_excites_its_unit_and_keeps_the_magnitudes_of_photographs():
    net, objective = tiny_net(), Objective("conv2_1", (1,))
    ends = [last(net, objective, steps=steps, prior="maco", pictures=2).image for steps in (1, 40)]
    before, after = (objective_value(features(net, image, ["conv2_1"])["conv2_1"], objective).min() for image in ends)
    assert after > before and after > 0.5
    magnitudes, mean = natural_spectrum(ends[1].shape[-1])
    waves = torch.einsum("cr,brhw->bchw", torch.tensor(COLOR_AXES).double().inverse(), ends[1].double().logit())
    found = torch.fft.rfft2(waves - mean.view(3, 1, 1), norm="ortho").abs()
    torch.testing.assert_close(found, magnitudes.expand_as(found), atol=1e-3, rtol=1e-3)


def test_one_seed_gives_one_dream_of_phases_and_a_step_continues_it():
    net, objective = tiny_net(), Objective("conv2_1", (1,))
    steps = list(dream(net, objective, size=24, steps=6, prior="maco"))
    (*_, rest) = dream(net, objective, size=24, steps=6, prior="maco", resume=steps[2].state)
    assert torch.equal(rest.image, steps[-1].image)
    assert not torch.equal(last(net, objective, steps=6, prior="maco", seed=1).image, rest.image)


def test_a_prior_is_known_and_starts_from_no_picture(tmp_path):
    net, objective = tiny_net(), Objective("conv2_1", (1,))
    with pytest.raises(BadRecipe, match="must be one of fourier, maco"):
        next(dream(net, objective, prior="gauss"))
    with pytest.raises(BadRecipe, match="cannot start from one picture"):
        Dream(net, objective, tmp_path / "d.png", steps=1, prior="maco", start=picture(24, 24))


# From a picture


def test_the_coefficients_of_a_picture_give_it_back():
    image = picture(21, 30, 3)
    back = fourier(21, 30, 100.0).image(coefficients(image))
    torch.testing.assert_close(back, image.clamp(1 / 255, 254 / 255), atol=1e-4, rtol=0)


def test_a_dream_begins_with_its_picture_and_stays_the_nearer_the_more_it_counts():
    """The distance falls with the weight; without it the activation is the highest."""
    net, start = tiny_net(), picture(24, 24, 3)
    ends = [last(net, Objective("conv3_1", (1,)), start=start, nearness=weight) for weight in (0.0, 3.0, 1e4)]
    distances, activations = ([end.costs[name] for end in ends] for name in ("distance", "activation"))
    assert distances[0] > distances[1] > distances[2] and activations[0] > activations[2] and distances[2] < 0.05
    assert (ends[2].image - start).abs().mean() < (ends[0].image - start).abs().mean() < 0.5


def test_the_cost_of_a_dream_at_its_start_has_no_distance():
    net, start = tiny_net(), picture(24, 24, 3)
    costs = make_cost(net, Objective("conv3_1", (1,)), 0, 5, start=start)(start)
    assert float(costs["distance"]) == 0 and float(costs["total"]) < 0


def test_halfway_is_a_convolution_before_the_layer():
    net = tiny_net()
    assert [halfway(net, layer) for layer in ("conv1_1", "conv1_2", "conv3_1", "pool2")] == [
        "conv1_1:pre",
        "conv1_1",
        "conv1_2",
        "conv1_1",
    ]


@pytest.mark.weights
def test_the_command_starts_from_a_picture_or_a_patch_and_tells_the_path(impasto, tmp_path):
    assert impasto("lens", "scan", picture_path("cat").parent, "-o", tmp_path / "atlas", "-q").returncode == 0
    args = ["lens", "dream", "--layer", "conv2", "--unit", 3, "--steps", 2, "-o", tmp_path / "d.png", "--json"]
    done = impasto(*args, "--atlas", tmp_path / "atlas", "--start", 1)
    about = json.loads(done.stdout)
    assert [*about["path"]] == ["conv1", "conv2"] and "like one another" in done.stderr
    assert about["dream"]["nearness"] == 3 and read_record(tmp_path / "d.png")["dream"]["start"] == about["dream"]["start"]
    other = json.loads(impasto(*args, "--start", picture_path("cat"), "--nearness", 0).stdout)["dream"]
    assert other["start"] != about["dream"]["start"] and other["nearness"] == 0
    check_one_line(impasto(*args, "--atlas", tmp_path / "atlas", "--start", 10), 2, "the patches 1 to")
    check_one_line(impasto(*args, "--channel", "--atlas", tmp_path / "atlas"), 2, "--unit")
    check_one_line(impasto(*args, "--start", tmp_path / "none.jpg"), 5, "none.jpg")
