"""Commands for those who write plugins: a package to begin with, and the checks of one."""
