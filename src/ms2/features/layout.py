"""An extractor that reads parameters too: where objects are, how they are turned, what the light is like."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.features.base import AttributeExtractor, Blocks
from ms2.features.dense import DenseCounts
from ms2.features.gaps import gaps_of_objects, gaps_on_rows, steps, strips
from ms2.render.base import Rendering
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch

PLACE = (Attribute("column", 0, 1), Attribute("row", 0, 1))
"""What every cell knows without having learned it: where on the image it is, from its left and upper edge."""
GLANCE = (4, 8)
"""Rows and columns of the small picture by which the light is judged."""


class DenseLayout(DenseCounts, AttributeExtractor):
    """`DenseCounts` that also says of each cell how the object there is placed, and of the image what its light is.

    Not in the paper, nor in Meta-Sim, which match embeddings of whole images. Parameters of prior samples are as free
    as their labels, so an extractor can be told of them; then features hold what is to be learned, and kernels
    compare nothing else.

    Blocks, beside those of `DenseCounts`: for each name in ``attribute_blocks`` what objects add up to, each of them
    its place on an axis, as a row of soft steps that begin where it stands: how many objects lie to the left of each of
    ``bins`` places. An angle adds its sines and cosines, up to ``harmonics``-fold, and two attributes all products of
    theirs. Two scenes are as far from each other as objects would have to be moved, however far, so that there always
    is a gradient. For each name in ``gap_blocks``, the share of gaps between an object and the next in its row that are
    smaller than each of ``bins`` distances. And ``environment``, the parameters of the scene as a whole.

    Args:
        channels: Channels of an image.
        classes: Names of the classes.
        attributes: Attributes of objects that it may be told of.
        environment: Attributes of scenes that it may be told of.
        attribute_blocks: By the name of a block, the attributes that it holds: one or two of the world's, or ``column``
            and ``row``, which are the place on the image.
        gap_blocks: By the name of a block, ``column`` or ``row``, along which rows run, and after it, if objects of the
            same slot stand in several rows, the attribute that says in which of ``strips``.
        strips: Strips between the bounds of that attribute, such as a road's two lanes.
        block_classes: By block, the classes whose objects it holds; all by default.
        per_slot: Blocks that there are one of for each slot, as of the cars on the first road: ``spots_car_1``.
        bins: Steps along an axis; sizes of gaps.
        harmonics: Multiples of an angle.
        widths: Channels of the three residual blocks.
        strides: Strides of the three blocks; their product is the side of a cell in pixels.
        empty_weight: Weight of cells without an object in the loss.
        max_count: Most objects that are told apart, for all or by class.
        by_parent: Classes whose objects are counted apart for each object that they may belong to, and how many of
            those.
        count_width: Standard deviation of a number's bump in the blocks of counts.
        least_visible: Visible share of an object below which the network is not told of it.
        levels: Coarser maps that each cell is told of, each half as fine as the one before.
        count_threshold: By class, how much of an object must be expected at a place to be counted.

    Example:
        >>> attributes = world.mutable_attributes
        >>> features = DenseLayout(1, world.classes, attributes, attribute_blocks={"columns": ["column"], "y": ["y"]})
        >>> sorted(features(world.renderer.render(world.sample_prior(4, generator(0, "example")))))
        ['classes', 'columns', 'count', 'y']
    """

    def __init__(
        self,
        channels: int,
        classes: Sequence[str],
        attributes: Sequence[Attribute] = (),
        environment: Sequence[Attribute] = (),
        attribute_blocks: dict[str, list[str]] | None = None,
        gap_blocks: dict[str, list[str]] | None = None,
        strips: int = 2,
        block_classes: dict[str, list[str]] | None = None,
        per_slot: list[str] | None = None,
        bins: int = 16,
        harmonics: int = 2,
        widths: tuple[int, int, int] = (16, 32, 64),
        strides: tuple[int, int, int] = (2, 2, 1),
        empty_weight: float = 0.2,
        max_count: int | dict[str, int] = 10,
        by_parent: dict[str, int] | None = None,
        count_width: float = 0.4,
        least_visible: float = 0.0,
        levels: int = 0,
        count_threshold: dict[str, float] | None = None,
    ) -> None:
        super().__init__(
            channels,
            classes,
            widths,
            strides,
            empty_weight,
            max_count,
            by_parent,
            count_width,
            least_visible,
            levels,
            count_threshold,
        )
        if min(bins, harmonics, strips) < 1:
            raise UserError(f"bins, harmonics and strips must be at least 1, not {bins}, {harmonics} and {strips}")
        known = {a.name: a for a in (*PLACE, *attributes)}
        self.attribute_blocks, self.gap_blocks = (
            _known(attribute_blocks or {}, known, "attribute_blocks"),
            _known(gap_blocks or {}, known, "gap_blocks"),
        )
        for name, (along, *across) in self.gap_blocks.items():
            if along not in PLACE:
                raise UserError(
                    f"features.gap_blocks: rows of block {name!r} can run along column or row, not {along.name!r}"
                )
            if any(attribute.periodic for attribute in across):
                raise UserError(
                    f"features.gap_blocks: block {name!r} names the angle {across[0].name!r}, which has no strips"
                )
        self.groups = self._groups(list(classes), block_classes or {}, per_slot or [])
        named = [*self.attribute_blocks.values(), *self.gap_blocks.values()]
        learned = {a.name: a for words in named for a in words if a not in PLACE}
        self.learned, self.around = list(learned.values()), list(environment)
        self.bins, self.harmonics, self.strips = bins, harmonics, strips
        width = widths[-1]
        self.register_buffer("asked", self._asked(), persistent=False)
        # weights that nothing is asked of have no gradient, which training on several devices takes for an error
        self.tell: nn.Module = nn.Identity()
        self.judge: nn.Module = nn.Identity()
        if self.learned:
            numbers = self.asked.shape[1]
            self.tell = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, numbers, 1))
        if self.around:
            seen = 2 * width + 2 * channels * GLANCE[0] * GLANCE[1]
            outputs = sum(1 + a.periodic for a in self.around)
            self.judge = nn.Sequential(
                nn.Linear(seen, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs)
            )

    asked: Tensor

    def _groups(
        self, classes: list[str], block_classes: dict[str, list[str]], per_slot: list[str]
    ) -> dict[str, tuple[str, list[int]]]:
        """By block, what is read and in which slots."""
        named = [("attribute_blocks", name) for name in self.attribute_blocks] + [
            ("gap_blocks", name) for name in self.gap_blocks
        ]
        for name in (*block_classes, *per_slot):
            if name not in self.attribute_blocks | self.gap_blocks:
                raise UserError(
                    f"features.block_classes or per_slot names a block {name!r} that is not read. "
                    f"{suggest(name, self.attribute_blocks | self.gap_blocks)}"
                )
        groups: dict[str, tuple[str, list[int]]] = {}
        for where, name in named:
            chosen = block_classes.get(name, classes)
            if not chosen:
                raise UserError(
                    f"features.block_classes gives block {name!r} no class: name some, or leave it out for all of them"
                )
            for word in chosen:
                if word not in classes:
                    raise UserError(
                        f"features.block_classes names a class {word!r} that the world lacks. {suggest(word, classes)}"
                    )
            slots = [s for s, kind in enumerate(self.slots.kind) if classes[kind] in chosen]
            blocks = {f"{name}_{self.slots.names[s]}": [s] for s in slots} if name in per_slot else {name: slots}
            for block, members in blocks.items():
                if block in {"classes", "environment", *self.counted, *groups}:
                    raise UserError(f"features.{where} makes a second block {block!r}; call {name!r} something else")
                groups[block] = (name, members)
        return groups

    def _asked(self) -> Bool[Tensor, "s n"]:
        """By slot, which of the n numbers that are said of a cell are read of its objects."""
        asked = torch.zeros(len(self.slots), len(self.learned), dtype=torch.bool)
        for name, slots in self.groups.values():
            for k, attribute in enumerate(self.learned):
                asked[slots, k] |= attribute in (self.attribute_blocks | self.gap_blocks)[name]
        return asked.repeat_interleave(torch.tensor([self._size(a) for a in self.learned], dtype=torch.long), 1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Blocks of counts, of what is read of objects, and of the scene as a whole."""
        maps = self._maps(images)
        masses = self.masses(self.head(maps))
        blocks = self.blocks_of(masses.sum((2, 3)))
        values = self._values(maps)
        bases = {a: self._basis(a, values[a.name]) for words in self.attribute_blocks.values() for a in words}
        for name, attributes in self.attribute_blocks.items():
            groups = {block: slots for block, (read, slots) in self.groups.items() if read == name}
            mass = torch.stack([masses[:, slots].sum(1) for slots in groups.values()], 1)
            blocks |= zip(groups, _added(mass, {a: bases[a] for a in attributes}).unbind(1), strict=True)
        for block, (name, slots) in self.groups.items():
            if name in self.gap_blocks:
                blocks[block] = gaps_on_rows(self._rows(masses[:, slots], self.gap_blocks[name], values), self.bins)
        if self.around:
            blocks["environment"] = self._judged(images, maps)
        return blocks

    def _rows(
        self, mass: Float[Tensor, "b s i j"], axes: list[Attribute], values: dict[str, Tensor]
    ) -> Float[Tensor, "b r c"]:
        """Mass of each slot and strip at each place along an axis, the first of those that a block of gaps names."""
        along, *across = axes
        on = torch.ones(1, 1, 1, 1, device=mass.device)
        for attribute in across:
            value = values[attribute.name]
            # a place on the image is the same for all of a row or column
            value = {PLACE[0]: value[None, None], PLACE[1]: value[None, :, None]}.get(attribute, value)
            on = strips(value, self.strips)
        return (mass[..., None] * on[:, None]).sum(2 if along == PLACE[0] else 3).transpose(2, 3).flatten(1, 2)

    def truth(self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None) -> Blocks:
        """What is read of objects and of the scene as a whole, as it would be read without an error.

        Objects that are hidden count as well. Blocks of places are missing where nobody knows these.
        """
        slots = self.slots.of(scenes.classes, scenes.parents, strict=False)
        values: dict[Attribute, Tensor] = {}
        for attribute in {a for words in (*self.attribute_blocks.values(), *self.gap_blocks.values()) for a in words}:
            # what is nowhere may be no number, which masks don't stop
            if attribute not in PLACE:
                value = torch.where(slots >= 0, scenes.value(attribute), 0.0)
                numbers = torch.stack(self._numbers(attribute, value), -1)
                values[attribute] = numbers if attribute.periodic else (numbers[..., 0] + 1) / 2
            elif centres is not None:
                values[attribute] = torch.where(slots >= 0, centres[..., PLACE.index(attribute)], 0.0)
        bases = {attribute: self._basis(attribute, value) for attribute, value in values.items()}
        blocks: Blocks = {}
        for block, (name, members) in self.groups.items():
            words = (self.attribute_blocks | self.gap_blocks)[name]
            if not bases.keys() >= set(words):
                continue
            if name in self.gap_blocks:
                along, *across = (values[a] for a in words)
                on = strips(across[0], self.strips) if across else torch.ones_like(along)[..., None]
                own = slots[..., None] == slots.new_tensor(members)
                blocks[block] = gaps_of_objects(along, (own[..., None] * on[:, :, None]).flatten(2), self.bins)
                continue
            there = torch.isin(slots, slots.new_tensor(members)).float()
            first, *more = (bases[a] for a in words)
            if more:
                blocks[block] = torch.einsum("bn,bnf,bng->bfg", there, first, more[0]).flatten(1)
            else:
                blocks[block] = torch.einsum("bn,bnf->bf", there, first)
        if self.around:
            blocks["environment"] = torch.stack(
                [v for a in self.around for v in a.encode(scenes.environment[a.name])], 1
            )
        return blocks

    def loss(
        self, images: Float[Tensor, "b c h w"], labels: Rendering, scenes: SceneBatch | None = None
    ) -> Float[Tensor, ""]:
        """That of `DenseCounts`, and the mean squared errors of what is said of objects and of the scene.

        Raises:
            UserError: If there are parameters to be told of, and no scenes that have them.
        """
        maps = self._maps(images)
        loss = self._loss(self.head(maps), labels)
        if not self.learned and not self.around:
            return loss
        if scenes is None:
            raise UserError("DenseLayout reads parameters, so its loss needs the scenes that images show")
        if self.learned:
            loss = loss + self._error(maps, labels, scenes)
        if self.around:
            true = torch.stack([v for a in self.around for v in a.encode(scenes.environment[a.name])], 1)
            loss = loss + F.mse_loss(self._judged(images, maps), true)
        return loss

    def _error(self, maps: Float[Tensor, "b k i j"], labels: Rendering, scenes: SceneBatch) -> Float[Tensor, ""]:
        """Mean squared error at the cells that hold a share of an object, weighted by the share.

        Only objects of which an attribute is read count: bounds are those of what may be learned, and others may lie
        far beyond them, a house's distance from its road, say, which it has none of.
        """
        told, slots = self.tell(maps), self._taught(labels)
        true = torch.stack([v for a in self.learned for v in self._numbers(a, scenes.value(a))], 2)
        total = weight = maps.new_zeros(told.shape[1])
        for where, row, column, share in self._shares(labels, slots, *maps.shape[2:]):
            said = told[where[0], :, row, column]
            weights = self.asked[slots[where]] * share[:, None]
            total = total + ((said - true[where]).square() * weights).sum(0)
            weight = weight + weights.sum(0)
        return (total / weight.clamp(min=1)).mean()

    def _values(self, maps: Float[Tensor, "b k i j"]) -> dict[str, Tensor]:
        """What each cell says of each attribute: a share of the way between its bounds, or cosines and sines."""
        found: dict[str, Tensor] = {}
        for attribute, size in zip(PLACE, (maps.shape[3], maps.shape[2]), strict=True):
            found[attribute.name] = (torch.arange(size, device=maps.device) + 0.5) / size
        if self.learned:
            told = self.tell(maps).unbind(1)
            for attribute in self.learned:
                size = self._size(attribute)
                mine, told = told[:size], told[size:]
                found[attribute.name] = torch.stack(mine, -1) if attribute.periodic else (mine[0] + 1) / 2
        return found

    def _size(self, attribute: Attribute) -> int:
        """How many numbers the network says of an attribute."""
        return 2 * self.harmonics if attribute.periodic else 1

    def _numbers(self, attribute: Attribute, value: Tensor) -> list[Tensor]:
        """What the network is taught to say of a value: of an angle, whose mean says nothing, cosines and sines."""
        if not attribute.periodic:
            return attribute.encode(value)
        # each multiple by itself: an 8 may stand on its head, but twice its angle can be told
        return [f(k * value) for k in range(1, self.harmonics + 1) for f in (torch.cos, torch.sin)]

    def _basis(self, attribute: Attribute, value: Tensor) -> Float[Tensor, "*cells f"]:
        """Numbers that stand for a value: soft steps along the axis, or cosines and sines of multiples of an angle."""
        if attribute.periodic:
            return value
        return steps(value, self.bins)

    def _judged(self, images: Float[Tensor, "b c h w"], maps: Float[Tensor, "b k i j"]) -> Float[Tensor, "b e"]:
        """What the scene as a whole is like."""
        small = F.adaptive_avg_pool2d(images, GLANCE)
        square = F.adaptive_avg_pool2d(images.square(), GLANCE)
        spread = (square - small.square()).clamp(min=1e-6).sqrt()
        looks = [maps.mean((2, 3)), maps.flatten(2).std(2), 4 * (small.flatten(1) - 0.4), 8 * (spread.flatten(1) - 0.1)]
        return self.judge(torch.cat(looks, 1))


def _known(named: dict[str, list[str]], known: dict[str, Attribute], where: str) -> dict[str, list[Attribute]]:
    """By block, the attributes that go by these names."""
    for name, words in named.items():
        for word in words:
            if word not in known:
                raise UserError(f"features.{where}: there is no attribute {word!r} to be read. {suggest(word, known)}")
        if len(words) not in (1, 2):
            raise UserError(f"features.{where}: block {name!r} must name one or two attributes, not {len(words)}")
        if len(set(words)) < len(words):
            raise UserError(f"features.{where}: block {name!r} names {words[0]!r} twice; name it once")
    return {name: [known[word] for word in words] for name, words in named.items()}


def _added(mass: Float[Tensor, "b s i j"], bases: dict[Attribute, Tensor]) -> Float[Tensor, "b s f"]:
    """Sum over cells of their mass times the products of their bases."""
    axes = {PLACE[0]: "j", PLACE[1]: "i"}
    # what every cell says by itself is added up first: places along an axis are then few
    order = sorted(bases, key=lambda attribute: attribute in axes)
    letters = dict(zip(bases, "fg", strict=False))
    terms = [axes.get(attribute, "bij") + letters[attribute] for attribute in order]
    result = "bs" + "".join(letters.values())
    return torch.einsum(f"bsij,{','.join(terms)}->{result}", mass, *(bases[a] for a in order)).flatten(2)
