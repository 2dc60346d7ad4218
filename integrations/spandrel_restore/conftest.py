"""Lets the tests import the package from this folder, without an installation."""
