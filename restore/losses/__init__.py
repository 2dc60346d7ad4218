"""Training losses: per pixel, adversarial, perceptual, segmentation."""
