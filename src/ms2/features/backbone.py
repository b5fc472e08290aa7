"""Pretrained backbones of torchvision and timm, and Inception-v3 pool-3 (section 4.3)."""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.bounds import Dimension, FiniteFloat, PositiveFloat, Seed
from ms2.core.errors import UserError, missing_extra, suggest
from ms2.core.files import read_tensors, reading
from ms2.core.paths import UserPath, Weights, expand_path
from ms2.features.base import Blocks, FeatureExtractor, PretrainedWeights, weights_fingerprint

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

TIMM_PREFIX = "timm/"
"""Prefix of the names of timm's networks."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
InceptionVariant = Literal["fid", "torchvision"]
"""Networks that Inception-v3's weights may belong to; see `InceptionPool3`."""
FID_CLASSES = 1008
"""Classes of the network of 2015; ImageNet's, which torchvision's network has, are 1000."""
AVERAGE_POOLED = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c")]
"""Blocks of torchvision's Inception-v3 with an average pool."""


class WeightsError(UserError):
    """Weights are missing, or do not match the network."""


class InputNormalisation(nn.Module):
    """Normalises images by mean and standard deviation; repeats a grey channel three times.

    Args:
        mean: Per-channel mean, of pixels in [0, 1].
        std: Per-channel standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalise images; repeat grey channels."""
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std


class Backbone(FeatureExtractor):
    """A torchvision or timm network up to a layer, averaged over the image: block ``embedding``.

    Grey images are repeated to three channels.

    Args:
        architecture: Name of a torchvision classification network, such as ``resnet50``; or ``timm/`` and the name of
            one of timm's, which is an extra: ``pip install 'ms2[timm]'``.
        layer: Name of the layer whose output is averaged, such as ``layer3`` or ``avgpool``.
        weights: File of a state dict, which may lack later layers; ``imagenet`` for torchvision's own,
            from its cache or the net; null for random weights, whose features are informative too.
        size: Height and width to which images are resized, in pixels; null keeps theirs.
        mean: Per-channel mean, of pixels in [0, 1].
        std: Per-channel standard deviation.
        seed: Seed of the weights' random initialisation.

    Raises:
        WeightsError: If there are no such weights, or they don't reach up to the layer.
        UserError: If there is no such network or layer.

    Example:
        >>> features = Backbone("resnet18", layer="layer1", weights=None)
        >>> features(torch.rand(2, 3, 32, 32))["embedding"].shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        architecture: str = "resnet18",
        layer: str = "avgpool",
        weights: Weights = "imagenet",
        size: tuple[Dimension, Dimension] | None = None,
        mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = IMAGENET_MEAN,
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.size = size
        self.layer = layer
        self.network = truncate_network(architecture, [layer], weights, seed)
        self.pretrained = pretrained_weights(self.network, architecture, [layer], weights)
        self.colours = InputNormalisation(mean, std)
        self.eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute block ``embedding``."""
        if self.size is not None and images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        found = self.network(self.colours(images))[self.layer]
        if found.ndim == 3:  # a transformer's tokens
            found = found.mean(1)
        return {"embedding": found.flatten(2).mean(2) if found.ndim > 2 else found}

    def train(self, mode: bool = True) -> "Backbone":
        """Keep evaluation mode: the network is never trained."""
        return super().train(False)


class InceptionPool3(Backbone):
    """Inception-v3 up to its third pooling: the paper's features for driving scenes, of 2048 dimensions.

    Two networks have these layers, and differ in how the blocks that keep the size of their maps pool:

    - ``fid``, the network of December 2015 that FID is defined by (Szegedy et al., 2015;
      ``pt_inception-2015-12-05`` of pytorch-fid and torch-fidelity): average pools that exclude the padding in
      ``Mixed_5b`` to ``Mixed_7b``, and a max pool in the last block, ``Mixed_7c``.
    - ``torchvision``, as torchvision computes it: average pools that include the padding in all of them.

    Weights of one with the pools of the other give features of neither, and no error.

    Args:
        layer: Name of the layer whose output is averaged; ``avgpool`` is pool-3.
        weights: File of a state dict, which may lack later layers; ``imagenet`` for torchvision's own,
            from its cache or the net; null for random weights.
        seed: Seed of the weights' random initialisation.
        variant: Network that the weights belong to, ``fid`` or ``torchvision``; null for what they tell. ``imagenet``
            is torchvision's. A file is FID's if its classifier ``fc`` has 1008 classes; torchvision's if ``fc`` has
            another number, or it holds ``AuxLogits``; and where it has neither, and for random weights, FID's.
    """

    def __init__(
        self,
        layer: str = "avgpool",
        weights: Weights = "imagenet",
        seed: Seed = 0,
        variant: InceptionVariant | None = None,
    ) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__("inception_v3", layer, weights, (299, 299), half, half, seed)
        self.variant: InceptionVariant = variant or _variant(weights)
        if self.variant == "fid":
            _pool_as_fid(self.network)


def _variant(weights: Weights) -> InceptionVariant:
    """Tell which Inception-v3 weights belong to, as `InceptionPool3` describes."""
    if weights is None:
        return "fid"
    if weights == "imagenet":
        return "torchvision"
    state = _weights("inception_v3", weights)
    if "fc.weight" in state:
        return "fid" if len(state["fc.weight"]) == FID_CLASSES else "torchvision"
    return "torchvision" if any(name.startswith("AuxLogits.") for name in state) else "fid"


def _pool_as_fid(network: torch.fx.GraphModule) -> None:
    """Change torchvision's Inception-v3, up to any layer, to the pools of FID's."""
    pools = [node for node in network.graph.nodes if node.target is F.avg_pool2d]  # in the order of the blocks
    for block, pool in zip(AVERAGE_POOLED, pools, strict=False):
        if block == "Mixed_7c":
            pool.target = torch.max_pool2d
        else:
            pool.kwargs = {**pool.kwargs, "count_include_pad": False}
    network.recompile()


def truncate_network(architecture: str, layers: Sequence[str], weights: Weights, seed: int = 0) -> torch.fx.GraphModule:
    """Build a network that returns the outputs of named layers, in evaluation mode.

    Args:
        architecture: Name of the network.
        layers: Names of the layers, from first to last.
        weights: A file, ``imagenet``, or null for random weights; see `Backbone`.
        seed: Seed of the weights' random initialisation.

    Raises:
        WeightsError: If there are no such weights, or they don't reach up to the layers.
        UserError: If there is no such network or layer.
    """
    with torch.random.fork_rng([]):  # torchvision draws initial weights from the global generator
        torch.manual_seed(seed)
        network = _network(architecture)
    found = _up_to(network, architecture, layers)
    if weights is not None:
        _load(found, _weights(architecture, weights), weights, architecture, layers[-1])
    return found


def pretrained_weights(
    network: nn.Module, architecture: str, layers: Sequence[str], weights: Weights
) -> dict[str, PretrainedWeights]:
    """Describe the weights of an extractor's submodule ``network``; empty if they are random.

    Args:
        network: The network, as `truncate_network` built it.
        architecture: Name of the network.
        layers: Names of its layers, from first to last.
        weights: Where its weights are from.
    """
    if weights is None:
        return {}
    source = f"{architecture} up to {layers[-1]!r} from {weights}"
    return {"network": PretrainedWeights(source, weights_fingerprint(network))}


def _network(architecture: str) -> nn.Module:
    from torchvision import models

    if architecture.startswith(TIMM_PREFIX):
        return _timm(architecture, pretrained=False).eval()
    names = models.list_models(module=models)
    if architecture not in names:
        raise UserError(f"torchvision has no network {architecture!r}. {suggest(architecture, names)}")
    extra = {"aux_logits": False, "init_weights": False} if architecture == "inception_v3" else {}
    network: nn.Module = models.get_model(architecture, weights=None, **extra)
    return network.eval()


def _timm(architecture: str, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise missing_extra(architecture, "timm", extra="timm") from error
    name = architecture.removeprefix(TIMM_PREFIX)
    if name not in timm.list_models():
        near = get_close_matches(name, timm.list_models(), 5, 0.3)  # of over a thousand
        raise UserError(f"timm has no network {name!r}. {suggest(name, near)}")
    network: nn.Module = timm.create_model(name, pretrained=pretrained)
    return network


def _up_to(network: nn.Module, architecture: str, layers: Sequence[str]) -> torch.fx.GraphModule:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    names = get_graph_node_names(network)[1]
    for layer in layers:
        if not any(name == layer or name.startswith(f"{layer}.") for name in names):
            tops = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
            tops += list(dict.fromkeys(name.split(".")[0] for name in names))
            raise UserError(f"{architecture} has no layer {layer!r}. {suggest(layer, tops)}")
    found: torch.fx.GraphModule = create_feature_extractor(network, {layer: layer for layer in layers})
    return found.eval()


def _weights(architecture: str, weights: UserPath) -> Mapping[str, Tensor]:
    if weights == "imagenet":
        return _imagenet(architecture)
    path = expand_path(weights)
    if not path.is_file():
        raise WeightsError(f"there are no weights {path.absolute()}: give a file of a state dict, or 'imagenet'")
    with reading(path, "weights", "save a state dict there", WeightsError):
        found = read_tensors(path)
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsError(f"{path} holds no state dict: save network.state_dict() there")
    return found


def _imagenet(architecture: str) -> Mapping[str, Tensor]:
    from torchvision import models

    if architecture.startswith(TIMM_PREFIX):
        try:
            return _timm(architecture, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"the weights of {architecture} can't be fetched: {error}. Where there is no network, give the path of "
                "any state dict of it as weights."
            ) from error
    entry = models.get_model_weights(architecture).DEFAULT
    advice = f"give the path of any state dict of {architecture} as weights"
    return torchvision_weights(entry, f"the weights of {architecture}", advice)


def torchvision_weights(entry: "WeightsEnum", title: str, advice: str) -> Mapping[str, Tensor]:
    """Read weights that torchvision publishes from its cache or the net.

    Args:
        entry: Which weights.
        title: What an error calls them.
        advice: What an error says may be done instead of putting the file into the cache.

    Raises:
        WeightsError: If they are not in the cache, and can't be fetched.
    """
    try:
        found: Mapping[str, Tensor] = entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        cached = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(entry.url))
        raise WeightsError(
            f"{title} can't be fetched from {entry.url}: {error}. Where there is no network, put that file at "
            f"{cached}, or {advice}."
        ) from error
    return found


def _load(
    network: torch.fx.GraphModule, weights: Mapping[str, Tensor], source: UserPath, architecture: str, layer: str
) -> None:
    """Load the weights of the network up to a layer.

    Raises:
        WeightsError: If a tensor is missing or has another shape.
    """
    needed = {name: value for name, value in network.state_dict().items() if "num_batches_tracked" not in name}
    lacking = [name for name in needed if name not in weights]
    if lacking:
        reached = list(dict.fromkeys(name.split(".")[0] for name in needed if name in weights))
        reach = f"they reach up to {reached[-1]!r}" if reached else "they hold nothing of it"
        raise WeightsError(
            f"the weights {source} lack {len(lacking)} tensors that {architecture} needs up to layer {layer!r}, the "
            f"first {lacking[0]!r}: {reach}. Give complete weights, or a layer that they reach."
        )
    wrong = [name for name, value in needed.items() if weights[name].shape != value.shape]
    if wrong:
        name = wrong[0]
        raise WeightsError(
            f"the weights {source} are not those of {architecture}: {name!r} is {list(weights[name].shape)}, and "
            f"should be {list(needed[name].shape)}"
        )
    network.load_state_dict({name: weights[name].float() for name in needed}, strict=False)
