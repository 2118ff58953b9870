"""Toy piece: what is read and predicted of one passage, worked out by hand."""

from minicpt import objectives
from minicpt.batch import IGNORE
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer


def test_each_token_is_predicted_from_those_before_it():
    tokenizer = Tokenizer.train([], 256)  # a token a byte: "a" is 69
    kind = objectives.known()["toy-piece"]
    objective = kind(tokenizer, kind.Settings(window=8))
    corpus = Corpus.build([Document("one", "abc")], tokenizer)
    passages = objective.plan(corpus, seed=0, epoch=0)[:]
    batch = objective.batch(passages, [Draw(0, generator("a test"))])
    assert batch.inputs["tokens"].tolist() == [[69, 70, 71]]
    assert batch.targets["tokens"].tolist() == [[70, 71, IGNORE]]
    assert batch.targets["again"].tolist() == [[70, 71, IGNORE]]
    assert batch.weights["again"].tolist() == [[0, 1, 0]]
