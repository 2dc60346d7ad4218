"""Training losses: per pixel, on structure, adversarial, perceptual, segmentation."""
