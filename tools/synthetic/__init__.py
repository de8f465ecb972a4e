"""The parts of the generator of synthetic images; ``synthetic_images.py`` beside it puts them together."""
