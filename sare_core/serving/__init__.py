"""Verdicts over HTTP: what `sare serve` does. Nothing that is uploaded is written to a disk or kept after its answer."""
