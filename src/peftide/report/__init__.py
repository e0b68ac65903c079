"""Finished runs as self-contained web pages: reading them, blocks of a page, charts, the sections of a run."""
