"""Scores of restored folders against references: pairing, reports, tables, comparisons."""
