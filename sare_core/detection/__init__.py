"""Files to verdicts: what `sare detect` and `sare calibrate` do, and whatever else shows a verdict."""
