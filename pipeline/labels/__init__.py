"""Labels as pure functions of numpy arrays: parts, measures, overlaps, merges, maps, pyramids."""
