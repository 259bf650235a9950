"""The plugins that come with saebench. They enter through entry points, as anybody's do."""
