"""What is known of the public data sets (`expected/`), and, ignored by git, the index of each dataset of yours."""
