"""Named points at which a process can be made to die, so that tests can prove that nothing is lost there.

In normal use `point` does nothing. A test sets `hook` in a forked worker, which then kills itself at the point.
"""

from collections.abc import Callable

POINTS = (
    "claimed",  # the claim lies, nothing is computed
    "sample-written",  # in the middle of a shard: some samples lie in the spool
    "spooled",  # the shard is whole in the spool, not yet read back
    "verified",  # read back, not yet in place
    "output-put",  # in place under its digest's name, not yet named by a record
    "record-put",  # committed, the claim still lies
    "compacted",  # a complete stage's records are gathered in one file, which nothing names yet
    "compacted-named",  # that file counts, the small records still lie beside it
    "checkpoint-put",  # training: the tensors are in place, `last.json` still names the checkpoint before
    "checkpoint-named",  # training: committed, the old checkpoint is not yet removed
)
hook: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Marks a place where a kill must lose nothing but the work in flight."""
    if hook is not None:
        hook(name)
