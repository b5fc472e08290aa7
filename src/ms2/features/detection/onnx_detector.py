"""Object detectors in ONNX files, run by onnxruntime."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import BatchSize, Bounds, Dimension, PositiveFloat
from ms2.core.errors import UserError, missing_extra
from ms2.core.hashing import sha256
from ms2.core.paths import UserPath, expand_path
from ms2.features.backbone import WeightsError
from ms2.features.base import PretrainedWeights, weights_fingerprint
from ms2.features.detection.detections import Detections
from ms2.features.detection.object_detector import ObjectDetector, coco_categories

NUM_CANDIDATES = 300
"""Boxes of an image that are kept of the thousands that a network returns, those of the highest scores."""
Layout = Literal["yolox", "yolov8"]
PaddingValue = Annotated[float, Bounds(ge=0, le=255)]
"""Value of a pixel of an image whose white is 1 or 255."""


def decode_yolox(rows: Float[Tensor, "b n k5"]) -> Detections:
    """Decode YOLOX's output: centre x, y, width, height in pixels, objectness, then k probabilities of categories.

    The score is the product of objectness and probability (Ge et al. 2021, https://arxiv.org/abs/2107.08430).
    """
    probability, category = rows[..., 5:].max(2)
    return Detections(_corners(rows[..., :4]), probability * rows[..., 4], category)


def decode_yolov8(columns: Float[Tensor, "b k4 n"]) -> Detections:
    """Decode the output of YOLOv8 and its successors: as YOLOX's without objectness, transposed."""
    rows = columns.transpose(1, 2)
    probability, category = rows[..., 4:].max(2)
    return Detections(_corners(rows[..., :4]), probability, category)


LAYOUTS: dict[Layout, tuple[Callable[[Tensor], Detections], int]] = {
    "yolox": (decode_yolox, 2),
    "yolov8": (decode_yolov8, 1),
}
"""Function that decodes each layout of outputs, and the dimension of the output along which an object's numbers lie."""
NUM_BOX_NUMBERS: dict[Layout, int] = {"yolox": 5, "yolov8": 4}
"""Numbers of an object before the probabilities of its categories."""


class OnnxDetector(ObjectDetector):
    """Detector in an ONNX file with batches of any size; needs onnxruntime, an extra: ``pip install 'ms2[onnx]'``.

    Images are padded at the bottom and on the right.

    Args:
        file: The ONNX file, such as YOLOX's trained on COCO. Its first input are RGB images, its first output boxes.
        layout: Layout of the output: ``yolox`` is ``[b, n, 5 + k]``, ``yolov8`` is ``[b, 4 + k, n]``.
        categories: Names of the k categories; COCO's 80 by default.
        max_pixel: Value of a white pixel in the input.
        stride: Divisor of the sides that images are padded to.
        padding: Value of the pixels that are added, from 0 to ``max_pixel``.
        batch_size: Images that the network takes at once.

    Raises:
        UserError: If onnxruntime is not installed, or the output has another layout.
        WeightsError: If there is no such file, or it is no network.
    """

    fingerprint: Tensor

    def __init__(
        self,
        file: UserPath,
        layout: Layout = "yolox",
        categories: Sequence[str] | None = None,
        max_pixel: PositiveFloat = 255.0,
        stride: Dimension = 32,
        padding: PaddingValue = 114.0,
        batch_size: BatchSize = 8,
    ) -> None:
        super().__init__()
        self.path, self.layout = expand_path(file), layout
        if not self.path.is_file():
            raise WeightsError(f"there is no detector {self.path.absolute()}: give an ONNX file, such as YOLOX's")
        self.categories = list(categories or coco_categories())
        self.max_pixel, self.stride, self.padding, self.batch_size = max_pixel, stride, padding, batch_size
        with self.path.open("rb") as content:
            digest = sha256(iter(lambda: content.read(1 << 20), b""))
        # kept with the weights, so that features of another file's network are not taken for this one's
        self.register_buffer("fingerprint", torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8))
        self.pretrained = PretrainedWeights(str(file), weights_fingerprint(self))
        _ = self.session  # an error of the file belongs here

    @cached_property
    def session(self) -> Any:
        """The network, loaded where it is first used."""
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra(f"the detector {self.path.name}", "onnxruntime", extra="onnx") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise WeightsError(f"{self.path} can't be read as an ONNX network: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which can be neither copied nor pickled."""
        return {key: value for key, value in self.__dict__.items() if key != "session"}

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Detections:
        """Find the objects of the highest scores, before any duplicates are removed."""
        decode, axis = LAYOUTS[self.layout]
        parts = []
        for part in images.split(self.batch_size):
            output = torch.from_numpy(self._run(part)).to(images.device)
            self._check(output, axis)
            parts.append(decode(output).best(NUM_CANDIDATES))
        return Detections(*map(torch.cat, zip(*parts, strict=True)))

    def _run(self, images: Float[Tensor, "b 3 h w"]) -> Any:
        """Run the network on padded images."""
        height, width = images.shape[2:]
        padded = F.pad(images * self.max_pixel, (0, -width % self.stride, 0, -height % self.stride), value=self.padding)
        name = self.session.get_inputs()[0].name
        try:
            return self.session.run(None, {name: padded.float().cpu().contiguous().numpy()})[0]
        except Exception as error:
            shape = self.session.get_inputs()[0].shape
            raise UserError(
                f"{self.path.name} can't take images {list(padded.shape)}: its input is {shape}. Export it with "
                f"dynamic batch and size, or set features.scale and detector.stride to match. ({error})"
            ) from error

    def _check(self, output: Tensor, axis: int) -> None:
        """Check that the output has as many numbers of an object as the layout says."""
        wanted = NUM_BOX_NUMBERS[self.layout] + len(self.categories)
        if output.ndim != 3 or output.shape[axis] != wanted:
            raise UserError(
                f"{self.path.name} returns {list(output.shape)}, where layout {self.layout!r} with "
                f"{len(self.categories)} categories has {wanted} numbers of an object in dimension {axis}: set "
                f"detector.layout ({', '.join(LAYOUTS)}), or detector.categories"
            )


def _corners(boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n 4"]:
    """Convert centre and size to corners."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], 2)
