"""Text files of a person, and of a hub."""
