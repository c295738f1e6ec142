"""A region among others: what it tells the level above, and how jobs come and go."""
