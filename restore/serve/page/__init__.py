"""The page of `restore open`: its work folder, masks, tiles and requests."""
