"""Results as files: JSON lines that grow and resume, one JSON document, and flat tables (CSV, parquet).

JSON lines are the one that a long run writes: each batch is written before the next begins, and what is there with
the same file and the same `examined` is not done again. The others are put in place whole, at the end.
"""

import csv
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple

from pydantic import ValidationError

from sare_core.detection.examining import Examined
from sare_core.detection.results import Result, Threshold
from sare_core.errors import ConfigError
from sare_core.store.storage import place_of

Key = tuple[str, str, str]  # path, sha256, examined


class Outputs(NamedTuple):
    """All files that one run writes. `before(key)` gives a result that its JSON lines hold already."""

    lines: "JsonLines | None"
    whole: "list[Json | Csv | Parquet]"

    def before(self, key: Key) -> Result | None:
        return self.lines.before(key) if self.lines else None

    def write(self, batch: list[Examined]) -> None:
        if self.lines:
            self.lines.write([each.result for each in batch if each.fresh])
        for output in self.whole:
            output.write([each.result for each in batch])


@contextmanager
def opened(jsonl: str | None, json: str | None, csv: str | None, parquet: str | None) -> Iterator[Outputs]:
    """Those outputs that have a path. Raises ConfigError: one cannot be written."""
    kinds: list[tuple[Any, str | None]] = [(Json, json), (Csv, csv), (Parquet, parquet)]
    with ExitStack() as stack:
        lines = stack.enter_context(json_lines(jsonl)) if jsonl else None
        yield Outputs(lines, [stack.enter_context(whole_file(kind, path)) for kind, path in kinds if path])


def require_places(places: Mapping[str, str | None], inputs: Iterable[str]) -> None:
    """Before models are loaded. places: of outputs, by option. inputs: what is examined or names it.

    Raises ConfigError: one cannot be put there, or would replace an input or another output.
    """
    wanted = {option: path.removeprefix("file://") for option, path in places.items() if path}
    for option, path in wanted.items():
        if path == "-" and option in ("--jsonl", "--report"):
            raise ConfigError(f"{option} -: it takes a file; --json, --csv and --parquet can go to standard output.")
        if "://" in path and option == "--jsonl":
            raise ConfigError(f"--jsonl {path}: it grows line by line, which takes a local file.")
        if path.endswith("/") or (path != "-" and Path(path).exists() and not Path(path).is_file()):
            raise ConfigError(f"{option} {path}: is a folder or a device. Name a file.")
    remote = {option for option, path in wanted.items() if path == "-" or "://" in path}
    kept = {option: _identity(path if option in remote else os.path.realpath(path)) for option, path in wanted.items()}
    for option, identity in kept.items():
        if others := [other for other in kept if other != option and kept[other] == identity]:
            raise ConfigError(f"{option} and {others[0]} name the same place, {wanted[option]}. Name two.")
    taken = {identity: option for option, identity in kept.items() if option in remote or identity[0]}
    for path in inputs if taken else ():
        if path != "-" and (option := taken.get(_identity(path.removeprefix("file://")), "")):
            raise ConfigError(f"{option} {wanted[option]}: is one of the files to examine. Name another.")


def has_results(path: str) -> bool:
    """Whether JSON lines are gone on with. Raises ConfigError: the file cannot be read, or holds something else."""
    if not Path(path).exists():
        return False
    with json_lines(path) as lines:
        return bool(lines.places)


class JsonLines:
    """A result a line. `before(key)` gives one that is there already. For one process at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        """file: open for reading and appending. A last line that a kill has cut is removed.

        Raises ConfigError: it holds something else, which is left as it is.
        """
        self._file, self.places = file, dict[Key, int]()
        place, line = 0, b""
        for line in file:
            if not line.endswith(b"\n"):
                break
            if result := _result(line):
                self.places[key_of(result)] = place
            place += len(line)
            line = b""
        if not self.places and (place or not _begins_result(line)):
            raise ConfigError(f"{file.name}: is no file of results, and is left as it is. Name another for --jsonl.")
        file.truncate(place)
        file.seek(place)

    def before(self, key: Key) -> Result | None:
        if (place := self.places.get(key)) is None:
            return None
        self._file.seek(place)
        result = _result(self._file.readline())
        self._file.seek(0, os.SEEK_END)
        return result

    def write(self, results: list[Result]) -> None:
        new = [each for each in results if not self._told(each)]
        self._file.write(b"".join(result.model_dump_json().encode() + b"\n" for result in new))
        self._file.flush()

    def _told(self, result: Result) -> bool:
        """Whether the same is there of a file without bytes, which each run tries again."""
        before = None if result.sha256 else self.before(key_of(result))
        return before is not None and before.reasons == result.reasons


class Json:
    """One document: a list of results, written as they come."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._between = file, "[\n"

    def write(self, results: list[Result]) -> None:
        for result in results:
            self._file.write(self._between + result.model_dump_json())
            self._between = ",\n"

    def __enter__(self) -> "Json":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.write("[]\n" if self._between == "[\n" else "\n]\n")


class Csv:
    """The flat columns. Text that a spreadsheet would take for a formula begins with an apostrophe here."""

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.DictWriter(file, fieldnames=list(COLUMNS))
        self._writer.writeheader()

    def __enter__(self) -> "Csv":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, results: list[Result]) -> None:
        self._writer.writerows({name: _cell(value) for name, value in flat(result).items()} for result in results)


class Parquet:
    """The flat columns, a row group for each batch."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
        self._writer = pq.ParquetWriter(file, self._schema)

    def write(self, results: list[Result]) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist([flat(result) for result in results], self._schema))

    def __enter__(self) -> "Parquet":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


_BEGINNING = b'{"schema_version":'  # of a line

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

COLUMNS: dict[str, type] = {
    "path": str,
    "sha256": str,
    "verdict": str,
    "reason": str,
    "reason_text": str,
    "score": float,
    "logit": float,
    "ai_threshold": float,
    "ai_false_alarms": int,
    "ai_images": int,
    "ai_measured_on": str,
    "real_threshold": float,
    "real_misses": int,
    "real_images": int,
    "real_measured_on": str,
    "caption": str,
    "width": int,
    "height": int,
    "format": str,
    "content_credentials": str,
    "provenance": str,
    "warnings": str,
    "detector": str,
    "checkpoint": str,
    "calibration": str,
    "examined": str,
    "reconstruction": str,
    "milliseconds": float,
}


def flat(result: Result) -> dict[str, Any]:
    """A result as one row. provenance: all of it, as JSON; reason: the codes, joined by a space."""
    found, thresholds = result.provenance, result.thresholds
    return {
        "path": result.path,
        "sha256": result.sha256,
        "verdict": result.verdict,
        "reason": " ".join(reason.code for reason in result.reasons),
        "reason_text": " ".join(reason.text for reason in result.reasons),
        "score": result.score,
        "logit": result.logit,
        **_of_threshold("ai", "false_alarms", thresholds.likely_ai if thresholds else None),
        **_of_threshold("real", "misses", thresholds.likely_real if thresholds else None),
        "caption": result.caption,
        "width": result.width,
        "height": result.height,
        "format": result.format,
        "content_credentials": found and found.content_credentials.status,
        "provenance": found and json.dumps(found.model_dump(), ensure_ascii=False),
        "warnings": " ".join(result.warnings),
        "detector": result.detector.fingerprint,
        "checkpoint": result.detector.checkpoint,
        "calibration": result.calibration,
        "examined": result.examined,
        "reconstruction": result.pictures and result.pictures.reconstruction,
        "milliseconds": result.milliseconds,
    }


def _of_threshold(name: str, crossed: str, threshold: Threshold | None) -> dict[str, Any]:
    return {
        f"{name}_threshold": threshold and threshold.logit,
        f"{name}_{crossed}": threshold and threshold.crossed,
        f"{name}_images": threshold and threshold.images,
        f"{name}_measured_on": threshold and threshold.measured_on,
    }


def key_of(result: Result) -> Key:
    return result.path, result.sha256 or "", result.examined


@contextmanager
def json_lines(path: str) -> Iterator[JsonLines]:
    """A file that is begun, or gone on with. Raises ConfigError: it cannot be written, or another process does."""
    try:
        with Path(path).open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{path}: another process writes it. Wait, or name another file.") from None
            file.seek(0)
            yield JsonLines(file)
            os.fsync(file.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from error


@contextmanager
def whole_file(kind: Callable[[Any], Any], path: str) -> Iterator[Any]:
    """An output of this kind, put at a path or URL at the end; or written to standard output for `-`."""
    if path == "-":
        with kind(sys.stdout.buffer if kind is Parquet else sys.stdout) as output:
            yield output
        return
    store, name = place_of(path)
    with TemporaryDirectory() as folder:
        local = Path(folder) / "output"
        text = {} if kind is Parquet else {"encoding": "utf-8", "newline": ""}
        with local.open("w" if text else "wb", **text) as file, kind(file) as output:  # type: ignore[call-overload]
            yield output
        store.put(local, name)


def _identity(path: str) -> tuple[int, int | str]:
    """Of a file that is there device and inode, whatever its name; else its name."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return 0, path
    return found.st_dev, found.st_ino


def _begins_result(line: bytes) -> bool:
    return line[: len(_BEGINNING)] == _BEGINNING[: len(line)]


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _result(line: bytes) -> Result | None:
    """A line's result; None where it is of another version, or none at all."""
    try:
        return Result.model_validate_json(line)
    except ValidationError:
        return None
