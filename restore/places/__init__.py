"""Inputs and outputs by URL: objects in stores, repaired in groups through a work folder.

`urls` tells URLs from paths, `store` reads and writes objects, `groups` repairs a group of files, `plan` says what a
run will do, and `run` does it.
"""
