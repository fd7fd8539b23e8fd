"""Many paintings: what is planned, what is painted, and what is left when jobs fail and processes die."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image

from impasto import workers as workers_module
from impasto.batch import LOCKS, Batch, Job, Result, crossed, distinct, estimated, index_page, measured, pictures_in, read_jobs
from impasto.cache import Cache
from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoWarning, SomeFailed
from impasto.files import sha256
from impasto.images.images import write_picture
from impasto.objective.targets import make_targets
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.painting import Painting
from impasto.workers import LocalWorker, Worker
from tests.conftest import paint_with_the_tiny_net, picture, tiny_net
from tests.fake_workers import FakeWorker

pytestmark = pytest.mark.slow

QUICK = {"net": "alexnet", "size": 64, "coarsest": 64, "steps": 4}
weights = pytest.mark.weights


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    for folder, names in (("contents", ("cat", "astronaut")), ("styles", ("mosaic",))):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(picture_path(name), tmp_path / folder)
    return tmp_path / "contents", tmp_path / "styles", tmp_path / "out"


def jobs_of(folders, vary=(), **knobs) -> list[Job]:
    return crossed(pictures_in(folders[0]), pictures_in(folders[1]), vary, {**QUICK, **knobs})


def results_of(batch: Batch, worker: Worker | None = None, **how) -> dict[str, str]:
    """Painted in this process unless a worker is given."""
    return {result.job.output: result.state for result in batch.paint(workers=[worker or FakeWorker()], **how)}


# Planning


def test_every_content_meets_every_style_and_value(folders):
    shutil.copy(picture_path("renoir-moulin"), folders[1])
    jobs = jobs_of(folders, [["beta", "5", "50"], ["style-scale", "0.5", "1"]])
    assert len(jobs) == len({job.output for job in jobs}) == 2 * 2 * 2 * 2
    assert jobs[0].output == "astronaut-mosaic-beta-5-style_scale-0.5.png" and jobs[0].recipe.beta == 5
    assert {(job.recipe.beta, job.recipe.style_scale) for job in jobs} == {(5, 0.5), (5, 1), (50, 0.5), (50, 1)}


def test_pictures_come_from_folders_lists_and_files(folders):
    assert [path.name for path in pictures_in(folders[0])] == ["astronaut.jpg", "cat.jpg"]
    (folders[0] / "list.txt").write_text("# mine\ncat.jpg\n\n../styles/mosaic.jpg\n")
    assert [path.name for path in pictures_in(folders[0] / "list.txt")] == ["cat.jpg", "mosaic.jpg"]
    assert pictures_in(folders[0] / "cat.jpg") == [folders[0] / "cat.jpg"]
    with pytest.raises(BadInput, match="none: No such file"):
        pictures_in(folders[0] / "none")
    (folders[0] / "empty").mkdir()
    with pytest.raises(BadInput, match="no pictures"):
        pictures_in(folders[0] / "empty")


def test_a_link_that_leads_to_itself_and_a_pipe_fail_their_own_jobs(folders, monkeypatch):
    (folders[0] / "loop.png").symlink_to(folders[0] / "loop.png")
    os.mkfifo(folders[0] / "pipe.jpg")
    batch = Batch(
        jobs_of(folders, size=32, coarsest=32, style_layers={"conv1_1": 1.0}, content_layers={"conv2_1": 1.0}, net="vgg19"),
        folders[2],
    )
    paint_with_the_tiny_net(monkeypatch)
    results = {result.job.content.stem: result for result in batch.paint(workers=[FakeWorker()])}
    assert {name: result.state for name, result in results.items()} == {
        "astronaut": "finished",
        "cat": "finished",
        "loop": "failed",
        "pipe": "failed",
    }
    assert "symbolic links" in results["loop"].error and "a pipe" in results["pipe"].error


def test_what_a_record_says_of_masks_is_not_taken_on_trust(folders, monkeypatch):
    (job,) = jobs_of(folders, protect=str(folders[0] / "cat.jpg"))[:1]
    batch = Batch([job], folders[2])
    for inputs in (None, [], {"masks": None}, {"masks": {"protected": "0" * 64}}, "x"):
        record = {"ended": "finished", "recipe": job.recipe.model_dump(mode="json"), "inputs": inputs}
        write_picture(folders[2] / job.output, torch.rand(1, 3, 8, 8), record=record)
        assert not batch.is_finished(job)
    hashes = {"content": sha256(job.content), "styles": [sha256(job.styles[0])], "start": None}
    record["inputs"] = {**hashes, "masks": {"protected": sha256(folders[0] / "cat.jpg")}}
    write_picture(folders[2] / job.output, torch.rand(1, 3, 8, 8), record=record)
    assert batch.is_finished(job)


def test_what_is_no_picture_is_passed_over_and_counted(folders, monkeypatch):
    monkeypatch.setattr("impasto.files.PICTURE_SUFFIXES", (".jpg",))  # as without the extra heic
    for name in ("._cat.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.INI"):  # of systems: not worth a word
        (folders[0] / name).write_bytes(b"\0")
    assert [path.name for path in pictures_in(folders[0])] == ["astronaut.jpg", "cat.jpg"]
    for name in ("a.HEIC", "b.heic", "notes"):
        (folders[0] / name).write_bytes(b"\0")
    (folders[0] / "more").mkdir()
    with pytest.warns(ImpastoWarning, match=r"2 \.heic, 1 folder, 1 without a suffix; HEIC needs the extra heic"):
        assert [path.name for path in pictures_in(folders[0])] == ["astronaut.jpg", "cat.jpg"]


JOBS = {
    "jobs.toml": '[[job]]\ncontent = "a.jpg"\nstyle = "s.jpg"\nbeta = 7\n[[job]]\ncontent = "a.jpg"\nstyles = ["s.jpg", "t.jpg"]\n',
    "jobs.jsonl": '{"content": "a.jpg", "style": "s.jpg", "beta": 7}\n\n{"content": "a.jpg", "styles": ["s.jpg", "t.jpg"]}\n',
    "jobs.csv": "content,style,beta\na.jpg,s.jpg,7\na.jpg,s.jpg;t.jpg,\n",
}


AS_WRITTEN = {  # by editors and spreadsheets, of one text
    "plain": str.encode,
    "marked": lambda text: text.encode("utf-8-sig"),
    "windows": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "utf-16": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
}


@pytest.mark.parametrize("encoded", AS_WRITTEN.values(), ids=AS_WRITTEN)
@pytest.mark.parametrize("name", JOBS)
def test_a_file_of_jobs_says_the_same_in_every_format(tmp_path, name, encoded):
    (tmp_path / name).write_bytes(encoded(JOBS[name]))
    first, second = read_jobs(str(tmp_path / name), {"beta": 3, "size": 99})
    assert first.content == tmp_path / "a.jpg" and first.styles == (tmp_path / "s.jpg",)
    assert (first.recipe.beta, second.recipe.beta, first.recipe.size) == (7, 3, 99)
    assert second.styles == (tmp_path / "s.jpg", tmp_path / "t.jpg")
    assert (first.output, second.output) == ("a-s.png", "a-s-2.png")


@pytest.mark.parametrize(
    "table",
    [
        "content;style;beta\r\na.jpg;s.jpg;7\r\n",
        "Content,Style,Beta\na.jpg,s.jpg,7\n",
        "content , style, beta \n a.jpg , s.jpg, 7 \n,,\n",
        'content\tstyle\tbeta\n"a.jpg"\t"s.jpg"\t"7"\n\n',
        '\n"content","style","beta"\n"a.jpg", "s.jpg","7"\n',
        "sep=;\r\ncontent;style;beta\r\na.jpg;s.jpg;7\r\n",
        "\n  \ncontent,style,beta\na.jpg,s.jpg,7\n",
    ],
)
def test_a_table_is_read_as_spreadsheets_write_it(tmp_path, table):
    (tmp_path / "jobs.csv").write_text(table, newline="")
    (job,) = read_jobs(str(tmp_path / "jobs.csv"), {})
    assert (job.content, job.styles, job.recipe.beta) == (tmp_path / "a.jpg", (tmp_path / "s.jpg",), 7)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("content,style\na.jpg,s.jpg,more\n", "line 2 has more fields than the first line"),
        ("photo,painting\na.jpg,s.jpg\n", "content and style among them; it has photo, painting"),
        ("content,styles,bta\na.jpg,s.jpg,3\n", "job 1: there is no knob 'bta'"),
        ("content,style,beta\na.jpg,s.jpg,x\n", "job 1: beta"),
    ],
)
def test_a_wrong_table_gives_an_error_that_names_the_fault(tmp_path, table, said):
    (tmp_path / "jobs.csv").write_text(table)
    with pytest.raises((BadInput, BadRecipe), match=said):
        read_jobs(str(tmp_path / "jobs.csv"), {})


def test_a_job_names_files_from_where_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "regions.toml").write_text('[sky]\nmask = "sky.png"\n[sea]\nmask = "~/sea.png"\n')
    (tmp_path / "edit.toml").write_text("[conv1_1]\ngain = 0.5\n")
    told = {"content": "~/a.jpg", "style": "/s.jpg", "regions": "regions.toml", "style_edit": "edit.toml", "protect": "face.png"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(told))
    (job,) = read_jobs(str(tmp_path / "jobs.jsonl"), {})
    assert (job.content, job.styles) == (tmp_path / "home" / "a.jpg", (Path("/s.jpg"),))
    assert job.recipe.mask_files() == {
        "sky": tmp_path / "sky.png",
        "sea": tmp_path / "home" / "sea.png",
        "protected": tmp_path / "face.png",
    }
    assert job.recipe.style_edit["conv1_1"].gain == 0.5


def test_a_list_may_have_quotes_and_marks(tmp_path):
    (tmp_path / "list.txt").write_bytes(b'\xef\xbb\xbf"a b.jpg"\r\n  c.jpg  \r\n# d.jpg\r\n')
    assert pictures_in(tmp_path / "list.txt") == [tmp_path / "a b.jpg", tmp_path / "c.jpg"]


def test_jobs_come_from_standard_input():
    (job,) = read_jobs("-", {}, io.StringIO(JOBS["jobs.jsonl"].splitlines()[0] + "\n\n"))
    assert job.content == Path("a.jpg") and job.recipe.beta == 7


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"style": "s.jpg"}, "job 1: it needs a content"),
        ({"content": "a.jpg", "style": 3}, "job 1: it needs a content"),
        ({"content": "a.jpg", "style": "s.jpg", "beta": -1}, "job 1: beta"),
        ({"content": "a.jpg", "style": "s.jpg", "no_such": 1}, "job 1: there is no knob"),
        ({"content": "a.jpg", "style": "s.jpg", "output": "../x.png"}, "job 1: output"),
        ({"content": "a.jpg", "style": "s.jpg", "output": "x.gif"}, "job 1: output"),
        ({"content": "a\0.jpg", "style": "s.jpg"}, "job 1: .* is not a valid path"),
        ({"content": "a.jpg", "style": "\ud800.jpg"}, "job 1: .* is not a valid path"),
        ({"content": "a.jpg", "style": "s.jpg", "protect": "\ud800.jpg"}, "job 1: .* is not a valid path"),
        ({"content": "a.jpg", "style": "s.jpg", "regions": {"sky": {"mask": "\0"}}}, "job 1: .* is not a valid path"),
        ({"content": "a.jpg", "style": "s.jpg", "output": "\ud800.png"}, "job 1: .* is not a valid path"),
        ([], "must be tables"),
    ],
)
def test_a_wrong_job_gives_an_error_with_its_number(told, said):
    with pytest.raises((BadInput, BadRecipe), match=said):
        read_jobs("-", {}, io.StringIO(json.dumps(told)))


def test_a_file_of_jobs_that_cannot_be_read_gives_an_error(tmp_path):
    for name, text in (("a.toml", "x = ["), ("a.jsonl", "{"), ("a.txt", ""), ("a.csv", ""), ("a.toml", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises((BadInput, BadRecipe)):
            read_jobs(str(tmp_path / name), {})
    for name in ("missing.jsonl", "missing.toml", "missing.csv"):
        with pytest.raises(BadInput, match=f"cannot read the jobs in .*{name}"):
            read_jobs(str(tmp_path / name), {})


def test_a_wrong_job_is_one_line_and_exit_5(impasto, tmp_path):
    (tmp_path / "jobs.jsonl").write_text('{"style": "a.png"}\n')
    done = impasto("batch", "--jobs", tmp_path / "jobs.jsonl", "-o", tmp_path / "out")
    assert done.returncode == 5
    assert done.stderr == "impasto: job 1: it needs a content and a style, or styles, as paths; it has style\n"


def test_no_two_jobs_have_one_name():
    recipe = make_recipe()
    names = ["a.png", "A.png", "a-2.png", "a.png", "b.png"]
    found = [job.output for job in distinct([Job(Path("c"), (), recipe, name) for name in names])]
    assert found[0] == "a.png" and found[4] == "b.png" and len({name.casefold() for name in found}) == 5


def test_an_output_never_replaces_an_input(folders):
    (job, *_) = jobs_of(folders)
    with pytest.raises(CannotWrite, match="one of the pictures to paint from"):
        Batch([Job(folders[0] / "cat.jpg", job.styles, job.recipe, "cat.jpg")], folders[0])


def test_time_is_estimated_from_pixels_and_steps(folders):
    (job, other) = jobs_of(folders)
    assert estimated([job, other], 1e-6) == pytest.approx(2 * 4 * 64**2 * 1e-6)


# Painting


@weights
def test_a_batch_paints_what_transfer_paints_and_paints_it_once(folders):
    jobs = jobs_of(folders)
    assert results_of(Batch(jobs, folders[2]), LocalWorker()) == {job.output: "finished" for job in jobs}
    own = folders[2] / "own.png"
    for _ in Painting(jobs[1].content, jobs[1].styles, own, jobs[1].recipe).steps():
        pass
    assert own.read_bytes() == (folders[2] / jobs[1].output).read_bytes()
    assert set(results_of(Batch(jobs, folders[2])).values()) == {"skipped"}
    assert set(results_of(Batch(jobs_of(folders, beta=9), folders[2])).values()) == {"finished"}
    shutil.copy(picture_path("hubble-deep-field"), folders[0] / "cat.jpg")
    again = Batch(jobs_of(folders, beta=9), folders[2])
    assert results_of(again) == {"astronaut-mosaic.png": "skipped", "cat-mosaic.png": "finished"}


@weights
def test_a_bad_picture_is_set_aside_and_listed(folders):
    (folders[0] / "bad.jpg").write_text("no picture")
    batch = Batch(jobs_of(folders), folders[2])
    assert results_of(batch) == {"astronaut-mosaic.png": "finished", "bad-mosaic.png": "failed", "cat-mosaic.png": "finished"}
    assert batch.results["bad-mosaic.png"].tries == 1
    with pytest.raises(SomeFailed, match=r"1 of 3 jobs failed, bad-mosaic.png first: .*no picture"):
        batch.check()
    page = batch.write_index().read_text()
    assert "2 of 3 paintings" in page and 'href="cat-mosaic.png"' in page and "no picture in a supported format" in page
    assert Image.open(folders[2] / "sheets" / "1.jpg").width > 400
    assert sorted(path.name for path in (folders[2] / "small").iterdir()) == ["astronaut-mosaic.png.webp", "cat-mosaic.png.webp"]
    assert measured([batch.jobs[1], batch.jobs[0]]) > 0


@weights
def test_shards_together_paint_everything_once(folders):
    jobs = jobs_of(folders, [["beta", "1", "2", "3"]])
    found = [results_of(Batch(jobs, folders[2]), part=(n, 2)) for n in (0, 1)]
    assert not set(found[0]) & set(found[1]) and {**found[0], **found[1]} == {job.output: "finished" for job in jobs}


@weights
def test_a_batch_that_is_killed_goes_on_to_the_same_bytes(impasto, folders, monkeypatch):
    """The command, which reads its jobs from stdin, and its worker are processes of their own until the kill; the rest is here."""
    monkeypatch.setattr("impasto.cluster.LocalWorker", lambda _: FakeWorker())
    knobs = [f"--{name}={value}" for name, value in {**QUICK, "steps": 30}.items()]
    knobs += ["--threads", "1", "-q", "-o"]
    whole = folders[2].with_name("whole")
    assert impasto("batch", *folders[:2], *knobs, whole).returncode == 0
    command = [sys.executable, "-m", "impasto", "batch", "--jobs", "-", *knobs, str(folders[2])]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert killed.stdin is not None
    with killed.stdin as jobs:
        for name in ("astronaut", "cat"):
            asked = {"content": folders[0] / f"{name}.jpg", "style": folders[1] / "mosaic.jpg"}
            jobs.write(json.dumps(asked, default=str) + "\n")
    while not list(folders[2].glob("*.png")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = impasto("batch", *folders[:2], *knobs, folders[2], "--json")
    states = [json.loads(line).get("state") for line in done.stdout.splitlines()]
    assert states[0] == "skipped" and states[1] == "finished"
    for name in ("astronaut-mosaic.png", "cat-mosaic.png"):
        assert (folders[2] / name).read_bytes() == (whole / name).read_bytes()


# A process that dies, in the place of the one that paints

DYING = """
import json, os, sys
for line in sys.stdin:
    work = json.loads(line)
    marks = work["output"] + ".tried"
    tried = os.path.getsize(marks) if os.path.exists(marks) else 0
    open(marks, "a").write("x")
    if "cat" in work["content"] or ("astronaut" in work["content"] and not tried):
        os.kill(os.getpid(), 9)
    print(json.dumps({"step": {"i": 1, "of": 1, "scale": 9, "total": 1.0}}), flush=True)
    print(json.dumps({"report": {"width": 9, "height": 9, "seconds": 1, "costs": {}}}), flush=True)
"""


def test_what_kills_its_process_is_tried_again_then_set_aside(folders, monkeypatch):
    monkeypatch.setattr(workers_module, "COMMAND", [sys.executable, "-c", DYING])
    shutil.copy(picture_path("hubble-deep-field"), folders[0])
    batch, seen = Batch(jobs_of(folders), folders[2], tries=3), []
    for job, event in batch.events():
        if not isinstance(event, Result):
            seen.append(job.content.stem)
    found = {r.job.content.stem: (r.state, r.tries) for r in batch.results.values()}
    assert found == {"astronaut": ("finished", 2), "cat": ("failed", 3), "hubble-deep-field": ("finished", 1)}
    assert "killed" in str(batch.results["cat-mosaic.png"].error) and seen == ["astronaut", "hubble-deep-field"]


def test_what_another_process_paints_is_left_to_it(folders, monkeypatch):
    monkeypatch.setattr(workers_module, "COMMAND", [sys.executable, "-c", DYING])
    jobs = [job for job in jobs_of(folders) if job.content.stem == "astronaut"]
    batch = Batch(jobs, folders[2])
    with FileLock(folders[2] / LOCKS / jobs[0].output):
        assert [result.state for result in batch.paint()] == ["elsewhere"]
    assert [result.state for result in batch.paint()] == ["finished"]


def test_the_page_shows_names_as_text(folders):
    recipe = make_recipe()
    evil = Job(Path("c"), (), recipe, '<script>"x".png')
    page = index_page([evil], {}, set(), [])
    assert "<script>" not in page and "&lt;script&gt;" in page and "not painted yet" in page


def test_the_command_refuses_what_is_neither(impasto, tmp_path):
    for arguments in ([], [tmp_path], ["a", "b", "--jobs", "c.toml"]):
        done = impasto("batch", *arguments, "-o", tmp_path / "out")
        assert done.returncode == 2 and "give contents and styles, or --jobs FILE" in done.stderr


# What is kept from painting to painting


def test_a_cache_computes_again_when_the_key_or_the_objects_change():
    cache, made = Cache(2), []

    def make(n: int):
        return lambda: made.append(n) or n

    a, b = object(), object()
    assert [cache.get_or_make("k", (it,), make(n)) for n, it in enumerate((a, a, b), 1)] == [1, 1, 3]
    assert cache.get_or_make("other", (), make(4)) == 4 and cache.get_or_make("third", (), make(5)) == 5
    assert cache.get_or_make("k", (b,), make(6)) == 6 and made == [1, 3, 4, 5, 6]
    assert Cache().get_or_make("k", (), make(7)) == Cache().get_or_make("k", (), make(7)) == 7


def test_style_targets_are_computed_once_for_pictures_of_one_size():
    net, style, cache = tiny_net(), picture(40, 36), Cache(8)
    layers = {"style_layers": {"conv1_1": 1.0, "conv2_1": 1.0}, "content_layers": {"conv2_1": 1.0}}

    def targets(content: int, its: Cache | None = cache, **knobs):
        return make_targets(picture(32, 24, content), [style], make_recipe(**layers, **knobs), net, cache=its)

    first, second, alone = targets(1), targets(2), targets(2, None)
    for layer in layers["style_layers"]:
        (a,), (b,), (c,) = (it.styles[0][layer] for it in (first, second, alone))
        assert a["gram"] is b["gram"] and torch.equal(b["gram"], c["gram"])
    assert not torch.equal(first.content["conv2_1"], second.content["conv2_1"])
    turned = targets(2, style_rotation=90.0).styles[0]["conv1_1"][0]["gram"]
    assert not torch.equal(turned, second.styles[0]["conv1_1"][0]["gram"])
    count = len(cache.found)
    targets(2, style_costs={"sliced": 1.0})
    assert len(cache.found) == count  # as large as maps: not kept
