"""Keys and values: the blocks in memory, who finds them again, and the files below."""
