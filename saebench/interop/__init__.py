"""SAEs that other libraries wrote: their folders and files, read as numpy arrays."""
