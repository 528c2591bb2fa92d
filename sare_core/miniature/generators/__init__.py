"""Generators of the miniature world, each of another kind, standing in for GenImage's subsets (Zhu et al. 2023).

All learn from the same scenes (before the camera) and are prompted by class alone.
"""
