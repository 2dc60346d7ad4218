"""Metadata of image files, as bytes: EXIF and XMP, and how JPEG, PNG and TIFF hold them."""
