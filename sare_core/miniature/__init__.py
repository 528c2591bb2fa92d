"""The embedded miniature: a small world of its own, with models that are trained on it by recipes kept here."""
