"""The pages: HTML, markdown and the table for a terminal, and the words and numbers that they share."""
