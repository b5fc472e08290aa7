"""Counts read off the maps of a frozen network: what is learned, from whom, and what stays."""

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ms2.core.errors import UserError
from ms2.features.backbone import WeightsError
from ms2.features.pretrained import PretrainedCounts
from ms2.render.base import Rendering

CLASSES = ("red", "green")
NETWORK = {"weights": None, "width": 16, "max_count": {"red": 4}}


def make(**settings: object) -> PretrainedCounts:
    return PretrainedCounts(3, CLASSES, **(NETWORK | settings))


def squares(n: int = 8, seed: int = 0, most: int = 3) -> Rendering:
    """Grey images of 64 x 128 pixels with some red and green squares of 12 pixels, that don't overlap."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((n, 3, 64, 128), 0.5)
    classes, boxes = torch.full((n, most), -1), torch.zeros(n, most, 4)
    for i in range(n):
        places = torch.randperm(18, generator=generator)[:most]
        for j in range(int(torch.randint(0, most + 1, (1,), generator=generator))):
            x, y = 6 + 20 * (int(places[j]) % 6), 4 + 20 * (int(places[j]) // 6)
            kind = int(torch.randint(0, 2, (1,), generator=generator))
            images[i, :, y : y + 12, x : x + 12] = torch.eye(3)[kind][:, None, None]
            classes[i, j], boxes[i, j] = kind, torch.tensor([x, y, x + 12.0, y + 12.0])
    none = torch.full((n, 64, 128), -1)
    corners = torch.zeros(n, most, 4, 2)
    parents = torch.full_like(classes, -1)
    return Rendering(images, classes, parents, boxes, corners, boxes, none, (classes >= 0).float())


def trained(model: PretrainedCounts, labels: Rendering, steps: int) -> float:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.train()
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(labels.image, labels)
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


# squeezenet's weights are not asked for: random ones tell colours apart well enough


def test_blocks_and_their_shapes() -> None:
    model = make().eval()
    images = squares(3).image
    blocks = model(images)
    assert {name: block.shape for name, block in blocks.items()} == {
        "classes": (3, 2), "count_red": (3, 5), "embedding": (3, 512),
    }  # fmt: skip
    assert model.cell == 8 and all(block.isfinite().all() for block in blocks.values())
    reading = model.predict_counts(images)
    assert reading.counts.shape == (3, 2) and torch.allclose(reading.counts.sum(1), reading.total)
    assert torch.allclose(reading.counts, blocks["classes"])
    assert set(model.overflow_fraction(images)) == {"count_red"}


@pytest.mark.parametrize(
    ("architecture", "layers", "cell", "channels"),
    [
        ("mobilenet_v3_small", ["features.1", "features.3"], 4, 24),
        ("mobilenet_v3_small", ["features.8"], 16, 48),
        ("squeezenet1_1", ["features.4", "features.7", "features.12"], 4, 512),
    ],
)
def test_other_architectures_and_layers(architecture: str, layers: list[str], cell: int, channels: int) -> None:
    model = make(architecture=architecture, layers=layers).eval()
    labels = squares(2)
    blocks = model(labels.image)
    assert model.cell == cell and blocks["embedding"].shape == (2, channels)
    assert model.loss(labels.image, labels).isfinite()
    assert model(labels.image[:, :, :32, :104])["classes"].shape == (2, 2)


@pytest.mark.parametrize(
    ("architecture", "layer"), [("squeezenet1_1", "features.4"), ("inception_v3", "Mixed_5b"), ("resnet18", "layer1")]
)
def test_cells_cover_the_image_and_see_what_they_are_asked_for(architecture: str, layer: str) -> None:
    """With networks that don't pad, too, whose cells are fewer and begin further in."""
    model = make(architecture=architecture, layers=[layer]).eval()
    cell = int(model.cell)
    image, draw = torch.full((1, 3, 64, 96), 0.5), torch.Generator().manual_seed(0)
    with torch.no_grad():
        bare = model.feature_maps(image)[0]
        rows, columns = 64 // cell, 96 // cell
        assert bare.shape[2:] == (rows, columns)
        for row, column in [(0, 0), (rows - 1, columns - 1), (0, columns - 1), (rows // 2, columns // 3)]:
            dotted = image.clone()
            dotted[..., row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = torch.rand(
                3, cell, cell, generator=draw
            )
            change = (model.feature_maps(dotted)[0] - bare).square().sum((0, 1))
            found = divmod(int(change.argmax()), columns)
            assert max(abs(found[0] - row), abs(found[1] - column)) <= 1


def test_grey_images_are_three_equal_channels() -> None:
    model = PretrainedCounts(1, CLASSES, **NETWORK).eval()
    grey = torch.rand(2, 1, 64, 96)
    for name, block in model(grey).items():
        assert torch.equal(block, model(grey.expand(-1, 3, -1, -1))[name])


def test_only_the_head_is_trained() -> None:
    model, labels = make(), squares()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    trained(model, labels, 3)
    assert before and all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert not any(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    assert all(p.grad is None for p in model.network.parameters())
    assert all(p.grad is not None for part in (model.trunk, model.head) for p in part.parameters())
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"trunk", "head"}


def test_thawing_an_extractor_leaves_the_network_frozen() -> None:
    """Training thaws extractors, which structure learning froze."""
    model = make().requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model.requires_grad_(True)
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"trunk", "head"}


def test_the_frozen_network_stays_in_evaluation() -> None:
    """Its normalisation and dropout must not see a batch."""
    model = make(architecture="mobilenet_v3_small", layers=["features.3"]).train()
    assert model.training and model.trunk.training and not any(part.training for part in model.network.modules())
    running = {name: value.clone() for name, value in model.network.named_buffers()}
    labels = squares(2)
    model.loss(labels.image, labels)
    assert all(torch.equal(value, running[name]) for name, value in model.network.named_buffers())


def test_the_embedding_has_unit_variance_over_what_was_trained_on() -> None:
    model = make().train()
    model.embedding_variance.zero_()  # what it begins with is forgotten slowly
    for seed in range(120):
        part = squares(8, seed=seed)
        with torch.no_grad():
            model.loss(part.image, part)
    model.eval()
    images = squares(100, seed=1000).image
    embedding = torch.cat([model(part)["embedding"] for part in images.split(50)])
    lively = model.embedding_variance > 1e-4  # normalisation adds 1e-5
    assert lively.sum() > 50
    deviation = embedding[:, lively].std(0)
    assert float(deviation.median()) == pytest.approx(1, abs=0.15)
    assert float(embedding[:, lively].mean(0).abs().median()) < 0.2


def test_statistics_are_taken_in_training_alone() -> None:
    model, labels = make().eval(), squares(4)
    before = model.embedding_mean.clone(), model.embedding_variance.clone()
    model.loss(labels.image, labels)
    model(labels.image)
    assert torch.equal(model.embedding_mean, before[0]) and torch.equal(model.embedding_variance, before[1])


def test_only_what_can_be_seen_is_taught() -> None:
    """An object of which less than a tenth is visible is one that isn't there."""
    model, labels = make(min_visibility=0.1).eval(), squares(4, seed=3)
    assert (labels.classes >= 0).any()

    def loss(visibility: float, classes: Tensor = labels.classes) -> Tensor:
        shown = replace(labels, visibility=torch.full_like(labels.visibility, visibility), classes=classes)
        return model.loss(labels.image, shown)

    nothing = loss(1.0, torch.full_like(labels.classes, -1))
    assert torch.equal(loss(0.09), nothing) and torch.equal(loss(0.0), nothing)
    assert torch.equal(loss(0.11), loss(1.0)) and not torch.equal(loss(0.11), nothing)
    assert torch.equal(
        model._cell_targets(model._cells(labels, 8, 16), 8, 16)[:, :-1].sum((2, 3)),
        model.slots.counts(labels.classes, labels.parents),
    )


def test_what_is_small_is_not_taught_and_numbers_can_weigh() -> None:
    """Squares are 12 pixels high; the numbers' error is added to the cells', and so is linear in its weight."""
    labels = squares(4, seed=3)

    def loss(some: Rendering = labels, **settings: float) -> Tensor:
        torch.manual_seed(0)  # the same head
        return make(**settings).eval().loss(some.image, some)

    nothing = loss(replace(labels, classes=torch.full_like(labels.classes, -1)))
    assert torch.equal(loss(min_height=12.5), nothing) and torch.equal(loss(min_height=11.5), loss())
    alone, once, twice = (loss(count_weight=weight) for weight in (0.0, 1.0, 2.0))
    assert once > alone
    assert torch.allclose(twice - alone, 2 * (once - alone), rtol=1e-4)


def test_the_head_learns_to_count() -> None:
    model, labels = make(layers=["features.4", "features.7"]), squares(6)
    first = trained(model, labels, 1)
    last = trained(model, labels, 150)
    assert last < 0.3 * first
    counts = model.slots.counts(labels.classes, labels.parents)
    found = model.predict_counts(labels.image).counts
    assert (found - counts).abs().max() < 0.4, (found, counts)
    assert torch.equal(found.round(), counts)
    block = model(labels.image)["count_red"]
    assert torch.equal(block.argmax(1), counts[:, 0].long())


def test_a_saved_extractor_gives_the_same(tmp_path: Path) -> None:
    model, labels = make(), squares(4)
    trained(model, labels, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = make(seed=5)
    other.load_state_dict(torch.load(file, weights_only=True))
    other.eval()
    for name, block in model(labels.image).items():
        assert torch.equal(block, other(labels.image)[name])


def test_random_weights_are_known_by_their_seed() -> None:
    first, again, other = (make(seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"architecture": "squeezenet1_2"}, "torchvision has no network 'squeezenet1_2'. Did you mean"),
        ({"layers": ["features.99"]}, "has no layer 'features.99'"),
        ({"layers": []}, "layers must name at least one"),
        ({"max_count": {"blue": 3}}, "blue"),
        ({"count_threshold": {"blue": 0.5}}, "features.count_threshold names a class 'blue'"),
        ({"background_weight": 0.0}, "background_weight must be greater than 0, not 0"),
        ({"count_kernel_std": 0.0}, "count_kernel_std must be greater than 0, not 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**settings)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there are no weights"):
        make(weights=str(tmp_path / "none.pt"))


def test_a_variable_in_a_path_must_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    with pytest.raises(UserError, match="needs the environment variable NO_SUCH_FOLDER, which is not set"):
        make(weights="$NO_SUCH_FOLDER/net.pt")
    torch.save(make(seed=7).network.state_dict(), tmp_path / "net.pt")
    monkeypatch.setenv("NO_SUCH_FOLDER", str(tmp_path))
    found = make(weights="$NO_SUCH_FOLDER/net.pt").network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in make(seed=7).network.state_dict().items())


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA is not set")
def test_weights_of_photographs() -> None:
    """They tell a car's photograph from grass and sky better than random ones do; at least, they are not random."""
    model = make(weights="$MS2_DATA/weights/squeezenet1_1_imagenet.pt").eval()
    maps = model.feature_maps(squares(2).image)
    assert [m.shape[1] for m in maps] == [256, 512] and all(m.isfinite().all() for m in maps)
    random = make().network.state_dict()
    assert not any(torch.equal(v, random[name]) for name, v in model.network.state_dict().items() if "weight" in name)
