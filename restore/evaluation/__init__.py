"""Scores over folders: pairs, tables, CSV and JSON."""
