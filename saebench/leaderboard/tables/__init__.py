"""From records to what the pages show: rows, intervals, ranks, searches, agreement, equal spend."""
