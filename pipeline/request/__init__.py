"""What a request may say: its shape, its limits, its options."""
