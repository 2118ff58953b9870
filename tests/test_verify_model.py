"""verify_model against models that are not ours: no sound one is refused, no leaky one passes."""

import copy
import functools
import json
import math
import random
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from minicpt.common.errors import InputError
from minicpt.proofs.black_box import endings
from minicpt.proofs.black_box.verdict import load_model, report, verify_model
from minicpt.proofs.influence import backward

V, D = 13, 8
SHORT = (3, 17)  # most leaks show here; the defaults are tried on GPT-2


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Every kind of rows is tried once at each length: most of what is here is not about kinds."""
    monkeypatch.setattr(endings, "ROUNDS", 1)


class Language(nn.Module):
    """Embedding, a body from (B, T, D) to (B, T, D), and a head. Made in train mode, with dropout.

    The body gets what is embedded and the ids, so that a leak can read either.
    """

    def __init__(self, body=None, mixer=None):
        super().__init__()
        self.tokens, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.dropout, self.mixer, self.body = nn.Dropout(0.3), mixer, body

    def forward(self, tokens):
        x = self.dropout(self.tokens(tokens))
        if self.mixer is not None:
            x = x + self.mixer(x)
        if self.body is not None:
            x = self.body(x, tokens)
        return self.head(self.dropout(x))


class Attention(nn.Module):
    """Masked self-attention; ``first``: the first diagonal of what may not be seen."""

    def __init__(self, first=1):
        super().__init__()
        self.first = first
        self.layer = nn.TransformerEncoderLayer(D, 2, 2 * D, dropout=0.2, batch_first=True)

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1]).triu(self.first).bool()
        return self.layer(x, src_mask=mask)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, both=False):
        super().__init__()
        self.layers = kind(D, D, 2, batch_first=True, dropout=0.2, bidirectional=both)

    def forward(self, x):
        return self.layers(x)[0][..., :D] + self.layers(x)[0][..., -D:]


class Stepwise(nn.Module):
    """Reads one token at a time: tokens[:, t] in a loop."""

    def __init__(self):
        super().__init__()
        self.tokens, self.cell, self.head = nn.Embedding(V, D), nn.GRUCell(D, D), nn.Linear(D, V)

    def forward(self, tokens):
        state, found = torch.zeros(len(tokens), D), []  # float32 unless the default is changed
        for place in range(tokens.shape[1]):
            state = self.cell(self.tokens(tokens[:, place]), state)
            found.append(self.head(state))
        return torch.stack(found, dim=1)


class Convolution(nn.Module):
    def __init__(self, left=4, right=0):
        super().__init__()
        self.sides, self.convolution = (left, right), nn.Conv1d(D, D, 5)

    def forward(self, x):
        return self.convolution(F.pad(x.transpose(1, 2), self.sides)).transpose(1, 2).tanh()


class Fourier(nn.Module):
    """A causal convolution as long as the row, by Fourier transform: rounding runs backwards."""

    def __init__(self, single=False, padded=True):
        super().__init__()
        self.single, self.padded = single, padded
        self.decay = nn.Parameter(torch.randn(D))

    def forward(self, x):
        length = x.shape[1]
        places = torch.arange(length, dtype=x.dtype)[:, None]
        kernel = torch.exp(-places * self.decay.sigmoid())  # (T, D)
        kind = torch.float32 if self.single else x.dtype
        size = 2 * length if self.padded else length
        spectrum = torch.fft.rfft(x.to(kind), size, dim=1) * torch.fft.rfft(
            kernel.to(kind), size, dim=0
        )
        return torch.fft.irfft(spectrum, size, dim=1)[:, :length].to(x.dtype)


class StateSpace(nn.Module):
    """A selective diagonal state space as one scan by cumulative sums of logarithms."""

    def __init__(self):
        super().__init__()
        self.step, self.value = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        decay = -0.2 * F.softplus(self.step(x))  # (B, T, D), logarithms
        total = decay.cumsum(1)
        past = (total[:, :, None] - total[:, None]).masked_fill(
            ~torch.ones(x.shape[1], x.shape[1]).tril().bool()[None, :, :, None], -math.inf
        )
        return (past.exp() * self.value(x)[:, None]).sum(2)


class Experts(nn.Module):
    """Each token goes through the expert of its own choice, grouped by expert as in practice.

    choice  "token": the router's argmax; "expert": each expert takes its best tokens of the whole
            batch (Zhou et al. 2022), which is not causal
    """

    def __init__(self, choice="token"):
        super().__init__()
        self.choice, self.router = choice, nn.Linear(D, 3)
        self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(3))

    def forward(self, x):
        flat = x.flatten(0, 1)
        weights = self.router(flat).float().softmax(-1)  # float32 whatever x is
        found = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            if self.choice == "token":
                chosen = (weights.argmax(-1) == number).nonzero()[:, 0]
            else:
                chosen = weights[:, number].topk(max(1, len(flat) // 3)).indices
            part = expert(flat[chosen]) * weights[chosen, number, None].to(x.dtype)
            found = found.index_add(0, chosen, part)
        return found.view_as(x)


class OneHot(nn.Module):
    """No embedding, and float32 alone."""

    def __init__(self, ahead=0):
        super().__init__()
        self.ahead, self.body, self.head = ahead, nn.GRU(V, D, batch_first=True), nn.Linear(D, V)

    def forward(self, tokens):
        one_hot = F.one_hot(tokens.roll(-self.ahead, 1), V).float()
        return self.head(self.body(one_hot)[0])


@dataclass
class Output:
    logits: torch.Tensor


class Cached(nn.Module):
    """With its cache on, it gives the logits of the last position alone."""

    def __init__(self):
        super().__init__()
        self.inner = Language(mixer=Recurrent())

    def forward(self, input_ids, use_cache=True):
        logits = self.inner(input_ids)
        return Output(logits[:, -1:] if use_cache else logits)


class NoBackward(nn.Module):
    def __init__(self, body=None):
        super().__init__()
        self.inner = Language(body=body, mixer=Recurrent())

    @torch.no_grad()
    def forward(self, tokens):
        return self.inner(tokens)


def made(build):
    torch.manual_seed(1)
    return build()


def verdicts(proofs):
    return {proof.name: proof.passed for proof in proofs}


def text_of(proofs):
    return report(proofs, 100)


SOUND = {
    "attention": lambda: Language(mixer=Attention()),
    "LSTM": lambda: Language(mixer=Recurrent()),
    "GRU": lambda: Language(mixer=Recurrent(nn.GRU)),
    "step by step": Stepwise,
    "convolution": lambda: Language(mixer=Convolution()),
    "Fourier": lambda: Language(mixer=Fourier()),
    "Fourier in float32": lambda: Language(mixer=Fourier(single=True)),
    "state space": lambda: Language(mixer=StateSpace()),
    "experts": lambda: Language(mixer=Experts()),
    "predicts from what stands before": lambda: Language(
        body=lambda x, tokens: F.pad(x, (0, 0, 1, 0))[:, :-1]
    ),
    "zeroed head": lambda: zeroed(Language(mixer=Attention())),
    "weights of zero": lambda: zeroed(Language(mixer=Recurrent()), whole=True),
    "spectral norm, whose buffers move": lambda: Language(
        mixer=nn.utils.parametrizations.spectral_norm(nn.Linear(D, D))
    ),
    "layers dropped by Python's random": lambda: Language(
        body=lambda x, tokens: x * random.choice([1, 2, 3, 4])
    ),
    "dropout that is always on": lambda: Language(body=lambda x, tokens: F.dropout(x, 0.5)),
}


def zeroed(model, whole=False):
    for parameter in (model if whole else model.head).parameters():
        parameter.data.zero_()
    return model


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_passes_whatever_it_is_made_of(name):
    proofs = verify_model(made(SOUND[name]), SHORT)
    assert len(proofs) == 5 and all(proof.passed for proof in proofs), text_of(proofs)
    for proof in proofs[:4]:
        assert proof.numbers["lengths"] == list(SHORT) and proof.numbers["outputs"] == 60
        assert proof.numbers["precision"].startswith("float64")
        if "Fourier" not in name and name != "experts":
            assert proof.numbers["worst"] == 0
    assert "Proved (5)" in text_of(proofs)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_is_no_leak_however_it_falls(seed):
    for body in (Fourier(single=True), Experts()):
        torch.manual_seed(seed)
        proofs = verify_model(Language(mixer=body).float(), (9, 17), seed=seed)
        assert all(proof.passed for proof in proofs), text_of(proofs)


# --- leaks: body(x, tokens), and a pair (from, to) that the message must name, None: any ----------


def mean_over_chunk(x, tokens):
    parts = [part.mean(1, keepdim=True).expand_as(part) for part in x.split(4, dim=1)]
    return x + torch.cat(parts, dim=1)


def at_one_position(place, size=1.0, ahead=1):
    def body(x, tokens):
        if x.shape[1] <= place + ahead:
            return x
        leak = torch.zeros_like(x)
        leak[:, place] = size * x[:, place + ahead]
        return x + leak

    return body


def discrete(size):
    """A later token chooses what is added: no derivative."""

    def body(x, tokens):
        chosen = F.pad(x[:, 1:], (0, 0, 0, 1)).argmax(-1)
        return x + size * torch.linspace(-1, 1, D, dtype=x.dtype)[chosen][..., None]

    return body


def next_row(x, tokens):
    return torch.cat([x[:1], x[1:] + 0.1 * x[:-1]])


def parity(x, tokens):
    odd = tokens.flip(1).cumsum(1).flip(1) % 2  # of all that stand at or after a position
    return x + odd[..., None]


class Standardised(nn.Module):
    """Batch statistics: over rows and positions."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(D)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Gated(nn.Module):
    """A look ahead behind a gate that training starts from zero (ReZero, zero-init residuals)."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.gate * x.mean(1, keepdim=True)


LEAKY = {
    "bidirectional attention": (lambda: Language(mixer=Attention(first=100)), None),
    "bidirectional recurrent": (lambda: Language(mixer=Recurrent(both=True)), None),
    "off-by-one mask": (lambda: Language(mixer=Attention(first=2)), 1),
    "padding on both sides": (lambda: Language(mixer=Convolution(2, 2)), None),
    "circular Fourier": (lambda: Language(mixer=Fourier(padded=False)), None),
    "mean over a chunk": (lambda: Language(body=mean_over_chunk), None),
    "batch statistics": (lambda: Language(mixer=Standardised()), None),
    "normalised over time": (
        lambda: Language(body=lambda x, tokens: F.layer_norm(x.mT, x.shape[1:2]).mT), None,
    ),
    "softmax over the wrong axis": (lambda: Language(body=lambda x, tokens: x.softmax(1)), None),
    "reads the last token": (lambda: Language(body=lambda x, tokens: x + x[:, -1:]), None),
    "the next token chooses": (lambda: Language(body=discrete(1.0)), 1),
    "the next token chooses, tiny": (lambda: Language(body=discrete(1e-6)), 1),
    "parity of the rest": (lambda: Language(body=parity), None),
    "tiny mean": (lambda: Language(body=lambda x, t: x + 1e-6 * x.mean(1, True)), None),
    "tiny step back": (lambda: Language(body=lambda x, t: x + 1e-6 * x.roll(-1, 1)), None),
    "experts choose": (lambda: Language(mixer=Experts("expert")), None),
    "a row sees the row before": (lambda: Language(body=next_row), None),
    "rows share a mean": (lambda: Language(body=lambda x, t: x + x.mean(0, True)), None),
    "behind a gate of zero": (lambda: Language(mixer=Gated()), None),
    "one-hot of the next": (lambda: OneHot(ahead=1), None),
    "without a backward pass": (lambda: NoBackward(lambda x, t: x.roll(-1, 1)), None),
    "tiny, among rounding": (
        lambda: Language(mixer=Fourier(), body=lambda x, t: x + 1e-6 * x.mean(1, True)), None,
    ),
    "tiny, among rounding of float32": (
        lambda: Language(mixer=Fourier(single=True), body=at_one_position(6, 1e-5)), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKY)
def test_a_leaky_model_fails_and_the_pair_is_named(name):
    build, ahead = LEAKY[name]
    proofs = verify_model(made(build), SHORT)
    wrong = [proof for proof in proofs if proof.passed is False]
    assert wrong, text_of(proofs)
    named = [proof for proof in wrong if "from" in (proof.numbers["place"] or {})]
    assert named, text_of(proofs)
    for proof in named:
        place = proof.numbers["place"]
        assert f"leak from position {place['from']} of tokens" in proof.message
        assert f"to position {place['to']} (row {place['to row']})" in proof.message
        assert place["from"] > place["to"] or place["from row"] != place["to row"]
        if ahead:
            assert place["from"] == place["to"] + ahead
        if place["from row"] != place["to row"]:
            assert f"in another row ({place['from row']})" in proof.message
    assert "FAILED" in text_of(proofs)


@pytest.mark.parametrize(("place", "lengths"), [
    (0, SHORT), (1, SHORT), (15, SHORT), (16, None), (31, None), (50, (64,)), (98, (100,)),
])  # fmt: skip
def test_a_leak_at_one_position_is_found_by_both_forms(place, lengths):
    rows = 3 if lengths != (100,) else 2
    proofs = verify_model(made(lambda: Language(body=at_one_position(place))), lengths, rows=rows)
    for proof in proofs[:4]:
        assert proof.passed is False
        assert (proof.numbers["place"]["from"], proof.numbers["place"]["to"]) == (place + 1, place)


def test_a_leak_beyond_the_lengths_tried_passes_and_the_report_says_which_those_were():
    model = made(lambda: Language(body=at_one_position(40)))
    proofs = verify_model(model, (3, 17, 33))
    assert all(proof.passed for proof in proofs)
    assert "lengths: 3/17/33" in text_of(proofs) and "longer rows" in text_of(proofs)
    assert "Not tried: other lengths" in text_of(proofs)


def test_each_form_sees_what_the_other_cannot():
    chosen = verdicts(verify_model(made(lambda: Language(body=discrete(1.0))), SHORT))
    assert chosen["causality by derivatives, eval mode"] is True
    assert chosen["causality by changed tokens, eval mode"] is False

    class Single(Language):  # float32 alone: what is added is lost in its rounding
        def forward(self, tokens):
            return super().forward(tokens) @ torch.eye(V, dtype=torch.float32)

    tiny = verdicts(
        verify_model(made(lambda: Single(body=lambda x, t: x + 1e-12 * x.roll(-1, 1))), SHORT)
    )
    assert tiny["causality by derivatives, eval mode"] is False
    assert tiny["causality by changed tokens, eval mode"] is True


def test_batch_statistics_leak_in_train_mode_only():
    found = verdicts(verify_model(made(LEAKY["batch statistics"][0]), SHORT))
    assert [each for each in found if found[each] is False] == [
        "causality by derivatives, train mode", "causality by changed tokens, train mode",
    ]  # fmt: skip


def test_a_leak_that_tokens_open_together_is_put_to_the_test_as_well():
    def body(x, tokens):  # at least fourteen small ones must follow
        small = (tokens < 5).int()
        later = small.flip(1).cumsum(1).flip(1) - small
        return x + 1e-6 * (later > 13)[..., None]

    proof = verify_model(made(lambda: Language(body=body)), (33,))[1]
    assert proof.passed is False and "replaced together, though by none" in proof.message


# --- ways of being a model -------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1])
def test_float32_alone_and_no_embedding(ahead):
    proofs = verify_model(made(lambda: OneHot(ahead)), SHORT)
    assert "in no table" in proofs[0].message and proofs[0].passed is None
    assert "left to the form by changed tokens" in proofs[0].message
    assert proofs[1].passed is (ahead == 0) and proofs[4].passed is (ahead == 0)
    assert proofs[1].numbers["precision"].startswith("float32 (float64 fails: ")
    assert "Not checked (2)" in text_of(proofs)


def test_tokens_looked_up_in_a_bare_matrix_are_differentiated():
    table, head = torch.randn(V, D, requires_grad=True), torch.randn(D, V)
    proofs = verify_model(lambda tokens: table[tokens].cumsum(1) @ head, SHORT)
    assert [proof.passed for proof in proofs[:2]] == [True, True], text_of(proofs)
    proofs = verify_model(lambda tokens: table[tokens].flip(1).cumsum(1) @ head, SHORT)
    assert [proof.passed for proof in proofs[:2]] == [False, False]


def test_other_layouts_of_the_tokens_are_recognised():
    class Turned(Language):  # (T, B), as torch's recurrent layers have it by default
        def forward(self, tokens):
            x = self.tokens(tokens.t().contiguous())
            return self.head(self.mixer(x.transpose(0, 1)))

    for first, passed in ((1, True), (2, False)):
        proofs = verify_model(made(lambda: Turned(mixer=Attention(first))), SHORT)  # noqa: B023
        assert [proof.passed for proof in proofs] == [passed] * 5


def test_a_model_without_a_backward_pass_falls_back_and_says_so():
    proofs = verify_model(made(NoBackward), SHORT)
    assert [proof.passed for proof in proofs] == [None, True, None, True, True]
    assert "carry no gradient" in proofs[0].message
    assert "values only" in proofs[4].message


class OnlyInTraining(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, training):
        ctx.training = training
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if not ctx.training:
            raise RuntimeError("RNN backward can only be called in training mode")
        return gradient, None


def test_a_backward_pass_in_train_mode_alone_is_used_there():
    class Picky(Language):
        def forward(self, tokens):
            return OnlyInTraining.apply(super().forward(tokens), self.training)

    proofs = verify_model(made(lambda: Picky(mixer=Recurrent())), SHORT)
    assert [proof.passed for proof in proofs] == [None, True, True, True, True]
    assert "can only be called in training mode" in proofs[0].message


def test_logits_in_an_object_and_a_cache_that_is_on_by_default():
    assert all(proof.passed for proof in verify_model(made(Cached), SHORT))


def test_a_class_and_functions_that_return_a_model_or_a_class():
    for model in (Cached, lambda: made(Cached), lambda: Cached, functools.partial(Cached)):
        assert all(proof.passed for proof in verify_model(model, (3,)))


def test_functions_and_bound_methods_are_read_for_the_modules_they_use():
    model = made(lambda: Language(mixer=Attention()))
    before = copy.deepcopy(model.state_dict())
    for call in (lambda tokens: model(tokens), model.forward, functools.partial(model.forward)):
        proofs = verify_model(call, SHORT)
        assert [proof.passed for proof in proofs] == [True] * 5, text_of(proofs)
        assert proofs[0].numbers["precision"] == "float64"
        assert model.training and model.head.weight.dtype == torch.float32
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("copies", [True, False])
def test_the_model_is_left_as_it_was(copies):
    model = made(lambda: Language(mixer=nn.Sequential(Standardised(), Recurrent())))
    model.mixer[0].eval()
    model.head(torch.ones(2, D)).sum().backward()
    parameters = {name: (p, p.data_ptr()) for name, p in model.named_parameters()}
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    gradient = model.head.weight.grad.clone()
    torch.manual_seed(5)
    random.seed(5)
    drawn, python = torch.get_rng_state(), random.getstate()
    verify_model(model if copies else (lambda tokens: model(tokens)), SHORT)
    assert torch.equal(torch.get_rng_state(), drawn) and random.getstate() == python
    assert torch.get_default_dtype() == torch.float32
    assert [module.training for module in model.modules()] == modes
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name][0] and parameter.data_ptr() == parameters[name][1]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, gradient)
    assert model.mixer[1].layers.weight_hh_l0.grad is None
    assert not model.tokens._forward_hooks


def test_lengths_that_the_model_refuses_are_left_out_and_named():
    class Positions(Language):
        def __init__(self):
            super().__init__(mixer=Attention())
            self.positions = nn.Embedding(20, D)

        def forward(self, tokens):
            return super().forward(tokens) + self.positions(torch.arange(tokens.shape[1])).sum()

    proofs = verify_model(made(Positions), seconds=2)
    assert proofs[0].numbers["lengths"] == [3, 17, 20] and "refuses rows of 33" in proofs[0].message
    with pytest.raises(InputError, match="refuses 3 rows of 33 token ids: IndexError"):
        verify_model(made(Positions), (3, 33))


def test_a_model_of_whole_chunks_and_one_of_single_rows():
    class Chunks(Language):
        def forward(self, tokens):
            tokens.view(len(tokens), -1, 8)
            return super().forward(tokens)

    proofs = verify_model(made(lambda: Chunks(mixer=Recurrent())), seconds=2)
    assert proofs[0].numbers["lengths"] == [16, 32] and all(p.passed for p in proofs)

    class Single(Language):
        def forward(self, tokens):
            assert len(tokens) == 1
            return super().forward(tokens)

    proofs = verify_model(made(lambda: Single(mixer=Recurrent())), seconds=2)
    assert all(p.passed for p in proofs) and "rows see each other was not" in proofs[0].message


def test_a_model_that_depends_on_nothing_proves_nothing():
    proofs = verify_model(lambda tokens: torch.ones(*tokens.shape, V), SHORT)
    assert [proof.passed for proof in proofs[:2]] == [None, False]
    assert "vacuous" in proofs[1].message


def test_logits_that_are_no_numbers_and_logits_that_change_by_themselves_fail():
    model = made(lambda: Language(body=lambda x, tokens: x / 0 - x / 0))
    assert "are not numbers" in verify_model(model, SHORT)[1].message
    calls = []
    model = made(lambda: Language(body=lambda x, tokens: x + len(calls) + (calls.append(1) or 0)))
    assert "other logits each time" in verify_model(model, SHORT)[1].message


def test_forbidden_classes_are_no_leak():
    model = made(lambda: Language(mixer=Attention()))
    barred = torch.zeros(V).bool().index_fill(0, torch.tensor([0]), True)
    wrapped = lambda tokens: model(tokens).masked_fill(barred, -math.inf)  # noqa: E731
    assert all(proof.passed for proof in verify_model(wrapped, SHORT))


@pytest.mark.parametrize("sees_later", [False, True])
def test_a_target_that_the_model_rules_out_is_compared_too(sees_later):
    model = made(lambda: Language(mixer=Attention(100 if sees_later else 1)))
    barred = torch.arange(V) % 3 == 1
    wrapped = lambda tokens: model(tokens).masked_fill(barred, -math.inf)  # noqa: E731
    proof = verify_model(wrapped, SHORT)[4]
    assert proof.passed is (not sees_later), proof.message
    assert math.isfinite(proof.numbers["worst"]) and proof.numbers["worst gradient"] > 0


def test_dropout_stays_off_where_something_checkpointed_runs_again():
    def body(x, tokens):
        inner = lambda z: F.dropout(z.cumsum(1), 0.5).tanh()  # noqa: E731
        return checkpoint(inner, x, use_reentrant=False)

    proofs = verify_model(made(lambda: Language(body=body)), SHORT)
    derivatives = proofs[0].passed, proofs[2].passed
    assert proofs[4].passed and derivatives == (True, True), text_of(proofs)

    found = []

    def inner(z):
        found.append(float(F.dropout(torch.ones(99), 0.5).min()))
        return z.sin()

    leaf = torch.ones(3, requires_grad=True)
    backward(checkpoint(inner, leaf, use_reentrant=False).sum(), [leaf])
    assert found[1] == 1 and leaf.grad is None


def test_numpys_generator_is_seeded_and_put_back():
    numpy = pytest.importorskip("numpy")
    noisy = lambda x, tokens: x + float(numpy.random.rand())  # noqa: E731
    numpy.random.seed(3)
    before = numpy.random.get_state()[1].copy()
    proofs = verify_model(made(lambda: Language(body=noisy)), SHORT)
    assert all(proof.passed for proof in proofs), text_of(proofs)
    assert (numpy.random.get_state()[1] == before).all()


def test_a_transform_by_matrices_of_ones_own_is_rounding_in_float64():
    def body(x, tokens):
        size = 2 * x.shape[1]
        places = torch.arange(size, dtype=x.dtype)
        matrix = torch.exp(-2j * math.pi / size * places[:, None] * places)
        kernel = 0.7 ** places.where(places < x.shape[1], math.inf)
        spectrum = matrix @ F.pad(x, (0, 0, 0, x.shape[1])).to(matrix.dtype)
        spectrum = spectrum * (matrix @ kernel.to(matrix.dtype))[:, None]
        return (matrix.conj() @ spectrum).real[:, : x.shape[1]] / size

    proofs = verify_model(made(lambda: Language(body=body)), SHORT)
    assert all(proof.passed for proof in proofs[:4]), text_of(proofs)


# --- transformers, as they are ---------------------------------------------------------------


def test_gpt2_passes_at_the_default_lengths():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=101, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=1,
    )  # fmt: skip
    proofs = verify_model(made(lambda: transformers.GPT2LMHeadModel(config)), seconds=3)
    assert [proof.passed for proof in proofs] == [True] * 5, text_of(proofs)
    assert [proof.numbers["worst"] for proof in proofs[:4]] == [0] * 4
    assert proofs[0].numbers["lengths"] == [3, 17, 33] and proofs[0].numbers["outputs"] == 159
    assert proofs[4].numbers["worst"] <= proofs[4].numbers["tolerance"] < 1e-12


def test_bert_fails_with_the_pair():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    proofs = verify_model(made(lambda: transformers.BertForMaskedLM(config)), SHORT)
    assert [proof.passed for proof in proofs] == [False] * 5
    assert "leak from position" in proofs[0].message
    assert "in the whole sequence" in proofs[4].message


# --- naming a model, and the report ----------------------------------------------------------


def test_load_model_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "import torch\nfrom torch import nn\nnumber = 3\n"
        "class Sound(nn.Module):\n"
        "    def __init__(self, width=4):\n"
        "        super().__init__()\n"
        "        self.tokens, self.head = nn.Embedding(7, width), nn.Linear(width, 7)\n"
        "    def forward(self, tokens):\n"
        "        return self.head(self.tokens(tokens).cumsum(1))\n"
        "def sound():\n    return Sound()\n"
        "def wrong():\n    return 3\n"
        "def fails():\n    raise RuntimeError('no weights')\n"
        "def shape(tokens):\n    return tokens\n"
        "def two(tokens, memory):\n    return tokens\n"
        "class Needs(Sound):\n    def __init__(self, size):\n        super().__init__(size)\n"
        "class Space:\n    instance = Sound()\n"
    )
    (tmp_path / "broken_models.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for name in ("Sound", "sound", "Space.instance"):
        state = torch.get_rng_state()
        model = load_model(f"my_models:{name}")
        assert torch.equal(torch.get_rng_state(), state)
        assert all(proof.passed for proof in verify_model(model, (3,)))
    for spec, message in {
        "my_models": "write MODULE:NAME",
        "my_models:": "write MODULE:NAME",
        "nowhere_at_all:x": "cannot import nowhere_at_all: ModuleNotFoundError",
        "broken_models:x": "cannot import broken_models: ModuleNotFoundError: No module named 'now",
        "my_models:missing": "my_models has no missing",
        "my_models:number": "is of type int: it must be callable",
        "my_models:wrong": "returns type int when called without arguments",
        "my_models.py:Sound": "without .py and without a path, such as my_models:Sound,",
        "./my_models:Sound": "without .py and without a path, such as my_models:Sound,",
        "my_models:two": r"my_models:two needs memory besides the token ids \(tokens\)",
        "my_models:fails": "calling it failed: RuntimeError: no weights",
        "my_models:Needs": "the class Needs needs size",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            load_model(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gives shape \(3, 3\) for token ids of shape \(3, 3\)"):
        verify_model(load_model("my_models:shape"))


def test_the_report_is_plain_data_and_fits_its_width():
    proofs = verify_model(made(LEAKY["off-by-one mask"][0]), SHORT)
    data = json.loads(json.dumps([proof.as_data() for proof in proofs], allow_nan=False))
    assert data[0]["numbers"]["place"]["from"] == data[0]["numbers"]["place"]["to"] + 1
    assert data[0]["passed"] is False
    for width in (50, 80, 120):
        lines = report(proofs, width).splitlines()
        assert max(map(len, lines)) <= width
    for label in ("found", "compared", "numbers", "why", "not covered"):
        assert f"  {label} " in report(proofs, 80)
