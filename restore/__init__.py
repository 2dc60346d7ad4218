"""Image restoration and inpainting: train, repair folders of photographs, score the results."""

__version__ = "0.1.0"
