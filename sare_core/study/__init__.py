"""What the study measures, apart from the stages: variants, bootstrap, errors of reconstruction, fairness, tables;
and the paper's tables and figures, from runs that are there."""
