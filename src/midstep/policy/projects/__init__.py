"""Projects: what each is due, what is fair, and who runs on what others may take back."""
