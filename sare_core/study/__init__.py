"""What the study measures, apart from the stages: variants, bootstrap, errors of reconstruction, fairness, tables."""
