"""What is asked, and at which token."""
