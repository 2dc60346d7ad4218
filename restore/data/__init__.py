"""Training data: finding images and pairs, splitting off validation, sampling crops, and making batches."""
