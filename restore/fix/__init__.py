"""Folder -> folder: plan, run, manifest. Made for pictures of which there is no other copy."""

from restore.fix.plan import Job, Plan, plan_fix
from restore.fix.results import Failure, Record, Summary
from restore.fix.run import fix_folder, run_fix

__all__ = ["Failure", "Job", "Plan", "Record", "Summary", "fix_folder", "plan_fix", "run_fix"]
