"""ONNX networks small enough for a test."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_reshaping(path: Path, shape: list[int], sides: tuple[int | str, int | str] = ("height", "width")) -> Path:
    """Write a network whose output is its input in another shape: what an image's pixels say is what is detected.

    Args:
        path: The file.
        shape: Shape of the output; 0 keeps the batch's size, and -1 is what is left.
        sides: Height and width that it takes, numbers or names.
    """
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *sides])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)
    wanted = helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape)
    node = helper.make_node("Reshape", ["images", "shape"], ["rows"])
    graph = helper.make_graph([node], "reshape", [images], [rows], [wanted])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
