"""What learners write: for each exercise right solutions, and wrong ones by the mistake they make.

Each text is the body of the exercise's function, as a student would write it. None of them uses
minicpt.
"""

RIGHT = {
    "causal-mask": [
        "return torch.ones(length, length, dtype=torch.bool).tril()",
        """
        rows = torch.arange(length)[:, None]
        return torch.arange(length) <= rows
        """,
    ],
    "shift": [
        "return torch.cat([tokens[1:], torch.tensor([following])])",
        "return torch.tensor(tokens.tolist()[1:] + [following])",
    ],
    "cross-entropy": [
        "return logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]",
        """
        logits = logits - logits.max(dim=1, keepdim=True).values
        total = logits.exp().sum(dim=1)
        return torch.stack([total[n].log() - logits[n, t] for n, t in enumerate(targets)])
        """,
    ],
    "divisor": [
        """
        asked = targets != IGNORE
        losses = torch.nn.functional.cross_entropy(
            logits[asked], targets[asked], reduction="sum")
        return losses / max(int(asked.sum()), 1)
        """,
        """
        total, count = 0.0, 0
        for row, goals in zip(logits, targets):
            for scores, goal in zip(row, goals):
                if goal != IGNORE:
                    total += float(scores.exp().sum().log() - scores[goal])
                    count += 1
        return total / max(count, 1)
        """,
    ],
    "accumulation": ["return torch.ones(len(counts)) / counts.sum()"],
    "masked-lm": [
        """
        read = tokens.clone()
        read[chosen & (fate < 0.8)] = mask
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        read[swapped] = random[swapped]
        targets = torch.where(chosen, tokens, IGNORE)
        return read, targets
        """,
    ],
    "next-sentence": [
        """
        one, two = torch.tensor([cls]), torch.tensor([sep])
        read = torch.cat([one, first, two, second, two])
        segments = torch.zeros_like(read)
        segments[len(first) + 2:] = 1
        targets = torch.full_like(read, IGNORE)
        targets[0] = 0 if follows else 1
        return read, segments, targets
        """,
    ],
    "decoder-inputs": [
        """
        read = torch.cat([torch.tensor([start]), text])
        return read, torch.cat([text, torch.tensor([end])])
        """,
    ],
    "packing": [
        """
        mask = torch.zeros(size, size, dtype=torch.bool)
        positions = torch.zeros(size, dtype=torch.long)
        begin = 0
        for length in lengths:
            end = begin + length
            mask[begin:end, begin:end] = torch.ones(length, length, dtype=torch.bool).tril()
            positions[begin:end] = torch.arange(length)
            begin = end
        return mask, positions
        """,
    ],
    "spans": [
        """
        read, written, spans, before = [], [], 0, False
        for token, lost in zip(tokens.tolist(), noise.tolist()):
            if lost and not before:
                read.append(int(sentinels[spans]))
                written.append(int(sentinels[spans]))
                spans += 1
            (written if lost else read).append(token)
            before = lost
        return torch.tensor(read, dtype=torch.long), torch.tensor(written, dtype=torch.long)
        """,
    ],
    "diffusion-weight": [
        """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(maskable, tokens, IGNORE), hidden / t
        """,
    ],
    "kl-to-base": [
        """
        model, base = logits.log_softmax(1), base_logits.log_softmax(1)
        return (base.exp() * (base - model)).sum(1)
        """,
        """
        return torch.nn.functional.kl_div(logits.log_softmax(1), base_logits.log_softmax(1),
                                          log_target=True, reduction="none").sum(1)
        """,
    ],
    "broken-mask": ['return "mask-off-by-one"'],
    "broken-targets": ['return "end-is-padding"'],
    "broken-step": ['return "mean-of-micro-batches"'],
}

PACKED = """
        n = sum(lengths)
        text = torch.cat([torch.full((k,), i) for i, k in enumerate(lengths)]
                         + [torch.full((size - n,), -1)])
        mask = (text[:, None] == text[None, :]) & (text >= 0)
        positions = torch.cat([torch.arange(k) for k in lengths] + [torch.zeros(size - n)]).long()
"""
HIDDEN = """
        read = tokens.clone()
        read[chosen & (fate < 0.8)] = mask
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        read[swapped] = random[swapped]
"""
PAIRED = """
        one, two = torch.tensor([cls]), torch.tensor([sep])
        read = torch.cat([one, first, two, second, two])
        segments = torch.zeros_like(read)
        segments[len(first) + 2:] = 1
        targets = torch.full_like(read, IGNORE)
"""
SPANS = """
        read, written, spans, before = [], [], 0, False
        for token, lost in zip(tokens.tolist(), noise.tolist()):
            mark = int(sentinels[min(spans, len(sentinels) - 1)])
"""
SPANS_END = """
            before = lost
        return torch.tensor(read, dtype=torch.long), torch.tensor(written, dtype=torch.long)
"""
LOGS = """
        model, base = logits.log_softmax(1), base_logits.log_softmax(1)
"""
SUMMED = """
        logits, goals = logits.flatten(0, 1), targets.flatten()
        losses = torch.nn.functional.cross_entropy(
            logits, goals, reduction="none", ignore_index=IGNORE)
"""

# exercise -> (the mistake that must be named, the body)
WRONG = {
    "causal-mask": [
        ("no-mask", "return torch.ones(length, length, dtype=torch.bool)"),
        ("mask-off-by-one", "return torch.ones(length, length, dtype=torch.bool).tril(1)"),
        ("mask-polarity", "return torch.ones(length, length).triu(1).bool()"),
        ("hides-itself", "return torch.ones(length, length).tril(-1).bool()"),
        ("rows-and-columns-swapped", "return torch.ones(length, length).triu().bool()"),
        ("only-itself", "return torch.eye(length) > 0"),
        ("added-to-the-scores",
         "return torch.full((length, length), float('-inf')).triu(1)"),
        ("", "return torch.ones(length, length).tril(2).bool()"),
    ],
    "shift": [
        ("shift-twice", "return torch.cat([tokens[2:], torch.tensor([following, IGNORE])])[:len(tokens)] if len(tokens) > 1 else torch.tensor([IGNORE])"),  # noqa: E501
        ("no-shift", "return tokens"),
        ("shifted-backwards", "return torch.cat([torch.tensor([IGNORE]), tokens[:-1]])"),
        ("rolled-across-the-end", "return torch.roll(tokens, -1)"),
        ("last-target-dropped", "return torch.cat([tokens[1:], torch.tensor([IGNORE])])"),
        ("one-too-short", "return tokens[1:]"),
        (
            "end-is-padding",
            """
            targets = torch.cat([tokens[1:], torch.tensor([following])])
            targets[targets == 1] = IGNORE
            return targets
            """,
        ),
    ],
    "cross-entropy": [
        ("bits", "return -torch.log2(logits.softmax(1).gather(1, targets[:, None])[:, 0])"),
        ("overflow", "return -logits.softmax(1).log()[torch.arange(len(targets)), targets]"),
        ("no-normaliser", "return -logits[torch.arange(len(targets)), targets]"),
        ("probability-without-logarithm",
         "return 1 - logits.softmax(1)[torch.arange(len(targets)), targets]"),
        ("sign", "return logits.log_softmax(1)[torch.arange(len(targets)), targets]"),
        ("softmax-twice", "return torch.nn.functional.cross_entropy(logits.softmax(1), targets, "
                          "reduction='none')"),
        ("softmax-over-the-predictions",
         "return -logits.log_softmax(0)[torch.arange(len(targets)), targets]"),
        ("overflow", "return -(logits.exp() / logits.exp().sum(1, keepdim=True))[torch.arange("
                     "len(targets)), targets].log()"),
        ("averaged-already", "return torch.nn.functional.cross_entropy(logits, targets)"),
    ],
    "divisor": [
        ("no-targets-is-nan", "return torch.nn.functional.cross_entropy(logits.flatten(0, 1), "
                              "targets.flatten(), ignore_index=IGNORE)"),
        ("divided-by-all-positions", SUMMED + "        return losses.mean()"),
        ("never-divided", SUMMED + "        return losses.sum()"),
        ("divided-by-the-rows", SUMMED + "        return losses.sum() / len(targets)"),
        ("pad-targets", """
        targets = targets.clone()
        targets[targets == IGNORE] = 0
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        """),
        ("mean-of-rows", """
        means = []
        for row, goals in zip(logits, targets):
            if (goals != IGNORE).any():
                means.append(torch.nn.functional.cross_entropy(row, goals))
        return torch.stack(means).mean() if means else torch.tensor(0.0)
        """),
        ("class-zero-ignored", """
        asked = targets > 0
        if not asked.any():
            return torch.tensor(0.0)
        return torch.nn.functional.cross_entropy(logits[asked], targets[asked])
        """),
    ],
    "accumulation": [
        ("mean-of-micro-batches", "return 1 / counts / len(counts)"),
        ("mean-of-micro-batches", "return 1 / counts.clamp(min=1) / len(counts)"),
        ("partial-window", "return 1 / (4 * counts.clamp(min=1))"),
        ("sum-of-means", "return 1 / counts"),
        ("divided-by-the-micro-batches", "return torch.ones(len(counts)) / len(counts)"),
        ("share-of-the-targets", "return counts / counts.sum()"),
        ("never-divided", "return torch.ones(len(counts))"),
    ],
    "masked-lm": [
        ("loss-everywhere", HIDDEN + "        return read, tokens"),
        ("always-hidden", """
        read = tokens.clone()
        read[chosen] = mask
        return read, torch.where(chosen, tokens, IGNORE)
        """),
        ("never-kept", """
        read = torch.where(chosen & (fate < 0.8), mask, tokens)
        read = torch.where(chosen & (fate >= 0.8), random, read)
        return read, torch.where(chosen, tokens, IGNORE)
        """),
        ("kept-is-no-target",
         HIDDEN + "        return read, torch.where(chosen & (fate < 0.9), tokens, IGNORE)"),
        ("hidden-alone-are-targets",
         HIDDEN + "        return read, torch.where(read == mask, tokens, IGNORE)"),
        ("target-is-what-is-read",
         HIDDEN + "        return read, torch.where(chosen, read, IGNORE)"),
        ("change-in-place", """
        targets = torch.where(chosen, tokens, IGNORE)
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        tokens[chosen & (fate < 0.8)] = mask
        tokens[swapped] = random[swapped]
        return tokens, targets
        """),
        ("mask-is-the-target", HIDDEN + "        return read, torch.where(chosen, tokens, 0)"),
    ],
    "next-sentence": [
        ("labels-reversed", PAIRED + """
        targets[0] = int(follows)
        return read, segments, targets
        """),
        ("one-segment", PAIRED + """
        targets[0] = 1 - int(follows)
        return read, torch.zeros_like(read), targets
        """),
        ("separator-in-the-second-segment", PAIRED + """
        targets[0] = 1 - int(follows)
        segments[len(first) + 1:] = 1
        return read, segments, targets
        """),
        ("class-everywhere", PAIRED + """
        return read, segments, torch.full_like(read, 1 - int(follows))
        """),
        ("class-at-the-end", PAIRED + """
        targets[-1] = 1 - int(follows)
        return read, segments, targets
        """),
        ("not-closed", PAIRED + """
        targets[0] = 1 - int(follows)
        return read[:-1], segments[:-1], targets[:-1]
        """),
    ],
    "decoder-inputs": [
        ("decoder-reads-targets", """
        row = torch.cat([text, torch.tensor([end])])
        return row, row
        """),
        ("two-start-tokens", """
        read = torch.cat([torch.tensor([start, start]), text])[:-1]
        return read, torch.cat([text, torch.tensor([end])])
        """),
        ("first-target-dropped", """
        targets = torch.cat([text, torch.tensor([end])])
        targets[0] = -100
        return torch.cat([torch.tensor([start]), text]), targets
        """),
        ("end-is-no-target", """
        return torch.cat([torch.tensor([start]), text[:-1]]), text
        """),
        ("shift-twice", """
        targets = torch.cat([text[1:], torch.tensor([end, -100])])
        return torch.cat([torch.tensor([start]), text]), targets
        """),
        ("starts-with-the-end", """
        targets = torch.cat([text, torch.tensor([end])])
        return torch.cat([torch.tensor([end]), text]), targets
        """),
    ],
    "packing": [
        ("packed-together", PACKED + """
        return torch.ones(size, size, dtype=torch.bool).tril(), positions
        """),
        ("positions-go-on", PACKED + """
        return mask.tril(), torch.arange(size)
        """),
        ("nothing-keeps-them-apart", """
        return torch.ones(size, size, dtype=torch.bool).tril(), torch.arange(size)
        """),
        ("no-mask", PACKED + "        return mask, positions"),
        ("padding-is-a-text", PACKED + """
        return (text[:, None] == text[None, :]).tril(), positions
        """),
    ],
    "spans": [
        ("sentinel-for-each-token", SPANS + """
            if lost:
                read.append(mark)
                written += [mark, token]
                spans += 1
            else:
                read.append(token)
        """.rstrip() + SPANS_END),
        ("ascending-sentinels", """
        sentinels = sentinels.sort().values
        """.rstrip() + SPANS + """
            if lost and not before:
                read.append(mark)
                written.append(mark)
                spans += 1
            (written if lost else read).append(token)
        """.rstrip() + SPANS_END),
        ("nothing-marks-the-gap", SPANS + """
            if lost and not before:
                written.append(mark)
                spans += 1
            (written if lost else read).append(token)
        """.rstrip() + SPANS_END),
        ("spans-can-be-read", SPANS + """
            if lost and not before:
                read.append(mark)
                written.append(mark)
                spans += 1
            read.append(token)
            if lost:
                written.append(token)
        """.rstrip() + SPANS_END),
        ("closing-sentinel", SPANS + """
            if lost and not before:
                read.append(mark)
                written.append(mark)
                spans += 1
            (written if lost else read).append(token)
            before = lost
        written.append(int(sentinels[spans]))
        return torch.tensor(read), torch.tensor(written)
        """),
        ("one-sentinel", SPANS + """
            if lost and not before:
                read.append(mark)
                written.append(mark)
            (written if lost else read).append(token)
        """.rstrip() + SPANS_END),
    ],
    "diffusion-weight": [
        ("divided-by-the-hidden", """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(hidden, tokens, IGNORE), hidden / t
        """),
        ("estimator-without-weights", """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(maskable, tokens, IGNORE), hidden.float()
        """),
        ("weight-t", """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(maskable, tokens, IGNORE), hidden * t
        """),
        ("weight-of-the-rest", """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(maskable, tokens, IGNORE), hidden / (1 - t)
        """),
        ("read-tokens-count", """
        read = torch.where(hidden, mask, tokens)
        return read, torch.where(maskable, tokens, IGNORE), maskable / t
        """),
        ("special-tokens-are-targets", """
        read = torch.where(hidden, mask, tokens)
        return read, tokens, hidden / t
        """),
    ],
    "kl-to-base": [
        ("wrong-way-round", LOGS + "        return (model.exp() * (model - base)).sum(1)"),
        ("wrong-way-round", "return torch.nn.functional.kl_div(base_logits.log_softmax(1), "
                            "logits.softmax(1), reduction='none').sum(1)"),
        ("cross-entropy-to-the-base", LOGS + "        return -(base.exp() * model).sum(1)"),
        ("mean-over-classes", LOGS + "        return (base.exp() * (base - model)).mean(1)"),
        ("averaged-already", LOGS + "        return (base.exp() * (base - model)).sum(1).mean()"),
        ("sign", LOGS + "        return (base.exp() * (model - base)).sum(1)"),
        ("no-softmax",
         "return (base_logits.softmax(1) * (base_logits - logits)).sum(1)"),
        ("overflow", """
        p, q = base_logits.softmax(1), logits.softmax(1)
        return (p * (p / q).log()).sum(1)
        """),
    ],
}  # fmt: skip
