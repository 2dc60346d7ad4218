"""Benchmark: every model over every degradation, scored by the metrics of `restore eval`."""
