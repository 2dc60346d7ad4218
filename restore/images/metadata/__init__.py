"""Metadata of image files, format by format: EXIF, XMP, JPEG segments, PNG chunks, TIFF tags."""
