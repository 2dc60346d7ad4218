"""Repairing images: plan, run, report. Made for photographs of which there is no other copy.

`restore.fix_folder` and `restore.fix_image` are the way in. Import from the modules: this file loads none of them, so
that `restore.fix.options` can be read by `restore --help`.
"""
