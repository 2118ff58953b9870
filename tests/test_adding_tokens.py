"""Special tokens that an objective needs: found, refused where they lack, added with --add-tokens.
"""

import pytest

from minicpt.common.errors import InputError
from minicpt.data.tokenizer import LackingTokens, Tokenizer


def test_needed_tokens_are_found_by_any_of_their_names():
    tokenizer = Tokenizer.train([], 256, ["<b>", "<a>", "<fim_middle>"])
    b, a, middle = (tokenizer.size - 3, tokenizer.size - 2, tokenizer.size - 1)
    names = ["<a>", ("<|fim_middle|>", "<fim_middle>"), "<b>"]
    assert tokenizer.need_special(names, "a test") == [a, middle, b]


def test_lacking_tokens_are_refused_in_one_line_with_their_number():
    tokenizer = Tokenizer.train([], 256, ["<x_1>"])
    names = [(f"<x_{number}>", f"<y_{number}>") for number in range(6)]
    with pytest.raises(LackingTokens) as error:
        tokenizer.need_special(names, "a test")
    assert error.value.names == ["<x_0>", "<x_2>", "<x_3>", "<x_4>", "<x_5>"]
    assert isinstance(error.value, InputError) and str(error.value) == (
        "the tokenizer lacks 5 of the 6 special tokens that a test needs (<x_0>, <x_2>, <x_3>, …):"
        " add them with --add-tokens"
    )
