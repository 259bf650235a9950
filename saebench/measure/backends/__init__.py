"""Which numeric back end this machine takes, and how fast each of them trains here."""
