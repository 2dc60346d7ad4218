"""Repairing folders with the workers of a Ray cluster. Import from the modules: this file loads none of them."""
