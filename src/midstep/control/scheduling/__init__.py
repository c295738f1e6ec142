"""What the scheduler is told, what becomes of its plans, and what is kept of both."""
