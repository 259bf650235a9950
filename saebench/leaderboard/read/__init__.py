"""Records of one or several folders: merged, compared, and as pandas frames."""
