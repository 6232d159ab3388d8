"""The documents as a site: `make docs`. See docs/adr/0055-docs-as-a-site.md."""
