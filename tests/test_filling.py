"""Filling holes: what is known stays, and what is unknown is drawn."""

import numpy as np
import pytest

from analysis import filling
from families import registry
from spots import SHAPE, blobs


class Recorder:
    """Stands in for a flow: sets unknown numbers to a constant."""

    def __init__(self):
        self.passes = []

    def completed(self, z, known, seed=0, value=0.0, rounds=4):
        self.passes.append((z, known, rounds))
        return np.where(known, z, np.float32(value))


@pytest.fixture
def model(tiny):
    return registry.from_settings(tiny(latent_map=(6, 6, 2)))


def test_a_place_within_the_margin_of_an_unknown_pixel_is_unknown_and_one_farther_away_is_not():
    holes = np.zeros((2, 12, 24), bool)
    holes[0, 0, 0] = True
    holes[1, 6, 12] = True
    for margin in (0, 1):
        known = filling.known_places(holes, (6, 6, 2), margin).reshape(2, 6, 6, 2)
        expected = np.ones((2, 6, 6), bool)
        expected[0, : 1 + margin, : 1 + margin] = False
        expected[1, 3 - margin : 4 + margin, 3 - margin : 4 + margin] = False
        np.testing.assert_array_equal(known[..., 0], expected)
        np.testing.assert_array_equal(known[..., 0], known[..., 1])


def test_only_the_hole_changes_and_what_was_in_it_does_not_matter(model):
    images = blobs(3)[0] / np.float32(255)
    hole = np.zeros(SHAPE[:2], bool)
    hole[4:8, 4:8] = True
    flow = Recorder()
    made = filling.filled(model, flow, images, hole)
    np.testing.assert_array_equal(made[:, ~hole], images[:, ~hole])
    assert np.abs(made[:, hole] - images[:, hole]).max() > 0.0
    damaged = np.where(hole[..., None], 0.5, images)
    np.testing.assert_array_equal(filling.filled(model, flow, damaged, hole), made)
    other = filling.filled(model, flow, images, hole, value=2.0)
    assert np.abs(other[:, hole] - made[:, hole]).max() > 0.0


def test_the_second_pass_sees_the_first_draw_and_keeps_the_places_beside_the_hole(model):
    images = blobs(3)[0] / np.float32(255)
    hole = np.zeros(SHAPE[:2], bool)
    hole[4:8, 4:8] = True
    flow = Recorder()
    filling.filled(model, flow, images, hole, value=2.0)
    (z, far, once), (again, known, rounds) = flow.passes
    assert once == 1 < rounds
    assert 0 < far.mean() < known.mean() < 1
    first = model.decode(np.where(far, z, np.float32(2.0))).numpy()
    seen = np.where(hole[..., None], first, images)
    np.testing.assert_allclose(again, model.encode(seen)[0], atol=1e-5)


def test_a_gaussian_fills_the_holes_of_images_with_few_components():
    random = np.random.default_rng(0)
    ways = 0.1 * random.normal(size=(3, 8, 6, 2))
    images = 0.5 + np.tensordot(random.uniform(-1, 1, (60, 3)), ways, 1).astype(np.float32)
    images += 1e-4 * random.normal(size=images.shape).astype(np.float32)
    hole = np.zeros((8, 6), bool)
    hole[2:5, 1:4] = True
    blank = np.where(hole[..., None], 0.0, images[40:])
    made = filling.by_gaussian(images[:40], blank, hole, components=3)
    np.testing.assert_allclose(made, images[40:], atol=2e-3)
    np.testing.assert_array_equal(made[:, ~hole], images[40:][:, ~hole])


def test_a_gaussian_of_images_with_few_pixels_has_fewer_components():
    images = np.random.default_rng(0).random((60, 3, 3, 1)).astype(np.float32)
    holes = np.zeros((3, 3), bool)
    holes[1, 1] = True
    filled = filling.by_gaussian(images, images[:2], holes)
    np.testing.assert_array_equal(filled[:, ~holes], images[:2, ~holes])
    assert np.isfinite(filled).all()


def test_holes_that_cannot_be_filled_are_refused(model, tiny):
    images = blobs(2)[0] / np.float32(255)
    with pytest.raises(ValueError, match=r"the holes have \(5, 5\) pixels, the images \(12, 12\)"):
        filling.filled(model, Recorder(), images, np.ones((5, 5), bool))
    holes = np.zeros((2, *SHAPE[:2]), bool)
    holes[1] = True
    with pytest.raises(ValueError, match="image 1: nothing of its latent map is known"):
        filling.filled(model, Recorder(), images, holes)
    with pytest.raises(ValueError, match="a model with a latent_map; this one has a vector"):
        filling.filled(registry.from_settings(tiny()), Recorder(), images, holes)
