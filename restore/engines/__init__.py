"""The engines that run networks, and the graphs that they run."""
