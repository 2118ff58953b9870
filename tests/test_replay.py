"""Replay: the exact share, the order as a function of the position, text written by the base."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from making import close, model_of, objective_of

from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.interleaving import of_second
from minicpt.data.tokenizer import Tokenizer
from minicpt.proofs.bounds import additions, largest
from minicpt.remedies.base import Situation
from minicpt.remedies.mixture import Mixture
from minicpt.remedies.replay import Replay
from minicpt.remedies.self_replay import Samples, SelfReplay, choose_each, sample
from minicpt.training.stream import Stream
from minicpt.training.trainer import Trainer, Training

NEW = "The ship sank. Nobody swam, and a bell rang under the sea. " * 4
OLD = "It rained on the old house at noon, day after day. " * 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([], 256)


@pytest.fixture(scope="module")
def objective(tokenizer):
    return objective_of("causal-lm", tokenizer, window=16)


def corpus_of(name, text, tokenizer):
    return Corpus.build([Document(name, text)], tokenizer)


def mixture_of(objective, fraction, seed=3):
    new, old = (
        corpus_of(name, text, objective.tokenizer) for name, text in (("new", NEW), ("old", OLD))
    )
    return Mixture(Stream(objective, new, seed), old, fraction)


def make(objective, seed=0, dropout=0.0):
    model = model_of(objective, seed, layers=2, dropout=dropout)
    with torch.no_grad():  # far from uniform, so that what it reads matters
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


# --- the mixture


@pytest.mark.parametrize("fraction", [0.05, 0.1, 1 / 3, 0.5, 0.999, 1e-9])
def test_the_share_is_never_off_by_more_than_half_a_passage(fraction):
    exact = Fraction(str(fraction))
    for count in [*range(300), 10**6, 10**15, 10**15 + 1]:
        assert abs(of_second(count, exact) - count * exact) <= Fraction(1, 2)
    assert of_second(20 * 10**15, Fraction("0.05")) == 10**15  # in floating point it is not


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7])
def test_the_mixture_is_a_pure_function_of_the_position(objective, fraction):
    mixture = mixture_of(objective, fraction)
    passages, noise = mixture.passages(0, 120)
    places = [passage.place for passage in passages]
    draws = [torch.rand((), generator=each.generator).item() for each in noise]
    of_old = [place.startswith("old") for place in places]
    for count in range(121):
        assert abs(sum(of_old[:count]) - fraction * count) <= 0.5 + 1e-9
    # Each side keeps the order that it has alone.
    for stream, name in ((mixture.second, "old"), (mixture.first, "new")):
        own = [place for place in places if place.startswith(name)]
        assert own == [passage.place for passage in stream.passages(0, len(own))[0]]
    for begin, count in ((0, 7), (33, 1), (50, 70)):
        again, others = mixture_of(objective, fraction).passages(begin, count)
        assert [passage.place for passage in again] == places[begin : begin + count]
        found = [torch.rand((), generator=each.generator).item() for each in others]
        assert found == draws[begin : begin + count]


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7])
def test_an_epoch_is_over_when_the_new_text_has_been_seen(objective, fraction):
    mixture = mixture_of(objective, fraction)
    end = 0
    for epoch in range(3):
        end += mixture.epoch_length(epoch)
        seen = [p.place for p in mixture.passages(0, end)[0] if p.place.startswith("new")]
        expected = sum(mixture.first.epoch_length(each) for each in range(epoch + 1))
        assert len(seen) == expected
        assert mixture.passages(end - 1, 1)[0][0].place.startswith("new")


def test_order_of_the_two_sides_differs_and_micro_batches_are_alike(objective, tokenizer):
    results, asked, old = [], [], corpus_of("old", OLD, tokenizer)

    def old_text(names):
        asked.append(names)
        return old

    for size in (0, 4):
        model = make(objective).double()
        replay = Replay(Replay.Settings(replay=("somewhere",), replay_fraction=0.25))
        replay.begin(Situation(model, objective, old_text=old_text))
        settings = Training(batch_size=6, micro_batch_size=size, learning_rate=1e-3)
        new = corpus_of("new", NEW, tokenizer)
        trainer = Trainer(model, objective, new, settings, 4, remedies=[replay])
        list(trainer.run())
        results.append(model.state_dict())
        mixture = trainer.stream
        assert mixture.first.corpus is new and mixture.second.corpus is old
        assert mixture.second.seed != mixture.first.seed
    assert asked == [("somewhere",)] * 2
    batch = objective.batch(*trainer.stream.passages(0, 6))
    operations = 4 * additions(model, batch)  # each step goes through the model once more
    for name, value in results[0].items():
        close(results[1][name], value, operations, size=largest(*results[0].values()))


# --- text that the base writes


def test_the_cache_gives_what_the_model_gives_on_the_whole_window(objective):
    model = make(objective).double().eval()
    cache = model.cache(3, 16)
    tokens = torch.randint(5, 200, (3, 40), generator=generator("tokens"))
    starts = [{0, 16, 32}, {0, 5, 21, 30}, {0, 1, 2, 18, 34}]  # where each row begins anew
    place = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        for at in range(40):
            place = torch.tensor([0 if at in starts[r] else place[r] + 1 for r in range(3)])
            cache.place = place.clone()
            found = model.step(tokens[:, at, None], cache)[:, 0]
            for row in range(3):
                window = tokens[row, at - int(place[row]) : at + 1]
                expected = model(tokens=window[None])[0, -1]
                close(found[row], expected, model, window[None])


def test_what_is_written_is_what_the_model_would_write_read_whole(objective, tokenizer):
    """Each token has the place in the cumulated probabilities that the draws give it."""
    model, end = make(objective), tokenizer.need("end")
    with torch.no_grad():
        model.tokens.weight[end] *= 3  # so that documents end now and then
    written = sample(model, tokenizer, tokens=100, window=16, seed=5)
    assert written.shape == (6, 17)
    assert torch.equal(written, sample(model, tokenizer, 100, 16, 5))
    assert not torch.equal(written, sample(model, tokenizer, 100, 16, 6))
    assert (written == end).any() and model.training
    draws = generator("self-replay", 5)
    windows = [[end] for _ in range(6)]
    model.eval()
    for at in range(17):
        uniform = torch.rand(6, 1, generator=draws, dtype=torch.float64)[:, 0]
        for row, window in enumerate(windows):
            with torch.no_grad():
                logits = model.heads["tokens"](model(tokens=torch.tensor([window]))[0, -1])
            logits[[i for i in tokenizer.special if i != end]] = -math.inf
            cumulated, token = logits.double().softmax(0).cumsum(0), int(written[row, at])
            assert token == end or token in tokenizer.ordinary
            below = float(cumulated[token - 1]) if token else 0.0
            assert below - 1e-5 <= uniform[row] <= cumulated[token] + 1e-5
            windows[row] = [token] if token == end or len(window) == 16 else [*window, token]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    draws = choose_each(probabilities.log().expand(40_000, 4), generator("draws"))
    counts = Counter(draws.tolist())
    assert counts[1] == 0
    for token, probability in enumerate(probabilities.tolist()):  # five standard deviations
        spread = 5 * math.sqrt(40_000 * probability * (1 - probability))
        assert abs(counts[token] - 40_000 * probability) <= spread


def test_a_text_that_is_broken_off_has_no_end_to_predict(objective):
    end = objective.end
    rows = [[50, 51, end, 60, 61], [end, 70, end, end, 80]]
    samples = Samples.of(torch.tensor(rows), end)
    assert samples.tokens.tolist() == [50, 51, 60, 70]
    targets = {}
    for passage in objective.plan(samples, 0, 0):
        batch = objective.batch([passage], [None])  # it draws nothing
        targets[tuple(batch.inputs["tokens"][0].tolist())] = batch.targets["tokens"][0].tolist()
    assert targets == {
        (end, 50, 51): [50, 51, end],
        (end, 60): [60, 61],
        (end, 70): [70, end],
    }


def test_nothing_but_ends_gives_no_text(objective):
    assert len(Samples.of(torch.full((2, 3), objective.end), objective.end).tokens) == 0


def test_self_replay_writes_what_the_run_needs_and_goes_on_with_it(objective, tokenizer):
    model = make(objective)
    new = Stream(objective, corpus_of("new", NEW, tokenizer), 0)
    remedy = SelfReplay(SelfReplay.Settings(self_replay=0.25))
    remedy.begin(Situation(model, objective, seed=5, passages=40))
    rows, length = remedy.written.shape
    assert 10 * 16 <= rows * length < 10 * 16 + rows  # 10 of 40 passages, of 16 tokens each
    again = SelfReplay(SelfReplay.Settings(self_replay=0.25))
    again.begin(Situation(make(objective, seed=1), objective, seed=5), remedy.state(model))
    assert torch.equal(remedy.written, again.written)
    mixtures = [each.mixed(new) for each in (remedy, again)]
    one, other = ([p.tokens.tolist() for p in each.passages(0, 40)[0]] for each in mixtures)
    assert one == other
    written = [p.place.startswith("text") for p in mixtures[0].passages(0, 40)[0]]
    assert sum(written) == 10
    few = SelfReplay(SelfReplay.Settings(self_replay=0.25, self_replay_tokens=32))
    few.begin(Situation(model, objective, seed=5, passages=40))
    assert few.written.numel() == 32
