"""VideoRefer-Bench-Q and -D as tasks of lmms-eval, out of its tree: its own environment runs them over the fork."""
