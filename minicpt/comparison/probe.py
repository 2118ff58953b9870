"""The probe: one small task for every model, whatever its objective (see ``task``).

Losses of different objectives have different units. What their models know can be compared all the
same. A passage's features are its hidden states, averaged over its own positions. The encoder and
the decoder give their hidden states, the encoder-decoder those of its encoder. Every model reads
the same passages, undamaged.

    frozen  a logistic regression on the features; the model stays as it is
    tuned   a linear layer on the features and all weights of a copy of the model learn together
            (Devlin et al. 2018, arXiv 1810.04805, tune so for classification)

P passages, D width, C parts, A passages that are asked.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import pad, padding
from minicpt.common.evaluating import evaluating
from minicpt.common.randomness import generator
from minicpt.comparison.task import DRAWS, Task
from minicpt.data.corpus import Passage
from minicpt.data.tokenizer import Tokenizer
from minicpt.training.optimizer import Optimization, learning_rate, make_optimizer

PENALTY = 1e-2  # on half the squared weights, features standardised
ITERATIONS = 200
TUNED = 2  # of the draws: tuning takes most of the time
PASSES, TUNED_TOGETHER = 3, 32  # over the shots, and how many of them in a step
# What stands before and after a text that a model of this role reads.
AROUND = {"encoder": ("cls", "sep"), "decoder": ("end", None), "encoder-decoder": (None, None)}


def batches(passages: Sequence, size: int) -> Iterator[tuple[Tensor, list]]:
    """The places of passages of like length, (B,), with these passages."""
    lengths = torch.tensor([len(each.tokens) for each in passages])
    for places in lengths.argsort(stable=True).split(size):
        yield places, [passages[place] for place in places.tolist()]


def means(model: nn.Module, tokenizer: Tokenizer, passages: Sequence[Passage]) -> Tensor:
    """The hidden states of each passage averaged over its own tokens: (B, D) float32.

    What models of this role read around a text is read, but not averaged.
    """
    before, after = (
        torch.tensor([tokenizer.need(role)] if role else [], dtype=torch.int64)
        for role in AROUND[model.ROLE]
    )
    device = next(model.parameters()).device
    texts = [torch.cat([before, each.tokens, after]) for each in passages]
    mask = padding(texts)  # (B, T)
    read = model.encode if hasattr(model, "encode") else model
    hidden = read(pad(texts, 0).to(device), mask.to(device)).float()  # (B, T, D)
    inner = mask.clone()
    inner[:, : len(before)] = False
    if len(after):
        inner[torch.arange(len(texts)), mask.sum(1) - 1] = False
    inner = inner.to(device)
    return (hidden * inner[..., None]).sum(1) / inner.sum(1, keepdim=True)


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: Tokenizer, passages: Sequence[Passage], batch_size: int = 64
) -> Tensor:
    """The features of each passage: (P, D) float32, see ``means``."""
    found, order = [], []
    with evaluating(model):
        for places, some in batches(passages, batch_size):
            found.append(means(model, tokenizer, some).cpu())
            order.append(places)
    return torch.cat(found)[torch.cat(order).argsort()]


def classify(training: Tensor, labels: Tensor, tested: Tensor, classes: int) -> Tensor:
    """The class of each tested row (P', D), after logistic regression on (P, D) with (P,).

    Features are standardised by the training rows; full-batch L-BFGS on a convex loss from zero, so
    there is nothing random in it.
    """
    mean, deviation = training.mean(0), training.std(0, correction=0)
    scale = deviation.clamp(min=1e-6 * float(deviation.max()) + 1e-30)
    training, tested = ((each - mean) / scale for each in (training.double(), tested.double()))
    weight = torch.zeros(classes, training.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(training, weight, bias), labels)
        loss = loss + PENALTY / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(tested, weight, bias).argmax(1).detach()


def probe(
    model: nn.Module, tokenizer: Tokenizer, task: Task, rate: float | None = None
) -> dict:
    """What a model can tell, as plain data for a file, by unit: how often it was asked, in all
    draws together, and how often it was right.

        units, right, asked  of the most shots, frozen
        frozen               the same of each number of shots: {"4": {"right", "asked"}, …}
        tuned                the same of tuned models, in the first draws; None without a ``rate``
        parts, majority      what is told apart, and how often the commonest answer would be right
        read                 whether some passages stand in training text
    """
    units = task.units
    count = int(units.max()) + 1
    draws = [task.draw(number) for number in range(DRAWS)]

    def counted(asked: Tensor, right: Tensor) -> dict[str, list[int]]:
        own = units[asked]
        return {
            "right": own[right].bincount(minlength=count).tolist(),
            "asked": own.bincount(minlength=count).tolist(),
        }

    known = features(model, tokenizer, task.passages)
    everybody = torch.cat([asked for _, asked in draws])
    frozen = {}
    for size in task.shots:
        right = [
            told(known, task.labels, shots[:, :size].flatten(), asked) for shots, asked in draws
        ]
        frozen[str(size)] = counted(everybody, torch.cat(right))
    tuned = None
    if rate is not None:
        right = [
            tune(model, tokenizer, task, shots.flatten(), asked, rate)
            for shots, asked in draws[:TUNED]
        ]
        tuned = counted(torch.cat([asked for _, asked in draws[:TUNED]]), torch.cat(right))
    return {
        "units": list(range(count)),
        **frozen[str(task.shots[-1])],
        "frozen": frozen,
        "tuned": tuned,
        "parts": list(task.parts),
        "majority": float(task.labels[everybody].bincount().max() / len(everybody)),
        "read": task.read,
    }


def told(known: Tensor, labels: Tensor, shots: Tensor, asked: Tensor) -> Tensor:
    """Whether each passage that is asked is put into its own part: (A,) bool."""
    said = classify(known[shots], labels[shots], known[asked], int(labels.max()) + 1)
    return said == labels[asked]


def tune(
    model: nn.Module,
    tokenizer: Tokenizer,
    task: Task,
    shots: Tensor,
    asked: Tensor,
    rate: float,
) -> Tensor:
    """As ``told``, of a copy of the model that learns from the shots with a linear layer.

    The linear layer begins at zero. The schedule is the trainer's, up to the rate ``rate``, for
    PASSES over the shots.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    device = next(model.parameters()).device
    head = nn.utils.skip_init(nn.Linear, model.config.width, len(task.parts)).to(device)
    for each in head.parameters():
        nn.init.zeros_(each)
    settings = Optimization(learning_rate=rate, weight_decay=0.0, warmup=0.1)
    learner = nn.ModuleList([model, head])
    optimizer = make_optimizer(learner, settings)
    orders = [
        torch.randperm(len(shots), generator=generator("tuning", number))
        for number in range(PASSES)
    ]
    steps = [shots[each] for each in torch.cat(orders).split(TUNED_TOGETHER)]
    with evaluating(model):  # without dropout
        for number, places in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(number, len(steps), settings)
            optimizer.zero_grad(set_to_none=True)
            logits = head(means(model, tokenizer, [task.passages[each] for each in places]))
            F.cross_entropy(logits, task.labels[places].to(device)).backward()
            nn.utils.clip_grad_norm_(learner.parameters(), settings.max_grad_norm)
            optimizer.step()
    rows = features(model, tokenizer, [task.passages[each] for each in asked])
    with torch.no_grad():
        return head.cpu()(rows).argmax(1) == task.labels[asked]
