"""Folder -> folder: plan, run, manifest. Made for pictures of which there is no other copy."""

from restore.repair.manifest import Record
from restore.repair.plan import Job, Plan, plan_fix
from restore.repair.run import fix_folder, run_fix
from restore.repair.summary import Failure, Summary

__all__ = ["Failure", "Job", "Plan", "Record", "Summary", "fix_folder", "plan_fix", "run_fix"]
