"""A real Slurm on this machine: munged, slurmctld and one slurmd on loopback, all that they write in one folder.

    python -m tests.slurm.cluster start FOLDER 64     # prints the line that sets SLURM_CONF
    python -m tests.slurm.cluster stop FOLDER

Needs root, and Debian's munge and slurm-wlm. The node has as many CPUs as asked for, whatever the machine has. Two
partitions share it: `low`, whose jobs are requeued when one of `high` wants their place.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
GRACE = 5  # seconds between the signal of a preemption and its end

CONF = """\
ClusterName=sare
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
# A job that is requeued starts only when its credentials have expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=2
SlurmctldTimeout=10
SlurmdTimeout=10
MaxArraySize={array}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} MaxTime=INFINITE
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


def missing() -> str:
    """Why no Slurm can be started here; empty when it can."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"{', '.join(absent)} not installed (apt-get install munge slurm-wlm)"
    return "" if os.getuid() == 0 else "Slurm's daemons want root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Cluster:
    """The Slurm in a folder. `environment` is what a client's process needs to find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf), "PATH": _path()}

    def start(self, cpus: int = 2, array: int = 1001) -> None:
        """Configure and start everything; returns once the node takes jobs. Raises RuntimeError: it does not."""
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o755)
        ports = _free_ports(2)
        facts = {"host": socket.gethostname(), "folder": self.folder, "cpus": cpus, "array": array, "grace": GRACE}
        self.conf.write_text(CONF.format(controller=ports[0], daemon=ports[1], **facts))
        self.start_munge()
        self.start_controller()
        self.start_node()
        self.until(lambda: "idle" in self("sinfo", "-h", "-o", "%T"), "the node to be idle")

    def __call__(self, *command: str) -> str:
        """What a client's command prints. Raises CalledProcessError."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def start_munge(self) -> None:
        munge = self.folder / "munge"
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o600)
        places = {name: munge / name for name in ("socket", "log-file", "pid-file", "seed-file")}
        # --force: a temporary folder's parents have other rights than munge wants of /run.
        self._daemon("munged", "--force", f"--key-file={key}", *(f"--{k}={v}" for k, v in places.items()))

    def start_controller(self) -> None:
        self._daemon("slurmctld")

    def start_node(self) -> None:
        self._daemon("slurmd")

    def _daemon(self, *command: str) -> None:
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}\n{self.logs()}")

    def kill(self, *names: str) -> None:
        """kill -9 of this cluster's processes of these names, and of all that these started when it is slurmstepd."""
        for process in self.processes():
            if process.info["name"] in names:
                children = process.children(recursive=True) if process.info["name"] == "slurmstepd" else []
                for victim in (process, *children):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        victim.send_signal(signal.SIGKILL)

    def processes(self) -> list[psutil.Process]:
        """This cluster's daemons and steps that live."""
        found = []
        for process in psutil.process_iter(["name", "environ", "cwd", "status"]):
            about = process.info
            # A step writes its title over its environment, but works where the logs lie.
            ours = (about["environ"] or {}).get("SLURM_CONF") == str(self.conf) or about["cwd"] == str(self.folder)
            daemon = about["name"] in ("munged", "slurmctld", "slurmd", "slurmstepd")
            if ours and daemon and about["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def states(self, job: str) -> dict[str, tuple[str, int]]:
        """Of each task of a job, by its number in the array ("" for a job alone): its state, and how often requeued."""
        shown = [dict(pair.split("=", 1) for pair in line.split() if "=" in pair) for line in self._show(job)]
        return {job.get("ArrayTaskId", ""): (job["JobState"], int(job["Restarts"])) for job in shown}

    def _show(self, job: str) -> list[str]:
        return self("scontrol", "--oneliner", "show", "job", job).splitlines()

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Wait until something holds. Raises RuntimeError when it does not come to."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.CalledProcessError):
                if holds():
                    return
            time.sleep(0.1)
        raise RuntimeError(f"waited {seconds} s for {what}\n{self.logs()}")

    def until_over(self, *jobs: str, seconds: float = 1200) -> dict[str, dict[str, tuple[str, int]]]:
        """Wait until no task of the jobs is in the queue; their states."""
        listed = ",".join(jobs)
        self.until(lambda: not self("squeue", "-h", "-j", listed), f"jobs {listed} to end", seconds)
        return {job: self.states(job) for job in jobs}

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        texts = []
        for path in sorted(self.folder.glob("slurm*.log")):
            texts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(texts)

    def stop(self) -> None:
        """Cancel all jobs and stop the daemons, if need be by force. The folder stays."""
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            self("scancel", "--state=PENDING", "--user=root")
            self("scancel", "--user=root")
        self.kill("slurmstepd")
        for signum in (signal.SIGTERM, signal.SIGKILL):
            living = self.processes()
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signum)
            psutil.wait_procs(living, timeout=5)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(folder: Path, cpus: int = 2, array: int = 1001) -> Iterator[Cluster]:
    """A cluster for the length of a block."""
    cluster = Cluster(folder)
    try:
        cluster.start(cpus, array)
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":
    verb, place, *more = sys.argv[1:]
    here = Cluster(Path(place).absolute())
    if verb == "start":
        here.start(*(int(number) for number in more))
        print(f"export SLURM_CONF={here.conf}")
    else:
        here.stop()
