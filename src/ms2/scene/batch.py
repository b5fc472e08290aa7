"""Batches of scenes: objects with attributes and parents, as padded tensors."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.grammar.derivations import last_in_chain, steps_of
from ms2.grammar.grammar import Grammar
from ms2.scene.attributes import Attribute


@dataclass(frozen=True)
class SceneBatch:
    """b scenes of at most n objects with attributes.

    Objects are in the order of the derivation; unused entries, after a scene's last object, have class -1.

    Attributes:
        classes: Class of each object, an index into the grammar's ``classes``.
        parents: Index of the parent object, the nearest renderable ancestor, or -1.
        attributes: Attributes of each object by name.
        environment: Attributes of the scene as a whole by name, such as its ground and light.

    Example:
        >>> scenes = world.sample_prior(4, generator(0, "example"))
        >>> len(scenes), len(scenes[:2]), scenes.attributes["x"].shape == scenes.classes.shape
        (4, 2, True)
    """

    classes: Int[Tensor, "b n"]
    parents: Int[Tensor, "b n"]
    attributes: dict[str, Float[Tensor, "b n"]] = field(default_factory=dict)
    environment: dict[str, Float[Tensor, " b"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: Tensor | slice) -> "SceneBatch":
        """Select scenes."""
        attributes = {name: values[index] for name, values in self.attributes.items()}
        environment = {name: values[index] for name, values in self.environment.items()}
        return SceneBatch(self.classes[index], self.parents[index], attributes, environment)

    def to(self, device: torch.device) -> "SceneBatch":
        """Move to a device."""
        attributes = {name: values.to(device) for name, values in self.attributes.items()}
        environment = {name: values.to(device) for name, values in self.environment.items()}
        return SceneBatch(self.classes.to(device), self.parents.to(device), attributes, environment)

    @property
    def mask(self) -> Bool[Tensor, "b n"]:
        """Return which entries are objects."""
        return self.classes >= 0

    def parent_values(self, values: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Gather the parent's value for each object; 0 without a parent."""
        return F.pad(values, (1, 0)).gather(1, self.parents + 1)

    def value(self, attribute: Attribute) -> Float[Tensor, "b n"]:
        """Return the values of an attribute; the difference to the parent's if it is relative."""
        values = self.attributes[attribute.name]
        return values - self.parent_values(values) if attribute.relative else values

    def with_attributes(self, **attributes: Float[Tensor, "b n"]) -> "SceneBatch":
        """Return the scenes with attributes of objects added or replaced."""
        return replace(self, attributes=self.attributes | attributes)

    def with_environment(self, **environment: Float[Tensor, " b"]) -> "SceneBatch":
        """Return the scenes with attributes of the scene as a whole added or replaced."""
        return replace(self, environment=self.environment | environment)

    def compact(self, trim: bool = True) -> "SceneBatch":
        """Move each scene's objects to the first entries, in order.

        Args:
            trim: Whether to cut off entries that no scene uses, for which the device has to be waited for.
        """
        width = (max(1, int(self.mask.sum(1).max())) if len(self) else 1) if trim else self.classes.shape[1]
        order = (~self.mask).long().argsort(dim=1, stable=True)
        parents = torch.where(self.parents >= 0, order.argsort(1).gather(1, self.parents.clamp(min=0)), -1)

        def sorted_values(values: Tensor) -> Tensor:
            return values.gather(1, order)[:, :width]

        attributes = {name: sorted_values(values) for name, values in self.attributes.items()}
        return SceneBatch(sorted_values(self.classes), sorted_values(parents), attributes, self.environment)

    def counts(self, num_classes: int) -> Int[Tensor, "b c"]:
        """Count the objects of each class in each scene."""
        counts = self.classes.new_zeros(len(self), num_classes + 1)
        index = torch.where(self.mask, self.classes, num_classes)
        return counts.scatter_add_(1, index, torch.ones_like(index))[:, :num_classes]


def scenes_from_derivations(grammar: Grammar, rules: Int[Tensor, "b t"], width: int | None = None) -> SceneBatch:
    """Convert derivations to scenes: the renderable symbols of their trees are the objects.

    Args:
        grammar: The grammar.
        rules: The derivations.
        width: Number of entries of each scene, for as many objects at least; by default the largest number of objects
            of any, which has to be read from the device.
    """
    tensors = grammar.tensors(rules.device)
    steps = steps_of(grammar, rules)
    entry = torch.arange(steps.rule.shape[1], device=rules.device).expand_as(steps.rule)
    emitted = tensors.emit[steps.rule]  # [b s e]
    number = (emitted >= 0).sum(2)
    end = number.cumsum(1)
    place = end - number  # of each step's first object
    owns = tensors.owns[steps.rule]
    owner = last_in_chain(torch.where(owns, entry, steps.producer))  # entry 0 where no object is above
    inside = torch.where(owner > 0, place.gather(1, owner), -1)
    # the parent of the expanded symbol's own node is the one above it, that of the rule's terminals is this node
    above = inside[..., None].repeat(1, 1, emitted.shape[2])
    above[..., 0] = torch.where(owns, inside.gather(1, steps.producer), inside)
    used = width or (max(1, int(end[:, -1].max())) if len(rules) else 1)
    column = torch.where(emitted >= 0, place[..., None] + torch.arange(emitted.shape[2], device=rules.device), used)
    nothing = torch.full((len(rules), used + 1), -1, device=rules.device)
    classes, parents = (nothing.scatter(1, column.flatten(1), of.flatten(1))[:, :used] for of in (emitted, above))
    return SceneBatch(classes.contiguous(), parents.contiguous())
