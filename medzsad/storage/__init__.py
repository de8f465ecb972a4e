"""Where files lie: written whole or not at all, a cache folder, locks, text that cannot hang."""
