"""Folder -> folder: plan, run, log. Made for photographs of which there is no other copy."""
