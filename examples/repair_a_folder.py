"""Repair a folder of photographs from Python, and print what happened to each file.

python examples/repair_a_folder.py scans/ repaired/
"""

from __future__ import annotations

import sys

from restore import FixOptions, RestoreError, fix_folder


def main() -> int:
    """Repair with the default options, masks from the detector; continue where an earlier run stopped."""
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/repair_a_folder.py INPUT OUTPUT")
    source, target = sys.argv[1:]
    options = FixOptions(masks="auto", skip_existing=True)
    try:
        summary = fix_folder(
            source, target, options=options, progress=lambda record, done, total: print(done, "/", total)
        )
    except RestoreError as error:  # a wrong command: nothing was written
        print(error, file=sys.stderr)
        return error.exit_code
    for failure in summary.failed:
        print(f"{failure.path}: {failure.reason}", file=sys.stderr)
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
