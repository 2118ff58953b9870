"""The lesson page: its numbers against those of explain and of torch, and the page in a browser."""


import math
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from browser import Tab, chromium

from minicpt import checkpoint
from minicpt.checkpoint import folder
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.pictures import counting, explain
from minicpt.pictures.lesson import lesson, page, paper, primer, pupils, sections
from minicpt.pictures.lesson.grid import Words
from minicpt.pictures.lesson.sections import Lesson, bench, break_it, one_pass

OBJECTIVES = ("causal-lm", "masked-lm", "span-corruption")
STEPS = 6
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def few_faults():
    """Only some faults: of each kind that the page shows."""
    names = {
        "shift-twice", "mask-off-by-one", "pad-targets", "tied-lost", "mask-padding",
        "written-both-ways", "lost-to-the-window",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        known = {name: each for name, each in break_it.faults.known().items() if name in names}
        assert len(known) == len(names)
        patch.setattr(break_it.faults, "known", lambda: known)
        yield


@pytest.fixture(scope="module")
def pupil_room() -> list[pupils.Pupil]:
    return pupils.trained(None, OBJECTIVES, STEPS)


@pytest.fixture(scope="module")
def shown(pupil_room, few_faults) -> Lesson:
    return Lesson(primer.TEXT, pupil_room, lesson.results(()))


@pytest.fixture(scope="module")
def html(shown) -> str:
    return paper.html(shown)


@pytest.fixture(scope="module")
def file(html, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lesson") / "lesson.html"
    path.write_text(html, encoding="utf-8")
    return path


# --- the numbers -----------------------------------------------------------------------------


def test_a_grid_holds_what_explain_shows_of_the_same_checkpoint(pupil_room, tmp_path):
    pupil = pupil_room[1]
    tokenizer = pupil.objective.tokenizer
    folder.save(tmp_path / "base", pupil.model, tokenizer, {}, {"parts": {}})
    (loaded,) = pupils.loaded([str(tmp_path / "base")], ["masked-lm"])
    words = Words()
    found = bench.of_pupil(Lesson(primer.TEXT, [loaded], [], words), loaded)
    packed = found["grids"][found["index"][1][5]]
    told = explain(
        primer.TEXT, "masked-lm", init=str(tmp_path / "base"), seed=5, rate=found["values"][1],
        window=pupils.WINDOW,
    ).data  # fmt: skip
    positions = told["streams"]["tokens"]["positions"]
    assert [words.all[each] for each in packed["streams"][0][1]] == [p["token"] for p in positions]
    (head,) = packed["heads"]
    assert head[5] == told["heads"]["tokens"]["count"] == len(head[-1])
    assert head[6] == pytest.approx(told["heads"]["tokens"]["mean"], rel=1e-5)
    for mine, its in zip(head[-1], told["heads"]["tokens"]["targets"], strict=True):
        assert (mine[0], words.all[mine[1]]) == (its["position"], its["token"])
        assert mine[3] == pytest.approx(its["loss"], rel=1e-5)
        assert -math.log(mine[2]) == pytest.approx(mine[3], rel=1e-4)


def test_losses_and_likeliest_are_those_of_the_logits(shown):
    """Against torch's own softmax over all logits of a decoder."""
    pupil = shown.pupils[0]
    tokens = [pupil.objective.end, *pupil.objective.tokenizer.encode(primer.TEXT)]
    with torch.no_grad():
        read = torch.tensor([tokens])
        hidden = pupil.model(tokens=read, mask=torch.ones_like(read, dtype=torch.bool))
        logits = pupil.model.heads["tokens"](hidden)[0].double()
    following = torch.tensor([*tokens[1:], pupil.objective.end])
    wanted = F.cross_entropy(logits, following, reduction="none")
    (found, *_) = shown.data("bench")["objectives"]
    (packed,) = found["grids"]  # nothing is drawn: one grid stands for all seeds
    targets = packed["heads"][0][-1]
    assert [each[3] for each in targets] == pytest.approx(wanted.tolist(), rel=1e-4)
    top = logits.softmax(-1).topk(5, dim=-1)
    for target, shares, ids in zip(targets, top.values.tolist(), top.indices.tolist(), strict=True):
        assert target[-1][1::2] == pytest.approx(shares, abs=1e-4)
        shown_words = [shown.words.all[each] for each in target[-1][::2]]
        assert shown_words[0] == pupil.objective.tokenizer.token(ids[0])
    assert packed["sees"] == [["past"]]


def test_the_prefixes_and_the_one_pass_agree_and_their_operations_are_counted(shown):
    found = shown.data("one-pass")
    size = len(found["targets"])
    assert size == one_pass.MOST and len(found["alone"]) == size
    for place, row in enumerate(found["alone"], 1):
        assert row == pytest.approx(found["together"][:place], rel=1e-5)
    (grid,) = shown.data("bench")["objectives"][0]["grids"]
    losses = [each[3] for each in grid["heads"][0][-1]]
    assert found["together"] == pytest.approx(losses[:size], rel=1e-4)
    # By hand: 2 P t + 4 I L t^2 for a pass, and 2 V D for each target.
    config = shown.pupils[0].model.config
    width, layers = config.width, config.layers
    weights = layers * 12 * width * width
    head = 2 * width * config.vocabulary

    def body(t: int) -> int:
        return 2 * weights * t + 4 * width * layers * t * t

    for t, (one, many) in enumerate(found["operations"], 1):
        assert one == body(t) + t * head
        assert many == sum(map(body, range(1, t + 1))) + t * head
    assert counting.inner(shown.pupils[0].model) == width


def test_without_teacher_forcing_the_losses_part(shown):
    found, pupil = shown.data("one-pass"), shown.pupils[0]
    free, model = found["free"], pupil.model.double()
    tokens = [pupil.objective.end, *pupil.objective.tokenizer.encode(primer.TEXT)]
    read, losses = tokens[:1], []
    with torch.no_grad():
        for target in tokens[1 : len(free["losses"]) + 1]:
            row = torch.tensor([read])
            hidden = model(tokens=row, mask=torch.ones_like(row, dtype=torch.bool))
            logits = model.heads["tokens"](hidden[:, -1])[0]
            losses.append(-float(logits.log_softmax(-1)[target]))
            read.append(int(logits.argmax()))
    model.float()
    assert free["losses"] == pytest.approx(losses, rel=1e-5)
    assert free["losses"][0] == pytest.approx(found["together"][0], rel=1e-5)
    assert free["losses"] != pytest.approx(found["together"], rel=1e-3)


def test_seeds_and_the_knob_change_what_is_drawn(shown):
    masked = shown.data("bench")["objectives"][1]
    assert masked["knob"] == "rate" and len(masked["index"]) == 3
    assert all(len(row) == bench.SEEDS for row in masked["index"])
    assert len(set(masked["index"][0])) > 4
    counts = [masked["grids"][row[0]]["heads"][0][5] for row in masked["index"]]
    size = len(masked["grids"][0]["streams"][0][1]) - 2
    assert counts == [max(1, round(rate * size)) for rate in masked["values"]]


def test_a_level_is_met_by_a_place_of_the_plan():
    (pupil,) = pupils.trained(None, ["masked-diffusion"], 1)
    made = bench.of_pupil(Lesson(primer.TEXT, [pupil], []), pupil)
    assert (made["knob"], made["values"]) == ("t", list(bench.LEVELS))
    for level, row in zip(made["values"], made["index"], strict=True):
        for number in row:
            for *_, weight, fate, _, _ in made["grids"][number]["heads"][0][-1]:
                assert weight == pytest.approx(1 / level, rel=0.02) and fate == "hidden"


def test_faults_show_what_they_change(shown):
    data = shown.data("break-it")
    found = {each["name"]: each for each in data["faults"]}
    assert "wrong" not in found["tied-lost"]
    assert found["tied-lost"]["reason"] and found["tied-lost"]["caught"]
    assert [0, 0, 0, 1] in found["mask-off-by-one"]["leaks"]
    wrong, right = found["shift-twice"]["wrong"], data["rights"][found["shift-twice"]["right"]]
    targets = [[each[1] for each in side["heads"][0][-1]] for side in (right, wrong)]
    assert targets[1][: len(targets[0]) - 1] == targets[0][1:]
    pads = found["pad-targets"]
    counts = [side["heads"][0][5] for side in (data["rights"][pads["right"]], pads["wrong"])]
    assert pads["padded"] and counts[0] < counts[1]
    assert len(data["rights"][found["written-both-ways"]["right"]]["streams"]) == 1  # a decoder's


def test_a_checkpoint_of_one_role_is_enough(pupil_room, few_faults, tmp_path):
    """Faults of the same objectives in models of another role say so."""
    pupil = pupil_room[0]
    folder.save(tmp_path / "base", pupil.model, pupil.objective.tokenizer, {}, {"parts": {}})
    loaded = pupils.loaded([str(tmp_path / "base")], ["causal-lm", "span-corruption"])
    faults = Lesson("Birds sing in the tree. " * 4, loaded, []).data("break-it")["faults"]
    found = {each["name"]: each for each in faults}
    assert "role encoder-decoder" in found["lost-to-the-window"]["reason"]
    assert "wrong" in found["written-both-ways"]


def test_every_answer_is_right(shown):
    questions = {each["ask"]: each for each in shown.data("predict")["questions"]}
    assert len(questions) >= 12 and all(each["why"] and each["hint"] for each in questions.values())
    (causal, masked, _) = (each["grids"] for each in shown.data("bench")["objectives"])

    def answer(words: str):
        return next(each["answer"] for ask, each in questions.items() if words in ask)

    size = len(causal[0]["streams"][0][1])
    assert answer("Which positions have a target?") == list(range(size))
    assert answer("the loss of causal language modelling change") == [*range(4, size)]
    assert answer("holds all") == pytest.approx(math.log(causal[0]["heads"][0][2]), abs=1e-4)
    assert answer("probability 1/2") == pytest.approx(0.6931, abs=1e-4)
    row = masked[0]["streams"][0][1]
    assert answer("How many targets are there?") == round(0.15 * (len(row) - 2))
    assert answer("are -100?") == len(row) - round(0.15 * (len(row) - 2))
    assert answer("mean loss of a target") == (6 + 2 + 2 + 2) / 4
    assert answer("What mean is reported?") == 8 / 8
    assert answer("bits a byte") == pytest.approx(1, abs=1e-3)
    steps = shown.data("one-pass")["operations"][-1]
    assert answer("the one pass do the runs") == pytest.approx(steps[1] / steps[0], abs=1e-3)
    for each in questions.values():
        if each["kind"] == "number":
            assert each["within"] >= 0 and round(each["answer"], each["places"]) == pytest.approx(
                each["answer"], abs=max(each["within"], 1e-9)
            )


def test_strengths_of_a_remedy_are_points_of_one_line(shown):
    points = shown.data("plane")["points"]
    kl = [each["strength"] for each in points if each["arm"] == "kl"]
    assert kl == sorted(set(kl)) and len(kl) > 2
    assert len({(each["objective"], each["label"]) for each in points}) == len(points)
    for each in points:
        assert all(low <= value <= high for value, low, high in (each["gained"], each["forgotten"]))


# --- the file --------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes_and_leaves_no_trace(few_faults):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    text = "Birds sing. We eat. <b>&</script>\u2028"
    pages = [page(text, objectives=["masked-lm"], steps=1) for _ in "ab"]
    assert pages[0] == pages[1]
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    assert "<b>&</script>" not in pages[0] and "&lt;b&gt;&amp;&lt;/script&gt;" in pages[0]
    assert pages[0].count("</script>") == 2


def test_the_page_can_ask_for_nothing(html):
    assert len(html.encode()) <= 1_000_000
    assert "default-src 'none'; style-src 'sha256-" in html
    assert not [each for each in ("unsafe", "src=", "@import", "url(") if each in html]
    addresses = {each.split('"')[0] for each in html.split("http")[1:]}
    assert addresses <= {"s://www.w3.org/1998/Math/MathML", "://www.w3.org/1998/Math/MathML",
                         "://www.w3.org/2000/svg", "-equiv="}  # fmt: skip


@pytest.mark.parametrize(
    "words, says",
    [
        (["--text", " "], "--text is empty"),
        (["--objectives", "nonsense"], "no objective is called 'nonsense'"),
        (["--compare", "{folder}/none.json"], "cannot be read"),
        (["--compare", "{folder}/text.json"], "is not JSON"),
        (["--compare", "{folder}/other.json"], "no result of `minicpt compare --json`"),
        (["--init", "{folder}"], "config.json"),
        (["--out", "{folder}/text.json"], "exists already"),
        (["--out", "{folder}/none/there.html"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pupils, "trained", lambda *given: pytest.fail("it was trained first"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("words")
    (tmp_path / "other.json").write_text('{"rows": [1]}')
    assert main(["lesson", *(each.format(folder=tmp_path) for each in words)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("minicpt: error: ") and says in told and told.count("\n") == 1
    assert not (tmp_path / "lesson.html").exists()


def test_an_objective_that_fits_no_checkpoint_is_named(pupil_room, tmp_path):
    pupil = pupil_room[0]
    folder.save(tmp_path / "base", pupil.model, pupil.objective.tokenizer, {}, {"parts": {}})
    assert checkpoint.load(str(tmp_path / "base")).model.ROLE == "decoder"
    with pytest.raises(InputError, match="--objectives masked-lm cannot be shown"):
        pupils.loaded([str(tmp_path / "base")], ["masked-lm"])
    names = [each.name for each in pupils.loaded([str(tmp_path / "base")], [])]
    assert "causal-lm" in names and "masked-lm" not in names


def test_a_wheel_holds_the_page(tmp_path):
    """The page's own files are package data: it is made from what a wheel installs."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "minicpt"):
        (source / name).symlink_to(ROOT / name)
    copied = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*copied, "-w", str(tmp_path), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import minicpt; assert 'site' in minicpt.__file__\n"
        "from minicpt.pictures.lesson import page\n"
        "from minicpt.pictures.lesson.sections import break_it\n"
        "break_it.faults.known = dict\n"
        "print(page(objectives=['next-sentence'], steps=1).count('<section'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.stdout.strip() == str(len(sections.known())), told.stderr[-2000:]


# --- in a browser ----------------------------------------------------------------------------

FOCUSABLE = "button:not(:disabled), input, select, summary, [tabindex]"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def tab(browser, file):
    with Tab(browser, file) as opened:
        yield opened.page


def test_all_numbers_of_the_passes(tab, shown):
    data = shown.data("one-pass")
    size = len(data["targets"])
    for length in (1, size, 4):
        move(tab, "#one-pass input[type=range]", length)
        rows = tab.eval_on_selector_all(
            "#one-pass .pair > :first-child tbody tr",
            "rows => rows.map(row =>"
            " [...row.querySelectorAll('button')].map(each => each.textContent))",
        )
        assert rows == [[f"{each:.3f}" for each in row] for row in data["alone"][:length]]
        once = texts(tab, "#one-pass .pair > :last-child tbody button")
        assert once == [f"{each:.3f}" for each in data["together"][:length]]
        counted = texts(tab, "#one-pass .counted td:nth-child(4)")
        assert counted == [f"{each:,}" for each in reversed(data["operations"][length - 1])]
    tab.click("#one-pass .pair > :first-child tbody tr:nth-child(3) td:nth-child(3) button")
    assert tab.locator("#one-pass .pair > :first-child th.seen").count() == 2
    assert "Run 3" in tab.inner_text("#one-pass .told")
    tab.click("#one-pass input[role=switch]")
    last = texts(tab, "#one-pass .pair > :first-child tbody tr:last-child button")
    assert last == [f"{each:.3f}" for each in data["free"]["losses"][:4]]


def test_all_numbers_of_the_bench(tab, shown):
    tab.click("#bench-tab")
    data, words = shown.data("bench"), shown.words.all
    for place, objective in enumerate(data["objectives"]):
        tab.select_option("#bench .live > label select", index=place)
        for seed, value in ((1, 0), (4, 2)):
            sliders = tab.locator("#bench input[type=range]")
            move(tab, "#bench input[type=range] >> nth=0", seed)
            if objective["values"]:
                assert sliders.count() == 2
                move(tab, "#bench input[type=range] >> nth=1", value + 1)
            at = min(value, len(objective["index"]) - 1)
            packed = objective["grids"][objective["index"][at][seed - 1]]
            (head,) = packed["heads"]
            assert texts(tab, "#bench td.target button") == [words[each[1]] for each in head[-1]]
            assert texts(tab, "#bench td.cost") == [
                f"{each[3]:.3f}" if (each := by(head, position)) else ""
                for position in range(len(packed["streams"][-1][1]))
            ]
            button = tab.locator("#bench td.target button").last
            button.click()
            target = head[-1][-1]
            assert texts(tab, "#bench .panel .likeliest td:nth-child(2)") == [
                share(each) for each in target[-1][1::2]
            ]
            formulas = texts(tab, "#bench .panel .formula")
            assert formulas[0].endswith(f"{target[3]:.3f}")
            assert f"{target[2]:.4g}"[:4] in formulas[0]
            assert formulas[1].endswith(f"={head[4]:.3f}")
            assert formulas[2].endswith(f"{head[4]:.3f}{head[5]}={head[6]:.3f}")
            past, size = packed["sees"][0][-1] == "past", len(packed["streams"][-1][1])
            seen = tab.locator("#bench td.reads.seen").count()
            assert seen == (target[0] + 1 if past else size)


def test_labels_as_transformers_has_them(tab, shown):
    tab.click("#bench-tab")
    tab.click("#bench input[role=switch]")
    grids = [each["grids"][each["index"][0][0]] for each in shown.data("bench")["objectives"]]
    words = shown.words.all
    # Hugging Face shifts in the loss: a label is the token of its own position.
    read = [words[each] for each in grids[0]["streams"][0][1]]
    assert texts(tab, "#bench td.label")[1:] == read[1:]
    tab.select_option("#bench .live > label select", index=1)
    labels = texts(tab, "#bench td.label")
    assert labels.count("\u2212100") == len(labels) - tab.locator("#bench td.target button").count()


def test_the_divisor(tab, shown):
    tab.click("#divisor-tab")
    one, other = ([loss for _, loss in part] for part in shown.data("divisor")["parts"])
    for first, second in ((1, 3), (5, 5), (len(one), 1)):
        move(tab, "#divisor input >> nth=0", first)
        move(tab, "#divisor input >> nth=1", second)
        sums = sum(one[:first]), sum(other[:second])
        assert texts(tab, "#sum-over-sum, #mean-of-means") == [
            f"{sum(sums) / (first + second):.3f}",
            f"{(sums[0] / first + sums[1] / second) / 2:.3f}",
        ]


def test_every_fault_has_a_switch(tab, shown):
    tab.click("#break-it-tab")
    data = shown.data("break-it")
    names = list(dict.fromkeys(each["objective"] for each in data["faults"]))
    for each in data["faults"]:
        tab.select_option("#break-it select", index=names.index(each["objective"]))
        button = tab.locator(f"[data-fault={each['name']}]")
        if button.get_attribute("aria-checked") == "false":
            button.click()
        assert button.get_attribute("aria-checked") == "true"
        proof, message = each["caught"][0]
        assert proof in tab.inner_text("#break-it dl") and message in tab.inner_text("#break-it dl")
        if "wrong" not in each:
            assert each["reason"] in tab.inner_text("#break-it .panel")
            continue
        sides = [data["rights"][each["right"]], each["wrong"]]
        wanted = [f"{side['heads'][0][4]:.3f}" for side in sides]
        assert [text.split()[1] for text in texts(tab, "#break-it .sums")] == wanted
        assert tab.locator("#break-it .wrong .leak").count() == len(
            [leak for leak in each["leaks"] if leak[1] == len(each["wrong"]["streams"]) - 1]
        )


def test_the_plane(tab, shown):
    tab.click("#plane-tab")
    points = [each for each in shown.data("plane")["points"] if each["objective"] == "causal-lm"]
    arms = dict.fromkeys(each["arm"] for each in points)
    assert tab.locator("#plane g.point").count() == len(arms)
    kl = [each for each in points if each["arm"] == "kl"]
    for place, point in enumerate(kl, 1):
        move(tab, "#plane label:has-text('kl') input >> nth=0", place)
        told = tab.inner_text("#plane .told").replace("\u2212", "-")
        assert told.startswith(f"{point['label']}: gained {point['gained'][0]:+.3f} ")
        assert f"forgotten {point['forgotten'][0]:+.3f}" in told


def test_questions_give_a_second_try_and_the_reason(tab, shown):
    tab.click("#predict-tab")
    questions = shown.data("predict")["questions"]
    for place, each in enumerate(questions):
        assert tab.inner_text("#predict h3").startswith(f"{place + 1} ")
        if each["kind"] == "number":
            tab.fill("#predict input", "-7")
        else:
            wrong = next(at for at in range(len(each["row"])) if [at] != each["answer"])
            tab.click(f"#predict .cell >> nth={wrong}")
        tab.click("#predict button.main")
        assert each["hint"] in tab.inner_text("#predict .answer")
        assert each["why"] not in tab.inner_text("#predict .answer")
        if each["kind"] == "number":
            tab.fill("#predict input", f"{each['answer']:.{each['places']}f}")
        else:
            tab.click("#predict button:text-is('none')")
            for at in each["answer"]:
                tab.click(f"#predict .cell >> nth={at}")
        tab.click("#predict button.main")
        told = tab.inner_text("#predict .answer")
        assert "Right." in told and each["why"] in told
        if place + 1 < len(questions):
            tab.click("#predict button:has-text('Next')")
    assert f"{len(questions)} right" in tab.inner_text("#predict .progress")


def test_a_wrong_answer_twice_is_told(tab):
    tab.click("#predict-tab")
    for _ in range(2):
        tab.fill("#predict input", "5")
        tab.click("#predict button.main")
    assert "The answer is 0.69 nats" in tab.inner_text("#predict .answer")


def test_the_keyboard_alone_reaches_everything(tab):
    """Tab goes from group to group, and arrow keys walk in them."""
    names = [each.removesuffix("-tab") for each in ids(tab, "[role=tab]")]
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    for place, name in enumerate(names):
        tab.focus(f"#{names[max(0, place - 1)]}-tab")
        tab.keyboard.press("ArrowRight" if place else "Home")
        assert tab.locator(f"#{name}").is_visible()
        tab.evaluate(
            """name => {
              window.reached = new Set();
              document.addEventListener("focusin", event => window.reached.add(event.target));
            }""",
            name,
        )
        for _ in range(60):
            tab.keyboard.press("Tab")
            inside = "name => document.getElementById(name).contains(document.activeElement)"
            if not tab.evaluate(inside, name):
                break
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            walked(tab)
        missed = tab.evaluate(
            f"""name => [...document.getElementById(name).querySelectorAll('{FOCUSABLE}')]
              .filter(each => each.checkVisibility() && !window.reached.has(each)
                && !each.matches('h3'))
              .map(each => each.outerHTML.slice(0, 120))""",
            name,
        )
        assert missed == [], name


def walked(tab) -> None:
    """Arrow keys from where the focus is, row by row, as far as they lead."""
    if not tab.evaluate("document.activeElement.matches('button, g')"):
        return
    here = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
    start, known = tab.evaluate(here), set()
    for _ in range(40):
        for _ in range(40):
            place = tab.evaluate(here)
            if place in known:
                break
            known.add(place)
            tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Home")
        tab.keyboard.press("ArrowDown")
        if tab.evaluate(here) in known:
            break
    tab.evaluate("at => [...document.querySelectorAll('*')][at].focus()", start)


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 375)])
def test_axe_finds_nothing_serious_and_nothing_is_too_wide(browser, file, scheme, width):
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core is not there")
    with Tab(browser, file, width, scheme) as opened:
        for each in ids(opened.page, "[role=tab]"):
            opened.page.click(f"#{each}")
            found = axe.Axe().run(opened.page)["violations"]
            bad = [
                (each["id"], node["html"][:150])
                for each in found
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:2]
            ]
            assert bad == []
            wide = "document.documentElement.scrollWidth - innerWidth"
            assert opened.page.evaluate(wide) <= 0, each


def test_without_a_script_all_is_shown_as_tables(browser, file, shown):
    with Tab(browser, file, script=False) as opened:
        for name in sections.known():
            assert opened.page.locator(f"#{name} h2").is_visible()
            assert opened.page.locator(f"#{name} table th[scope=col]").first.is_visible()
        assert "Scripts are off" in opened.page.inner_text("main")
        text = opened.page.inner_text("#one-pass")
        assert f"{shown.data('one-pass')['together'][-1]:.3f}" in text


def test_on_paper_every_section_is_there(tab):
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    for name in sections.known():
        assert tab.locator(f"#{name} table:visible").count() or name == "predict"
        assert tab.locator(f"#{name} h2").is_visible()


# --- what the tests use ----------------------------------------------------------------------


def move(tab, selector: str, value: int) -> None:
    """Moves a slider, as a hand would."""
    tab.locator(selector).evaluate(
        "(each, value) => { each.value = value; each.dispatchEvent(new Event('input')); }", value
    )


def texts(tab, selector: str) -> list[str]:
    return [each.strip() for each in tab.locator(selector).all_text_contents()]


def ids(tab, selector: str) -> list[str]:
    return tab.eval_on_selector_all(selector, "all => all.map(each => each.id)")


def by(head: list, position: int) -> list | None:
    return next((each for each in head[-1] if each[0] == position), None)


def share(value: float) -> str:
    """As core.js shows a probability."""
    if value >= 0.0995:
        return f"{value:.2f}"
    return f"{value:.1e}" if 0 < value < 1e-6 else f"{value:#.2g}".rstrip(".") if value else "0.0"


