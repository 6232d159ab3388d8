"""Programs for whoever changes the code. The service does not use them."""
