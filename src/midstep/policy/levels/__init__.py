"""The three levels, as functions over summaries of the level below; each can run by itself."""
