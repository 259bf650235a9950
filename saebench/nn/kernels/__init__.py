"""Under `saebench.nn`, not for authors: sparse products, exact selection, and the numerics they run on."""
