"""Triangulation of polygons."""

from collections.abc import Sequence

Corner = Sequence[float]


def triangulate(corners: Sequence[Corner]) -> list[tuple[int, int, int]]:
    """Divide a polygon in space into triangles with its own corners and its orientation, by clipping ears.

    Convex polygons become fans around the first corner. A polygon that crosses itself, or has no area, has no
    triangulation; its remainder becomes a fan.

    Args:
        corners: Positions of the n corners in order, x, y and z each.

    Returns:
        The n - 2 triangles, as indices of corners.

    Example:
        >>> triangulate([(0, 0, 0), (4, 0, 0), (1, 1, 0), (0, 4, 0)])
        [(3, 0, 2), (0, 1, 2)]
    """
    points = _projected(corners)
    left = list(range(len(points)))
    triangles = []
    while len(left) > 3 and not _is_convex([points[i] for i in left]):
        ear = next((i for i in range(len(left)) if _is_ear(points, left, i)), None)
        if ear is None:
            break
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    return triangles + [(left[0], left[i], left[i + 1]) for i in range(1, len(left) - 1)]


def _projected(corners: Sequence[Corner]) -> list[tuple[float, float]]:
    """Project a polygon along the axis nearest to its normal, so that it turns counter-clockwise."""
    normal = [0.0, 0.0, 0.0]
    for here, there in zip(corners, [*corners[1:], corners[0]], strict=True):  # Newell's method
        for axis in range(3):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            normal[axis] += (here[a] - there[a]) * (here[b] + there[b])
    axis = max(range(3), key=lambda k: abs(normal[k]))
    a, b = ((axis + 1) % 3, (axis + 2) % 3)[:: 1 if normal[axis] >= 0 else -1]
    return [(float(corner[a]), float(corner[b])) for corner in corners]


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Compute twice the area of a triangle: positive if it turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _is_convex(points: Sequence[tuple[float, float]]) -> bool:
    """Return whether all triangles of the fan around the first corner, and all corners, turn left."""
    number = len(points)
    corners = all(_turn(points[i - 1], points[i], points[(i + 1) % number]) >= 0 for i in range(number))
    return corners and all(_turn(points[0], points[i], points[i + 1]) >= 0 for i in range(1, number - 1))


def _is_ear(points: Sequence[tuple[float, float]], left: Sequence[int], i: int) -> bool:
    """Return whether the corner sticks out, and no other one lies in the triangle with its neighbours."""
    a, b, c = points[left[i - 1]], points[left[i]], points[left[(i + 1) % len(left)]]
    if _turn(a, b, c) <= 0:
        return False
    others = (points[k] for k in left if points[k] not in (a, b, c))
    return not any(_turn(a, b, p) >= 0 and _turn(b, c, p) >= 0 and _turn(c, a, p) >= 0 for p in others)
