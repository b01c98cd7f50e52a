"""The HTTP server. It reads the deployment folder and, beside that, only what `wiring` adds."""
