"""Folder -> folder: plan, run, manifest. Made for pictures of which there is no other copy."""

from restore.fix.plan import FixPlan, Job, plan_fix
from restore.fix.results import FileFailure, Record, Summary
from restore.fix.run import fix_folder, run_fix

__all__ = ["FileFailure", "FixPlan", "Job", "Record", "Summary", "fix_folder", "plan_fix", "run_fix"]
