"""Programs that measure, and say what they measured: machine, n, percentiles, and the peer in the same run."""
