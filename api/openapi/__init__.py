"""What the service says of itself: /openapi.json for programs, /docs for people."""
