"""What training minimises: per pixel, adversarial, perceptual."""
