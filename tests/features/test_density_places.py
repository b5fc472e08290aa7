"""Places are read off maps of density: exactly off the true ones."""

import pytest
import torch
from helpers import rng
from torch import Tensor

from ms2.features.dense import DenseCounts
from ms2.features.places import read_places
from ms2.world import World
from ms2.worlds.aerial2d import Aerial2D, AerialView, ScatteredCars, UniformTraffic


def true_density(features: DenseCounts, world: World, n: int) -> tuple[Tensor, list[Tensor]]:
    """Densities that the extractor is trained towards, and by class the true centres of each image."""
    labels = world.renderer.render_labelled(world.sample_prior(n, rng()))
    side = world.renderer.size[0] // int(features.cell)
    density = features._cell_targets(features._cells(labels, side, side), side, side)[:, :-1]
    centre = (labels.boxes[..., :2] + labels.boxes[..., 2:]) / 2 / world.renderer.size[0]
    return density, [torch.where((labels.classes == c)[..., None], centre, torch.nan) for c in (0, 1)]


def test_true_densities_are_read_exactly() -> None:
    world = World(Aerial2D(), UniformTraffic(3, 4), ScatteredCars(max_houses=0, max_trees=0), AerialView(64))
    features = DenseCounts(3, ["Road", "car", "house", "tree"], widths=(4, 4, 4), strides=(1, 1, 1))
    density, centres = true_density(features, world, 20)
    used, places = read_places(density, density.sum((2, 3)).round().long(), [(8, 64), (3, 3), (2, 2), (2, 2)])
    for c, tolerance in ((0, 1e-3), (1, 0.011)):  # a lane is 0.05 wide: cars side by side share cells
        for i in range(20):
            true = centres[c][i][~centres[c][i, :, 0].isnan()]
            found = places[i, c][used[i, c]]
            assert len(found) == len(true)
            if len(true):
                nearest = torch.cdist(true, found).min(1)
                assert nearest.values.max() < tolerance and len(nearest.indices.unique()) == len(true)


def test_a_blurred_object_is_one() -> None:
    """Along a road nothing tells where its centre is."""
    density = torch.zeros(1, 1, 8, 16)
    density[0, 0, 2], density[0, 0, 6] = 1 / 16, 1 / 16
    used, places = read_places(density, torch.tensor([[2]]), [(2, 16)])
    assert used.all()
    assert places[0, 0, :, 0].tolist() == pytest.approx([0.5, 0.5]) and sorted(places[0, 0, :, 1].tolist()) == [
        pytest.approx(2.5 / 8),
        pytest.approx(6.5 / 8),
    ]


@pytest.mark.parametrize("upright", [False, True])
def test_the_whole_window_of_an_object_is_one(upright: bool) -> None:
    """Though it is denser in its middle, where a smaller window would find it, and it extends beyond the image."""
    density, window = torch.zeros(1, 1, 8, 16), (2, 8)
    density[0, 0, 1:3, 2:10] = torch.tensor([1.0, 2, 4, 8, 8, 4, 2, 1]) / 60
    density[0, 0, 5:7, :6] = torch.tensor([4.0, 8, 8, 4, 2, 1]) / 60
    if upright:
        density, window = density.mT, (8, 2)
    _, places = read_places(density, torch.tensor([[2]]), [window])
    found = places[0, 0].flip(1) if upright else places[0, 0]
    x = (4 * 0.5 + 8 * 1.5 + 8 * 2.5 + 4 * 3.5 + 2 * 4.5 + 5.5) / 27  # of what is in the image
    assert found.flatten().tolist() == pytest.approx([6 / 16, 2 / 8, x / 16, 6 / 8])


def test_no_objects_at_all() -> None:
    used, places = read_places(torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, dtype=torch.long), [(2, 2)] * 2)
    assert used.shape == (3, 2, 0) and places.shape == (3, 2, 0, 2)
