"""The engines. Each one is a module, and implements `pipeline.ports.Engine`."""
