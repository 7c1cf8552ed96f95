"""TCP connection repair: taking a live connection apart, and putting it together elsewhere."""
