"""The environment, read once: settings, home folder, key file, database URLs. No other package reads it."""
