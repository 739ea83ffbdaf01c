"""What layers are called in the layer list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence


def name_layers(locations: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Name each volume by the shortest end of its address that no other one shares.

    `a/seg.zarr` and `b/seg.zarr` keep their folder; two classes of one output are called as the classes.

    Args:
        locations: paths or URLs, all different.
        taken: names of other layers.

    Returns:
        One name per location, in their order, all different and none of them taken.
    """
    whole = [location.rstrip("/") for location in locations]
    parts = [[part for part in location.split("/") if part not in ("", ".")] for location in whole]
    names: dict[int, str] = {}
    for depth in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(p[-depth:]) if depth < len(p) else end for p, end in zip(parts, whole, strict=True)]
        shared = Counter(ends)
        for index, end in enumerate(ends):
            if index not in names and shared[end] == 1 and end not in taken:
                names[index] = end
    # Only an address of one part that is taken, such as an output called `image`, is left without a name.
    return [names.get(index, f"{location} (segmentation)") for index, location in enumerate(whole)]
