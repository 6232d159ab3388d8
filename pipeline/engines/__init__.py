"""The models that can be asked: one module each, all of them `pipeline.ports.Engine`."""
