"""The comparison: continued pre-training with each objective and each remedy, from the same base.

    parts.py       what has to be done: a part is a base, or one continuation of one
    texts.py       the old, the new and the wrong text: bounded, their passages labelled
    remedies.py    how a continuation is trained so that it forgets less
    work.py        does one part and measures it
    measure.py     held-out losses by unit of text, before and after
    probe.py       the linear classifier on frozen features
    store.py       the folder that keeps what is done, so that nothing is done twice
    statistics.py  intervals over seeds and text
    summary.py     gained, forgotten, what is within noise, the Pareto front
    advice.py      the same in plain sentences

The parts of a comparison are those of work; the parts of a text, those that the probe tells apart.

Leaves out what is printed and drawn (``report/compare.py``, ``report/compare_plot.py``) and the
flags (``cli/compare.py``).
"""
