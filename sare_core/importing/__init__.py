"""Weights that other projects have published, as folders that `sare evaluate --detector` and Python take.

reading.py: a file as tensors, and nothing else of it. layouts.py: names and shapes of each project. folder.py: the
detector, checked tensor by tensor, and its folder.
"""
