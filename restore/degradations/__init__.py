"""Degradations of images: sampled by key, applied in batches, on any device."""

from restore.degradations.pipeline import Degradation, SampledDegradation, degradation_from, load_degradation
from restore.hashed_random import key, keys

__all__ = ["Degradation", "SampledDegradation", "degradation_from", "key", "keys", "load_degradation"]
