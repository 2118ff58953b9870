"""Bits per byte: each byte of the original text counts once, whatever the tokenizer does to it."""

import json
import math
import re
import unicodedata
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import model_of, objective_of
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.comparison import measure
from minicpt.data import building, text
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.tokenizer import Tokenizer
from minicpt.training.evaluation import evaluate

UNKNOWN = "[UNK]"


def bert(**options) -> Engine:
    """Lower-cases, strips accents and control characters, drops white space."""
    pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat ##s sat caf ##e e a ##a . , x".split()
    engine = Engine(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token=UNKNOWN))
    engine.normalizer = normalizers.BertNormalizer(**options)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return engine


def t5() -> Engine:
    """SentencePiece's: NFKC, runs of spaces become one, and each word gets its mark."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁the", -1.0)]
    pieces += [("▁cat", -1.0), ("s", -2.0), ("e", -2.5), ("fi", -2.0), ("é", -3.0), ("a", -3.0)]
    engine = Engine(models.Unigram(pieces, unk_id=2))
    engine.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    engine.decoder = decoders.Metaspace()
    return engine


def of_bytes(normalizer=None, prefix=False) -> Engine:
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe", "Ãł", "</s>"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ã", "ł")]
    engine = Engine(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    engine.normalizer = normalizer
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    engine.decoder = decoders.ByteLevel()
    return engine


def of_characters(**options) -> Engine:
    """A BPE without white space; without an unknown token it leaves out what it does not know."""
    pieces = {p: i for i, p in enumerate(["t", "h", "e", "th", "c", "a", "s", ".", "<unk>"])}
    engine = Engine(models.BPE(pieces, [("t", "h")], **options))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return engine


ENGINES = {
    "bert": bert(),
    "bert, cased": bert(lowercase=False, strip_accents=False),
    "t5": t5(),
    "bytes": of_bytes(),
    "bytes behind a space": of_bytes(prefix=True),
    "bytes of NFC": of_bytes(normalizers.NFC()),
    "bytes of NFKD": of_bytes(normalizers.NFKD()),
    "characters": of_characters(unk_token="<unk>"),
    "characters, fused": of_characters(unk_token="<unk>", fuse_unk=True),
    "characters, no unknown": of_characters(),
}
TOKENIZERS = {name: Tokenizer(engine.to_str(), {}) for name, engine in ENGINES.items()}
TOKENIZERS["trained"] = Tokenizer.train(["the cats sat. " * 9], 256 + 9)
HIDING = {"bert": 1, "bert, cased": 1, "t5": 2, "characters": 8, "characters, fused": 8}
EVERY = pytest.mark.parametrize("name", TOKENIZERS)
TEXT = "  The cats\n\n    sat. Café cafe\u0301 ﬁve ½ \x07 日本 xyz 😀e the\t\n"


def size(part: str) -> int:
    return len(part.encode())


def by_the_rule(tokenizer: Tokenizer, whole: str) -> list[int]:
    """The bytes of a text's tokens: each goes on to where the next one starts."""
    ((_, offsets),) = tokenizer.encode_with_offsets([whole])
    starts = [0, *(start for start, _ in offsets[1:]), len(whole)]
    return [size(whole[a:b]) for a, b in zip(starts, starts[1:], strict=False)]


def hidden_by_the_rule(name: str, whole: str) -> set[int]:
    """Unknown tokens, and tokens behind which letters, digits, … stand in no token."""
    ((ids, offsets),) = TOKENIZERS[name].encode_with_offsets([whole])
    found = {place for place, index in enumerate(ids) if index == HIDING.get(name)}
    for place, character in enumerate(whole):
        content = unicodedata.category(character)[0] not in "ZCM"
        if content and not any(start <= place < stop for start, stop in offsets):
            found.add(max([i for i, (start, _) in enumerate(offsets) if start <= place] or [0]))
    return found


def corpus_of(texts: list[str], tokenizer: Tokenizer) -> Corpus:
    return Corpus.build([Document(str(i), each) for i, each in enumerate(texts)], tokenizer)


def sizes_of(corpus: Corpus) -> list[int]:
    return corpus.sizes(torch.arange(len(corpus.tokens))).tolist()


@EVERY
def test_each_byte_belongs_to_one_token(name):
    tokenizer = TOKENIZERS[name]
    corpus = corpus_of([TEXT, "the", TEXT + TEXT], tokenizer)
    sizes, documents = sizes_of(corpus), [*corpus.documents.tolist(), len(corpus.tokens)]
    for index, whole in enumerate([TEXT, "the", TEXT + TEXT]):
        mine = sizes[documents[index] : documents[index + 1]]
        assert sum(mine) == size(whole)
        if not tokenizer.pieces:  # these know the parts of a character better than its offsets
            assert mine == by_the_rule(tokenizer, whole)
    assert corpus.bytes.dtype == torch.int32 and len(corpus.bytes) == len(corpus.tokens) + 1


def test_a_character_of_several_tokens_is_divided_among_them():
    corpus = corpus_of(["é😀"], Tokenizer.train([], 256))
    assert sizes_of(corpus) == [1] * 6
    assert sizes_of(corpus_of(["thé à the"], TOKENIZERS["bytes"])) == [2, 1, 1, 1, 2, 4]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.lists(st.text(st.sampled_from("the Cat.\n\téà\u0301ﬁ½日😀\x07"), max_size=25), max_size=5),
    st.integers(1, 12),
    st.booleans(),
)
def test_however_a_text_is_cut_its_bytes_add_up(texts, together, long):
    """With stretches of a few characters, and few of them tokenised at once."""
    if long:
        texts = [" ".join(texts * 3) + " \n"]
    short = partial(text.stretches, size=8)
    for name, tokenizer in TOKENIZERS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(building, "TOGETHER", together)
            patch.setattr(text, "stretches", lambda document, breaks, size: short(document, breaks))
            try:
                corpus = corpus_of(texts, tokenizer)
            except InputError:
                continue  # no token at all
        kept = {int(each) for each in corpus.names}
        sizes, edges = sizes_of(corpus), [*corpus.documents.tolist(), len(corpus.tokens)]
        wholes = [sum(sizes[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
        assert wholes == [size(texts[number]) for number in sorted(kept)], name
        if not long:
            hidden, base = [], 0
            for number in sorted(kept):
                mine = hidden_by_the_rule(name, texts[number])
                hidden += [base + place for place in sorted(mine)]
                base += len(tokenizer.encode(texts[number]))
            assert corpus.unknown.tolist() == hidden, name


def test_the_end_of_a_document_that_comes_alone(monkeypatch):
    """White space that no token stands for, in a stretch and a call of its own."""
    monkeypatch.setattr(building, "TOGETHER", 1)
    tokenizer = TOKENIZERS["bert"]
    parts = ["\n" * 9, "the cat", "\n" * 5, " sat", "\n" * 7]

    def stretches(document, breaks, most):
        for part in parts if document.name == "0" else [document.text]:
            yield text.Stretch(part, False, False, last=part is parts[-1])

    monkeypatch.setattr(text, "stretches", stretches)
    corpus = corpus_of(["".join(parts), "\n\n\n", "the"], tokenizer)
    assert sizes_of(corpus) == [13, 9, 10, 3] and corpus.names == ("0", "2")


def test_more_bytes_than_32_bits_can_count(monkeypatch):
    make = building.Counter.__init__

    def far(self):
        make(self)
        self.bytes = self.begin = 2**31 - 3
        self.empty = False

    monkeypatch.setattr(building.Counter, "__init__", far)
    corpus = corpus_of(["the cats", "sat"], TOKENIZERS["bert"])
    assert int(corpus.bytes.min()) < 0 and sizes_of(corpus) == [4, 3, 1, 3]
    assert corpus.hidden == 0


# --- the objectives


def causal(tokenizer: Tokenizer, window: int, pack=False):
    return objective_of("causal-lm", tokenizer, window=window, pack=pack)


def rebuilt(tokenizer: Tokenizer, window: int):
    return objective_of("reconstruction", tokenizer, window=window)


OBJECTIVES = {"causal": causal, "packed": partial(causal, pack=True), "reconstruction": rebuilt}
EVERY_OBJECTIVE = pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)


def declared(engine: Engine, end: str, pad: str) -> Tokenizer:
    return Tokenizer(engine.to_str(), {"eos_token": end, "pad_token": pad})


def uniform(objective):
    """A model that gives every token the probability 1 / V."""
    model = model_of(objective, width=8, num_heads=1).double()
    torch.nn.init.zeros_(model.heads["tokens"].weight)
    return model


# A few bytes of 5,000 stand in unknown tokens; and 13 of 32 do, "qwertz " and "日本".
FEW = ("    the cats sat.\n\n        The cats sat, the cats sat.  " * 90, "xyzé the cats")
HALF = ("    the cats sat qwertz 日本, ",) * 30


@EVERY_OBJECTIVE
@pytest.mark.parametrize("texts", [FEW, HALF], ids=["few", "half"])
def test_a_uniform_guess_in_bits_per_original_byte(make, texts):
    """Unknown words, dropped indentation and lower case: all bytes and all tokens count."""
    tokenizer = declared(bert(), "[SEP]", "[PAD]")
    objective = make(tokenizer, 16)
    corpus = corpus_of(list(texts), tokenizer)
    result = evaluate(uniform(objective), objective, corpus)
    assert result.text_bytes == sum(map(size, texts))
    bits = len(corpus.tokens) * math.log2(tokenizer.size)
    assert result.text_nats / math.log(2) == pytest.approx(bits, rel=1e-9)
    assert result.hidden_bytes == sum(sizes_of(corpus)[place] for place in corpus.unknown)
    summary = result.summary()
    if texts is FEW:
        assert 0 < summary["hidden_bytes"] < 0.01 and summary["no_bits_per_byte"] is None
        assert summary["bits_per_byte"] == pytest.approx(bits / result.text_bytes, rel=1e-9)
    else:
        assert summary["bits_per_byte"] is None and summary["hidden_bytes"] == 13 / 32
        assert "unknown tokens hide 40.6%" in summary["no_bits_per_byte"]
    assert json.loads(json.dumps(summary)) == summary


def test_a_part_of_a_text_in_bits_per_byte():
    """Windows end between the parts of a character: what each is given is what it predicts."""
    objective = causal(TOKENIZERS["trained"], 4)
    corpus = corpus_of(["日本" * 9, "é the cats sat."], objective.tokenizer)
    result = evaluate(uniform(objective), objective, corpus, passages=5)
    assert 0 < result.text_bytes < size("日本" * 9 + "é the cats sat.")
    tokens = result.text_nats / math.log(objective.tokenizer.size)
    assert tokens == pytest.approx(round(tokens)) and result.hidden_bytes == 0


# --- where it is shown


def test_units_of_a_comparison_count_the_same_bytes():
    tokenizer = declared(bert(), "[SEP]", "[PAD]")
    objective = causal(tokenizer, 16)
    few, half = (corpus_of(list(texts), tokenizer) for texts in (FEW, HALF))
    assert measure.in_bits(objective, [few]) and not measure.in_bits(objective, [few, half])
    measured = measure.measure(uniform(objective), objective, few, 10**6, bits=True)
    expected = evaluate(uniform(objective), objective, few)
    assert measure.loss(measured) == pytest.approx(expected.bits_per_byte, rel=1e-9)
    assert sum(measured["heads"]["tokens"][1]) == expected.text_bytes
    measured = measure.measure(uniform(objective), objective, half, 10**6, bits=False)
    assert measured["unit"] == "nats/target"
    assert measure.loss(measured) == pytest.approx(math.log(tokenizer.size), rel=1e-9)


def test_train_and_evaluate_say_what_is_hidden(tmp_path, capsys):
    engine = bert()
    engine.save(str(tmp_path / "tokenizer.json"))
    roles = {"eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": UNKNOWN}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles))
    for name, texts in {"few": FEW, "half": HALF * 9}.items():
        # A number tells the blocks apart: what is held out must not stand in the training text.
        blocks = (f"{text} {number}" for number, text in enumerate(texts * 3))
        (tmp_path / name).write_text("\n\n".join(blocks))
    words = ["train", "causal-lm", "--corpus", str(tmp_path / "half"), "--steps", "1"]
    words += ["--tokenizer", str(tmp_path), "--out", str(tmp_path / "run"), "--width", "8"]
    words += ["--layers", "1", "--num-heads", "1", "--window", "32", "--batch-size", "2"]
    words += ["--blocks"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"no bits/byte: unknown tokens hide [34]\d\.\d%", shown)
    assert "nats/token" in shown
    assert main(["evaluate", str(tmp_path / "run"), "--corpus", str(tmp_path / "few")]) == 0
    shown = capsys.readouterr().out
    assert "bits/byte (0." in shown and "% of the bytes hidden by unknown tokens)" in shown
    words = ["evaluate", str(tmp_path / "run"), "--corpus", str(tmp_path / "half"), "--json"]
    assert main(words) == 0
    (result,) = json.loads(capsys.readouterr().out).values()
    assert result["bits_per_byte"] is None and result["hidden_bytes"] > 0.3
    assert "unknown tokens hide" in result["no_bits_per_byte"]


def test_documents_of_a_corpus_count_as_documents_do():
    documents = Documents.of([Document("a", TEXT), Document("b", "the é")])
    for tokenizer in TOKENIZERS.values():
        corpus = Corpus.build(documents, tokenizer)
        assert sum(sizes_of(corpus)) == documents.bytes


def test_the_nats_of_tokens_without_a_byte_of_their_own_count():
    """½ becomes three tokens and ﬁ two, which share its bytes: one of them has them all."""
    tokenizer = declared(of_bytes(normalizers.NFKD()), "</s>", "</s>")
    objective = causal(tokenizer, 16)
    corpus = corpus_of(["½ ﬁ", "é the ½"], tokenizer)
    assert 0 in sizes_of(corpus)
    result = evaluate(uniform(objective), objective, corpus)
    assert result.text_bytes == size("½ ﬁ") + size("é the ½")
    expected = len(corpus.tokens) * math.log(tokenizer.size)
    assert result.text_nats == pytest.approx(expected, rel=1e-9)
