"""Weights in the formats of other programs, and back."""

from restore.export.quantize import Quantization
from restore.export.write import Exported, Format, export

__all__ = ["Exported", "Format", "Quantization", "export"]
