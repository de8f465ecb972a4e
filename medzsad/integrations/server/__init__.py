"""A small server for predictions over HTTP: ``medzsad serve``. docs/server.md describes it."""
