"""Pictures as data URIs of WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, WebPImagePlugin  # Image.save loads all formats where WebP is not known yet

__all__ = ["data_uri", "encoded"]

LOSSLESS = 101
QUALITIES = (LOSSLESS, 92, 82, 70)  # of WebP, tried in turn; below 70, blocks are visible


def encoded(images: Sequence[Image.Image], most: float) -> list[str]:
    """Data URIs of all images, in one quality."""
    sources: list[str] = []
    for quality in QUALITIES:
        sources, weight = [], 0
        for image in images:
            sources.append(data_uri(image, quality))
            weight += len(sources[-1])
            if weight > most and quality != QUALITIES[-1]:
                break
        else:
            break
    return sources


def data_uri(image: Image.Image, quality: int) -> str:
    """The image as WebP; quality: 0 to 100, or LOSSLESS."""
    buffer = io.BytesIO()
    how: dict[str, Any] = (
        {"lossless": True, "quality": 0, "method": 0} if quality == LOSSLESS else {"quality": quality, "method": 2}
    )
    image.save(buffer, WebPImagePlugin.WebPImageFile.format, **how)  # method 4 takes five times as long for an eighth less
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
