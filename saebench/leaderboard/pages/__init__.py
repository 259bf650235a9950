"""The pages: HTML, markdown and the table for a terminal, and the text that they share."""
