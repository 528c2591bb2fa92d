"""Slurm by submitit: arrays of tasks with one GPU each, that wait for each other and survive preemption.

Nothing here knows a stage. A task is an object that is called without arguments on the node; its `checkpoint` is called
when Slurm takes the node away, and gives back what is to be queued again.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sare_core.errors import ConfigError, needs_extra

# A week on preemptible nodes has many of them, each is resumed, and submitit takes a preemption for a time-out where
# the time limit is below ten minutes.
TIMEOUTS = 100_000
TIME = 240  # minutes that a task asks for; what is not done by then goes on after a time-out
CPUS_BESIDE_A_GPU = 4  # the threads that read and encode beside the model (runner.run)
_OURS = {
    "array_parallelism": "that is --gpus",
    "dependency": "sare submit sets it",
    "nodes": "a task runs on one",
    "ntasks_per_node": "a task is one process",
}
_GPU_OPTIONS = ("gres", "gpus_per_node", "gpus_per_task", "num_gpus")
_SETUP = [
    # srun hands on neither of them by itself, and a shell inside another job would hand on that job's binding.
    "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}",
    "unset ${!SLURM_CPU_BIND@}",
]
# Until submitit has bound its signal, a few seconds after the start, the signal must not end the process.
_PYTHON = shlex.join(["sh", "-c", 'trap "" USR2; exec "$@"', "sh", sys.executable])


class Slurm:
    """Submits to the cluster that this machine is a login node of.

    folder: for logs and pickles, on a disk that all nodes share. options: of sbatch by submitit's names (time in
    minutes, partition, gres, …), or else by sbatch's own. parallel: tasks of an array that may run at a time.
    Raises ConfigError: no Slurm here, or an option that cannot be.
    """

    def __init__(self, folder: Path, options: dict[str, str], parallel: int) -> None:
        if not _installed():
            raise ConfigError(
                "There is no sbatch on this machine: run sare submit on a login node of the cluster, or the stage "
                "itself here. docs/sare.sbatch is a script to start from without it."
            )
        self.folder, self.parallel, self.options = folder.absolute(), parallel, job_options(options, ask=True)
        self.limit = array_limit(_ask("scontrol", "show", "config"))
        self._submitted: list[str] = []

    def submit(
        self, name: str, tasks: Sequence[Callable[[], Any]], each_after: Sequence[str] = (), after: Sequence[str] = ()
    ) -> list[str]:
        """Queue tasks as one array, or as several where the cluster bounds their size; their job ids.

        each_after: the jobs of as many tasks, each of which goes before its like here. after: jobs that all go before.
        A task whose predecessor fails is taken out of the queue, not left there. Raises ConfigError: Slurm refuses.
        """
        import submitit

        jobs: list[str] = []
        for number, start in enumerate(range(0, len(tasks), self.limit)):
            part = tasks[start : start + self.limit]
            waits = [f"{'aftercorr' if len(part) > 1 else 'afterok'}:{each_after[number]}"] if each_after else []
            waits += [f"afterok:{':'.join(after)}"] if after else []
            waits += [f"afterany:{jobs[-1]}"] if jobs else []  # so that no more run at a time than in one array
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=TIMEOUTS, python=_PYTHON)
            options = self.options | {"job_name": f"sare-{name}", "array_parallelism": self.parallel}
            if waits:
                options["dependency"] = ",".join(waits)
            try:
                executor.update_parameters(**options)
                with executor.batch():
                    queued = [executor.submit(task) for task in part]
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                raise ConfigError(f"Slurm refuses {name}: {str(error).strip()}") from error
            jobs.append(queued[0].job_id.split("_")[0])
            self._submitted.append(jobs[-1])
        return jobs

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """When this block fails, what was submitted in it is cancelled."""
        try:
            yield
        except BaseException:
            if self._submitted:
                subprocess.run(["scancel", *self._submitted], check=False)
            raise


def answers() -> bool:
    """Whether this machine is one of a Slurm cluster that can be reached."""
    return _installed() and subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0


def job_options(options: dict[str, str], ask: bool) -> dict[str, Any]:
    """What a task asks Slurm for, by submitit's names, with defaults. ask: Slurm, whether its nodes have GPUs.

    Raises ConfigError: an option that cannot be.
    """
    parsed = _parse(options)
    if not parsed.keys() & set(_GPU_OPTIONS) and ask and _has_gpus(parsed.get("partition")):
        parsed["gpus_per_node"] = 1
    on_gpu = any(parsed.get(name) for name in _GPU_OPTIONS)
    return {"cpus_per_task": CPUS_BESIDE_A_GPU if on_gpu else 1} | parsed


def _installed() -> bool:
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def array_limit(config: str) -> int:
    """The most tasks in one array, from what `scontrol show config` prints."""
    bounds = re.findall(r"^MaxArraySize\s*=\s*(\d+)|max_array_tasks=(\d+)", config, re.MULTILINE)
    return max(1, min((int(size or tasks) for size, tasks in bounds), default=1))


def _parse(options: dict[str, str]) -> dict[str, Any]:
    with needs_extra("slurm"):
        from submitit.slurm.slurm import _get_default_parameters

    known = _get_default_parameters()
    parsed: dict[str, Any] = {"time": TIME, "setup": [*_SETUP]}
    own: dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True}
    for key, text in options.items():
        name = key.replace("-", "_")
        if name in _OURS:
            raise ConfigError(f"--slurm {key}={text}: {_OURS[name]}.")
        value: Any = int(text) if re.fullmatch(r"[0-9]+", text) else {"true": True}.get(text.lower(), text)
        if name == "time" and not isinstance(value, int):
            raise ConfigError(f"--slurm time={text}: a number of minutes, please.")
        if name not in known:
            own[key.replace("_", "-")] = value
        elif name in ("setup", "srun_args"):
            parsed[name] = [*parsed.get(name, []), text]
        else:
            parsed[name] = value
    return parsed | {"additional_parameters": own}


def _has_gpus(partition: str | None) -> bool:
    return "gpu" in _ask("sinfo", "--noheader", "--format=%G", *([f"--partition={partition}"] if partition else []))


def _ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"Slurm does not answer: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
