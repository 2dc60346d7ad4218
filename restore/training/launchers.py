"""Who started the processes of a run: `restore` itself, torchrun, or SLURM."""

from __future__ import annotations

import os

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from restore.errors import RestoreError


def find_environment(devices: int, nodes: int) -> ClusterEnvironment:
    """What started this process and knows its rank.

    Args:
        devices: processes per machine.
        nodes: machines.

    Raises:
        RestoreError: the processes that were started are not `devices` on each of `nodes` machines.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        started, here = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        _check("torchrun", started, here, devices, nodes)
        return TorchElasticEnvironment()
    if devices * nodes == 1:  # also in a task of SLURM: several tasks may train apart
        return LightningEnvironment()
    # Only tasks that `srun` starts belong together; the script of a job may run in an allocation of many tasks.
    in_step = "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))) if in_step else 1
    if tasks > 1:
        here = tasks // int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", nodes)))
        _check("srun", tasks, here, devices, nodes)
        # The environment refuses a job with --ntasks alone, which is clear after the check.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(here))
        return SLURMEnvironment()
    for other in (LSFEnvironment, MPIEnvironment):
        if other.detect():
            return other()
    if nodes > 1 and not ({"NODE_RANK", "GROUP_RANK"} & os.environ.keys() and "MASTER_ADDR" in os.environ):
        raise RestoreError(
            "was started without a launcher, so it cannot find the other machines",
            where=f"nodes = {nodes}",
            hint="start it with torchrun or srun on each of them",
        )
    return LightningEnvironment()


def _check(launcher: str, started: int, here: int, devices: int, nodes: int) -> None:
    if (started, here) != (devices * nodes, devices):
        raise RestoreError(
            f"{launcher} started {started} process{'es' * (started > 1)}, {here} on this machine",
            where=f"devices = {devices}, nodes = {nodes}",
            hint=f"set devices={here} nodes={max(1, started // here)}",
        )
