"""Message passing over batches of scene graphs (Meta-Sim)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ms2.scene.batch import SceneBatch


class GraphBatch(NamedTuple):
    """Scene graphs as input of a network: N = n + 1 nodes, of which node 0 is the scene.

    Attributes:
        classes: Class of each node; C, the number of classes, for the scene, and C + 1 for padding.
        parents: Parent of each node.
        siblings: Which nodes have the same parent, each node itself included.
        previous: Previous sibling of each node, or the node itself.
        next: Next sibling of each node, or the node itself.
        mask: Which nodes exist, the scene included.
        positions: Position of each node among its siblings: relative position and number, of all and of those of its
            class, and whether the position is odd.
    """

    classes: Int[Tensor, "b N"]
    parents: Int[Tensor, "b N"]
    siblings: Bool[Tensor, "b N N"]
    previous: Int[Tensor, "b N"]
    next: Int[Tensor, "b N"]
    mask: Bool[Tensor, "b N"]
    positions: Float[Tensor, "b N 5"]

    @staticmethod
    def from_scenes(scenes: SceneBatch, num_classes: int) -> "GraphBatch":
        """Build the graphs of scenes."""
        b, device = len(scenes), scenes.classes.device
        classes = torch.where(scenes.mask, scenes.classes, num_classes + 1)
        classes = torch.cat([classes.new_full((b, 1), num_classes), classes], 1)
        mask = classes <= num_classes
        parents = F.pad(scenes.parents + 1, (1, 0))
        group = torch.where(mask, parents, -1)  # siblings have the same group
        group[:, 0] = -2
        siblings = (group[:, :, None] == group[:, None]) & mask[:, None] & mask[:, :, None]
        alike = siblings & (classes[:, :, None] == classes[:, None])
        index = torch.arange(classes.shape[1], device=device)
        earlier, later = index[:, None] > index, index[:, None] < index
        itself = index.expand(b, -1)
        previous = torch.where(siblings & earlier, index, -1).amax(2)
        following = torch.where(siblings & later, index, classes.shape[1]).amin(2)
        positions = []
        for among in (siblings, alike):
            position, size = (among & earlier).sum(2).float(), among.sum(2).float()
            positions += [(position + 0.5) / size.clamp(min=1), (size / 10).clamp(max=4)]
        positions.append((siblings & earlier).sum(2) % 2.0)
        return GraphBatch(
            classes,
            parents,
            siblings | torch.eye(classes.shape[1], dtype=torch.bool, device=device),
            torch.where(previous >= 0, previous, itself),
            torch.where(following < classes.shape[1], following, itself),
            mask,
            torch.stack(positions, 2),
        )


class MessagePassing(nn.Module):
    """One layer of message passing over parent, child and sibling edges.

    Args:
        hidden: Dimension of node features.
        num_heads: Heads of the attention between siblings.
    """

    def __init__(self, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(hidden)
        self.attend, self.attended = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.update = nn.Sequential(nn.Linear(6 * hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, nodes: Float[Tensor, "b N d"], graph: GraphBatch) -> Float[Tensor, "b N d"]:
        """Update node features from those of parent, children and siblings."""
        features = self.norm(nodes)
        query, key, value = self.attend(features).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, graph.siblings[:, None])  # [b heads N d/heads]
        siblings = self.attended(attended.transpose(1, 2).flatten(2))

        def features_of(index: Int[Tensor, "b N"]) -> Float[Tensor, "b N d"]:
            return features.gather(1, index[..., None].expand_as(features))

        masked = features * graph.mask[..., None]
        masked = torch.cat([torch.zeros_like(masked[:, :1]), masked[:, 1:]], 1)  # the scene has no parent
        children = torch.zeros_like(features).scatter_add(1, graph.parents[..., None].expand_as(features), masked)
        number = torch.zeros_like(features[..., 0]).scatter_add(1, graph.parents, graph.mask.to(features.dtype))
        children = children / number.clamp(min=1)[..., None]
        edges = [features_of(graph.parents), children, siblings, features_of(graph.previous), features_of(graph.next)]
        return nodes + self.update(torch.cat([features, *edges], 2))


def num_generations(scenes: SceneBatch) -> int:
    """Compute the number of objects on the longest path from an object up to one without parent; at least 1."""
    ancestor, number = torch.where(scenes.mask, scenes.parents, -1), 1
    while bool((ancestor >= 0).any()):
        ancestor = torch.where(ancestor >= 0, scenes.parents.gather(1, ancestor.clamp(min=0)), -1)
        number += 1
    return number
