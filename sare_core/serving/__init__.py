"""Verdicts over HTTP: what `sare serve` does. Uploads stay in memory, and no longer than until they are answered."""
