"""Where clean pictures and pairs come from, which of them belong to validation, and what each step sees of them."""
