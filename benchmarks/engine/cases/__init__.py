"""What is measured: one file a case. Each has a `TITLE` and `measure(setting) -> Result`."""
