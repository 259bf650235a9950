"""Where cells get their data from: training data of cohorts, held-out data that all cells share."""
