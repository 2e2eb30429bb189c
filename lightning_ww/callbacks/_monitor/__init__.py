"""What all monitors have in common."""
