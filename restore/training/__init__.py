"""Training a generator (and its discriminator) on synthetic or real pairs."""
