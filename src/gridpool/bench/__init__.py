"""Quick speed ratios against named peers that anyone can run."""
