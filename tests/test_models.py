"""Every model against its contract, against answers worked by hand, and against transformers."""

import copy
import dataclasses
import inspect
import math
import typing

import making
import pytest
import torch
import torch.nn.functional as F
import transformers

from minicpt import models
from minicpt.checkpoint import huggingface
from minicpt.common.errors import InputError
from minicpt.models.abilities import Abilities
from minicpt.models.bert import BERT, BERTConfig
from minicpt.models.gpt2 import GPT2, GPT2Config
from minicpt.models.initial import deviation
from minicpt.models.layers import causal_mask
from minicpt.models.narrow import Narrow
from minicpt.models.t5 import T5, RMSNorm, T5Config, bucket
from minicpt.proofs.bounds import largest

V, P = 37, 24


def _cases():
    """Every model, once for each choice that its config offers."""
    for name, kind in models.known().items():
        fields = dataclasses.fields(kind.Config)
        hints = typing.get_type_hints(kind.Config)
        choices = {
            field.name: typing.get_args(hints[field.name])
            for field in fields
            if typing.get_origin(hints[field.name]) is typing.Literal
        }
        variants = [{name: value} for name, values in choices.items() for value in values]
        for changes in variants or [{}]:
            yield pytest.param(kind, changes, id="-".join([name, *changes.values()]))


EVERY = pytest.mark.parametrize("kind, changes", list(_cases()))


def config_of(kind, **changes):
    fields = {field.name for field in dataclasses.fields(kind.Config)}
    sizes = {"vocabulary": V, "positions": P, "width": 16, "layers": 2, "num_heads": 2}
    sizes["dropout"] = 0.1
    return kind.Config(**{k: v for k, v in sizes.items() if k in fields} | changes)


def model_of(kind, changes, seed=0, **more):
    """A tiny model in float64, in evaluation mode, whose weights are nowhere 0 or 1 exactly."""
    torch.manual_seed(seed)
    model = kind(config_of(kind, **changes, **more)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def inputs_of(model, rows=2, length=9, seed=1):
    """Random tokens for every argument of forward that is required."""
    noise = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(V, (rows, length - 2 * index), generator=noise)
        for index, name in enumerate(required(model))
    }


def required(model):
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def close(found, expected, model, inputs):
    """Equal but for rounding, and not because all is nearly zero."""
    assert expected.abs().max() > 0.01
    making.close(found, expected, model, inputs)


# The contract of every model


@EVERY
def test_the_model_declares_what_the_others_rely_on(kind, changes):
    assert kind.ROLE in ("encoder", "decoder", "encoder-decoder")
    taken = list(inspect.signature(kind.forward).parameters)[1:]
    assert set(kind.INPUTS) == set(taken)
    fields = dataclasses.fields(kind.Config)
    assert fields[0].name == "vocabulary"
    assert "help" not in fields[0].metadata
    flags = {field.name for field in fields if "help" in field.metadata}
    assert {"width", "layers", "num_heads", "feed_forward", "dropout", "fused"} <= flags
    config = config_of(kind, **changes)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 3
    assert models.name_of(model_of(kind, changes)) in models.known()


@EVERY
def test_forward_and_heads_have_the_agreed_shapes(kind, changes):
    model = model_of(kind, changes)
    inputs = inputs_of(model)
    hidden = model(**inputs)
    assert hidden.shape == (*inputs[required(model)[-1]].shape, model.config.width)
    assert "tokens" in model.heads
    for name, head in model.heads.items():
        chosen = hidden[:, 0]
        logits = head(chosen)
        assert logits.shape == (2, V if name == "tokens" else 2)
        assert head.transform(chosen).shape == chosen.shape
        again = F.linear(head.transform(chosen), head.weight, head.bias)
        assert torch.equal(logits, again)


@EVERY
def test_tied_weights_are_one_parameter_and_stay_so(kind, changes):
    tied = kind is not T5 or changes["version"] == "1.0"
    model = model_of(kind, changes)
    for one in (model, copy.deepcopy(model), model.float()):
        assert (one.heads["tokens"].weight is one.tokens.weight) == tied


@EVERY
def test_fused_equals_written_out_in_value_and_gradient(kind, changes):
    results = []
    for fused in (True, False):
        model = model_of(kind, changes, fused=fused)
        inputs = inputs_of(model)
        mask = torch.ones_like(inputs["tokens"], dtype=torch.bool)
        mask[1, 5:] = False
        hidden = model(**inputs, mask=mask)
        loss = sum(head(hidden[:, 0]).logsumexp(-1).sum() for head in model.heads.values())
        (loss + hidden.square().sum()).backward()
        results.append([hidden, *(p.grad for p in model.parameters())])
    for kernel, written in zip(*results, strict=True):
        assert kernel is not None
        making.close(kernel, written, model, inputs, size=largest(*results[0]))


@EVERY
def test_padding_changes_no_real_position(kind, changes):
    model = model_of(kind, changes)
    inputs = inputs_of(model, rows=1, length=7)
    alone = model(**inputs)
    for amount, pad in ((1, 0), (6, 0), (6, V - 1)):
        padded = {name: F.pad(tokens, (0, amount), value=pad) for name, tokens in inputs.items()}
        masks = {
            name.replace("tokens", "mask"): torch.arange(padded[name].size(1)) < tokens.size(1)
            for name, tokens in inputs.items()
        }
        masks = {name: mask[None] for name, mask in masks.items()}
        hidden = model(**padded, **masks)[:, : alone.size(1)]
        close(hidden, alone, model, padded)


@EVERY
def test_no_mask_means_all_real(kind, changes):
    model = model_of(kind, changes)
    inputs = inputs_of(model)
    masks = {
        name.replace("tokens", "mask"): torch.ones_like(tokens, dtype=torch.bool)
        for name, tokens in inputs.items()
    }
    close(model(**inputs, **masks), model(**inputs), model, inputs)


@EVERY
def test_dropout_acts_in_training_only_and_where_it_is_asked_for(kind, changes):
    model = model_of(kind, changes, dropout=0.3)
    inputs = inputs_of(model)
    assert torch.equal(model(**inputs), model(**inputs))
    model.train()
    assert not torch.equal(model(**inputs), model(**inputs))
    still = model_of(kind, changes, dropout=0.0).train()
    assert torch.equal(still(**inputs), still(**inputs))


@EVERY
def test_a_fresh_model_starts_near_the_uniform_guess(kind, changes):
    torch.manual_seed(0)
    model = kind(config_of(kind, **changes, width=64)).eval()
    inputs = inputs_of(model, rows=8)
    hidden = model(**inputs).flatten(0, 1)
    targets = torch.randint(V, (len(hidden),))
    loss = F.cross_entropy(model.heads["tokens"](hidden), targets)
    # T5's logits start with unit variance, and a tied head favours the token just read.
    assert abs(loss.item() - math.log(V)) < 1.5


@EVERY
@pytest.mark.parametrize(
    "fault",
    [
        {"num_heads": 3},
        {"width": 0},
        {"layers": -1},
        {"vocabulary": 0},
        {"feed_forward": -1},
        {"dropout": 1.0},
        {"dropout": math.nan},
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(kind, changes, fault):
    with pytest.raises(InputError) as error:
        config_of(kind, **changes | fault)
    assert next(iter(fault)).replace("_", "-") in str(error.value)
    assert "\n" not in str(error.value)


@EVERY
def test_ids_beyond_the_vocabulary_are_refused(kind, changes):
    model = model_of(kind, changes)
    inputs = inputs_of(model)
    for name in required(model):
        with pytest.raises(InputError, match="tokenizer"):
            model(**inputs | {name: inputs[name] + V})


@pytest.mark.parametrize("kind", [BERT, GPT2])
def test_more_positions_than_the_table_holds_are_refused(kind):
    model = model_of(kind, {})
    assert model(torch.zeros(1, P, dtype=torch.long)).shape == (1, P, 16)
    with pytest.raises(InputError, match="25 positions"):
        model(torch.zeros(1, P + 1, dtype=torch.long))
    with pytest.raises(InputError, match="outside its table"):
        model(torch.zeros(1, 2, dtype=torch.long), positions=torch.tensor([[0, P]]))


# Answers worked by hand


def test_parameters_of_the_encoder():
    d, f, layers = 16, 40, 2
    layer = (d * 3 * d + 3 * d) + (d * d + d) + 2 * d + (d * f + f) + (f * d + d) + 2 * d
    embeddings = (V + P + 2) * d + 2 * d
    heads = (d * d + d + 2 * d + V) + (d * d + d + 2 * d + 2)
    model = model_of(BERT, {}, feed_forward=f)
    assert sum(p.numel() for p in model.parameters()) == embeddings + layers * layer + heads


def test_parameters_of_the_decoder():
    d, layers = 16, 2  # the well-known 12 L D^2 + 13 L D, the embeddings, and the final norm
    expected = 12 * layers * d * d + 13 * layers * d + (V + P) * d + 2 * d
    assert sum(p.numel() for p in model_of(GPT2, {}).parameters()) == expected


@pytest.mark.parametrize("version, matrices, tables", [("1.0", 2, 1), ("1.1", 3, 2)])
def test_parameters_of_the_encoder_decoder(version, matrices, tables):
    d, h, k, f = 16, 2, 5, 40
    attention, feed_forward = 4 * d * h * k + d, matrices * d * f + d
    expected = (
        2 * (attention + feed_forward)
        + 3 * (2 * attention + feed_forward)
        + 2 * (32 * h + d)
        + tables * V * d
    )
    changes = {"version": version, "head_width": k, "feed_forward": f, "decoder_layers": 3}
    model = model_of(T5, changes)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_rms_norm_takes_off_no_mean():
    norm = RMSNorm(2).double()
    found = norm(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    expected = torch.tensor([[3.0, 4.0]], dtype=torch.float64) / math.sqrt(12.5 + 1e-6)
    making.close(found, expected, 8)  # two squares, their mean, a root, a quotient, a product


@pytest.mark.parametrize("both", [True, False])
def test_buckets_of_all_distances(both):
    distance = torch.arange(-300, 301)
    oracle = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    expected = oracle(distance, bidirectional=both, num_buckets=32, max_distance=128)
    assert torch.equal(bucket(distance, both), expected)


def test_published_initialisation():
    torch.manual_seed(0)
    sizes = {"positions": 256, "width": 128, "layers": 8}
    wider = 0.02 * (768 / 128) ** 0.5  # published for width 768
    a_gpt2 = GPT2(GPT2Config(vocabulary=500, **sizes))
    a_bert = BERT(BERTConfig(vocabulary=500, **sizes))
    a_t5 = T5(T5Config(vocabulary=500, head_width=16))
    a_wide = GPT2(GPT2Config(vocabulary=50, positions=16, width=1024, layers=1))
    for weight, std in (
        (a_wide.layers[0].attention.qkv.weight, 0.02),
        (a_gpt2.tokens.weight, wider),
        (a_gpt2.layers[0].attention.qkv.weight, wider),
        (a_gpt2.layers[0].attention.output.weight, wider / 4),
        (a_gpt2.layers[7].feed_forward.contract.weight, wider / 4),
        (a_bert.segments.weight, wider),
        (a_bert.layers[0].attention.output.weight, wider),
        (a_bert.heads["pair"].pooler.weight, wider),
        (a_t5.tokens.weight, 1.0),
        (a_t5.encoder.layers[0].attention.qkv.weight[:64], (128 * 16) ** -0.5),
        (a_t5.decoder.layers[0].cross_attention.key_value.weight, 128**-0.5),
        (a_t5.decoder.layers[0].cross_attention.output.weight, 64**-0.5),
        (a_t5.decoder.layers[0].feed_forward.contract.weight, 512**-0.5),
    ):
        assert abs(weight.std().item() / std - 1) < 0.15
        assert abs(weight.mean().item()) < 0.1 * std
    assert not a_gpt2.layers[0].attention.qkv.bias.any()


# What a position may see


def influence(model, inputs, name, position, **masks):
    """Which positions of row 0 of the hidden states change with one input token."""
    changed = inputs[name].clone()
    changed[0, position] = (changed[0, position] + 1) % V
    before, after = model(**inputs, **masks), model(**inputs | {name: changed}, **masks)
    return (before - after)[0].abs().amax(-1) > 1e-9


def test_the_decoder_sees_itself_and_what_stands_before():
    model = model_of(GPT2, {})
    inputs = inputs_of(model)
    for position in range(9):
        assert influence(model, inputs, "tokens", position).tolist() == [
            place >= position for place in range(9)
        ]


def test_the_encoder_sees_everything_real():
    model = model_of(BERT, {})
    inputs = inputs_of(model)
    mask = torch.arange(9).expand(2, 9) < 6
    assert influence(model, inputs, "tokens", 3, mask=mask).all()
    assert not influence(model, inputs, "tokens", 7, mask=mask)[:6].any()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_second_stack_sees_the_encoder_and_its_own_past(version):
    model = model_of(T5, {"version": version})
    inputs = inputs_of(model)
    mask = torch.arange(9).expand(2, 9) < 6
    assert influence(model, inputs, "tokens", 3, mask=mask).all()
    assert not influence(model, inputs, "tokens", 7, mask=mask).any()
    found = influence(model, inputs, "decoder_tokens", 2, mask=mask)
    assert found.tolist() == [place >= 2 for place in range(7)]
    with pytest.raises(InputError, match="mask must be"):
        model(**inputs, mask=torch.ones(2, 9, 9, dtype=torch.bool))


def test_packed_documents_are_as_if_alone():
    for kind in (BERT, GPT2):
        model = model_of(kind, {})
        tokens = inputs_of(model)["tokens"]
        packed = tokens.reshape(1, 18)
        document = torch.arange(18)[None] // 9  # (1, T)
        pattern = document[:, :, None] == document[:, None, :]  # (1, T, T)
        if kind is GPT2:
            pattern = pattern & torch.ones(18, 18).tril().bool()
        positions = torch.arange(18)[None] % 9
        found = model(packed, mask=pattern, positions=positions).view(2, 9, 16)
        close(found, model(tokens), model, packed)


def test_a_pattern_is_used_as_it_is():
    model = model_of(GPT2, {})
    inputs = inputs_of(model)
    prefix = torch.ones(9, 9).tril().bool()
    prefix[:, :4] = True  # a prefix of four is read in both directions
    seen = influence(model, inputs, "tokens", 3, mask=prefix.expand(2, 9, 9))
    assert seen.all()
    model = model_of(T5, {})
    inputs = inputs_of(model)
    pattern = prefix[:7, :7].expand(2, 7, 7)
    assert influence(model, inputs, "decoder_tokens", 3, decoder_mask=pattern).all()


def test_left_padding_with_positions_changes_nothing():
    model = model_of(GPT2, {})
    tokens = inputs_of(model)["tokens"]
    padded, place = F.pad(tokens, (3, 0)), torch.arange(12).expand(2, 12)
    hidden = model(padded, mask=place >= 3, positions=(place - 3).clamp(min=0))
    close(hidden[:, 3:], model(tokens), model, padded)
    for version in ("1.0", "1.1"):  # distances are relative: positions are not needed
        model = model_of(T5, {"version": version})
        inputs = inputs_of(model)
        padded = {name: F.pad(tokens, (3, 0)) for name, tokens in inputs.items()}
        hidden = model(**padded, mask=place >= 3, decoder_mask=place[:, :10] >= 3)
        close(hidden[:, 3:], model(**inputs), model, padded)


def test_rows_that_see_nothing_stay_finite():
    for kind in (BERT, GPT2):
        model = model_of(kind, {})
        pattern = torch.eye(9).bool().expand(2, 9, 9).clone()
        pattern[0, 4] = False
        hidden = model(inputs_of(model)["tokens"], mask=pattern)
        hidden.sum().backward()
        assert hidden.isfinite().all()
        gradients = [p.grad for n, p in model.named_parameters() if not n.startswith("heads")]
        assert all(gradient.isfinite().all() for gradient in gradients)


# What a model offers beside hidden states and heads


DECODERS = [kind for kind in models.known().values() if kind.ROLE == "decoder"]
WITH_BLOCK = [kind for kind in models.known().values() if kind.block is not Abilities.block]
NARROW = [kind for kind in models.known().values() if kind.smaller is not Abilities.smaller]


def test_some_models_have_each_ability():
    assert DECODERS and WITH_BLOCK and NARROW


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_steps_with_a_cache_are_the_forward_pass(kind):
    """For several rows; a prompt at once and the rest token by token, or in pieces."""
    model = model_of(kind, {})
    tokens = inputs_of(model, rows=3, length=P)["tokens"]
    expected = model(tokens)
    for pieces in ([1] * P, [9] + [1] * (P - 9), [5, 1, 7, P - 13], [P]):
        cache, found = model.cache(3, P), []
        for part in tokens.split(pieces, dim=1):
            found.append(model.step(part, cache))
        close(torch.cat(found, dim=1), expected, model, tokens)
        assert cache.place.tolist() == [P] * 3


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_a_row_begins_a_new_text_while_the_others_go_on(kind):
    """Nothing of the old text is seen, in whichever step the row begins anew."""
    model = model_of(kind, {})
    tokens = inputs_of(model, rows=3, length=20)["tokens"]
    for reset in (1, 4, 11):
        cache = model.cache(3, 20)
        model.step(tokens[:, :reset], cache)
        cache.place[1] = 0
        found = [model.step(tokens[:, at, None], cache)[:, 0] for at in range(reset, 20)]
        whole = model(tokens)[:, reset:]
        anew = model(tokens[1:2, reset:])[0]
        for at, hidden in enumerate(found):
            close(hidden[[0, 2]], whole[[0, 2], at], model, tokens)
            close(hidden[1], anew[at], model, tokens)
        # And a longer piece, read from different places.
        cache = model.cache(3, 20)
        model.step(tokens[:, :reset], cache)
        cache.place[1] = 0
        hidden = model.step(tokens[:, reset:], cache)
        close(hidden[1], anew, model, tokens)
        close(hidden[0], whole[0], model, tokens)


@pytest.mark.parametrize("kind", WITH_BLOCK)
def test_a_block_is_one_more_layer_of_its_kind(kind):
    model = model_of(kind, {})
    block = model.block().double().eval()
    shapes = {name: p.shape for name, p in block.named_parameters()}
    assert shapes == {name: p.shape for name, p in model.layers[-1].named_parameters()}
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in block.parameters())
    x = model(**inputs_of(model)).detach()
    mask = causal_mask(9)
    out = block(x, mask)
    assert out.shape == x.shape
    changed = x.clone()
    changed[:, 5] = -changed[:, 5]
    moved = (block(changed, mask) - out)[0].abs().amax(-1) > 1e-9
    assert moved.tolist() == [place >= 5 for place in range(9)], "it looks where the mask says"
    weight = next(p for p in model.block().attention.parameters() if p.dim() == 2)
    assert abs(weight.std().item() / deviation(model.config.width) - 1) < 0.2


@pytest.mark.parametrize("kind", NARROW)
def test_a_narrow_sister_shares_the_tables_and_feeds_the_heads(kind):
    model = model_of(kind, {}, dropout=0.0)
    small = model.smaller(6).double()
    assert isinstance(small, Narrow)
    inputs = inputs_of(model)
    hidden = small(model, **inputs)
    assert hidden.shape == (2, 9, model.config.width)
    assert model.heads["tokens"](hidden[:, 0]).shape == (2, V)
    assert len(small.inner.layers) == len(model.layers)
    assert {p.shape[1] for p in small.inner.layers[0].attention.parameters() if p.dim() == 2} == {6}
    # The tables are those of the model, and no copies: none is a parameter of the sister.
    assert not any(p.shape[0] == V for p in small.parameters())
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in small.parameters())
    hidden.square().sum().backward()
    assert model.tokens.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.layers.parameters())
    assert all(p.grad is not None for p in small.parameters())
    mask = torch.arange(9).expand(2, 9) < 6
    changed = inputs["tokens"].clone()
    changed[:, 7] = (changed[:, 7] + 1) % V
    one, other = (small(model, tokens, mask=mask) for tokens in (inputs["tokens"], changed))
    assert torch.equal(one[:, :6], other[:, :6]) and not torch.equal(one[:, 7], other[:, 7])


def test_what_a_model_does_not_offer_is_refused_in_one_line():
    model = model_of(T5, {"version": "1.1"})
    for ask in (
        model.block,
        lambda: model.smaller(8),
        lambda: model.cache(1, 8),
        lambda: model.step(torch.zeros(1, 1, dtype=torch.long), None),
    ):
        with pytest.raises(InputError, match="T5 "):
            ask()


# The oracle


def randomised(model):
    """An oracle whose weights are nowhere 0 or 1 exactly, in float64."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ours(oracle):
    state = oracle.state_dict()
    kind, config = huggingface.read_config(oracle.config.to_dict(), state)
    model = kind(config).double().eval()
    assert huggingface.import_state(model, state) == []
    return model


def dropped(model, monkeypatch, **inputs):
    """The shape and the rate of all that dropout is applied to in one training step, sorted.

    Theirs is torch's; ours becomes torch's in a model that is being compiled.
    """
    shapes, real = [], F.dropout

    def record(x, p=0.5, training=True, inplace=False):
        if training and p > 0:
            shapes.append((tuple(x.shape), p))
        return real(x, p, training, inplace)

    with monkeypatch.context() as patch:
        patch.setattr(F, "dropout", record)
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        model.train()(**inputs)
    return sorted(shapes)


def eager(oracle):
    oracle.set_attn_implementation("eager")
    return oracle


def test_dropout_stands_where_the_published_models_have_it(monkeypatch):
    """Each kind with its own rate."""
    tokens, target = torch.zeros(1, 7, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long)
    rates = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=96, **rates,
    )  # fmt: skip
    model = huggingface.build(config.to_dict(), fused=False)
    expected = dropped(eager(transformers.BertModel(config)), monkeypatch, input_ids=tokens)
    assert dropped(model, monkeypatch, tokens=tokens) == expected
    rates = {"resid_pdrop": 0.2, "attn_pdrop": 0.3, "embd_pdrop": 0.4}
    config = transformers.GPT2Config(vocab_size=V, n_embd=24, n_layer=2, n_head=3, **rates)
    model = huggingface.build(config.to_dict(), fused=False)
    expected = dropped(eager(transformers.GPT2Model(config)), monkeypatch, input_ids=tokens)
    assert dropped(model, monkeypatch, tokens=tokens) == expected
    for version in ("1.0", "1.1"):
        oracle = eager(t5_oracle(version))
        model = huggingface.build(oracle.config.to_dict())
        expected = dropped(oracle, monkeypatch, input_ids=tokens, decoder_input_ids=target)
        model = T5(dataclasses.replace(model.config, fused=False))
        assert dropped(model, monkeypatch, tokens=tokens, decoder_tokens=target) == expected


# Rows, positions, and how many of the last row's positions are padding.
SHAPES = pytest.mark.parametrize(
    "rows, length, short", [(1, 7, 0), (3, 13, 5), (1, P, 0), (2, 1, 0)]
)


def tokens_and_mask(rows, length, short, seed=0):
    tokens = torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[-1, length - short :] = False
    return tokens, mask


@SHAPES
def test_encoder_agrees_with_transformers(rows, length, short):
    torch.manual_seed(0)
    oracle = randomised(
        transformers.BertForPreTraining(
            transformers.BertConfig(
                vocab_size=V, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                intermediate_size=40, max_position_embeddings=P,
            )
        )
    )  # fmt: skip
    model = ours(oracle)
    tokens, mask = tokens_and_mask(rows, length, short)
    segments = (torch.arange(length) > length // 2).long().expand(rows, length)
    expected = oracle(
        tokens, attention_mask=mask.long(), token_type_ids=segments, output_hidden_states=True
    )
    hidden = model(tokens, mask=mask, segments=segments)
    close(hidden[mask], expected.hidden_states[-1][mask], model, tokens)
    close(model.heads["tokens"](hidden)[mask], expected.prediction_logits[mask], model, tokens)
    close(model.heads["pair"](hidden[:, 0]), expected.seq_relationship_logits, model, tokens)


@SHAPES
def test_decoder_agrees_with_transformers(rows, length, short):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=V, n_positions=P, n_embd=24, n_layer=3, n_head=3)
    oracle = randomised(transformers.GPT2LMHeadModel(config))
    model = ours(oracle)
    tokens, mask = tokens_and_mask(rows, length, short)
    expected = oracle(tokens, attention_mask=mask.long(), output_hidden_states=True)
    hidden = model(tokens, mask=mask)
    close(hidden[mask], expected.hidden_states[-1][mask], model, tokens)
    close(model.heads["tokens"](hidden)[mask], expected.logits[mask], model, tokens)


def t5_oracle(version):
    """A T5 of transformers. Its version 5 ties the head in all cases: untied by hand here."""
    torch.manual_seed(0)
    oracle = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=V, d_model=24, d_kv=7, d_ff=40, num_layers=2, num_decoder_layers=3,
            num_heads=3, feed_forward_proj="relu" if version == "1.0" else "gated-gelu",
            tie_word_embeddings=version == "1.0", decoder_start_token_id=0,
        )
    )  # fmt: skip
    if version == "1.1":
        oracle.lm_head.weight = torch.nn.Parameter(torch.randn(V, 24))
    return oracle


@SHAPES
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_encoder_decoder_agrees_with_transformers(version, rows, length, short, monkeypatch):
    def norm(self, x):  # transformers takes the variance in float32, whatever the type
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    monkeypatch.setattr(transformers.models.t5.modeling_t5.T5LayerNorm, "forward", norm)
    oracle = randomised(t5_oracle(version))
    model = ours(oracle)
    assert model.config.version == version
    tokens, mask = tokens_and_mask(rows, length, short)
    target, target_mask = tokens_and_mask(rows, 30 - length, 2 if short else 0, seed=1)
    expected = oracle(
        tokens, attention_mask=mask.long(), decoder_input_ids=target,
        decoder_attention_mask=target_mask.long(), output_hidden_states=True,
    )  # fmt: skip
    inputs = {"tokens": tokens, "decoder_tokens": target}
    close(model.encode(tokens, mask)[mask], expected.encoder_last_hidden_state[mask], model, inputs)
    hidden = model(tokens, target, mask=mask, decoder_mask=target_mask)
    close(hidden[target_mask], expected.decoder_hidden_states[-1][target_mask], model, inputs)
    close(model.heads["tokens"](hidden)[target_mask], expected.logits[target_mask], model, inputs)
