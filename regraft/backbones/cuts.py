"""Where a network can be cut in two."""

from typing import TYPE_CHECKING

from regraft.errors import InvalidParams

if TYPE_CHECKING:
    import keras


def cut_points(model: "keras.Model") -> list[str]:
    """Return the names of the layers through whose single output every path from input to output goes, in order.

    Walk the layers in the order in which they are computed and keep the set of outputs that a later layer still needs.
    Where that set holds just the newest output, everything after depends on it alone, and the network can be cut there.

    Args:
        model: a functional model with one input and one output.
    """
    order = [
        operation for depth in sorted(model._nodes_by_depth, reverse=True) for operation in model._nodes_by_depth[depth]
    ]
    last_use: dict[int, int] = {}
    for position, node in enumerate(order):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = position
    needed: set[int] = set()
    points = []
    for position, node in enumerate(order):
        needed = {tensor for tensor in needed if last_use[tensor] > position}
        needed |= {id(tensor) for tensor in node.outputs if last_use.get(id(tensor), -1) > position}
        if len(node.outputs) == 1 and needed == {id(node.outputs[0])} and not node.is_input:
            points.append(node.operation.name)
    return points


def checked_cut(model: "keras.Model", cut: str) -> str:
    """Return `cut`, or raise InvalidParams with the possible ones if the network cannot be cut there."""
    points = cut_points(model)
    if cut not in points:
        raise InvalidParams(
            f"backbone.cut: {model.name} cannot be cut after '{cut}'. Expected auto, or one of: {', '.join(points)}."
        )
    return cut
