"""The scale model, second edition: a world in which the paper's premise can hold (docs/worlds.md)."""
