"""The exact assignment: on the whole matrix, or on few pairs and proven on all of them."""
