"""Damage for pictures: steps with sampled parameters, drawn by key, batched, on any device."""

from restore.degradations.pipeline import Damage, Sampled, damage_from, load_damage
from restore.hashed_random import key, keys

__all__ = ["Damage", "Sampled", "damage_from", "key", "keys", "load_damage"]
