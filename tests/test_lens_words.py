"""Words for units: the classifier against modules of torch, the classes of ImageNet, chance, units whose word is known."""

import json
from itertools import combinations
from math import comb, log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from impasto.errors import BadInput, ImpastoWarning
from impasto.images.images import read_picture, resize
from impasto.lens import words as lens_words
from impasto.lens.index import make_setup, read_index, unit_statistics
from impasto.lens.patches import top
from impasto.lens.scan import scan
from impasto.lens.words import (
    DRAWN,
    EACH,
    FILE,
    Word,
    WordsFile,
    caption,
    layers_to_name,
    limit_of,
    rates_of,
    read_words,
    shown_things,
    surprise,
    things,
    with_words,
    word_of,
    words_of,
    write_words,
)
from impasto.nets.classifier import CLASSES, STAGES, class_probabilities, classifier_shapes, folded
from impasto.pictures import picture_path
from impasto.weights import CLASSIFIER, Loaded, load_net, load_weights
from tests.conftest import damaged
from tests.test_lens_clarity import NET, colored_scan

# The classifier


class Norm(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)


class Same(nn.Conv2d):
    """A convolution whose padding is computed as TensorFlow does for "same"."""

    def forward(self, x: Tensor) -> Tensor:
        (stride, _), (kernel, _) = self.stride, self.kernel_size
        wanted = [max((int(np.ceil(n / stride)) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        top, left = (n // 2 for n in wanted)
        return super().forward(nn.ZeroPad2d((left, wanted[1] - left, top, wanted[0] - top))(x))


class Block(nn.Module):
    def __init__(self, kernel: int, stride: int, widening: int, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = widening * inputs
        if widening > 1:
            self._expand_conv, self._bn0 = Same(inputs, wide, 1, bias=False), Norm(wide)
        self._depthwise_conv, self._bn1 = Same(wide, wide, kernel, stride, groups=wide, bias=False), Norm(wide)
        self._project_conv, self._bn2 = Same(wide, outputs, 1, bias=False), Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        y = self._bn2(self._project_conv(nn.functional.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if x.shape == y.shape else y


class Lite(nn.Module):
    """EfficientNet-Lite0 as modules, with the names that the package's tensors have."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), Norm(32)
        blocks, inputs = [], 32
        for kernel, stride, widening, outputs, count in STAGES:
            for n in range(count):
                blocks.append(Block(kernel, 1 if n else stride, widening, inputs, outputs))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1, self._fc = Same(320, 1280, 1, bias=False), Norm(1280), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self._blocks(nn.functional.relu6(self._bn0(self._conv_stem(x))))
        return self._fc(nn.functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def lite() -> Lite:
    torch.manual_seed(4)
    net = Lite().eval()
    for module in net.modules():
        if isinstance(module, Norm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, 0, 0.3)
    return net


@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
@torch.no_grad()
def test_the_classifier_is_that_of_modules_with_their_normalisations(lite, size):
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = lite((pictures * 255 - 127) / 128).softmax(1)
    assert wanted.std() > 1e-5  # not uniform
    torch.testing.assert_close(class_probabilities(pictures, folded(lite.state_dict())), wanted, atol=1e-6, rtol=1e-3)


def test_its_shapes_are_those_of_the_modules(lite):
    assert {name: tuple(tensor.shape) for name, tensor in folded(lite.state_dict()).items()} == classifier_shapes()
    numbers = sum(np.prod(shape) for shape in classifier_shapes().values())
    scales = sum(shape[0] for name, shape in classifier_shapes().items() if name.endswith("bias") and name != "classes.bias")
    assert round((numbers + scales) / 1e6, 3) == 4.652  # million, as published: normalisations have a scale as well


def test_a_single_picture_without_a_batch_is_refused():
    with pytest.raises(BadInput, match=r"\(N, 3, H, W\), got \(3, 8, 8\)"):
        class_probabilities(torch.rand(3, 8, 8), {})


@pytest.mark.weights
def test_a_cat_is_a_cat_and_a_print_is_none():
    weights = load_weights(CLASSIFIER).tensors
    pictures = [resize(read_picture(picture_path(name)).image, (224, 224)) for name in ("cat", "hokusai-great-wave")]
    cat, wave = class_probabilities(torch.cat(pictures), weights).numpy() @ things()[1]
    at = things()[0].index("domestic cat")
    assert cat[at] > 0.9 and wave[at] < 0.05


# Classes and groups


def test_classes_stand_in_the_order_of_imagenet():
    names = things()[0]
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 504: "coffee mug", 817: "sports car", 999: "toilet tissue"}
    assert {n: names[n] for n in known} == known and len(names) > CLASSES + 50


def test_a_class_belongs_to_itself_and_to_all_groups_above():
    names, belongs = things()
    of = {names[n]: {names[m] for m in np.flatnonzero(belongs[n])} for n in (207, 281, 817)}
    assert of["golden retriever"] == {"golden retriever", "retriever", "dog", "canine", "carnivore", "mammal", "animal"}
    assert {"tabby", "domestic cat", "feline", "animal"} <= of["tabby"] and {"car", "vehicle"} <= of["sports car"]
    assert belongs[:, :CLASSES].diagonal().all() and (belongs[:, :CLASSES].sum(1) == 1).all()
    assert belongs[:, CLASSES:].sum(0).min() >= 3  # a group of fewer says little


def test_groups_are_nested_or_apart():
    belongs = things()[1][:, CLASSES:]
    for one, other in combinations(belongs.T, 2):
        both = (one & other).sum()
        assert both in (0, one.sum(), other.sum())


# Chance


def test_the_surprise_is_the_logarithm_of_the_binomial_tail():
    for count, rate in ((1, 0.3), (4, 0.05), (9, 0.5)):
        tail = sum(comb(9, k) * rate**k * (1 - rate) ** (9 - k) for k in range(count, 10))
        assert surprise(np.array([count]), 9, np.array([rate]))[0] == pytest.approx(-log(tail))


def sets_of(drawn: np.ndarray, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(99)
    return [drawn[rng.choice(len(drawn), EACH, replace=False)] for _ in range(count)]


def showing(rates: dict[str, float], patches: int = 144) -> np.ndarray:
    """(patches, things): random patches that show these things at these rates."""
    rng, shown = np.random.default_rng(5), np.zeros((patches, len(things()[0])), bool)
    for name, rate in rates.items():
        shown[:, things()[0].index(name)] = rng.random(patches) < rate
    return shown


def test_of_random_patches_one_set_in_twenty_has_a_word_or_fewer():
    drawn = showing({"dog": 0.1, "animal": 0.4, "vehicle": 0.2, "bottle": 0.15})
    rates, limit = rates_of(drawn), limit_of(drawn, 0)
    named = [word_of(shown, rates, limit) for shown in sets_of(drawn, DRAWN)]
    assert sum(word is not None for word in named) / DRAWN <= 0.08


def test_what_most_patches_show_is_the_word_and_the_rarer_thing_wins():
    drawn = showing({"dog": 0.05, "animal": 0.4})
    rates, limit = rates_of(drawn), limit_of(drawn, 0)
    names, shown = things()[0], np.zeros((9, len(things()[0])), bool)
    shown[:, names.index("animal")] = True
    shown[:7, names.index("dog")] = True
    assert word_of(shown, rates, limit) == Word("dog", 7, 9) and caption(Word("dog", 7, 9)) == "dog 7 of 9"
    shown[:, names.index("dog")] = False
    assert word_of(shown, rates, limit) == Word("animal", 9, 9)
    shown[5:] = False
    assert word_of(shown, rates, limit) is None  # five of nine animals where 0.4 of all are: no surprise
    shown[:, names.index("crane")] = [True] * 3 + [False] * 6
    assert word_of(shown, rates, limit) is None  # a great surprise, but three are not most


def test_a_patch_shows_what_is_more_likely_than_not():
    names, probabilities = things()[0], np.zeros((2, CLASSES))
    probabilities[0, [207, 208, 281]] = 0.3, 0.25, 0.45  # two retrievers and a tabby
    shown = [{names[n] for n in np.flatnonzero(it)} for it in shown_things(probabilities)]
    assert shown == [{"retriever", "dog", "canine", "carnivore", "mammal", "animal"}, set()]


# From a scan


def by_color(pictures: Tensor, weights: object) -> Tensor:
    """Reddish is a golden retriever, greenish a mushroom, blueish a sports car."""
    found = torch.zeros(len(pictures), CLASSES)
    found[range(len(pictures)), torch.tensor([207, 947, 817])[pictures.mean((2, 3)).argmax(1)]] = 1
    return found


@pytest.fixture
def atlas(tmp_path, monkeypatch) -> Path:
    """A scan of coloured pictures, and a classifier of colours."""
    monkeypatch.setattr(lens_words, "class_probabilities", by_color)
    monkeypatch.setattr(lens_words, "load_weights", lambda _: Loaded({}, "torchvision", ""))
    return colored_scan(tmp_path)


def test_a_unit_that_likes_a_color_has_the_word_of_the_color(atlas):
    """The units: red, constant, silent, and green without blue."""
    ((layer, words),) = words_of(atlas, read_index(atlas), NET, ["1"])
    red, constant, silent, green = words
    assert layer == "1" and red and red.of == 9 and green and green.text in ("agaric", "mushroom")
    assert red.text in ("golden retriever", "retriever", "dog", "canine", "carnivore", "mammal", "animal")
    assert constant is None and silent is None


@pytest.mark.filterwarnings("ignore::impasto.errors.ImpastoWarning")
def test_a_picture_that_is_gone_is_not_counted(atlas):
    Path(top(atlas, "1", 0)[2].row.source.path).unlink()
    with pytest.warns(ImpastoWarning):
        ((_, words),) = words_of(atlas, read_index(atlas), NET, ["1"])
    assert words[0].of == 8


def test_a_scan_of_few_pictures_is_an_error(tmp_path, atlas):
    for _ in scan([atlas.parent / "set" / "01.png"], NET, make_setup(NET, ["1"], size=16), tmp_path / "small"):
        pass
    with pytest.raises(BadInput, match="words need a scan of 18 pictures or more"):
        next(words_of(tmp_path / "small", read_index(tmp_path / "small"), NET, ["1"]))


@pytest.mark.weights
def test_layers_with_small_fields_are_named_only_when_asked_for(tmp_path):
    for _ in scan(
        [picture_path("cat")], load_net("alexnet"), make_setup(load_net("alexnet"), ["conv1", "conv2", "conv3"]), tmp_path / "real"
    ):
        pass
    assert layers_to_name(read_index(tmp_path / "real")) == ["conv3"]  # 11, 51 and 99 pixels


def test_a_scan_of_small_fields_alone_says_so(atlas):
    with pytest.raises(BadInput, match="smaller than 64 pixels"):
        layers_to_name(read_index(atlas))


# The file

WORDS = [Word("dog", 7, 9), None, None, Word("agaric", 4, 8)]


def test_what_is_written_is_read_and_shown(atlas):
    index = read_index(atlas)
    assert read_words(atlas, index) == {} and with_words(atlas, index, "1", [{}]) == [{}]
    write_words(atlas, {"1": WORDS})
    assert read_words(atlas, index) == {"1": WORDS}
    rows = with_words(atlas, index, "1", unit_statistics(index, "1"))
    assert [(row["word"], row["word_count"]) for row in rows] == [("dog", 7), (None, None), (None, None), ("agaric", 4)]


def test_words_for_another_number_of_units_are_an_error(atlas):
    write_words(atlas, {"1": WORDS[:3]})
    with pytest.raises(BadInput, match="another number of units than 1: delete it, impasto lens words"):
        read_words(atlas, read_index(atlas))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_or_no_word(data):
    whole = json.dumps({"index": "0" * 64, "layers": {"1": [{"text": "dog", "count": 7, "of": 9}, None]}}).encode()
    try:
        found = WordsFile.model_validate_json(damaged(data, whole))
    except ValueError:
        return
    assert all(1 <= word.count <= 9 for layer in found.layers.values() for word in layer if word)


def test_a_file_that_is_no_json_names_the_command(atlas):
    (atlas / FILE).write_text("{")
    with pytest.raises(BadInput, match="delete it, impasto lens words makes it again"):
        read_words(atlas, read_index(atlas))
