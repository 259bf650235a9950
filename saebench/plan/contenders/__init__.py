"""What trains: entries of the suite at their sites and operating points, checked, with datasets and metrics."""
