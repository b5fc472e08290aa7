"""Extractors trained elsewhere, against torchvision's own networks."""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from ms2.core.errors import UserError
from ms2.features.backbone import Backbone, InceptionPool3, WeightsError

needs_data = pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, with the folder weights, is not set")
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def images(n: int = 2, side: int = 48, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    torch.manual_seed(3)
    return models.squeezenet1_1(weights=None).eval()


@pytest.fixture
def weights(squeezenet: nn.Module, tmp_path: Path) -> Path:
    """A file of weights without the last two modules."""
    state = {k: v for k, v in squeezenet.state_dict().items() if not k.startswith(("features.12", "classifier"))}
    torch.save(state, tmp_path / "squeezenet.pt")
    return tmp_path / "squeezenet.pt"


@torch.no_grad()
def test_the_embedding_is_the_layers_mean_over_places(squeezenet: nn.Module, weights: Path) -> None:
    found = Backbone("squeezenet1_1", "features.8", str(weights))(images())
    expected = squeezenet.features[:9]((images() - MEAN) / DEVIATION).mean((2, 3))
    assert list(found) == ["embedding"]
    torch.testing.assert_close(found["embedding"], expected)


@torch.no_grad()
def test_the_last_layers_are_those_of_the_whole_network() -> None:
    """Also a vector is an embedding."""
    extractor = Backbone("resnet18", "flatten", weights=None, seed=4)
    torch.manual_seed(4)
    network = models.resnet18(weights=None).eval()
    network.fc = nn.Identity()
    torch.testing.assert_close(extractor(images())["embedding"], network((images() - MEAN) / DEVIATION))


def test_random_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (Backbone("squeezenet1_1", "features.3", None, seed=s) for s in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    a, b, c = (extractor(images())["embedding"] for extractor in (first, again, other))
    assert a.equal(b) and not a.allclose(c)


@torch.no_grad()
def test_grey_images_are_three_equal_channels(weights: Path) -> None:
    extractor, grey = Backbone("squeezenet1_1", "features.8", str(weights)), images(channels=1)
    torch.testing.assert_close(extractor(grey)["embedding"], extractor(grey.repeat(1, 3, 1, 1))["embedding"])


@torch.no_grad()
def test_images_are_brought_to_the_size(weights: Path) -> None:
    extractor = Backbone("squeezenet1_1", "features.8", str(weights), size=(40, 40))
    small = F.interpolate(images(), (40, 40), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(extractor(images())["embedding"], extractor(small)["embedding"])


def test_it_is_not_trained(weights: Path) -> None:
    extractor = Backbone("squeezenet1_1", "features.8", str(weights)).train()
    assert not extractor.training and not any(p.requires_grad for p in extractor.parameters())


def test_weights_that_do_not_reach_the_layer_are_refused(weights: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"lack 6 tensors .* up to layer 'features\.12', the first 'features\.12\.sq"
    ):
        Backbone("squeezenet1_1", "features.12", str(weights))


def test_weights_of_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="they hold nothing of it"):
        Backbone("resnet18", "layer1", str(weights))
    state = torch.load(weights, weights_only=True)
    state["features.0.weight"] = state["features.0.weight"][:8]
    torch.save(state, tmp_path / "narrow.pt")
    with pytest.raises(WeightsError, match=r"'features\.0\.weight' is \[8, 3, 3, 3\], and should be \[64, 3, 3, 3\]"):
        Backbone("squeezenet1_1", "features.8", str(tmp_path / "narrow.pt"))


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 broken"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="can't be read as weights"):
        Backbone("squeezenet1_1", "features.3", str(tmp_path / "weights.pt"))


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Path("anything")}, tmp_path / "weights.pt")  # a pickled object, which could be any
    with pytest.raises(WeightsError, match="can't be read as weights"):
        Backbone("squeezenet1_1", "features.3", str(tmp_path / "weights.pt"))


def test_names_that_are_not_there() -> None:
    with pytest.raises(WeightsError, match="there are no weights"):
        Backbone("squeezenet1_1", "features.3", "nowhere.pt")
    with pytest.raises(UserError, match=r"no network 'resnet19'\. Did you mean 'resnet1"):
        Backbone("resnet19")
    with pytest.raises(UserError, match=r"resnet18 has no layer 'layer7'\. Did you mean 'layer"):
        Backbone("resnet18", "layer7", weights=None)


def test_without_a_network_one_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"no route to host.*put that file at .*squeezenet1_1-.*\.pth, or give the path"
    ):
        Backbone("squeezenet1_1", "features.3", "imagenet")


@torch.no_grad()
def test_inceptions_average_pools_leave_the_padding_out() -> None:
    """On an even picture, torchvision's pools darken the edges; these don't."""
    extractor = InceptionPool3("Mixed_5b", weights=None)
    pools = [n for n in extractor.network.graph.nodes if "avg_pool2d" in str(n.target)]
    assert len(pools) == 1 and pools[0].kwargs["count_include_pad"] is False
    assert extractor(images(1, 60))["embedding"].shape == (1, 256)


def inception_state() -> dict[str, Tensor]:
    """Random weights of Inception-v3 under which maps neither vanish nor grow from block to block."""
    draw = torch.Generator().manual_seed(0)
    state = models.inception_v3(weights=None, aux_logits=False, init_weights=False).state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=draw)
        elif name.endswith(("bn.bias", "bn.running_mean")):
            value.normal_(0, 0.3, generator=draw)
        elif name.endswith(("bn.weight", "bn.running_var")):
            value.uniform_(0.8, 1.2, generator=draw)
    return state


class Inception:
    """Inception-v3 as its authors describe it, block by block, in the names of torchvision's state dict.

    Args:
        state: The weights.
        variant: Whose pools it has: FID's average over the pixels there are, and take the maximum in the last block
            (TensorFlow's graph of 2015-12-05; pytorch-fid); torchvision's average with zeros around the map.
    """

    def __init__(self, state: dict[str, Tensor], variant: str) -> None:
        self.state, self.variant = state, variant

    def conv(self, name: str, x: Tensor, stride: int = 1, padded: bool = True) -> Tensor:
        """A convolution, with padding that keeps the size of the map or without, normalisation and ReLU."""
        kernel = self.state[f"{name}.conv.weight"]
        padding = [side // 2 for side in kernel.shape[2:]] if padded else 0
        mean, var, weight, bias = (
            self.state[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(F.conv2d(x, kernel, None, stride, padding), mean, var, weight, bias, eps=1e-3).relu()

    def chain(self, block: str, names: str, x: Tensor) -> Tensor:
        for name in names.split():
            x = self.conv(f"{block}.{name}", x)
        return x

    def pool(self, block: str, x: Tensor) -> Tensor:
        if self.variant == "fid" and block == "Mixed_7c":
            return self.conv(f"{block}.branch_pool", F.max_pool2d(x, 3, 1, 1))
        sums = F.unfold(x, 3, padding=1).unflatten(1, (-1, 9)).sum(2)
        pixels = F.unfold(torch.ones_like(x[:, :1]), 3, padding=1).sum(1) if self.variant == "fid" else 9
        return self.conv(f"{block}.branch_pool", (sums / pixels).reshape(x.shape))

    def a(self, n: str, x: Tensor) -> Tensor:
        branches = "branch1x1", "branch5x5_1 branch5x5_2", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
        return torch.cat([*(self.chain(n, names, x) for names in branches), self.pool(n, x)], 1)

    def b(self, n: str, x: Tensor) -> Tensor:
        double = self.chain(n, "branch3x3dbl_1 branch3x3dbl_2", x)
        halved = self.conv(f"{n}.branch3x3", x, 2, False), self.conv(f"{n}.branch3x3dbl_3", double, 2, False)
        return torch.cat([*halved, F.max_pool2d(x, 3, 2)], 1)

    def c(self, n: str, x: Tensor) -> Tensor:
        double = " ".join(f"branch7x7dbl_{i}" for i in range(1, 6))
        branches = "branch1x1", "branch7x7_1 branch7x7_2 branch7x7_3", double
        return torch.cat([*(self.chain(n, names, x) for names in branches), self.pool(n, x)], 1)

    def d(self, n: str, x: Tensor) -> Tensor:
        wide = self.chain(n, "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3", x)
        single = self.conv(f"{n}.branch3x3_2", self.chain(n, "branch3x3_1", x), 2, False)
        return torch.cat([single, self.conv(f"{n}.branch7x7x3_4", wide, 2, False), F.max_pool2d(x, 3, 2)], 1)

    def e(self, n: str, x: Tensor) -> Tensor:
        single, double = self.chain(n, "branch3x3_1", x), self.chain(n, "branch3x3dbl_1 branch3x3dbl_2", x)
        split = [self.conv(f"{n}.branch3x3_2{i}", single) for i in "ab"]
        split += [self.conv(f"{n}.branch3x3dbl_3{i}", double) for i in "ab"]
        return torch.cat([self.chain(n, "branch1x1", x), *split, self.pool(n, x)], 1)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Maps of the last two blocks, and their mean, for images in [-1, 1]."""
        x = self.conv("Conv2d_2a_3x3", self.conv("Conv2d_1a_3x3", x, 2, False), padded=False)
        x = F.max_pool2d(self.conv("Conv2d_2b_3x3", x), 3, 2)
        x = F.max_pool2d(self.conv("Conv2d_4a_3x3", self.conv("Conv2d_3b_1x1", x), padded=False), 3, 2)
        blocks = (
            dict.fromkeys(("5b", "5c", "5d"), self.a) | {"6a": self.b} | dict.fromkeys(("6b", "6c", "6d", "6e"), self.c)
        )
        found = {}
        for name, block in (blocks | {"7a": self.d, "7b": self.e, "7c": self.e}).items():
            x = found[f"Mixed_{name}"] = block(f"Mixed_{name}", x)
        return found | {"avgpool": x.mean((2, 3), keepdim=True)}


@torch.no_grad()
def test_inceptions_variants_are_the_networks_that_were_published(tmp_path: Path) -> None:
    """On maps of 3x3 pixels in the last blocks, with an inside and a border."""
    state, x = inception_state(), 2 * images(1, 139) - 1
    torch.save(state, tmp_path / "w.pt")
    expected = {variant: Inception(state, variant).maps(x) for variant in ("fid", "torchvision")}
    for variant, other in (("fid", "torchvision"), ("torchvision", "fid")):
        network = InceptionPool3("avgpool", str(tmp_path / "w.pt"), variant=variant).network
        seen = list[Tensor]()
        network.get_submodule("Mixed_7c.branch1x1.conv").register_forward_pre_hook(
            lambda _, given, s=seen: s.extend(given)
        )
        found = network(x) | {"Mixed_7b": seen[0]}
        for layer, maps in found.items():
            torch.testing.assert_close(maps, expected[variant][layer], rtol=1e-3, atol=1e-3)
            assert (maps - expected[other][layer]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("tell", "variant"),
    [
        ({"fc.weight": torch.zeros(1008, 1)}, "fid"),
        ({"fc.weight": torch.zeros(1000, 1)}, "torchvision"),
        ({"fc.weight": torch.zeros(1000, 1), "AuxLogits.fc.weight": torch.zeros(1000, 1)}, "torchvision"),
        ({"AuxLogits.fc.weight": torch.zeros(1000, 1)}, "torchvision"),
        ({}, "fid"),
    ],
)
def test_weights_tell_which_inception_they_belong_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: dict[str, Tensor], variant: str
) -> None:
    monkeypatch.setattr("ms2.features.backbone._network", lambda _: stem())
    torch.save(stem().state_dict() | tell, tmp_path / "w.pt")
    assert InceptionPool3("Conv2d_1a_3x3", str(tmp_path / "w.pt")).variant == variant
    for chosen in ("fid", "torchvision"):
        assert InceptionPool3("Conv2d_1a_3x3", str(tmp_path / "w.pt"), variant=chosen).variant == chosen


def test_torchvisions_own_weights_get_its_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ms2.features.backbone._network", lambda _: stem())
    monkeypatch.setattr("ms2.features.backbone._imagenet", lambda _: stem().state_dict())
    assert InceptionPool3("Conv2d_1a_3x3").variant == "torchvision"
    assert InceptionPool3("Conv2d_1a_3x3", weights=None).variant == "fid"


def stem() -> nn.Module:
    """Inception-v3's first layer."""
    return nn.Sequential(OrderedDict(Conv2d_1a_3x3=nn.Conv2d(3, 4, 3))).eval()


@needs_data
@torch.no_grad()
def test_real_weights_that_end_early_serve_the_layers_they_reach() -> None:
    path = Path(os.environ["MS2_DATA"], "weights", "inception_v3_imagenet_to_mixed7a_fp16.pt")
    found = InceptionPool3("Mixed_7a", str(path))(images(1))["embedding"]
    assert found.shape == (1, 1280) and found.isfinite().all()
    with pytest.raises(WeightsError, match="they reach up to 'Mixed_7a'"):
        InceptionPool3("avgpool", str(path))


@needs_data
@torch.no_grad()
def test_real_weights_tell_pictures_apart() -> None:
    path = Path(os.environ["MS2_DATA"], "weights", "squeezenet1_1_imagenet.pt")
    extractor = Backbone("squeezenet1_1", "features.12", str(path))
    flat, noise = torch.full((1, 3, 64, 64), 0.5), images(1, 64)
    near = (extractor(flat)["embedding"] - extractor(flat + 0.01)["embedding"]).norm()
    assert (extractor(flat)["embedding"] - extractor(noise)["embedding"]).norm() > 10 * near


@torch.no_grad()
def test_networks_of_timm_are_read_too(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    found = Backbone("timm/resnet10t", "layer2", str(tmp_path / "w.pt"))(images())["embedding"]
    x = (images() - MEAN) / DEVIATION
    for module in (network.conv1, network.bn1, network.act1, network.maxpool, network.layer1, network.layer2):
        x = module(x)
    assert torch.allclose(found, x.mean((2, 3)), atol=1e-5)


@torch.no_grad()
def test_the_tokens_of_a_transformer_are_averaged() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    found = Backbone("timm/vit_tiny_patch16_224", "norm", None, (224, 224))(images())["embedding"]
    assert found.shape == (2, timm.create_model("vit_tiny_patch16_224").embed_dim)


def test_without_timm_the_error_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^timm/resnet10t needs timm, .* Try: pip install 'ms2\[timm\]'$"):
        Backbone("timm/resnet10t", "layer2")


def test_an_unknown_network_of_timm_is_named_with_near_ones() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"timm has no network 'resnet18x'.*resnet18") as error:
        Backbone("timm/resnet18x", "layer2", None)
    assert len(str(error.value)) < 300, "not all of timm's thousand"
