"""Small file systems that can be full or read-only for real."""

import subprocess
from pathlib import Path

import pytest


class Disk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")

    def fill(self, leave: int) -> Path:
        """Take all room but `leave` bytes; the file that takes it."""
        import os

        ballast, free = self.path / "ballast", os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        ballast.write_bytes(b"\0" * max(free - leave, 0))
        return ballast

    def read_only(self, yes: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.path)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)
