"""Blocks of object attributes: which attributes each holds, of which objects, and how values are encoded."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.features.base import Blocks, CountSlots
from ms2.features.gaps import gap_cdf_from_objects, soft_bins, soft_thresholds
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch

COLUMN, ROW = POSITION = Attribute("column", 0, 1), Attribute("row", 0, 1)
"""Position of a cell on the image, from its left and upper edge; known without being predicted."""


class AttributeEncoding:
    """How values of attributes are encoded, as training targets and in blocks.

    Args:
        bins: Number of thresholds that attributes, and gaps between neighbours, are compared with.
        harmonics: Number of multiples of an angle whose cosine and sine encode it.
        lateral_bins: Number of bins of the attribute that says on which line an object of a block of gaps is.
    """

    def __init__(self, bins: int, harmonics: int, lateral_bins: int) -> None:
        self.bins, self.harmonics, self.lateral_bins = bins, harmonics, lateral_bins

    def size(self, attribute: Attribute) -> int:
        """Return how many numbers are predicted for an attribute."""
        return 2 * self.harmonics if attribute.periodic else 1

    def targets(self, attribute: Attribute, value: Tensor) -> list[Tensor]:
        """Compute the training targets of an attribute: its encoded value, or an angle's cosines and sines."""
        if not attribute.periodic:
            return attribute.encode(value)
        # each multiple by itself: an 8 may be upside down, but twice its angle is well defined
        multiples = [value, *(k * value for k in range(2, self.harmonics + 1))]
        return [f(angle) for angle in multiples for f in (torch.cos, torch.sin)]

    def basis(self, attribute: Attribute, value: Tensor) -> Float[Tensor, "*cells f"]:
        """Compute what an object adds to a block: soft step functions, or the cosines and sines of an angle.

        Args:
            attribute: The attribute.
            value: Its value as a fraction of its bounds; of an angle, its cosines and sines.
        """
        return value if attribute.periodic else soft_thresholds(value, self.bins)


class AttributeBlocks(nn.Module):
    """Blocks of object attributes, and the count slots whose objects each of them holds.

    Args:
        classes: Names of the classes.
        slots: The extractor's count slots.
        encoding: How values are encoded.
        attributes: Attributes of objects that may be named, beside ``column`` and ``row``.
        attribute_blocks: By name, the one or two attributes of a block.
        gap_blocks: By name, the axis of a block of gaps, and the attribute that says on which line (lane) an object is.
        block_classes: By name, the classes whose objects a block holds; all by default.
        per_slot: Names of blocks that are repeated for each slot.
        reserved: Names of the extractor's other blocks, which a block of attributes or gaps may not have.

    Attributes:
        attribute_blocks: Attributes of each block of attributes, by its name in the settings.
        gap_blocks: Attributes of each block of gaps, by its name in the settings.
        groups: By the name of the features' block, its name in the settings and its slots.

    Raises:
        UserError: If a setting names what does not exist, or two blocks have one name.
    """

    def __init__(
        self,
        classes: Sequence[str],
        slots: CountSlots,
        encoding: AttributeEncoding,
        attributes: Sequence[Attribute],
        attribute_blocks: Mapping[str, list[str]],
        gap_blocks: Mapping[str, list[str]],
        block_classes: Mapping[str, list[str]],
        per_slot: Sequence[str],
        reserved: Sequence[str],
    ) -> None:
        super().__init__()
        self.slots, self.encoding = slots, encoding
        known = {a.name: a for a in (*POSITION, *attributes)}
        self.attribute_blocks = _named_attributes(attribute_blocks, known, "attribute_blocks")
        self.gap_blocks = _named_attributes(gap_blocks, known, "gap_blocks")
        for name, (axis, *others) in self.gap_blocks.items():
            if axis not in POSITION:
                raise UserError(
                    f"features.gap_blocks: gaps of block {name!r} can be along column or row, not {axis.name!r}"
                )
            if any(attribute.periodic for attribute in others):
                raise UserError(
                    f"features.gap_blocks: block {name!r} names the angle {others[0].name!r}, which can't be binned"
                )
        _check_block_names([*block_classes, *per_slot], self.attributes_of)
        self.groups: dict[str, tuple[str, list[int]]] = {}
        settings = [("attribute_blocks", name) for name in self.attribute_blocks]
        for setting, name in settings + [("gap_blocks", name) for name in self.gap_blocks]:
            chosen = block_classes.get(name, list(classes))
            _check_classes(name, chosen, classes)
            members = [s for s, number in enumerate(slots.class_ids) if classes[number] in chosen]
            repeated = {f"{name}_{slots.names[s]}": [s] for s in members}
            for block, some in (repeated if name in per_slot else {name: members}).items():
                if block in {*reserved, *self.groups}:
                    raise UserError(f"features.{setting} makes a second block {block!r}; call {name!r} something else")
                self.groups[block] = (name, some)
        # with a last column of False, for objects without a slot
        member = [[s in some for s in range(len(slots))] + [False] for _, some in self.groups.values()]
        self.register_buffer("member", torch.tensor(member).view(-1, len(slots) + 1), persistent=False)

    member: Tensor

    @property
    def attributes_of(self) -> dict[str, list[Attribute]]:
        """Attributes of every block, by its name in the settings."""
        return self.attribute_blocks | self.gap_blocks

    @property
    def predicted(self) -> list[Attribute]:
        """Attributes that must be predicted: all but the position on the image."""
        found = {a.name: a for named in self.attributes_of.values() for a in named if a not in POSITION}
        return list(found.values())

    def from_scenes(self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None) -> Blocks:
        """Compute the true blocks of scenes; those that use positions on the image are missing without ``centres``."""
        slots = self.slots.assign(scenes.classes, scenes.parents)
        values = self._values(scenes, centres, slots >= 0)
        bases = {attribute: self.encoding.basis(attribute, value) for attribute, value in values.items()}
        blocks: Blocks = {}
        is_member = self.member[:, slots].float().unbind(0)
        for (block, (name, members)), of_block in zip(self.groups.items(), is_member, strict=True):
            attributes = self.attributes_of[name]
            if not bases.keys() >= set(attributes):
                continue
            if name in self.gap_blocks:
                position, *others = (values[a] for a in attributes)
                weight = torch.ones_like(position)[..., None]
                for value in others:
                    weight = soft_bins(value, self.encoding.lateral_bins)
                own = torch.stack([slots == slot for slot in members], 2)
                lines = (own[..., None] * weight[:, :, None]).flatten(2)
                blocks[block] = gap_cdf_from_objects(position, lines, self.encoding.bins)
                continue
            first, *more = (bases[a] for a in attributes)
            if more:
                blocks[block] = torch.einsum("bn,bnf,bng->bfg", of_block, first, more[0]).flatten(1)
            else:
                blocks[block] = torch.einsum("bn,bnf->bf", of_block, first)
        return blocks

    def _values(
        self, scenes: SceneBatch, centres: Float[Tensor, "b n 2"] | None, exists: Bool[Tensor, "b n"]
    ) -> dict[Attribute, Tensor]:
        """Compute the values of attributes as `AttributeEncoding.basis` takes them; zeros where there is no object."""
        values: dict[Attribute, Tensor] = {}
        for attribute in {a for named in self.attributes_of.values() for a in named}:
            # padding may hold NaN, which multiplying by a mask would keep
            if attribute not in POSITION:
                value = torch.where(exists, scenes.value(attribute), 0.0)
                targets = torch.stack(self.encoding.targets(attribute, value), -1)
                values[attribute] = targets if attribute.periodic else (targets[..., 0] + 1) / 2
            elif centres is not None:
                values[attribute] = torch.where(exists, centres[..., POSITION.index(attribute)], 0.0)
        return values


def _named_attributes(
    blocks: Mapping[str, list[str]], known: dict[str, Attribute], setting: str
) -> dict[str, list[Attribute]]:
    """Look up the attributes of each block by their names."""
    for name, words in blocks.items():
        for word in words:
            if word not in known:
                raise UserError(
                    f"features.{setting}: there is no attribute {word!r} to predict. {suggest(word, known)}"
                )
        if len(words) not in (1, 2):
            raise UserError(f"features.{setting}: block {name!r} must name one or two attributes, not {len(words)}")
        if len(set(words)) < len(words):
            raise UserError(f"features.{setting}: block {name!r} names {words[0]!r} twice; name it once")
    return {name: [known[word] for word in words] for name, words in blocks.items()}


def _check_block_names(names: Sequence[str], blocks: Mapping[str, object]) -> None:
    """Raise UserError for names of blocks that do not exist."""
    for name in names:
        if name not in blocks:
            raise UserError(
                f"features.block_classes or per_slot names an unknown block {name!r}. {suggest(name, blocks)}"
            )


def _check_classes(block: str, chosen: Sequence[str], classes: Sequence[str]) -> None:
    """Raise UserError if a block has no class, or one that the world lacks."""
    if not chosen:
        raise UserError(
            f"features.block_classes gives block {block!r} no class: name some, or leave it out for all of them"
        )
    for name in chosen:
        if name not in classes:
            raise UserError(
                f"features.block_classes names a class {name!r} that the world lacks. {suggest(name, classes)}"
            )
