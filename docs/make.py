"""The docs' pictures of what the lens shows, of dreams, videos, regions, presets and frames: python -m docs.make [PART...]

Parts are gallery, knobs, instants, sheets, controls, evolution, page, dreams, priors, starts, film, colors, presets, patterns,
tilings, shapes, turns and studio; all unless named.
Run it where docs/ is; page and studio need Playwright and Debian's Chromium.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from bench.video import WAYS, write_clip
from impasto.images.images import read_picture, resize, to_pillow
from impasto.lens import make_atlas, make_setup, module_net
from impasto.lens.clarity import clarity_of, write_clarity
from impasto.lens.comparison import compare
from impasto.lens.dream import PRIORS, Objective, dream
from impasto.lens.module import AnyNet
from impasto.lens.patches import top
from impasto.lens.paths import inputs_of
from impasto.lens.scan import scan
from impasto.lens.sheet import project_picture, sheet
from impasto.nets.nets import INPUTS, Net, build_net, preprocess
from impasto.pictures import photograph_folder, picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.transfer import paint
from impasto.video.video import Video
from impasto.weights import load_weights
from tests.nets_of_your_own import Block
from tests.studios import Running

DOCS, PICTURES = Path(__file__).parent, picture_path("cat").parent
DREAMS = {  # random.seed(0), then random.sample of four of the layer's channels, layer by layer
    "conv1": (49, 53, 5, 33),
    "conv2": (130, 124, 103, 77),
    "conv3": (244, 183, 298, 111),
    "conv4": (71, 144, 48, 128),
    "conv5": (75, 158, 50, 37),
}
GALLERY = (  # name, photograph, style pictures
    ("astronaut-auvers", "astronaut", ["van-gogh-auvers"]),
    ("cat-wave", "cat", ["hokusai-great-wave"]),
    ("cat-spring", "cat", ["arcimboldo-spring"]),
    ("cat-auvers", "cat", ["van-gogh-auvers"]),
    ("astronaut-moulin", "astronaut", ["renoir-moulin"]),
    ("cat-two", "cat", ["hokusai-great-wave", "renoir-moulin"]),
)
HEAD = (76, 2, 156, 96)  # of the astronaut at 256 px
BODY = [(0, 256), (10, 160), (62, 116), (84, 88), (140, 88), (160, 110), (184, 150), (256, 170), (256, 256)]
STEPS = (0, 30, 300, 1000)  # of the training that the evolution shows


def gallery(_: Path) -> None:
    """The gallery's paintings by the default preset, and the first picture of the README."""
    for name, content, styles in GALLERY:
        picture = paint(picture_path(content), [picture_path(style) for style in styles])
        picture.save(DOCS / f"gallery/{name}.jpg", quality=75)
        if name == "cat-wave":
            parts = [Image.open(picture_path(content)), Image.open(picture_path(styles[0])), picture]
            three = [it.convert("RGB").resize((round(it.width * 260 / it.height), 260), Image.Resampling.LANCZOS) for it in parts]
            row(three, 9).save(DOCS / "gallery/lead.jpg", quality=75)
    sketch = painted("cat", "hokusai-great-wave", quality="draft")
    sketch.save(DOCS / "gallery/draft-cat-wave.jpg", quality=75)


def knobs(_: Path) -> None:
    """One knob at a time, in drafts; grain at 200 %."""
    small = {"size": 320, "quality": "draft"}
    for name, knob, values in (("strength", "beta", (3, 10, 30)), ("composition", "composition", (0, 0.35, 1))):
        save(row([painted("cat", "hokusai-great-wave", **small, **{knob: it}) for it in values], 4), f"why/{name}", 800)
    save(row([painted("astronaut", "van-gogh-auvers", **small, calm=it) for it in (0, 0.5, 1)], 4), "why/calm", 800)
    ways = ({"clean_color": False}, {}, {"strokes": 0.0})
    corners = [painted("cat", "hokusai-great-wave", quality="draft", **way).crop((330, 60, 490, 180)) for way in ways]
    save(row([it.resize((320, 240), Image.Resampling.NEAREST) for it in corners], 4), "why/grain", 800)


def instants(_: Path) -> None:
    """The cat in four styles in one pass, and by a draft; the astronaut at three strengths."""
    styles = ("hokusai-great-wave", "van-gogh-auvers", "arcimboldo-spring", "mosaic")
    rows = [row([painted("cat", style, quality=quality) for style in styles], 6) for quality in ("instant", "draft")]
    save(column(rows, 6), "instant/cat", 1000)
    strengths = [painted("astronaut", "hokusai-great-wave", quality="instant", beta=beta) for beta in (2.5, 5, 10)]
    save(row(strengths, 6), "instant/strength", 800)


def sheets(folder: Path) -> None:
    """Six units of AlexNet's layers at random, and the six clearest; six of VGG-19's conv3_1."""
    net = known("alexnet")
    atlas = scanned(net, [], folder / "alexnet")
    write_clarity(atlas, dict(clarity_of(atlas, net)))
    for n in (1, 2, 3, 5):
        save(sheet(atlas, net, f"conv{n}"), f"lens/alexnet-conv{n}", 1000)
    for n in (3, 4, 5):
        save(sheet(atlas, net, f"conv{n}", "clearest"), f"lens/alexnet-conv{n}-clearest", 1000)
    atlas = scanned(known("vgg19"), ["conv3_1"], folder / "vgg19")
    save(sheet(atlas, known("vgg19"), "conv3_1"), "lens/vgg19-conv3_1", 1000)


def controls(_: Path) -> None:
    """A unit of AlexNet's conv5 in the cat."""
    save(project_picture(picture_path("cat"), known("alexnet"), "conv5", 133)[0], "lens/controls")


def evolution(folder: Path) -> None:
    """A small residual net learns which of the bundled pictures a crop is from, and is scanned on the way."""
    torch.manual_seed(0)
    parts = {"stem": nn.Conv2d(3, 16, 7, 2, 3, bias=False), "bn": nn.BatchNorm2d(16), "relu": nn.ReLU(inplace=True)}
    parts |= {"block1": Block(16, 24, 2), "block2": Block(24, 32, 2), "mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    images = [shrunk(path) for path in sorted(PICTURES.glob("*.jpg"))]
    net = nn.Sequential()
    for name, part in (parts | {"fc": nn.Linear(32, len(images))}).items():
        net.add_module(name, part)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            own = module_net(net, size=160, name="small residual net")
            scanned(own, ["block1"], folder / f"step {step}", 160)
        labels = torch.randint(len(images), (32,))
        crops = torch.stack([crop(images[label]) for label in labels.tolist()])
        optimizer.zero_grad()
        F.cross_entropy(net(preprocess(crops, INPUTS["torchvision"])), labels).backward()
        optimizer.step()
    figure, _ = compare([folder / f"step {step}" for step in STEPS], ["block1"], "3")
    save(figure, "lens/evolution", figure.width * 3 // 4)


def shrunk(path: Path) -> Tensor:
    """(3, H, W), the shorter side 160."""
    image = read_picture(path).image
    height, width = (round(side * 160 / min(image.shape[-2:])) for side in image.shape[-2:])
    return resize(image, (height, width))[0]


def crop(image: Tensor) -> Tensor:
    """40 x 40 pixels from anywhere."""
    y, x = (int(torch.randint(side - 40, ())) for side in image.shape[-2:])
    return image[:, y : y + 40, x : x + 40]


def page(folder: Path) -> None:
    """The first screen of AlexNet's page, and one of its units."""
    from playwright.sync_api import sync_playwright

    net = known("alexnet")
    atlas = scanned(net, [], folder / "all layers")
    write_clarity(atlas, dict(clarity_of(atlas, net)))
    for _ in make_atlas(atlas, net, folder / "page"):
        pass
    shots = []
    with sync_playwright() as started:
        window = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]).new_page()
        window.set_viewport_size({"width": 805, "height": 616})
        for at in ("", "#conv5/91"):
            window.goto(f"{(folder / 'page/index.html').as_uri()}{at}")
            window.wait_for_timeout(2000)
            window.screenshot(path=folder / "shot.png")
            shots.append(Image.open(folder / "shot.png").convert("RGB"))
    save(row(shots, 30, "grey"), "lens/page", 1312)


def dreams(_: Path) -> None:
    """Units and channels of AlexNet, channels of VGG-19."""
    net, rows = known("alexnet"), []
    for layer, numbers in DREAMS.items():
        halves = ([dreamt(net, Objective(layer, (n,), (), both), 110) for n in numbers] for both in (False, True))
        rows.append(row([row(half, 4) for half in halves], 22))
    save(column(rows, 4), "dream/alexnet")
    chosen = (("conv3_1", 5), ("conv3_1", 60), ("conv4_1", 17), ("conv4_1", 101), ("conv5_1", 3), ("conv5_1", 77))
    save(row([dreamt(known("vgg19"), Objective(layer, (n,), (), True), 150, 128) for layer, n in chosen], 4), "dream/vgg19")


def dreamt(net: Net, objective: Objective, side: int, steps: int = 256) -> Image.Image:
    """The dream of a unit in the size of what it sees, of a channel at 160 pixels; shown with this side."""
    *_, last = dream(net, objective, size=160 if objective.everywhere else None, steps=steps)
    return to_pillow(last.image).resize((side, side), Image.Resampling.LANCZOS)


def priors(_: Path) -> None:
    """Three units of AlexNet's conv5 with the prior fourier, and below with maco."""
    net = known("alexnet")

    def with_prior(prior: str) -> Image.Image:
        ends = [list(dream(net, Objective("conv5", (unit,)), prior=prior, steps=256))[-1].image for unit in (133, 91, 17)]
        return row([to_pillow(it) for it in ends], 6)

    save(column([with_prior(prior) for prior in PRIORS], 6), "dream/priors")


def starts(folder: Path) -> None:
    """Patches of two units of AlexNet's conv5, and what becomes of them with nearness 0, 1 and 3."""
    net = known("alexnet")
    atlas = scanned(net, ["conv5"], folder / "conv5")
    rows = []
    for unit in (91, 133):
        (start,) = inputs_of(top(atlas, "conv5", unit)[:1])
        ends = [list(dream(net, Objective("conv5", (unit,)), start=start, nearness=it, steps=60))[-1].image for it in (0, 1, 3)]
        rows.append(row([to_pillow(it) for it in (start, *ends)], 6))
    save(column(rows, 6), "dream/start")


def film(folder: Path) -> None:
    """The second frame of a still camera, painted alone and from the first, and what each time has changed since the first."""
    write_clip("still", folder / "clip", 256, 2)
    found = [read_picture(folder / "clip" / "001.png").image]
    for way in ("each alone", "the default"):
        video = Video(folder / "clip", [picture_path("van-gogh-auvers")], folder / way, make_recipe(size=256), WAYS[way])
        for _ in video.steps():
            pass
        before, after = (read_picture(folder / way / f"00{n}.png").image for n in (0, 1))
        found += [after, (4 * (after - before).abs()).clamp(0, 1)]
    save(row([to_pillow(image) for image in found], 4), "video/still")


def colors(folder: Path) -> None:
    """Drafts of the astronaut in the painting's colours, in its own, and in its own as a palette, before a painted sky."""
    figure = Image.new("L", (256, 256))
    ImageDraw.Draw(figure).ellipse(HEAD, 255)
    ImageDraw.Draw(figure).polygon(BODY, 255)
    figure.save(folder / "figure.png")
    found = []
    for rule in ("style", "luminance", "monge"):
        regions = {"figure": {"mask": str(folder / "figure.png"), "color": rule}, "background": {"mask": "rest"}}
        found.append(painted("astronaut", "van-gogh-auvers", size=256, quality="draft", regions=regions))
    save(row(found, 4), "regions/colors")


def presets(_: Path) -> None:
    """The astronaut after van Gogh by other programs' recipes, most with fewer steps than theirs."""
    shortened: dict[str, dict[str, int]] = {
        "neural-style": {"steps": 300},
        "crowsonkb": {"size": 192, "steps": 80, "fine_steps": 40},
        "spst": {"steps": 104},
        "strotss": {},
        "mrf": {"size": 192, "steps": 30, "fine_steps": 30},
    }
    found = [painted("astronaut", "van-gogh-auvers", name, **{"size": 256, **its}) for name, its in shortened.items()]
    save(row([it.resize((196, 196), Image.Resampling.LANCZOS) for it in found], 4), "presets/others")


def patterns(_: Path) -> None:
    """Textures two by two, with edges and with sides that meet."""
    pair = [twice(painted("mosaic", "mosaic", "texture", size=128, shape="1:1", seamless=it)) for it in ("none", "both")]
    save(row(pair, 8), "seamless/patterns")


def tilings(_: Path) -> None:
    """Paintings of a photograph two by two, with edges and with sides that meet."""
    pair = [twice(painted("astronaut", "van-gogh-auvers", size=160, seamless=it)) for it in ("none", "both")]
    save(row(pair, 8), "seamless/tilings")


def shapes(_: Path) -> None:
    """A wide photograph after a high painting, as it is, square and high; a texture of the painting, four times as wide as high."""
    pictures = [Image.open(picture_path(name)).convert("RGB") for name in ("cat", "arcimboldo-spring")]
    pictures += [painted("cat", "arcimboldo-spring", size=192, shape=shape) for shape in ("", "1:1", "2:3")]
    above = row([it.resize((round(it.width * 150 / it.height), 150), Image.Resampling.LANCZOS) for it in pictures], 6)
    strip = painted("arcimboldo-spring", "arcimboldo-spring", "texture", size=512, shape="4:1", style_scale=0.5)
    below = strip.resize((above.width, round(above.width / 4)), Image.Resampling.LANCZOS)
    save(column([above, below], 6), "seamless/shapes")


def turns(_: Path) -> None:
    """Textures of a painting turned, and at three scales."""
    turned = [painted("hokusai-great-wave", "hokusai-great-wave", "texture", **SQUARE, style_rotation=it) for it in (0, 30, 90)]
    scaled = [painted("hokusai-great-wave", "hokusai-great-wave", "texture", **SQUARE, style_scale=it) for it in (0.7, 2)]
    save(row([*turned, *scaled], 6), "seamless/turns")


def studio(folder: Path) -> None:
    """A photograph and a style at once, the studio while it paints, a painting beside its photograph, a style with marks in it."""
    from playwright.sync_api import sync_playwright

    running = Running(folder / "studio")
    content, style = (running.bundled(name) for name in ("astronaut", "van-gogh-auvers"))
    with sync_playwright() as started:
        window = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]).new_page()
        window.set_viewport_size({"width": 1200, "height": 780})

        def shoot(name: str) -> None:
            window.wait_for_timeout(1500)
            window.screenshot(path=folder / "shot.png")
            save(Image.open(folder / "shot.png").convert("RGB"), f"studio/{name}", 1000)

        window.goto(running.address())
        window.get_by_role("button", name="Paint", exact=True).wait_for()
        window.get_by_role("button", name="Astronaut", exact=True).click()
        window.get_by_role("button", name="Van Gogh, Houses at Auvers").click()
        window.locator(".stage img[alt='Instant picture']").wait_for()
        window.locator(".inset").nth(5).wait_for()
        shoot("choose")
        asked = {"kind": "painting", "content": content, "styles": [style], "knobs": {"size": 384}}
        done = running.ended(running.submit(asked), 600)["id"]
        read = running.ended(running.submit({"kind": "style", "picture": style, "size": 384}), 600)["id"]
        window.goto(f"http://{running.host}/#gallery/{done}")
        window.get_by_label("Slider").check()
        shoot("compare")
        window.get_by_role("button", name="Use all settings").click()
        window.get_by_role("button", name="Dismiss this message").click()
        window.get_by_role("button", name="Paint", exact=True).click()
        running.until(running.client.jobs()[0]["id"], lambda job: bool(job["step"]) and job["step"]["i"] > 85, 600)
        shoot("paint")
        running.client.cancel(running.client.jobs()[0]["id"])
        window.goto(f"http://{running.host}/#lens/style/{read}")
        page = window.frame_locator("iframe")
        page.locator("#layers a", has_text="conv3_1").click()
        page.locator('a[href^="#conv3_1/"][href*="&"]').first.click()
        window.get_by_role("button", name="Mark", exact=True).click()
        shoot("lens")
    running.stop()


# What the parts have in common


SQUARE = {"size": 144, "shape": "1:1"}


def painted(content: str, style: str, preset: str = "impasto", **knobs: Any) -> Image.Image:
    """A bundled picture in the manner of another."""
    return paint(picture_path(content), [picture_path(style)], preset, **knobs)


def twice(picture: Image.Image) -> Image.Image:
    """The picture beside and below itself."""
    return column([row([picture, picture], 0)] * 2, 0)


def known(name: str) -> Net:
    """A net of ours with its weights."""
    loaded = load_weights(name)
    return build_net(name, loaded.tensors, INPUTS[loaded.input])


def scanned(net: AnyNet, layers: Sequence[str], folder: Path, size: int = 224) -> Path:
    """A scan of the bundled photographs."""
    for _ in scan([photograph_folder()], net, make_setup(net, layers, size=size), folder):
        pass
    return folder


def row(pictures: Sequence[Image.Image], gap: int, ground: str = "white") -> Image.Image:
    """Pictures of one height beside one another."""
    whole = Image.new("RGB", (sum(it.width + gap for it in pictures) - gap, pictures[0].height), ground)
    left = 0
    for it in pictures:
        whole.paste(it, (left, 0))
        left += it.width + gap
    return whole


def column(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Pictures of one width below one another."""
    whole = Image.new("RGB", (pictures[0].width, sum(it.height + gap for it in pictures) - gap), "white")
    top = 0
    for it in pictures:
        whole.paste(it, (0, top))
        top += it.height + gap
    return whole


def save(picture: Image.Image, name: str, width: int | None = None) -> None:
    """Into docs/, no wider than `width`, small."""
    if width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    picture.save(DOCS / f"{name}.webp", quality=72, method=6)
    print(DOCS / f"{name}.webp", picture.size)


ALL = (
    gallery,
    knobs,
    instants,
    sheets,
    controls,
    evolution,
    page,
    dreams,
    priors,
    starts,
    film,
    colors,
    presets,
    patterns,
    tilings,
    shapes,
    turns,
    studio,
)
PARTS: dict[str, Callable[[Path], None]] = {it.__name__: it for it in ALL}


def make(parts: Iterable[str]) -> None:
    """Make these parts."""
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder))


if __name__ == "__main__":
    make(sys.argv[1:] or PARTS)
