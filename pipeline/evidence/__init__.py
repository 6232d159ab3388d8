"""Looks in a picture's text for each value of its record, and says where it stands or that it does not. Pure."""
