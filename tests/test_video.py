"""Videos with a tiny net in the place of the real ones: painted, tied, resumed, measured."""

import json
import shutil
import sys
import warnings
from pathlib import Path
from statistics import fmean

import pytest
import torch

from impasto.cache import Cache
from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoWarning, NoRoom, SomeFailed
from impasto.images.images import read_picture, read_record, write_picture
from impasto.objective.losses import temporal_cost
from impasto.objective.objective import make_cost
from impasto.objective.targets import make_targets
from impasto.recipe.recipe import make_recipe
from impasto.tasks import run_task
from impasto.transfer.painting import recipe_of
from impasto.transfer.transfer import Extras, Ties, stylize, tied_cost
from impasto.video import video as module
from impasto.video.flow import link, softened, warp, warped_error
from impasto.video.video import Motion, Video
from impasto.weights import Loaded
from tests.clips import encode, moving, packets, shown_times
from tests.conftest import check_one_line, kill_at, picture, room_for, save, tiny_net
from tests.fake_workers import FakeWorker

pytestmark = pytest.mark.slow

KNOBS = {
    "size": 64,
    "coarsest": 32,
    "steps": 5,
    "fine_steps": 5,
    "style_layers": {"conv1_1": 1.0, "conv2_1": 1.0},
    "content_layers": {"conv2_1": 1.0},
    "beta": 10.0,
}
FAST = Motion(steps=3)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    net = tiny_net()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "load_weights", lambda *_: Loaded({}, "torchvision", "tiny"))
        patched.setattr(module, "make_net", lambda *_: net)
        yield


def write_clip(folder: Path) -> Path:
    return encode(folder / "in.mp4", moving(6), sound=True)


def write_style(folder: Path) -> Path:
    return save(folder / "style.png", picture(36, 28, 1))


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path)


@pytest.fixture
def style(tmp_path):
    return write_style(tmp_path)


@pytest.fixture(scope="module")
def painted_once(tmp_path_factory, tiny) -> tuple[Path, dict]:
    """A folder with the clip, the style, the painted video out.mp4 and the folder of painted frames out; and the video's report."""
    folder = tmp_path_factory.mktemp("painted")
    clip, style = write_clip(folder), write_style(folder)
    report = finish(made(clip, style, folder / "out.mp4"))
    finish(made(clip, style, folder / "out"))
    return folder, report


@pytest.fixture
def painted(painted_once, clip, style, tmp_path) -> Path:
    """Beside the clip and the style the painted video, and its frames in a folder."""
    shutil.copy2(painted_once[0] / "out.mp4", tmp_path)
    shutil.copytree(painted_once[0] / "out", tmp_path / "out")
    return tmp_path


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory, tiny) -> Path:
    """The work folder of a video after its second frame."""
    folder = tmp_path_factory.mktemp("begun")
    return begun(write_clip(folder), write_style(folder), folder / "out.mp4").work


def made(source, style, output, motion=FAST, **knobs) -> Video:
    return Video(source, [style], output, make_recipe(**{**KNOBS, **knobs}), motion)


def finish(video: Video, **options) -> dict:
    for _ in video.steps(**options):
        pass
    return video.report()


def frames_of(video: Video, number: int = 1) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((video.work / f"pass-{number}").glob("*.png"))}


def test_ties_are_light_alone_where_light_alone_is_painted():
    """A start that is the tied painting is no way from it, whatever its colours; a grey one of another light is."""
    recipe, net = make_recipe(**{**KNOBS, "coarsest": 64}, color="luminance", init="picture"), tiny_net()
    painted, everywhere = picture(48, 64, 2), torch.ones(1, 1, 48, 64)
    for other, far in ((painted, False), (1 - painted, True)):
        steps = stylize(picture(48, 64), [picture(36, 28, 1)], recipe, net, Extras(painted, ties=Ties(1e9, ((other, everywhere),))))
        assert (next(steps).costs["temporal"] > 1e-3) == far


def test_colours_that_come_in_after_painting_are_refused(clip, style, tmp_path):
    with pytest.raises(BadRecipe, match="color_when is 'after'"):
        made(clip, style, tmp_path / "out.mp4", color="monge", color_when="after")
    for knobs, said in (({}, "region sky has color luminance, which is applied after"), ({"color_when": "after"}, "color_when is")):
        rule = "luminance" if not knobs else "monge"
        with pytest.raises(BadRecipe, match=said):
            made(clip, style, tmp_path / "out.mp4", regions={"sky": {"mask": "light", "color": rule}}, **knobs)


def test_a_region_of_a_video_has_its_own_colours(style, tmp_path):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(2)):
        save(tmp_path / "in" / f"{n}.png", frame)
    for name, color in (("plain", None), ("monge", "monge")):
        finish(made(tmp_path / "in", style, tmp_path / name, regions={"sky": {"mask": "light", "color": color}}))
    plain, own = (read_picture(tmp_path / name / "1.png").image for name in ("plain", "monge"))
    assert not torch.equal(plain, own) and recipe_of(tmp_path / "monge" / "1.png").regions["sky"].color == "monge"


@pytest.mark.parametrize("knobs", [{"shape": "1:1"}, {"seamless": "x"}], ids=str)
def test_a_video_has_the_shape_and_the_edges_of_its_frames(clip, style, tmp_path, knobs):
    with pytest.raises(BadRecipe, match="leave out shape and seamless"):
        made(clip, style, tmp_path / "out.mp4", **knobs)


def test_a_video_is_painted_with_its_times_and_its_sound(painted_once):
    folder, report = painted_once
    clip, output = folder / "in.mp4", folder / "out.mp4"
    assert shown_times(output) == shown_times(clip) and packets(output) == packets(clip)
    assert (report["frames"], report["cuts"], report["width"], report["height"]) == (6, [], 64, 48)
    assert set(report["costs"]) == {"total", "content", "style", "temporal"} and set(report["flicker"]) == {"painting", "input"}
    assert make_recipe(**KNOBS, clean_color=False).model_dump(mode="json") == report["recipe"]
    assert sorted(it.name for it in folder.iterdir()) == ["in.mp4", "out", "out.mp4", "style.png"]


def test_the_record_holds_no_path_and_no_time(painted_once):
    text = json.dumps(module.read_video_record(painted_once[0] / "out.mp4"))
    assert str(painted_once[0]) not in text and "in.mp4" not in text and "second" not in text


def test_a_folder_goes_in_and_out_by_its_names(style, tmp_path):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(3)):
        save(tmp_path / "in" / f"shot{n + 9}.png", frame)
    finish(made(tmp_path / "in", style, tmp_path / "out"))
    assert sorted(it.name for it in (tmp_path / "out").iterdir()) == ["impasto.json", "shot10.png", "shot11.png", "shot9.png"]
    assert recipe_of(tmp_path / "out" / "shot9.png") == make_recipe(**KNOBS, clean_color=False)
    finish(made(tmp_path / "in", style, tmp_path / "out.mkv"))
    assert [float(time) for time in shown_times(tmp_path / "out.mkv")] == pytest.approx([0, 0.04, 0.08])


def test_a_frame_starts_as_the_last_painting_along_the_flow_and_as_the_photograph_where_it_is_new(style, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(2, 64, 80)):
        save(tmp_path / "in" / f"{n}.png", frame)
    starts = []

    def recording_stylize(*args):
        extras = args[4]
        starts.append((extras.start, extras.ties))
        return stylize(*args)

    monkeypatch.setattr(module, "stylize", recording_stylize)
    finish(made(tmp_path / "in", style, tmp_path / "out", size=80))
    before, frame = (read_picture(tmp_path / "in" / f"{n}.png").image for n in (0, 1))
    found, painted = link(frame, before), read_picture(tmp_path / "out" / "0.png").image
    assert starts[0] == (None, None)
    start, ties = starts[1]
    assert torch.equal(start, torch.lerp(frame, warp(painted, found.flow), softened(found.seen)))
    ((w, c),) = ties.pictures
    assert torch.equal(w, warp(painted, found.flow)) and torch.equal(c, found.sure)
    assert ties.weight == pytest.approx(100 * read_record(tmp_path / "out" / "0.png")["costs"]["total"])


def test_the_temporal_cost_is_the_formula_and_its_gradient_is_right():
    x, w, c = torch.rand(3, 1, 3, 4, 5, dtype=torch.float64).unbind()
    c = c[:, :1]
    by_hand = sum(c[0, 0, y, k] * (x[0, i, y, k] - w[0, i, y, k]) ** 2 for i in range(3) for y in range(4) for k in range(5)) / 60
    torch.testing.assert_close(temporal_cost(x, w, c), by_hand)
    assert torch.autograd.gradcheck(temporal_cost, (x.requires_grad_(), w, c))


def test_the_cost_gains_the_weighted_sum_of_the_ties(net):
    r, content, image = make_recipe(**KNOBS), picture(24, 32), picture(24, 32, 2)
    pairs = tuple((picture(24, 32, seed), torch.rand(1, 1, 24, 32)) for seed in (3, 4))
    targets = make_targets(content, [picture(30, 20, 1)], r, net)
    cost = make_cost(targets, r, net)
    free, tied = cost(image), tied_cost(cost, Ties(7.0, pairs))(image)
    assert "temporal" not in free
    torch.testing.assert_close(tied["temporal"], sum(temporal_cost(image, w, c) for w, c in pairs))
    torch.testing.assert_close(tied["total"], free["total"] + 7 * tied["temporal"])
    smaller = Ties(7.0, pairs).like(picture(12, 16), r)
    assert [tuple(it.shape) for it in smaller.pictures[0]] == [(1, 3, 12, 16), (1, 1, 12, 16)]


def test_long_term_ties_stay_within_the_scene(style, tmp_path):
    other = [1 - frame for frame in moving(6, 64, 80)]
    (tmp_path / "in").mkdir()
    for n, frame in enumerate([*moving(4, 64, 80), *other]):
        save(tmp_path / "in" / f"{n}.png", frame)
    video = made(tmp_path / "in", style, tmp_path / "out")
    assert finish(video)["cuts"] == [4]
    assert [video._neighbours(0, i) for i in range(10)] == [[], [0], [1, 0], [2, 1], [], [4], [5, 4], [6, 5], [7, 6, 4], [8, 7, 5]]
    assert video._neighbours(1, 3) == [] and video._neighbours(1, 4) == [5, 6, 8]


def test_passes_go_there_and_back_and_blend(style, tmp_path):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(3)):
        save(tmp_path / "in" / f"{n}.png", frame)
    names = [it.name for it in made(tmp_path / "in", style, tmp_path / "out", Motion(steps=1, passes=3)).steps() if it.step.i == 1]
    assert names == ["0", "1", "2", "2", "1", "0", "0", "1", "2"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder of two scenes, of four frames and of three."""
    folder = tmp_path_factory.mktemp("scenes")
    for n, frame in enumerate([*moving(4, 64, 80), *(1 - frame for frame in moving(3, 64, 80))]):
        save(folder / f"{n}.png", frame)
    return folder


TWICE = Motion(steps=2, passes=2)


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory, tiny) -> dict[str, bytes]:
    """The two scenes painted one after the other by this process."""
    folder = tmp_path_factory.mktemp("whole")
    finish(made(scenes, write_style(folder), folder / "out", TWICE))
    return contents(folder / "out")


@pytest.mark.parametrize("passes", [1, 2])
def test_the_flicker_is_that_of_neighbours_within_a_scene_whichever_was_painted_first(scenes, style, tmp_path, passes):
    report = finish(made(scenes, style, tmp_path / "out", Motion(steps=1, passes=passes), size=80))
    painted, frames = ([read_picture(folder / f"{n}.png").image for n in range(7)] for folder in (tmp_path / "out", scenes))
    pairs = [(n, n - 1, link(frames[n], frames[n - 1])) for n in (1, 2, 3, 5, 6)]
    for name, it in (("painting", painted), ("input", frames)):
        assert report["flicker"][name] == pytest.approx(fmean(warped_error(it[n], it[m], found) for n, m, found in pairs), rel=1e-5)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_scenes_painted_by_workers_are_the_video_painted_here_whichever_dies(scenes, whole, style, tmp_path):
    video = made(scenes, style, tmp_path / "out", TWICE)
    events = list(video.distribute([FakeWorker(5), FakeWorker()]))
    assert {name for name, _ in events} == {"0", "4"} and video.report()["cuts"] == [4]
    assert contents(tmp_path / "out") == whole
    assert (
        not video.work.exists() and list(made(scenes, style, tmp_path / "out", TWICE).distribute([FakeWorker()], resume=True)) == []
    )


def test_parts_of_a_video_are_painted_one_by_one_and_the_last_writes_it(scenes, whole, style, tmp_path):
    for part in ((1, 2), (0, 2)):
        video = made(scenes, style, tmp_path / "out", TWICE)
        assert not video.output.exists()
        assert {name for name, _ in video.distribute([FakeWorker()], resume=True, part=part)} == {"0" if part[0] == 0 else "4"}
    assert contents(tmp_path / "out") == whole


def test_a_video_begun_here_is_ended_by_workers_and_the_reverse(scenes, whole, style, tmp_path):
    begun = made(scenes, style, tmp_path / "one", TWICE)
    for step in begun.steps():
        if step.done == 3:
            break
    assert 0 < len(frames_of(begun)) < 4
    assert list(made(scenes, style, tmp_path / "one", TWICE).distribute([FakeWorker()], resume=True))
    begun = made(scenes, style, tmp_path / "other", TWICE)
    for _, event in begun.distribute([FakeWorker()]):
        if "report" in event:
            break
    assert len(frames_of(begun)) >= 4 and not begun.output.exists()
    finish(made(scenes, style, tmp_path / "other", TWICE), resume=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "other") == whole


def test_a_scene_that_cannot_be_painted_gives_an_error_and_the_others_stay(scenes, style, tmp_path):
    def failing(task):
        yield from [{"error": "no paint", "is_final": True}] if task["first"] == 0 else run_task(task, Cache())

    video = made(scenes, style, tmp_path / "out")
    with pytest.raises(SomeFailed, match="1 of 2 scenes could not be painted, that of frame 0 first: no paint"):
        list(video.distribute([FakeWorker(runs=failing)]))
    assert sorted(frames_of(video)) == ["4.png", "5.png", "6.png"] and not video.output.exists()


KILLED = """
import sys
from pathlib import Path
from impasto.video import video
from tests import test_video as t
video.load_weights = lambda *_: t.Loaded({}, "torchvision", "tiny")
video.make_net = lambda *_: t.tiny_net()
clip, style, output = map(Path, sys.argv[1:])
n = 0
for step in t.made(clip, style, output, t.Motion(steps=2, passes=2)).steps():
    n += 1
    print(n, flush=True)
"""


def test_a_killed_video_resumes_to_the_same_bytes(clip, style, tmp_path):
    """At the first pass and at the second: the frames, and the video."""
    motion = Motion(steps=2, passes=2)
    whole = made(clip, style, tmp_path / "whole.mp4", motion)
    kept = {}
    for step in whole.steps():
        kept |= {(n, name): data for n in (1, 2) for name, data in frames_of(whole, n).items()}
        del step
    for at in (b"13", b"25"):
        output = tmp_path / f"cut{at.decode()}.mp4"
        kill_at(at, KILLED, clip, style, output)
        video = made(clip, style, output, motion)
        done = {(n, name): data for n in (1, 2) for name, data in frames_of(video, n).items()}
        assert done and all(kept.get(key, data) == data for key, data in done.items()) and not output.exists()
        first = next(steps := video.steps(resume=True))
        assert first.done == len(done)
        for _ in steps:
            pass
        assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_finished_video_is_left_alone(painted, clip, style, tmp_path):
    before = (tmp_path / "out.mp4").stat()
    assert list(made(clip, style, tmp_path / "out.mp4").steps(resume=True)) == []
    after = (tmp_path / "out.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
    assert not made(clip, style, tmp_path / "out.mp4", seed=3).is_finished()


def test_work_of_another_video_is_neither_continued_nor_lost(clip, style, tmp_path):
    next(made(clip, style, tmp_path / "out.mp4").steps())
    with pytest.raises(BadRecipe, match=r"to another video \(recipe differ\)"):
        next(made(clip, style, tmp_path / "out.mp4", seed=9).steps(resume=True))
    with pytest.raises(BadRecipe, match=r"to another video \(motion differ\)"):
        next(made(clip, style, tmp_path / "out.mp4", Motion(steps=4)).steps(resume=True))
    with pytest.warns(ImpastoWarning, match="discarding the frames"):
        next(made(clip, style, tmp_path / "out.mp4", seed=9).steps())


def test_folders_with_other_files_are_spared(clip, style, tmp_path):
    for name in ("out", "film.mp4.frames"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("mine")
    with pytest.raises(CannotWrite, match="holds other files"):
        made(clip, style, tmp_path / "out")
    (tmp_path / "out" / "letter.txt").rename(tmp_path / "out" / "mine.png")
    with pytest.raises(CannotWrite, match="holds other files"):
        made(clip, style, tmp_path / "out")
    with pytest.raises(CannotWrite, match="holds other files"):
        made(clip, style, tmp_path / "film.mp4")
    with pytest.raises(CannotWrite, match="is the video to paint"):
        made(clip, style, clip)


def test_a_full_disk_loses_no_frame(clip, style, tmp_path):
    video, names = made(clip, style, tmp_path / "out.mp4"), set()
    with pytest.raises(NoRoom):
        for step in video.steps():
            names.add(step.name)
            if step.done == 2:
                with room_for(100):
                    video._save(0, 2, step.step)
    assert len(frames_of(video)) == 2
    finish(video_again := made(clip, style, tmp_path / "out.mp4"), resume=True)
    assert video_again.is_finished() and len(names) == 3


@pytest.mark.parametrize(
    "wrong", [{"temporal": -1.0}, {"long_term": (2, 1)}, {"long_term": ()}, {"long_term": (2, 4)}, {"passes": 0}, {"start": "x"}]
)
def test_motion_is_checked_at_the_door(wrong):
    with pytest.raises(BadRecipe, match=next(iter(wrong))):
        Motion(**wrong)


def test_flicker_is_at_most_half_at_equal_style_cost(style, tmp_path):
    """Against frame-by-frame painting, by the recipe alone, of a still camera's frames."""
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(6, 64, 80)):
        save(tmp_path / "in" / f"{n}.png", frame)
    alone = finish(made(tmp_path / "in", style, tmp_path / "alone", Motion(temporal=0, start="recipe"), size=80))
    tied = finish(made(tmp_path / "in", style, tmp_path / "tied", Motion(steps=8), size=80))
    assert tied["costs"]["style"] <= alone["costs"]["style"]
    assert tied["flicker"]["painting"] <= 0.5 * alone["flicker"]["painting"]
    assert tied["flicker"]["input"] == alone["flicker"]["input"]
    assert "temporal" not in alone["costs"]


def test_the_command_paints_and_reports(impasto, clip, style, tmp_path):
    output = tmp_path / "out.mp4"
    knobs = ("--size", 64, "--coarsest", 32, "--steps", 2, "--fine-steps", 2, "--style-layers", "conv1_1=1")
    options = (*knobs, "--content-layers", "conv2_1=1", "--frame-steps", 2, "--device", "cpu")
    done = impasto("video", clip, style, "-o", output, "--long-term", "1,2", *options)
    assert done.stdout == f"{output}\n" and done.returncode == 0, done.stderr
    report = json.loads(impasto("video", clip, style, "-o", output, "--long-term", "1,2", "--resume", "--json", *options).stdout)
    assert report["motion"]["long_term"] == [1, 2] and report["frames"] == 6
    check_one_line(impasto("video", clip, style, "-o", output, "--long-term", "one"), 2, "--long-term")
    check_one_line(impasto("video", style, style, "-o", output), 5, "style.png")
    check_one_line(impasto("video", clip, style, "-o", tmp_path / "out.avi"), 1, "out.avi")


def test_ctrl_c_says_where_the_frames_are(impasto, clip, style, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stylize", stopped)
    layers = ("--style-layers", "conv1_1=1", "--content-layers", "conv2_1=1")
    done = impasto("video", clip, style, "-o", tmp_path / "out.mp4", "-q", "--size", 64, "--device", "cpu", *layers)
    assert done.returncode == 130 and "out.mp4.frames" in done.stderr and "--resume" in done.stderr


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_a_missing_extra_is_one_line(impasto, clip, style, tmp_path, monkeypatch, package):
    for name in ("video", "frames", "flow"):
        monkeypatch.delitem(sys.modules, f"impasto.video.{name}")
    monkeypatch.setitem(sys.modules, package, None)
    check_one_line(impasto("video", clip, style, "-o", tmp_path / "out.mp4"), 2, "pip install '.[video]'")


def test_a_work_folder_that_was_not_filled_begins_afresh(painted_once, clip, style, tmp_path):
    expected = (painted_once[0] / "out.mp4").read_bytes()
    video = made(clip, style, tmp_path / "out.mp4")
    (video.work / "input").mkdir(parents=True)
    video._write_manifest({})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finish(video, resume=True)
    assert (tmp_path / "out.mp4").read_bytes() == expected
    shutil.rmtree(video.work, ignore_errors=True)
    with pytest.raises(BadInput):
        Video(tmp_path / "none.mp4", [style], tmp_path / "x.mp4", make_recipe(**KNOBS))


def begun(clip, style, output) -> Video:
    video = made(clip, style, output)
    for step in video.steps():
        if step.done == 2:
            break
    return video


HOSTILE = {
    "list": lambda _: [],
    "number": lambda _: 3,
    "deep": lambda it: {**it, "plans": json.loads("[" * 400 + "]" * 400)},
    "no plans": lambda it: {name: value for name, value in it.items() if name != "plans"},
    "other plans": lambda it: {**it, "plans": {"first": it["plans"]["first"], "later": []}},
    "odd plans": lambda it: {**it, "plans": {**it["plans"], "later": [{"tiling": {"cuts": ["x"], "side": 0}, "history": 3}]}},
    "threads": lambda it: {**it, "threads": 10**9},
    "versions": lambda it: {**it, "versions": None},
    "place": lambda it: {**it, "place": "cpu"},
    "no frames": lambda it: {**it, "frames": []},
    "a frame": lambda it: {**it, "frames": [7]},
    "up": lambda it: {**it, "frames": [{**it["frames"][0], "name": "../../mine"}, *it["frames"][1:]]},
    "absolute": lambda it: {**it, "frames": [{**it["frames"][0], "name": "/tmp/mine"}, *it["frames"][1:]]},
    "twice": lambda it: {**it, "frames": [it["frames"][0], *it["frames"]]},
    "no cut": lambda it: {**it, "frames": [{**frame, "cut": False} for frame in it["frames"]]},
    "times": lambda it: {**it, "frames": it["frames"][::-1]},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_that_is_damaged_begins_the_video_anew(begun_once, clip, style, tmp_path, change):
    work = shutil.copytree(begun_once, tmp_path / begun_once.name)
    path, before = work / "impasto.json", sorted(it.name for it in tmp_path.iterdir())
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    again = made(clip, style, tmp_path / "out.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = next(again.steps(resume=True))
    assert first.done == 0 and sorted(it.name for it in tmp_path.iterdir()) == before
    with pytest.raises(BadInput, match="no work to join"):
        path.write_text("[]")
        again.join()


def test_pictures_of_ones_own_are_never_removed(painted, clip, style, tmp_path):
    """In a finished folder: another picture, or a frame that was touched up; and in a folder that only has the work's name."""
    finish(made(clip, style, tmp_path / "out", seed=3))
    for name, image in (("mine.png", picture(9, 9)), ("000001.png", picture(48, 64))):
        save(tmp_path / "out" / name, image)
        assert list(made(clip, style, tmp_path / "out", seed=3).steps(resume=True)) == []
        with pytest.raises(CannotWrite, match=f"holds other files than frames by Impasto, {name}"):
            next(made(clip, style, tmp_path / "out", seed=4).steps())
        assert (tmp_path / "out" / name).exists()
        (tmp_path / "out" / "mine.png").unlink(missing_ok=True)
    (tmp_path / "film.mp4.frames" / "input").mkdir(parents=True)
    save(tmp_path / "film.mp4.frames" / "input" / "1.png", picture(9, 9))
    with pytest.raises(CannotWrite, match="holds other files"):
        made(clip, style, tmp_path / "film.mp4")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", '{"files": 3}'])
def test_a_folder_whose_manifest_is_damaged_is_no_finished_video(painted, clip, style, tmp_path, text):
    (tmp_path / "out" / "impasto.json").write_text(text)
    with pytest.raises(CannotWrite, match="holds other files"):
        next(made(clip, style, tmp_path / "out").steps(resume=True))


def test_a_frame_that_does_not_say_what_it_cost_is_one_line(begun_once, clip, style, tmp_path):
    shutil.copytree(begun_once, tmp_path / begun_once.name)
    video = made(clip, style, tmp_path / "out.mp4")
    video.join()
    save(video._painted(0, 0), picture(48, 64))
    with pytest.raises(BadInput, match="carries no recipe"):
        finish(made(clip, style, tmp_path / "out.mp4"), resume=True)
    write_picture(video._painted(0, 0), picture(48, 64), None, {"costs": [1]})
    with pytest.raises(BadInput, match="has no costs in its record"):
        finish(made(clip, style, tmp_path / "out.mp4"), resume=True)
    save(video.work / "input" / "000002.png", picture(9, 9))
    with pytest.raises(BadInput, match="has another size than the frames of this video"):
        finish(made(clip, style, tmp_path / "out.mp4"), resume=True)


def test_what_is_transparent_stays_so_in_a_folder_and_gives_a_warning_in_a_video(style, tmp_path):
    alpha = (torch.arange(64) < 30).expand(1, 1, 48, 64).float()
    (tmp_path / "in").mkdir()
    for n, frame in enumerate(moving(2)):
        write_picture(tmp_path / "in" / f"{n}.png", frame, alpha)
    finish(made(tmp_path / "in", style, tmp_path / "out"))
    for n in range(2):
        assert torch.equal(read_picture(tmp_path / "out" / f"{n}.png").alpha, alpha)
    with pytest.warns(ImpastoWarning, match=r"\.mp4 cannot be transparent: the background becomes white"):
        finish(made(tmp_path / "in", style, tmp_path / "out.mp4"))


# Quality instant

INSTANT = {"quality": "instant", "coarsest": 16384, "steps": 1, "fine_steps": 1, "style_layers": make_recipe().style_layers}
INSTANT |= {"content_layers": make_recipe().content_layers, "beta": make_recipe().beta}


def test_an_instant_video_flickers_at_most_half_as_much_as_its_frames_alone(clip, style, tmp_path):
    alone = finish(made(clip, style, tmp_path / "alone", Motion(start="recipe"), **INSTANT))
    tied = finish(made(clip, style, tmp_path / "tied", Motion(), **INSTANT))
    assert tied["flicker"]["painting"] <= 0.5 * alone["flicker"]["painting"]
    assert tied["costs"] == {} and tied["flicker"]["input"] == alone["flicker"]["input"]


def test_an_instant_video_continues_to_the_same_bytes(clip, style, tmp_path):
    whole = made(clip, style, tmp_path / "whole", Motion(), **INSTANT)
    finish(whole)
    part = made(clip, style, tmp_path / "part", Motion(), **INSTANT)
    for _, step in zip(range(3), part.steps(), strict=False):
        assert step.step.costs == {}
    finish(made(clip, style, tmp_path / "part", Motion(), **INSTANT), resume=True)
    pictures = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in ("whole", "part")]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 6


@pytest.mark.parametrize("motion", [Motion(passes=2), Motion(steps=3), Motion(temporal=5), Motion(long_term=(1, 2))], ids=str)
def test_an_instant_video_follows_no_option_of_the_descent(clip, style, tmp_path, motion):
    with pytest.raises(BadRecipe, match="quality instant does not follow"):
        made(clip, style, tmp_path / "out", motion, **INSTANT)
