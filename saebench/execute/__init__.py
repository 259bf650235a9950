"""Running a plan: one cohort after another, resume, provenance. `folder` and `status` need no torch."""
