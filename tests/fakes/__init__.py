"""Stand-ins for what the service reaches over a network, as strict as the real ones."""
