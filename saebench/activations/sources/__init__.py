"""Where cells get their data from: training data of cohorts, and held-out data that cells share."""
