"""FaithfulSAE: training data sampled from the model itself, and the Fake Feature Ratio."""
