"""One image with one referred person: what the data sets hand to the transforms and the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One image with one referred person, K keypoints.

    A *raw* sample, from `datasets.refhuman.make_sample` and through the transforms:

    - image: [3, h, w] uint8 `tv_tensors.Image`;
    - target, in pixels of that image, (x, y), origin in the top left corner:
      boxes [1, 4] xyxy `BoundingBoxes`, keypoints [1, K, 2] `KeyPoints`, visible [1, K] bool
      (labelled), masks [1, h, w] bool `Mask`, area [1] square pixels, labels [1] int64 (all 1),
      scribble [12, 2] `KeyPoints` (absent without one), caption str (absent without one),
      image_id int, orig_size [2] int64 (height, width) of the image file.

    A *finished* sample, from `datasets.transforms.normalize`, is what the data sets yield:

    - image: [3, h, w] float32, ImageNet mean and standard deviation;
    - target: boxes [1, 4] cxcywh in [0, 1], labels [1] int64, keypoints [1, K, 3] (x and y in
      [0, 1], visible 0 or 1; all three 0 where unlabelled), area [1] as a fraction of the
      image's, masks [1, h, w] bool, scribble [12, 2] float32 pixels (absent without one), caption
      str (absent without one), image_id int, size [2] int64 (h, w), orig_size [2] int64 (height,
      width) of the file.
    """

    image: Tensor
    target: dict[str, Any]
