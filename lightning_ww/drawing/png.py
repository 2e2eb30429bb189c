"""Pictures as pixels, and as PNG files with a palette, half as long to make and a third as large as those of full color."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn."""

    pixels: NDArray[np.uint8]  # (height, width, 3)

    @cached_property
    def png(self) -> bytes:
        """The picture as a file."""
        return palette_png(self.pixels)


def palette_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels, shape ``(height, width, 3)``, as a PNG file of at most 256 colors."""
    from PIL import Image

    image = Image.fromarray(pixels).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
