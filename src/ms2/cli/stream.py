"""Python interface: `ms2.stream`, labelled samples that are made while a model is trained on them."""

from collections.abc import Sequence

from ms2.cli import plugins
from ms2.cli.api import FitResult, as_tuple
from ms2.cli.generate import chosen_device
from ms2.core.bounds import NonNegativeInt, PositiveInt, Seed
from ms2.core.paths import UserPath
from ms2.core.process_variables import process_number
from ms2.datasets.stream import LabelledStream
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.opened_mixture import Opened, open_models
from ms2.models.scene_model import SceneModel
from ms2.models.shares import Mix
from ms2.world import World

Source = UserPath | FitResult | World | SceneModel | MixedSceneModel


def stream(
    source: Source | Sequence[UserPath | FitResult],
    *,
    mix: Mix | None = None,
    seed: Seed = 0,
    num_samples: PositiveInt | None = None,
    start: NonNegativeInt = 0,
    classes: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    masks: bool = False,
    amodal: bool = False,
    device: str | None = None,
) -> LabelledStream:
    """Make labelled samples while a model is trained on them: image i of the set that `generate` writes with the seed.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, the name of a world, what `fit` or `load`
            returned, or a world; or several runs, whose worlds have the same grammar, classes and renderer.
        mix: With several runs, ``even`` or the weight of each: the shares of their scenes.
        seed: Seed; a sample depends on the seed and its own number alone.
        num_samples: Number of samples of all workers and processes together; None for no end.
        start: Number of the first sample, to go on where training was interrupted.
        classes: Classes to label; all by default.
        conditions: Conditions that all scenes meet, such as ``"car == 5"``.
        masks: Whether annotations have masks.
        amodal: Whether boxes are those of whole objects instead of their visible part.
        device: Device on which samples are made and returned; by default the process's GPU, or the CPU without one.

    Returns:
        A dataset for a DataLoader, whose workers and processes make different samples. On a GPU samples are made in the
        process that trains, with ``num_workers=0``.

    Raises:
        UserError: If there is no such source, sources can't be mixed, or conditions or classes don't fit.

    Example:
        >>> image, annotations = next(iter(ms2.stream("multimnist", device="cpu")))
        >>> image.shape, sorted(annotations)[:3]
        (torch.Size([3, 128, 128]), ['boxes', 'height', 'ignore'])
    """
    opened: Opened | SceneModel | MixedSceneModel
    if isinstance(source, World):
        opened = SceneModel(source)
    elif isinstance(source, SceneModel | MixedSceneModel):
        opened = source
    else:
        plugins.load()
        sources = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
        opened = open_models([str(one.folder if isinstance(one, FitResult) else one) for one in sources], mix)
    return LabelledStream(
        opened,
        seed,
        num_samples,
        start,
        None if classes is None else as_tuple(classes),
        as_tuple(conditions),
        masks,
        amodal,
        device=chosen_device(device, process_number("LOCAL_RANK")),
    )
