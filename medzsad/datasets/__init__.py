"""Data sets for evaluation and training: which there are, how they lie on disk, whether a copy is whole.

``catalog`` needs neither numpy nor torch; ``opening.open_dataset`` is the way in, ``checking.check_dataset``
finds out what is wrong with a copy.
"""
