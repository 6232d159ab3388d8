"""Fakes of the services that the product reaches over a network. They are as strict as the real ones."""
