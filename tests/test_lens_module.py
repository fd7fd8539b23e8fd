"""The lens on a net of one's own: the same as on Impasto's where it is the same net, and honest where it has branches."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from impasto.errors import BadRecipe
from impasto.lens.crops import check, check_layer
from impasto.lens.deconv import controls, cosine, filters_of, project, record
from impasto.lens.index import empty_index, find_layer, layer_statistics, make_setup, merge, read_index, unit_statistics
from impasto.lens.module import AnyNet, module_net
from impasto.lens.patches import rank_picture, top
from impasto.lens.rules import POOLINGS, RULES
from impasto.lens.scan import scan
from impasto.lens.sheet import CELL, project_picture, sheet
from tests.conftest import maps, picture, save
from tests.nets_of_your_own import WAYS, Joined, Residual, sequential, settled, straight

IMAGE = picture(64, 60).double()
RECTIFIED = {"modules": "relu", "in place": "relu", "one ReLU": "relu@"}


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "set").mkdir()
    for n in range(5):
        save(tmp_path / "set" / f"{n}.png", picture(52 + n, 50, n))
    return tmp_path / "set"


def scanned(net: AnyNet, pictures, folder, layers=(), **options):
    setup = make_setup(net, layers, **{"size": 48} | options)
    for _ in scan([pictures], net, setup, folder):
        pass
    return read_index(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_module_of_half_the_precision_is_looked_at_too(pictures, tmp_path, dtype):
    net = module_net(sequential(straight()).to(dtype), size=64)
    layer = net.convs[-1]
    index = scanned(net, pictures, tmp_path / "atlas", [layer])
    assert index.pictures == 5 and top(tmp_path / "atlas", layer, 0) and unit_statistics(index, layer)
    assert sheet(tmp_path / "atlas", net, layer).size[0] > 0
    recorded = record(net, IMAGE, layer)
    unit, y, x = (int(n) for n in torch.unravel_index(recorded.a.argmax(), recorded.a.shape))
    assert project(recorded, unit, y, x).isfinite().all() and controls(recorded, IMAGE, unit, y, x, seed=0)
    assert list(check_layer(tmp_path / "atlas", index, net, layer))
    scanned(net, pictures, tmp_path / "other", [layer])
    assert (tmp_path / "other" / "index.safetensors").read_bytes() == (tmp_path / "atlas" / "index.safetensors").read_bytes()


# The same net, written otherwise


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("way", WAYS)
def test_a_straight_net_projects_alike_however_it_is_written(way, pooling, rule):
    net = straight()
    own = module_net(WAYS[way](net), size=64)
    for layer in ("conv1", "conv2", "conv3"):
        expected, found = record(net, IMAGE, layer), record(own, IMAGE, layer)
        unit, y, x = (int(n) for n in torch.unravel_index(expected.a.argmax(), expected.a.shape))
        torch.testing.assert_close(found.a.relu(), expected.a, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(project(found, unit, y, x, rule, pooling), project(expected, unit, y, x, rule, pooling))


@pytest.mark.parametrize("way", RECTIFIED)
def test_a_layer_that_is_a_relu_starts_before_it(way):
    """So that a silent unit has its control, and a negative start goes through, as in Impasto's own nets."""
    net = straight()
    own, layer = module_net(WAYS[way](net), size=64), f"{RECTIFIED[way]}3"
    expected, found = record(net, IMAGE, "conv3"), record(own, IMAGE, layer)
    unit, y, x = (int(n) for n in torch.nonzero(expected.a == 0)[0])
    for rule in RULES:
        for start in (1.0, -2.0):
            drawn = project(found, unit, y, x, rule, start=start)
            torch.testing.assert_close(drawn, project(expected, unit, y, x, rule, start=start))
    with pytest.raises(BadRecipe, match="an inactive unit has no projection"):
        project(found, unit, y, x)


@pytest.mark.parametrize("way", WAYS)
def test_a_straight_net_scans_alike_however_it_is_written(way, pictures, tmp_path):
    """In float64 to the last bit of every ranking and count."""
    net = straight()
    expected = scanned(net, pictures, tmp_path / "straight", ["conv1:pre", "conv2:pre", "conv3:pre"], per_image=2)
    found = scanned(module_net(WAYS[way](net)), pictures, tmp_path / "own", per_image=2)
    assert list(found.layers) == ["conv1", "conv2", "conv3"]
    assert np.array_equal(found.rankings.where, expected.rankings.where)
    assert np.array_equal(found.rankings.value, expected.rankings.value)
    for ours, theirs in zip(found.layers.values(), expected.layers.values(), strict=True):
        for name in ("fired", "padded", "bins"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("way", RECTIFIED)
def test_rectified_maps_scan_alike_too(way, pictures, tmp_path):
    net, relu = straight(), RECTIFIED[way]
    first = "relu" if way == "one ReLU" else "relu1"
    expected = scanned(net, pictures, tmp_path / "straight")
    found = scanned(module_net(WAYS[way](net)), pictures, tmp_path / "own", [f"{relu}3", first, f"{relu}2"])
    assert list(found.layers) == [first, f"{relu}2", f"{relu}3"]
    assert np.array_equal(found.rankings.where, expected.rankings.where)
    patches = (
        [top(tmp_path / "own", f"{relu}2", unit) for unit in range(8)],
        [top(tmp_path / "straight", "conv2", n) for n in range(8)],
    )
    assert [[p.to_json() for p in them] for them in patches[0]] == [[p.to_json() for p in them] for them in patches[1]]


def test_relu1_of_a_module_is_not_conv1():
    """In Impasto's own nets it is another name of it."""
    index = empty_index(make_setup(module_net(sequential(straight())), ["conv1", "relu1"]))
    assert [find_layer(index, layer) for layer in ("conv1", "relu1")] == ["conv1", "relu1"]
    index = empty_index(make_setup(straight(), ["conv1"]))
    assert find_layer(index, "relu1") == "conv1"


def test_a_layer_that_reads_the_pixels_has_filters_to_show():
    net = straight()
    own = module_net(sequential(net), size=64)
    assert torch.equal(filters_of(own, "conv1"), filters_of(net, "conv1"))
    assert filters_of(own, "conv2") is None and filters_of(net, "conv2") is None


# Hooks


@pytest.mark.parametrize("training", [False, True])
def test_the_module_is_afterwards_what_it_was(training, pictures, tmp_path):
    module = settled(Residual(), torch.float32).train(training)
    module.bn.eval()
    modes, state = [part.training for part in module.modules()], {k: v.clone() for k, v in module.state_dict().items()}
    net = module_net(module, size=48)
    scanned(net, pictures, tmp_path / "own")
    project(record(net, picture(48, 48), "layer2"), 0, 0, 0, start=1.0)
    assert hooks_of(module) == 0 and [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_hooks_are_gone_when_the_module_fails():
    module = sequential(straight()).train()
    net = module_net(module, size=64)
    module.pool2.kernel_size = -1
    with pytest.raises(RuntimeError):
        maps(net, IMAGE, ["conv3"])
    assert hooks_of(module) == 0 and module.training


def test_a_map_is_shown_before_what_comes_next_writes_into_it():
    own = module_net(sequential(straight(), in_place=True), size=64)
    found = maps(own, IMAGE, ["conv1", "relu1"])
    assert found["conv1"].min() < 0 and torch.equal(found["conv1"].relu(), found["relu1"])


# Branches


def test_a_residual_net_is_scanned_and_its_patches_have_receipts(pictures, tmp_path):
    net = module_net(settled(Residual(), torch.float32), size=48)
    layers = ["stem", "layer1.0.conv1", "layer1.0", "layer1.1", "layer2", "fc"]
    index, ways = scanned(net, pictures, tmp_path / "own", layers, k=4), set()
    for layer in index.layers:
        for interior in (False, True):
            for _, patch, receipts in check_layer(tmp_path / "own", index, net, layer, "all", 0, interior):
                for receipt in receipts:
                    ways.add((receipt.way, patch.touches_padding))
                    assert receipt.error <= 1e-5 * max(1.0, abs(patch.value))
    assert ways == {("whole", True), ("whole", None), ("aligned", False)}


@torch.no_grad()
def test_a_block_that_is_strongest_inside_is_had_from_a_crop():
    """Aligned crops of a residual net in float64, at every place that sees no padding, equal the whole picture's."""
    from impasto.lens.crops import aligned

    net, image = module_net(settled(Residual()), size=48), picture(90, 83).double()
    for layer in ("layer1.0", "layer2.0.skip", "layer1.1.bn2"):
        a, field = maps(net, image, [layer])[layer][0], net.known[layer].field
        rows, columns = (range(100)[field.interior(length)] for length in image.shape[-2:])
        assert len(rows) and len(columns)
        for y, x in [(rows[0], columns[0]), (rows[-1], columns[-1]), (rows[len(rows) // 2], columns[0])]:
            assert aligned(net, image, layer, 1, y, x) == pytest.approx(float(a[1, y, x]), rel=1e-12, abs=1e-12)


def test_branches_project_by_autograds_gradient():
    net, image = module_net(settled(Residual()), size=48), picture(48, 48).double()
    way = record(net, image, "layer2")
    unit, y, x = (int(n) for n in torch.unravel_index(way.a.argmax(), way.a.shape))
    pixels = image.clone().requires_grad_()
    value = maps(net, pixels, ["layer2"])["layer2"][0, unit, y, x]
    torch.testing.assert_close(project(way, unit, y, x, "gradient", start=1.0), torch.autograd.grad(value, pixels)[0])


def test_a_skip_brings_back_its_share():
    """By hand: y = relu(conv(relu(x)) + x), so deconv of y is relu(s) through the filter, rectified, plus s itself."""

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1, bias=False).double(), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.conv(torch.relu(x)) + x)

    module = Skip()
    net, image = module_net(module, size=8), picture(8, 8).double()
    way = record(net, image, "act")
    signal = torch.zeros_like(image)
    signal[0, 1, 4, 4] = 2.0
    std = torch.tensor(net.input.std, dtype=torch.float64).view(1, 3, 1, 1)
    inner = nn.functional.conv_transpose2d(signal, module.conv.weight, padding=1)
    is_open = (image - torch.tensor(net.input.mean, dtype=torch.float64).view(1, 3, 1, 1)) > 0
    expected = {"deconv": inner.relu(), "guided": inner.relu() * is_open, "gradient": inner * is_open}
    for rule, through in expected.items():
        torch.testing.assert_close(project(way, 1, 4, 4, rule, start=2.0), (through + signal).detach() / std)


def test_projections_stay_inside_their_field_and_the_rules_are_three():
    net, image = module_net(settled(Residual()), size=48), picture(96, 96).double()
    way, field = record(net, image, "layer1.1"), net.known["layer1.1"].field
    x0, y0, x1, y1 = field.box(12, 12)
    assert min(x0, y0) >= 0 and max(x1, y1) < 96
    found = [project(way, 2, 12, 12, rule, start=1.0) for rule in RULES]
    assert all(cosine(a, b) < 0.999 for a, b in zip(found, [*found[1:], found[0]], strict=True))
    for drawn in found:
        assert drawn[..., y0:y1, x0:x1].abs().max() > 0
        drawn[..., y0:y1, x0:x1] = 0
        assert not drawn.any()


def test_controls_of_a_module_leave_the_module_alone():
    net, image = module_net(settled(Residual()), size=48), picture(48, 48).double()
    before = {name: tensor.clone() for name, tensor in net.module.state_dict().items()}
    way = record(net, image, "layer2")
    unit, y, x = (int(n) for n in torch.unravel_index(way.a.argmax(), way.a.shape))
    found = controls(way, image, unit, y, x, 0)
    assert all(-1 <= it.cosine < 0.9999 for it in found) and any(it.projection.any() for it in found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.module.state_dict().items())


# Unknown


def test_a_layer_whose_field_is_unknown_says_so_and_shows_the_whole_picture(pictures, tmp_path):
    net = module_net(settled(Joined(), torch.float32), size=48)
    index = scanned(net, pictures, tmp_path / "own", ["mixed", "joined"], per_image=2, k=6)
    patches = top(tmp_path / "own", "mixed", 1)
    assert [p.to_json()["box"] for p in patches] == [None] * 5 and {p.touches_padding for p in patches} == {None}
    assert json.loads(json.dumps(patches[0].to_json()))["box"] is None
    assert len({p.row for p in patches}) == 5 and top(tmp_path / "own", "mixed", 1, interior=True) == []
    assert [row["sees_padding"] is None for row in layer_statistics(index)] == [False, True]
    assert "sees_padding" not in unit_statistics(index, "mixed")[0] and "sees_padding" in unit_statistics(index, "joined")[0]
    assert patches[0].frame == (0, 0, 48, 48) and patches[0].field is None
    page = np.asarray(sheet(tmp_path / "own", net, "mixed", "1,"))
    seen = Image.open(patches[0].row.source.path)
    shown = np.asarray(seen.resize((CELL, CELL), Image.Resampling.LANCZOS, patches[0].view.in_picture((0, 0, 48, 48))))
    assert any((np.abs(page[y : y + CELL, 52 : 52 + CELL].astype(int) - shown) <= 1).all() for y in range(80, page.shape[0] - CELL))


def test_a_picture_that_is_no_square_is_shown_whole(pictures, tmp_path):
    save(pictures / "wide.png", picture(48, 90))
    net = module_net(settled(Joined(), torch.float32), size=48)
    scanned(net, pictures, tmp_path / "own", ["mixed"], fit="whole", k=6)
    wide = next(p for p in top(tmp_path / "own", "mixed", 0) if p.row.source.name == "wide.png")
    assert wide.frame == (0, -21, 90, 69) and wide.view.clip(wide.frame) == (0, 0, 90, 48)
    assert sheet(tmp_path / "own", net, "mixed", "0,").width > 3 * CELL


def test_a_scan_with_an_unknown_field_merges(pictures, tmp_path):
    net, layers = module_net(settled(Residual(), torch.float32), size=48), ["layer2", "fc"]
    whole = scanned(net, pictures, tmp_path / "whole", layers)
    for part, keep in (("a", range(2)), ("b", range(2, 5))):
        (tmp_path / f"set-{part}").mkdir()
        for n in keep:
            (pictures / f"{n}.png").rename(tmp_path / f"set-{part}" / f"{n}.png")
        scanned(net, tmp_path / f"set-{part}", tmp_path / part, layers)
    merged = merge([tmp_path / "b", tmp_path / "a"], tmp_path / "merged")
    assert np.array_equal(merged.rankings.value, whole.rankings.value)
    assert np.array_equal(merged.rankings.where, whole.rankings.where)
    assert read_index(tmp_path / "merged").setup == whole.setup


def test_one_unit_of_a_module_in_one_picture(tmp_path):
    path = save(tmp_path / "one.png", picture(60, 70))
    net = module_net(settled(Residual(), torch.float32), size=48)
    _, about = project_picture(path, net, "layer2", 3, size=48)
    assert about["layer"] == "layer2" and about["net"] == "Residual" and len(about["box"]) == 4
    index = empty_index(make_setup(net, ["fc"], size=48))
    rank_picture(index, net, picture(48, 48), 0)
    unit = int(index.layers["fc"].everywhere.value[:, 0].argmax())
    _, about = project_picture(path, net, "fc", unit, (0, 0), size=48) if about["value"] > 0 else (None, about)
    assert about["box"] is None and about["touches_padding"] is None


# What cannot be done


def test_a_layer_that_a_module_does_not_have_gives_an_error():
    net = module_net(settled(Residual(), torch.float32), size=48)
    with pytest.raises(BadRecipe, match=r"Residual has no layer 'conv9', its layers are stem, bn, pool, layer1\.0\.conv1,"):
        make_setup(net, ["conv9"])
    with pytest.raises(BadRecipe, match=r"has no layer"):
        record(net, picture(48, 48), "conv9")
    linear = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 2))
    own = module_net(linear, size=32)
    with pytest.raises(BadRecipe, match="size is 40, which Sequential does not take"):
        next(scan([], own, make_setup(own, size=40), None))


def test_a_scripted_relu_is_refused_rather_than_passed_by():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
            self.act = torch.jit.trace(nn.ReLU(), torch.zeros(1, 4, 14, 14))

        def forward(self, x):
            return self.last(self.act(self.conv(x)))

    with pytest.warns(DeprecationWarning):
        module = Scripted()
    net = module_net(module, size=16)
    assert net.known["last"].field.size == 5
    with pytest.raises(BadRecipe, match="where projection rules do not apply"):
        record(net, picture(16, 16), "last")


def test_a_layer_without_gradients_has_no_way_back():
    class Frozen(nn.Sequential):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    net = module_net(Frozen(nn.Conv2d(3, 4, 3)), size=16)
    with pytest.raises(BadRecipe, match="0 of Frozen has no gradient"):
        record(net, picture(16, 16), "0")


def test_another_checkpoint_is_another_net(pictures, tmp_path):
    module = settled(Residual(), torch.float32)
    net = module_net(module, size=48)
    scanned(net, pictures, tmp_path / "own", ["layer2"])
    with torch.no_grad():
        module.stem.weight.add_(1)
    with pytest.raises(BadRecipe, match="the scan was made with another weights"):
        sheet(tmp_path / "own", net, "layer2")


def test_a_receipt_of_another_net_has_an_error(pictures, tmp_path):
    """The test of the test."""
    net = module_net(settled(Residual(), torch.float32), size=48)
    scanned(net, pictures, tmp_path / "own", ["layer1.0"])
    patch = top(tmp_path / "own", "layer1.0", 0)[0]
    other = module_net(settled(Residual(), torch.float32), size=48)
    with torch.no_grad():
        other.module.stem.weight.mul_(1.1)
    assert check(other, picture(48, 48), "layer1.0", 0, patch)[0].error > 1e-3
