"""A painting on disk, with a tiny net in the place of the real ones: finished, interrupted, resumed, out of room."""

import copy
import hashlib
import json
import os
import random
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import BadImage, BadRecipe, CannotWrite, ImpastoWarning, NoRoom
from impasto.images.images import read_picture, read_record, resize
from impasto.nets.nets import Compute
from impasto.objective.color import SPACES
from impasto.objective.framing import finished_size, framed
from impasto.objective.targets import parts_of
from impasto.recipe.recipe import make_recipe
from impasto.transfer import painting as module
from impasto.transfer.checkpoint import MAGIC, checkpoint_path, previous
from impasto.transfer.painting import Painting, recipe_of
from tests.conftest import paint_with_the_tiny_net
from tests.test_hires import p3, png

pytestmark = pytest.mark.slow

KNOBS = {
    "size": 40,
    "coarsest": 24,
    "steps": 5,
    "fine_steps": 5,
    "style_layers": {"conv1_1": 1.0},
    "content_layers": {"conv2_1": 1.0},
    "beta": 1.0,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The tiny net, and a checkpoint after every step."""
    paint_with_the_tiny_net(monkeypatch)


def made(files, **knobs) -> Painting:
    content, style, output = files
    return Painting(content, [style], output, make_recipe(**{**KNOBS, **knobs}))


def finish(painting: Painting, **options) -> bytes:
    for _ in painting.steps(**options):
        pass
    return painting.output.read_bytes()


def interrupted(files, at: int) -> None:
    """What kill -9 after step `at` leaves behind: no clean-up runs."""
    steps = made(files).steps()
    for step in steps:
        if step.i == at:
            os.rename(checkpoint_path(files[2]), files[2].with_name("kept"))
            break
    steps.close()
    os.rename(files[2].with_name("kept"), checkpoint_path(files[2]))


ABSURD = (None, -1, 10**30, 0.5, float("nan"), "", "/etc/passwd", "../x", [], [[]], {}, {"a": {}}, True)


def with_absurd_parts(value: object) -> Iterator[object]:
    """The same JSON with one of its parts, at any depth, something absurd or gone."""
    yield from ABSURD
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            without = copy.deepcopy(value)
            part = without.pop(key)
            yield without
            for absurd in with_absurd_parts(part):
                found = copy.deepcopy(value)
                found[key] = absurd
                yield found


def test_a_checkpoint_of_anybodys_making_is_gone_on_from_or_gives_way_to_the_one_before(files, tmp_path):
    """Its checksum is right, whatever it says: no error of ours, and nothing of it is followed."""
    knobs: dict = {"steps": 3, "fine_steps": 2, "changes": {4: {"beta": 2.0}}}
    whole = finish(made(files, **knobs))
    for step in (steps := made(files, **knobs).steps()):
        if step.i == 3:
            break
    good = checkpoint_path(files[2]).read_bytes()
    steps.close()
    threads, begin = torch.get_num_threads(), len(MAGIC) + 32
    length = int.from_bytes(good[begin : begin + 8], "little")
    header, data = json.loads(good[begin + 8 :][:length]), good[begin + 8 + length :]
    told = {name: json.loads(header["__metadata__"][name]) for name in ("run", "costs", "i")} | {"files": {"s.9": ["a.held", 1]}}
    headers = list(with_absurd_parts({name: it for name, it in header.items() if name in ("__metadata__", "x", "s.0")}))
    headers += [
        {"__metadata__": {**header["__metadata__"], name: json.dumps(it)}} for name in told for it in with_absurd_parts(told[name])
    ]
    random.Random(0).shuffle(headers)
    unfit = [{"__metadata__": {**header["__metadata__"], "i": i}} for i in ("0", "5", "6")]  # of another scale, of none
    unfit.append(
        {"__metadata__": {**header["__metadata__"], "run": json.dumps({**told["run"], "plans": told["run"]["plans"][:1]})}}
    )
    unfit.append({"s.0": header["y.0"] | {"shape": header["y.0"]["shape"][::-1]}})
    for absurd in [*unfit, *headers[:200]]:
        text = json.dumps({**header, **absurd} if isinstance(absurd, dict) else absurd).encode()
        body = len(text).to_bytes(8, "little") + text + data
        files[2].unlink(missing_ok=True)
        checkpoint_path(files[2]).write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
        previous(checkpoint_path(files[2])).write_bytes(good)
        painting = made(files, **knobs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImpastoWarning)
            try:
                painting.state = painting._resumed()
            except BadRecipe as error:
                assert "was made with other settings" in str(error)
                continue
        assert painting.state is not None and 1 <= painting.state.i <= 5 and torch.get_num_threads() < 4096
        assert max(painting.state.x.shape) == (24 if painting.state.i <= 3 else 40) and len(painting.plans) == 2
        assert {it.shape for its in painting.state.memory.values() for it in its} <= {painting.state.x.shape}
    torch.set_num_threads(threads)
    checkpoint_path(files[2]).write_bytes(good)
    assert finish(made(files, **knobs), resume=True) == whole


def test_a_finished_painting_carries_its_recipe_and_no_checkpoint_is_left(files):
    finish(made(files))
    record = read_record(files[2])
    assert recipe_of(files[2]) == make_recipe(**KNOBS)
    assert (
        record["ended"] == "finished" and record["steps"] == 10 and record["weights"] == {"sha256": "tiny", "input": "torchvision"}
    )
    assert record["inputs"]["content"] == read_picture(files[0]).sha256
    assert record["versions"]["torch"] == version("torch")
    assert sorted(p.name for p in files[2].parent.iterdir()) == ["out.png", "photo.png", "style.png"]


def test_the_record_holds_no_path_and_no_time(files):
    finish(made(files))
    text = json.dumps(read_record(files[2]))
    assert str(files[0].parent) not in text and "photo" not in text and "second" not in text


def test_the_same_recipe_gives_the_same_bytes(files):
    assert finish(made(files)) == finish(made(files))
    assert finish(made(files, init="noise", seed=1)) != finish(made(files, init="noise", seed=2))


@pytest.mark.parametrize("at", [1, 5, 7, 10])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_killed_run_resumes_to_the_same_bytes(files, at, optimizer, monkeypatch):
    monkeypatch.setitem(KNOBS, "optimizer", optimizer)
    monkeypatch.setitem(KNOBS, "lr", {"lbfgs": 1.0, "adam": 0.02}[optimizer])
    whole = finish(made(files))
    files[2].unlink()
    interrupted(files, at)
    steps = made(files).steps(resume=True)
    assert [step.i for step in steps] == list(range(at + 1, 11))
    assert files[2].read_bytes() == whole and not checkpoint_path(files[2]).exists()


def test_an_interruption_spares_a_finished_picture(files):
    whole = finish(made(files))
    painting = made(files, seed=3)
    next(iter(painting.steps()))
    assert painting.set_aside() == files[2].with_name("out-so-far.png")
    assert files[2].read_bytes() == whole and read_record(files[2].with_name("out-so-far.png"))["steps"] == 1


def test_an_interruption_saves_picture_and_checkpoint(files):
    whole = finish(made(files))
    files[2].unlink()
    painting = made(files)
    for step in painting.steps():
        if step.i == 7:
            painting.set_aside()
            break
    assert read_record(files[2])["ended"] == "interrupted"
    assert read_picture(files[2]).image.shape[-2:] == (30, 40)
    assert not made(files).is_finished()
    assert finish(made(files), resume=True) == whole


def test_a_finished_painting_is_left_alone(files):
    finish(made(files))
    before = files[2].stat()
    assert list(made(files).steps(resume=True)) == []
    assert files[2].stat() == before
    assert len(list(made(files, seed=5).steps(resume=True))) == 10


def test_resume_without_a_checkpoint_starts_afresh(files):
    assert [step.i for step in made(files).steps(resume=True)] == list(range(1, 11))


def test_a_checkpoint_of_other_knobs_is_not_used(files):
    interrupted(files, 5)
    before = checkpoint_path(files[2]).read_bytes()
    with pytest.raises(BadRecipe, match=r"other settings \(seed differ\)"):
        list(made(files, seed=9).steps(resume=True))
    assert checkpoint_path(files[2]).read_bytes() == before


def test_a_damaged_checkpoint_costs_one_step(files):
    steps = made(files).steps()
    for step in steps:
        if step.i == 7:
            break
    assert previous(checkpoint_path(files[2])).exists()
    checkpoint_path(files[2]).write_bytes(b"damaged")
    with pytest.warns(ImpastoWarning, match="damaged"):
        rest = [step.i for step in made(files).steps(resume=True)]
    assert rest == [7, 8, 9, 10]


def test_pictures_on_the_way_spare_the_inputs(files):
    content = files[0].rename(files[0].with_name("out-0001.png"))
    painting = Painting(content, [files[1]], files[2], make_recipe(**KNOBS))
    before = content.read_bytes()
    with pytest.raises(CannotWrite, match="name another file"):
        finish(painting, save_every=1)
    assert content.read_bytes() == before


def test_pictures_on_the_way_are_saved(files):
    finish(made(files), save_every=4)
    assert {p.name for p in files[2].parent.glob("out-*.png")} == {"out-0004.png", "out-0008.png"}
    assert read_record(files[2].with_name("out-0008.png"))["steps"] == 8


def test_no_time_still_gives_a_picture_of_the_size_asked_for(files):
    painting = made(files)
    with pytest.warns(ImpastoWarning, match=r"the time limit ended after step 1 of 10: .*--resume continues"):
        finish(painting, seconds=0.0)
    assert read_picture(files[2]).image.shape[-2:] == (30, 40)
    assert read_record(files[2])["ended"] == "time budget" and painting.state.i == 1
    whole = finish(made(files, seed=0), resume=True)
    files[2].unlink()
    assert whole == finish(made(files)) and not checkpoint_path(files[2]).exists()


def test_a_full_disk_stops_the_checkpoints_and_not_the_painting(files, monkeypatch):
    def full(*_):
        raise NoRoom("no room on the disk")

    monkeypatch.setattr(module, "save_checkpoint", full)
    with pytest.warns(ImpastoWarning, match="without a checkpoint") as warned:
        finish(made(files))
    assert len(warned) == 1 and read_record(files[2])["ended"] == "finished"


@pytest.mark.filterwarnings("ignore::impasto.errors.ImpastoWarning")
def test_out_of_memory_saves_the_picture_so_far(files, monkeypatch):
    painting = made(files)
    steps, real = painting.steps(), module.stylize

    def failing(*args, **kwargs):
        for step in real(*args, **kwargs):
            yield step
            if step.i >= 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(module, "stylize", failing)
    with pytest.raises(NoRoom, match="out of memory"):
        list(steps)
    assert read_record(files[2])["steps"] == painting.state.i >= 3 and checkpoint_path(files[2]).exists()


@pytest.mark.usefixtures("no_holes")
def test_out_of_memory_falls_back_to_a_smaller_plan(files, monkeypatch):
    """Whole at first, then in tiles from the step where memory ran out: the same painting to rounding."""
    knobs = {"size": 640, "coarsest": 640, "steps": 4, "history": 1}
    finish(made(files, **knobs))
    unhurt = read_picture(files[2]).image
    painting, real = made(files, **knobs), module.stylize

    def failing(*args):
        execution = args[5]
        for step in real(*args):
            if step.i == 3 and execution.plans[0].tiling is None:
                raise MemoryError
            yield step

    monkeypatch.setattr(module, "stylize", failing)
    with pytest.warns(ImpastoWarning, match="continuing in tiles"):
        steps = list(painting.steps())
    assert [step.i for step in steps] == [1, 2, 3, 4] and painting.plans[0].tiling is not None
    assert read_record(files[2])["plans"][0]["tiling"] is not None
    torch.testing.assert_close(read_picture(files[2]).image, unhurt, atol=0.02, rtol=0)


def test_too_little_memory_is_an_error_before_the_work(files):
    content, style, output = files
    with pytest.raises(NoRoom, match=r"pixels need .* MB are allowed"):
        Painting(content, [style], output, make_recipe(**KNOBS), max_memory=1e6)


def test_another_error_is_not_taken_for_a_lack_of_memory(files, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("something else")
        yield

    monkeypatch.setattr(module, "stylize", failing)
    with pytest.raises(RuntimeError, match="something else"):
        list(made(files).steps())


def test_alpha_is_that_of_the_photograph(files):
    photo = Image.open(files[0]).convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(files[0])
    finish(made(files))
    alpha = read_picture(files[2]).alpha
    assert alpha is not None and alpha.shape == (1, 1, 30, 40) and 0.4 < alpha.mean() < 0.6


def test_the_report_costs_the_saved_picture(files):
    painting = made(files)
    finish(painting)
    report = painting.report()
    assert (report["width"], report["height"], report["net"], report["seed"], report["steps"]) == (40, 30, "vgg19", 0, 10)
    assert report["costs"].keys() == {"total", "content", "style", "style_layers"}
    assert report["costs"]["style_layers"].keys() == {"conv1_1"}
    assert report["costs"]["total"] == pytest.approx(painting.state.costs["total"], rel=0.05)
    assert report["peak_memory_mb"] > 10 and report["recipe"] == recipe_of(files[2]).model_dump(mode="json")
    json.dumps(report)


def test_starting_over_says_what_is_given_up(files):
    interrupted(files, 5)
    with pytest.warns(ImpastoWarning, match="use --resume to continue it"):
        finish(made(files))


def test_a_painting_never_replaces_what_it_is_painted_from(files):
    with pytest.raises(CannotWrite, match="name another file"):
        Painting(files[0], [files[1]], files[1], make_recipe(**KNOBS))


def test_a_checkpoint_left_beside_a_finished_painting_goes(files):
    finish(made(files))
    checkpoint_path(files[2]).write_bytes(b"left")
    assert list(made(files).steps(resume=True)) == [] and not checkpoint_path(files[2]).exists()


def test_a_run_that_time_cut_short_says_so_even_after_a_resume(files, monkeypatch):
    """Cut at the coarse scale, killed at the fine one, resumed without a budget: honest in the end."""
    cut = lambda clock, index, step: clock.seconds is not None and step.i == 2  # noqa: E731
    monkeypatch.setattr("impasto.transfer.transfer._Clock.is_over", cut)
    steps = made(files).steps(seconds=60.0)
    for step in steps:
        if step.i == 7:
            break
    with pytest.warns(ImpastoWarning, match="coarser scales got fewer steps"):
        assert [step.i for step in made(files).steps(resume=True)] == [8, 9, 10]
    assert read_record(files[2])["ended"] == "finished in time" and made(files).is_finished()


def test_a_picture_that_finds_no_room_is_saved_where_there_is_some_and_the_error_names_it(files, tmp_path, monkeypatch):
    whole = finish(made(files))
    files[2].unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    write = module.write_picture

    def full(path, *rest):
        if path == files[2]:
            raise NoRoom("no room on the disk")
        write(path, *rest)

    monkeypatch.setattr(module, "write_picture", full)
    with pytest.raises(NoRoom, match=r"no room on the disk; the picture is .*elsewhere.*out\.png") as raised:
        finish(made(files))
    assert Path(str(raised.value).rpartition(" is ")[2]).read_bytes() == whole and checkpoint_path(files[2]).exists()


def test_a_picture_larger_than_what_is_free_is_refused_before_it_is_painted(files, monkeypatch):
    monkeypatch.setattr("impasto.files.shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 40 * 30 - 1))
    with pytest.raises(NoRoom, match=r"it takes up to 0\.0036 MB, 0\.0036 MB are free"):
        made(files)
    monkeypatch.setattr("impasto.files.shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 40 * 30))
    made(files)


def test_a_painting_that_goes_on_with_other_threads_leaves_the_next_one_its_own(files, monkeypatch):
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(before + 1)
    interrupted(files, 5)
    torch.set_num_threads(before)
    for _ in made(files).steps(resume=True):
        seen.add(torch.get_num_threads())
    assert seen == {before + 1} and torch.get_num_threads() == before


def test_an_interruption_on_a_full_disk_still_tries_the_picture(files, monkeypatch):
    def full(*_):
        raise NoRoom("no room on the disk")

    painting = made(files)
    next(iter(painting.steps()))
    monkeypatch.setattr(module, "save_checkpoint", full)
    with pytest.raises(NoRoom):
        painting.set_aside()
    assert read_record(files[2])["ended"] == "interrupted"


def test_an_output_that_cannot_be_written_is_known_before_the_work(files):
    content, style, output = files
    for bad in (output.with_suffix(".gif"), output.parent / "absent" / "out.png", output.parent):
        with pytest.raises(CannotWrite):
            Painting(content, [style], bad, make_recipe(**KNOBS))


def test_a_picture_by_another_program_carries_no_recipe(files):
    with pytest.raises(BadImage, match="carries no recipe"):
        recipe_of(files[0])


def test_max_memory_on_a_gpu_is_refused_not_ignored(files):
    content, style, output = files
    with pytest.raises(BadRecipe, match="--max-memory is for the CPU"):
        Painting(content, [style], output, make_recipe(**KNOBS), place=Compute("cuda", "float32"), max_memory=1e9)


@pytest.mark.parametrize(
    ("said", "memory"),
    [
        ("could not create a primitive", True),
        ("could not create a memory object", True),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("[enforce fail at alloc_cpu.cpp:115] DefaultCPUAllocator: can't allocate memory", True),
        ("std::bad_alloc", True),
        ("CUDA out of memory. Tried to allocate 20 MiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_out_of_memory_is_known_by_what_libraries_say(said, memory):
    assert module.is_out_of_memory(RuntimeError(said)) == memory


def test_out_of_memory_before_the_first_step_promises_no_picture(files, monkeypatch):
    def failing(*args, **kwargs):
        raise MemoryError
        yield

    monkeypatch.setattr(module, "stylize", failing)
    with pytest.raises(NoRoom) as raised, warnings.catch_warnings():
        warnings.simplefilter("ignore", ImpastoWarning)
        list(made(files).steps())
    assert "so far" not in str(raised.value) and not files[2].exists()


@pytest.mark.usefixtures("no_holes")
def test_a_resume_under_another_limit_says_that_it_keeps_the_plan(files):
    knobs = {"size": 640, "coarsest": 640, "steps": 3, "history": 1}
    content, style, output = files
    painting = made(files, **knobs)
    next(iter(painting.steps()))
    painting.set_aside()
    limit = made(files, **knobs).plans[0].peak - 5e6
    again = Painting(content, [style], output, make_recipe(**{**KNOBS, **knobs}), max_memory=limit)
    assert again.plans[0].tiling is not None
    with pytest.warns(ImpastoWarning, match="as the checkpoint was begun, with the finest scale whole"):
        list(again.steps(resume=True))
    assert again.plans[0].tiling is None


def test_a_texture_is_opaque_and_an_inversion_as_transparent_as_its_picture(files):
    photo = Image.open(files[0]).convert("RGBA")
    photo.putalpha(128)
    photo.save(files[0])
    for preset, mode in (("texture", "RGB"), ("inversion", "RGBA")):
        layers = {"texture": {"style_layers": "conv1_1"}, "inversion": {"content_layers": "conv1_1"}}[preset]
        painting = Painting(files[0], [files[1]], files[2], make_recipe(preset, size=32, coarsest=32, steps=2, **layers))
        finish(painting)
        assert Image.open(files[2]).mode == mode


@pytest.mark.parametrize("at", [3, 6])
def test_textures_and_inversions_resume_to_the_same_bytes(files, at):
    for preset, styles, layers in (("texture", [files[0]], "style_layers"), ("inversion", [], "content_layers")):
        recipe = make_recipe(preset, size=40, coarsest=24, steps=5, fine_steps=4, **{layers: "conv2_1"})
        whole = finish(Painting(files[0], styles, files[2].with_name("whole.png"), recipe))
        killed = Painting(files[0], styles, files[2], recipe)
        for step in killed.steps():
            if step.i == at:
                break
        assert [step.i for step in Painting(files[0], styles, files[2], recipe).steps(resume=True)] == list(range(at + 1, 10))
        assert files[2].read_bytes() == whole
        files[2].unlink()


def masked(files, name: str = "mask.png") -> dict:
    """Knobs of two regions, one with a mask in a file."""
    mask = files[0].parent / name
    photo = Image.open(files[0])
    half = Image.new("L", photo.size, 0)
    half.paste(255, (0, 0, photo.width // 2, photo.height))
    half.save(mask)
    return {"regions": {"left": {"mask": str(mask), "style_weight": 2.0}, "right": {"mask": "rest"}}}


def test_a_painting_with_regions_is_known_by_its_masks_and_resumed_to_the_same_bytes(files):
    knobs = masked(files)
    whole = finish(made(files, **knobs))
    record = read_record(files[2])
    assert record["recipe"]["regions"]["left"]["mask"] == "a file" and set(record["inputs"]["masks"]) == {"left"}
    assert str(files[0].parent) not in json.dumps(record)
    files[2].unlink()
    steps = made(files, **knobs).steps()
    for step in steps:
        if step.i == 7:
            break
    kept = checkpoint_path(files[2]).read_bytes()
    steps.close()
    checkpoint_path(files[2]).write_bytes(kept)
    assert finish(made(files, **knobs), resume=True) == whole
    report = made(files, **knobs).report()
    assert report["costs"]["style"] > 0 and "style_costs" not in report["costs"]
    Image.new("L", Image.open(files[0]).size, 255).save(knobs["regions"]["left"]["mask"])
    assert not made(files, **knobs).is_finished()  # another mask, another painting


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_region_with_its_own_colours_resumes_to_the_same_bytes_and_carries_them(files, when, monkeypatch):
    knobs = masked(files)
    knobs["regions"]["left"]["color"] = "monge"
    monkeypatch.setitem(KNOBS, "regions", knobs["regions"])
    monkeypatch.setitem(KNOBS, "color_when", when)
    whole = finish(made(files))
    assert recipe_of(files[2]).regions["left"].color == "monge"
    files[2].unlink()
    interrupted(files, 7)
    painting = made(files)
    assert finish(painting, resume=True) == whole
    costs, ended = painting.report()["costs"]["total"], painting.state.costs["total"]
    assert costs == pytest.approx(ended, rel=0.05) if when == "before" else costs > ended


def test_a_mask_is_not_painted_over(files):
    knobs = masked(files)
    with pytest.raises(CannotWrite, match="one of the pictures to paint from"):
        Painting(files[0], [files[1]], files[0].parent / "mask.png", make_recipe(**{**KNOBS, **knobs}))


def test_kinds_of_style_cost_are_reported(files):
    painting = made(files, style_costs="gram=2,w2=1,sliced")
    finish(painting)
    costs = painting.report()["costs"]
    assert set(costs["style_costs"]) == {"gram", "w2", "sliced"}
    assert sum(costs["style_costs"].values()) == pytest.approx(costs["style"], rel=1e-5)


# Colours and files


def deep(path: Path) -> bool:
    with Image.open(path) as opened:
        return any(";16" in str(tile.args) for tile in opened.tile)


@pytest.mark.parametrize("rule", ["luminance", "monge", "histogram"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_pictures_on_the_way_have_the_colours_of_the_last(files, rule, when):
    """The one of the last step is the finished picture."""
    painting = made(files, color=rule, color_when=when)
    finish(painting, save_every=5)
    on_its_way, done = (read_picture(path).image for path in (files[2].with_name("out-0010.png"), files[2]))
    assert torch.equal(on_its_way, done)
    coarse, content = read_picture(files[2].with_name("out-0005.png")).image, read_picture(files[0]).image
    if rule == "luminance":
        chroma = SPACES["yiq"].there(coarse)[:, 1:] - SPACES["yiq"].there(resize(content, (18, 24)))[:, 1:]
        assert chroma.abs().median() < 0.01


@pytest.mark.parametrize("knobs", [{"color": "luminance"}, {"color": "cholesky"}, {"color": "histogram", "color_when": "after"}])
def test_a_killed_run_in_the_photographs_colours_resumes_to_the_same_bytes(files, knobs, monkeypatch):
    for knob, value in knobs.items():
        monkeypatch.setitem(KNOBS, knob, value)
    whole = finish(made(files))
    files[2].unlink()
    interrupted(files, 6)
    assert finish(made(files), resume=True) == whole and recipe_of(files[2]).color == knobs["color"]


def test_the_report_in_the_photographs_colours_costs_the_saved_picture(files):
    """Painted in them: what the descent ended with. Given them afterwards: more, and as honest."""
    for knobs, is_near in (
        ({"color": "luminance"}, True),
        ({"color": "monge"}, True),
        ({"color": "luminance", "color_when": "after"}, False),
    ):
        painting = made(files, **knobs)
        finish(painting)
        costs, ended = painting.report()["costs"]["total"], painting.state.costs["total"]
        assert costs == pytest.approx(ended, rel=0.05) if is_near else costs > 1.05 * ended


def test_what_does_not_show_does_not_colour_a_painting(files):
    """Two photographs that differ where they are transparent give one painting; what shows alone counts."""
    alpha = Image.new("L", (40, 30), 255)
    alpha.paste(0, (0, 0, 20, 30))
    paintings = []
    for color in ("red", "blue"):
        photo = Image.open(files[0]).convert("RGB")
        photo.paste(color, (0, 0, 20, 30))
        photo.putalpha(alpha)
        photo.save(files[0].with_name(f"{color}.png"))
        painting = made((files[0].with_name(f"{color}.png"), files[1], files[2]), color="monge", color_when="after")
        finish(painting)
        paintings.append(read_picture(files[2]).image)
    assert torch.equal(*paintings)


def test_sixteen_bits_are_written_and_known(files):
    finish(made(files))
    assert not deep(files[2]) and read_record(files[2])["file"] == {"bits": 8, "profile": None}
    content, style, output = files
    painting = Painting(content, [style], output, make_recipe(**KNOBS), bits=16)
    assert not painting.is_finished()
    finish(painting, resume=True, save_every=5)
    assert deep(output) and deep(output.with_name("out-0005.png")) and read_record(output)["file"]["bits"] == 16
    assert painting.is_finished() and not made(files).is_finished() and recipe_of(output) == make_recipe(**KNOBS)
    assert painting.report()["costs"]["total"] == pytest.approx(painting.state.costs["total"], rel=1e-3)
    saved = read_picture(output).image
    torch.testing.assert_close(saved, painting.state.image, atol=0.51 / 65535, rtol=0)


def test_a_run_begun_for_8_bits_can_end_in_16(files):
    interrupted(files, 6)
    content, style, output = files
    steps = list(Painting(content, [style], output, make_recipe(**KNOBS), bits=16).steps(resume=True))
    assert [step.i for step in steps] == [7, 8, 9, 10] and deep(output)


def test_the_photographs_profile_is_kept_on_request_and_the_costs_are_the_same(files):
    Image.open(files[0]).save(files[0], icc_profile=p3())
    content, style, output = files
    totals = {}
    for bits, keep in ((8, False), (8, True), (16, True)):
        painting = Painting(content, [style], output, make_recipe(**KNOBS), bits=bits, keep_profile=keep)
        finish(painting)
        with Image.open(output) as opened:
            assert opened.info.get("icc_profile") == (p3() if keep else None)
        assert painting.is_finished() and read_record(output)["file"]["bits"] == bits
        totals[bits, keep] = painting.report()["costs"]["total"]
    assert totals[8, True] == pytest.approx(totals[8, False], rel=0.05)
    assert totals[16, True] == pytest.approx(totals[8, False], rel=0.05)


def test_a_profile_that_cannot_be_written_gives_a_warning_before_the_work(files):
    Image.open(files[0]).convert("L").save(files[0], icc_profile=p3()[:16] + b"GRAY" + p3()[20:])
    content, style, output = files
    with pytest.warns(ImpastoWarning, match="it is for GRAY"), pytest.warns(ImpastoWarning, match="treated as sRGB"):
        painting = Painting(content, [style], output, make_recipe(**KNOBS), keep_profile=True)
    assert painting.profile is None


def test_sixteen_bits_with_alpha_stay_exact(files):
    rgba = np.random.default_rng(0).integers(1, 65536, (30, 40, 4), dtype=np.uint16)
    files[0].write_bytes(png(rgba))
    content, style, output = files
    finish(Painting(content, [style], output, make_recipe(**KNOBS), bits=16))
    assert torch.equal(read_picture(output).alpha, read_picture(content).alpha)


FRAMES = [{"seamless": "both"}, {"seamless": "x", "shape": "3:2"}, {"shape": "2:3"}, {"style_rotation": 10.0, "style_scale": 1.5}]


@pytest.mark.parametrize("knobs", FRAMES, ids=str)
def test_a_killed_run_in_a_frame_resumes_to_the_same_bytes_and_reports_its_costs(files, knobs, monkeypatch):
    for name, value in {**knobs, "optimizer": "lbfgs", "lr": 1.0, "detail": 0.5, "strokes": 0.5}.items():
        monkeypatch.setitem(KNOBS, name, value)
    painting = made(files)
    whole, report = finish(painting), painting.report()
    size = finished_size(read_picture(files[0]).image, 40, painting.recipe)
    assert (report["height"], report["width"]) == size
    assert report["costs"]["total"] == pytest.approx(painting.state.costs["total"], rel=0.1)
    files[2].unlink()
    interrupted(files, 7)
    assert finish(made(files), resume=True) == whole


def test_alpha_and_pictures_on_the_way_are_framed_like_the_painting(files):
    """The right half of a photograph shows; about its middle, cut to half its width, that is the right half still."""
    photo = Image.open(files[0]).convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").rotate(90).resize(photo.size).point(lambda level: 255 * (level > 127)))
    photo.save(files[0])
    finish(made(files, shape="2:3"), save_every=5)
    alphas = [read_picture(files[2].with_name(name)).alpha for name in ("out.png", "out-0005.png")]
    for alpha in alphas:
        assert alpha is not None and alpha.shape[-1] * 3 == pytest.approx(alpha.shape[-2] * 2, abs=3)
        left, right = (float(half.mean()) for half in alpha.tensor_split(2, -1))
        assert abs(left - right) > 0.9


def test_masks_are_framed_with_the_photograph(files):
    """Under the mask is the photograph's upper half; so it is of what is left when it is cut about its middle."""
    mask = files[0].with_name("mask.png")
    Image.fromarray(np.repeat(np.arange(30)[:, None] < 15, 40, 1).astype(np.uint8) * 255).save(mask)
    painting = made(files, protect=str(mask), shape="2:1")
    content = resize(framed(painting.content.image, painting.recipe), (20, 40))
    (spared, rest) = parts_of(content, 1, painting.recipe, painting.masks)
    above, below = spared.mask.tensor_split(2, -2)
    assert float(above.mean()) > 0.95 and float(below.mean()) < 0.05
    torch.testing.assert_close(spared.mask + rest.mask, torch.ones(1, 1, 20, 40))
