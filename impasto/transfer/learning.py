"""A style learned from picture files, and kept for instant pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from impasto.feedforward.learn import SQUARE, Lesson, learn_style
from impasto.feedforward.net import Style, Transformer
from impasto.feedforward.styles import bundled, learned_path, save_learned
from impasto.files import check_writable, make_folder
from impasto.images.images import read_picture, resize, scaled_size
from impasto.objective.framing import cropped_styles
from impasto.pictures import CALIBRATION, picture_path
from impasto.recipe.recipe import LEARNING_STEPS, make_recipe
from impasto.transfer.transfer import make_net

LEARNED_FROM = 512  # pixels: longer side of the photographs


class Learning:
    """One style picture and photographs, from their files. The constructor raises every error that they contain.

    Without photographs the bundled ones are used.
    """

    def __init__(
        self,
        painting: str | Path | Image.Image,
        photographs: Sequence[str | Path | Image.Image] = (),
        *,
        steps: int = LEARNING_STEPS,
        seed: int = 0,
    ) -> None:
        recipe = make_recipe()
        self.count, self.seed, self.trained = steps, seed, bundled()
        (style,) = cropped_styles([read_picture(painting)], recipe)
        self.style = style.image
        self.photographs = [_scaled(read_picture(it).image) for it in photographs or map(picture_path, CALIBRATION[:2])]
        self.path = learned_path(self.style)
        make_folder(self.path.parent)
        check_writable(self.path)
        self.net, self.scales = make_net(recipe), [(SQUARE, steps)]

    def steps(self) -> Iterator[Lesson]:
        """Learn; after the last step the style is kept."""
        for lesson in learn_style(self.style, self.photographs, self.net, self.trained, self.count, self.seed):
            yield lesson
        save_learned(self.style, lesson.numbers, self.trained)

    def shown(self, lesson: Lesson) -> Tensor:
        """The first photograph as it is painted after this step."""
        return Transformer(self.trained.weights).paint(self.photographs[0], Style(((None, lesson.numbers),)))


def learn(
    painting: str | Path | Image.Image,
    photographs: Sequence[str | Path | Image.Image] = (),
    *,
    steps: int = LEARNING_STEPS,
    seed: int = 0,
) -> Path:
    """Learn the style of a picture for instant(), from photographs or the bundled ones; the path of what was learned.

    Dumoulin, Shlens & Kudlur 2017 (arXiv:1610.07629), section 3.2: the convolutions are held, the numbers of a style are fitted.
    Raises BadImage for pictures that cannot be read.
    """
    learning = Learning(painting, photographs, steps=steps, seed=seed)
    for _ in learning.steps():
        pass
    return learning.path


def _scaled(image: Tensor) -> Tensor:
    return resize(image, scaled_size(image, min(LEARNED_FROM, max(image.shape[-2:]))))
