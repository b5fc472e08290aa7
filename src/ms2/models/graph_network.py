"""A graph network over scene graphs (Meta-Sim)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.scene.batch import SceneBatch


class Graph(NamedTuple):
    """Scene graphs as the network reads them: N = n + 1 nodes, of which the first is the scene itself.

    Attributes:
        kinds: Class of each node; one more for the scene, two more where there is none.
        parents: Node that each hangs from.
        siblings: Which nodes hang from the same; of a node without any, itself.
        before: Sibling before each, or itself.
        after: Sibling after each, or itself.
        there: Which nodes there are, the scene included.
        places: Each one's place among its siblings, of all classes and of its own: number, their number, and so on.
    """

    kinds: Int[Tensor, "b N"]
    parents: Int[Tensor, "b N"]
    siblings: Bool[Tensor, "b N N"]
    before: Int[Tensor, "b N"]
    after: Int[Tensor, "b N"]
    there: Bool[Tensor, "b N"]
    places: Float[Tensor, "b N 5"]

    @staticmethod
    def of(scenes: SceneBatch, classes: int) -> "Graph":
        """The graphs of scenes."""
        b, device = len(scenes), scenes.classes.device
        kinds = torch.where(scenes.mask, scenes.classes, classes + 1)
        kinds = torch.cat([kinds.new_full((b, 1), classes), kinds], 1)
        there = kinds <= classes
        parents = F.pad(scenes.parents + 1, (1, 0))
        row = torch.where(there, parents, -1)
        row[:, 0] = -2
        siblings = (row[:, :, None] == row[:, None]) & there[:, None] & there[:, :, None]
        alike = siblings & (kinds[:, :, None] == kinds[:, None])
        number = torch.arange(kinds.shape[1], device=device)
        earlier, later = number[:, None] > number, number[:, None] < number
        here = number.expand(b, -1)
        before = torch.where(siblings & earlier, number, -1).amax(2)
        after = torch.where(siblings & later, number, kinds.shape[1]).amin(2)
        places = []
        for row_ in (siblings, alike):
            place, size = (row_ & earlier).sum(2).float(), row_.sum(2).float()
            places += [(place + 0.5) / size.clamp(min=1), (size / 10).clamp(max=4)]
        places.append((siblings & earlier).sum(2) % 2.0)
        return Graph(
            kinds,
            parents,
            siblings | torch.eye(kinds.shape[1], dtype=torch.bool, device=device),
            torch.where(before >= 0, before, here),
            torch.where(after < kinds.shape[1], after, here),
            there,
            torch.stack(places, 2),
        )


class Messages(nn.Module):
    """One round of messages along the edges of scene graphs.

    Args:
        width: Numbers that describe a node.
        heads: Heads of the attention between siblings.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.attend, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.update = nn.Sequential(nn.Linear(6 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, nodes: Float[Tensor, "b N d"], graph: Graph) -> Float[Tensor, "b N d"]:
        """Nodes that have heard from their parent, children and siblings."""
        heard = self.norm(nodes)
        query, key, value = self.attend(heard).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        siblings = F.scaled_dot_product_attention(query, key, value, graph.siblings[:, None])

        def of(index: Int[Tensor, "b N"]) -> Float[Tensor, "b N d"]:
            return heard.gather(1, index[..., None].expand_as(heard))

        kept = heard * graph.there[..., None]
        kept = torch.cat([torch.zeros_like(kept[:, :1]), kept[:, 1:]], 1)  # the scene is nobody's child
        children = torch.zeros_like(heard).scatter_add(1, graph.parents[..., None].expand_as(heard), kept)
        number = torch.zeros_like(heard[..., 0]).scatter_add(1, graph.parents, graph.there.to(heard.dtype))
        children = children / number.clamp(min=1)[..., None]
        rows = self.attended(siblings.transpose(1, 2).flatten(2))
        return nodes + self.update(
            torch.cat([heard, of(graph.parents), children, rows, of(graph.before), of(graph.after)], 2)
        )


def _generations(scenes: SceneBatch) -> int:
    """How many objects the longest line from an object up to one without parents has, both included; at least 1."""
    above, number = torch.where(scenes.mask, scenes.parents, -1), 1
    while bool((above >= 0).any()):
        above, number = torch.where(above >= 0, scenes.parents.gather(1, above.clamp(min=0)), -1), number + 1
    return number
