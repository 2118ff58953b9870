"""Pictures: what a model reads, sees and must predict, as data and as text.

``passage`` gathers the data, ``text`` and ``triangle`` draw them, ``picture`` does both for a text.
"""

from minicpt.pictures.picture import Picture, explain

__all__ = ["Picture", "explain"]
