"""Where things lie on disk and how they get there whole: the home folder, atomic writes, fingerprints."""
