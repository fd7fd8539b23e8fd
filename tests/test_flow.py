"""Flow, warping, what was seen before, long-term weights, cuts: against oracles and planted motion."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from impasto.video.flow import is_cut, link, long_term_weights, motion_boundary, optical_flow, seen_in, warp, warped_error
from tests.conftest import picture


def textured(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Blobs of a few pixels: something that a flow can hold on to."""
    noise = torch.rand(1, 3, height + 8, width + 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1)[..., 2 : height + 2, 2 : width + 2]
    return ((smooth - 0.5) * 3 + 0.5).clamp(0, 1)


def moving_square(at: int, side: int = 32) -> torch.Tensor:
    """A square of another texture, its left side at this column, before a ground that stands still."""
    frame = textured(72, 96)
    frame[..., 20 : 20 + side, at : at + side] = 1 - textured(side, side, 5)
    return frame


def constant(height: int, width: int, right: float, down: float) -> torch.Tensor:
    return torch.tensor([float(right), float(down)]).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


def test_a_shift_by_whole_pixels_is_exact():
    image = picture(30, 40)
    moved = warp(image, constant(30, 40, 3, -2))
    assert torch.equal(moved[..., 2:, :-3], image[..., :-2, 3:])


def test_warping_is_bilinear_and_goes_on_beyond_the_edge():
    image, flow = picture(20, 30).double(), 4 * torch.randn(1, 2, 20, 30, dtype=torch.float64)
    y, x = np.mgrid[:20, :30].astype(np.float64)
    places = np.stack([y + flow[0, 1].numpy(), x + flow[0, 0].numpy()])
    expected = [map_coordinates(channel.numpy(), places, order=1, mode="nearest") for channel in image[0]]
    torch.testing.assert_close(warp(image, flow)[0], torch.from_numpy(np.stack(expected)), atol=1e-12, rtol=0)


def test_the_flow_finds_a_planted_motion():
    whole = textured(96, 120)
    before, frame = whole[..., 8:88, 8:108], whole[..., 10:90, 5:105]
    found = optical_flow(frame, before)[..., 8:-8, 8:-8]
    torch.testing.assert_close(found, constant(64, 84, -3, 2), atol=0.5, rtol=0)
    assert warped_error(frame, before, link(frame, before)) < 0.02


def test_the_flow_does_not_depend_on_threads():
    import cv2

    threads, frames, found = cv2.getNumThreads(), (moving_square(20), moving_square(30)), []
    for n in (1, 3):
        cv2.setNumThreads(n)
        found.append(optical_flow(*frames))
        assert cv2.getNumThreads() == n
    cv2.setNumThreads(threads)
    assert torch.equal(*found)


def test_what_a_moving_square_uncovers_was_not_seen():
    """It moves by 6: the strip it leaves was hidden, the square itself and the ground far off were seen."""
    found = link(moving_square(40), moving_square(34)).seen[0, 0]
    assert found[28:48, 34:40].mean() < 0.2
    assert found[30:50, 46:66].mean() > 0.9
    assert found[:, 78:90].mean() > 0.9 and found[:, 8:28].mean() > 0.9


def test_there_and_back_decides_what_was_seen():
    """The rule itself, on planted flows: consistent, out of the frame, inconsistent by less and by more than the bound."""
    still, moved = constant(8, 8, 0, 0), constant(8, 8, 2, 0)
    assert seen_in(moved, -moved)[..., :6].all() and not seen_in(moved, -moved)[..., 6:].any()
    assert seen_in(still, constant(8, 8, 0.7, 0)).all()
    assert not seen_in(still, constant(8, 8, 0.8, 0)).any()


def test_motion_boundaries_are_where_neighbours_move_apart():
    flow = constant(8, 10, 1, 0)
    flow[..., 5:] = 4
    assert motion_boundary(flow)[0, 0].float().mean(0).tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_long_term_weights_are_the_formula_by_brute_force():
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(1, 1, 4, 5, generator=generator).round(decimals=2) for _ in range(4)]
    found = long_term_weights(weights)
    for n, long_term in enumerate(found):
        for y in range(4):
            for x in range(5):
                nearer = sum(float(weights[k][0, 0, y, x]) for k in range(n))
                assert float(long_term[0, 0, y, x]) == pytest.approx(max(float(weights[n][0, 0, y, x]) - nearer, 0), abs=1e-6)


def test_a_pixel_hangs_on_one_frame_at_most():
    weights = [(torch.rand(1, 1, 6, 6) > 0.5).float() for _ in range(3)]
    assert torch.equal(sum(long_term_weights(weights)), torch.stack(weights).amax(0))


def test_another_picture_is_a_cut_and_motion_is_none():
    assert is_cut(textured(72, 96, 1), textured(72, 96, 2))
    assert is_cut(torch.full((1, 3, 72, 96), 0.8), torch.full((1, 3, 72, 96), 0.2))  # flat: any flow agrees with it
    assert not is_cut(moving_square(40), moving_square(34))
    assert not is_cut(moving_square(40) * 0.9, moving_square(40))


def test_flicker_counts_what_was_seen_alone():
    frame = moving_square(40)
    found = link(frame, frame)
    hidden = found.seen.clone()
    hidden[..., :48] = 0
    off = frame.clone()
    off[..., :48] += 0.5
    assert warped_error(off, frame, type(found)(found.flow * 0, hidden, hidden)) == 0
    assert warped_error(frame + 0.25, frame, type(found)(found.flow * 0, found.seen, found.sure)) == pytest.approx(0.25)
