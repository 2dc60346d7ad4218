"""Engines: what runs a network on a device. PyTorch runs all of them; on a CPU, others are faster."""
