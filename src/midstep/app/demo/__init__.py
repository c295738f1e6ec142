"""`make demo`: two real training jobs, disturbed at random moments, against runs that nobody disturbed."""
