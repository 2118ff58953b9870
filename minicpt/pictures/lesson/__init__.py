"""The lesson: one page that shows how the losses work, with numbers that minicpt computed.

    lesson.py    from a text, and perhaps checkpoints, to the page: ``page(...)``
    primer.py    the text of its own, and the stories that its small models learn
    pupils.py    a model with each objective: trained on the spot, or loaded
    grid.py      what an objective does with the text, as small data
    sections/    the page's parts, one a file: numbers, and the same as plain tables
    paper.py     puts everything into one HTML file that asks nothing of any network

What a browser runs stands in ``pictures/page/``: HTML, CSS and plain JavaScript. It shows these
numbers and recombines them (sums, quotients), and computes no model.
"""

from minicpt.pictures.lesson.lesson import page

__all__ = ["page"]
