"""The lesson's own text, and the stories that its small models learn before they meet it.

The stories are simple on purpose: a model of a few thousand weights learns them in seconds, so its
losses say something. Who is in a story is anybody's guess (a high loss); what a cat does is not (a
low one). The lesson's text is a story of the same kind that no model has read.
"""

import itertools
from collections.abc import Iterator

from minicpt.data.documents import Document

TEXT = "The cat sat on the mat. It was warm there, and the cat slept. A bird sang in the tree."

# who: what it does, where, how it is there, and what it does then
HABITS = {
    "cat": ("sat", "on the mat", "warm", "slept"),
    "dog": ("lay", "by the fire", "warm", "dreamt"),
    "bird": ("sang", "in the tree", "green", "flew"),
    "fish": ("swam", "in the pond", "cold", "ate"),
    "fox": ("hid", "under the bush", "dark", "waited"),
    "horse": ("stood", "in the field", "green", "ate"),
    "mouse": ("ran", "under the bed", "dark", "hid"),
    "owl": ("sat", "in the barn", "dark", "looked"),
}
BEGINNINGS = ("", "In the morning, ", "At night, ")


def stories() -> Iterator[Document]:
    """All stories in a fixed order; the lesson's own text is not among them."""
    number = 0
    for (first, one), (second, other) in itertools.permutations(HABITS.items(), 2):
        for place, beginning in enumerate(BEGINNINGS):
            does, where, feels, then = one
            article = "the" if beginning else "The"
            parts = [
                f"{beginning}{article} {first} {does} {where}.",
                f"It was {feels} there, and the {first} {then}.",
                f"A {second} {other[0]} {other[1]}.",
            ]
            if (number + place) % 3 == 2:
                parts = [parts[0], parts[2], f"The {first} {then}."]
            text = " ".join(parts)
            number += 1
            if text != TEXT:
                yield Document(f"story {number}", text)
