"""The machinery of sare: manifests, runner, images, captioners, diffusion, detectors, metrics.

`stages` imports this package; never the other way round.
"""
