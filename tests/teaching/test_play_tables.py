"""What is played with from the tables says what the tables hold."""

import base64
import itertools

import pandas as pd
import pytest
from test_views import shipped

from paper_lib.study.profiles import get_profile
from paper_lib.teaching.charts import Cell, line, panel, play_cells, play_projection, play_tolerance


def choices(play):
    """By the words that can be chosen together, what is said."""
    data = shipped(play.html)
    names = [control["options"] for control in data["controls"]]
    return {
        tuple(words[n] for words, n in zip(names, key, strict=True)): " ".join(data["said"][n] for n in said)
        for key, _, said, _ in data["cells"]
    }


def offered(play):
    """The options of each control that stand together with any of the others."""
    return [list(dict.fromkeys(words)) for words in zip(*choices(play), strict=True)]


def tolerances(values):
    """Rows of `trajectories` from {(run, seed, precision, η): sparsity}."""
    rows = [(run, seed, 9, f"update_sparsity_{p}", k, v) for (run, seed, p, k), v in values.items()]
    return pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "k", "value"])


@pytest.fixture
def tolerance():
    values = {("opd", 0, "bfloat16", k): 0.5 for k in (0.0, 1e-3, 1e-2)}
    values |= {("sft", 0, "bfloat16", k): 0.1 for k in (0.0, 1e-3)}
    values |= {("opd", 0, "float32", k): k for k in (0.0, 1e-3)}
    return play_tolerance(tolerances(values), runs=["sft", "opd", "rlvr"], eta=1e-3)


def test_a_tolerance_can_be_chosen_where_it_was_measured(tolerance):
    said = choices(tolerance)
    assert [key[2] for key in said if key[:2] == ("OPD", "bf16")] == ["0", "0.001", "0.01"]
    assert [key[2] for key in said if key[:2] == ("OPD", "fp32")] == ["0", "0.001"]
    assert said["OPD", "fp32", "0"].startswith(
        "OPD stored in fp32: 0 % of the weights are unchanged at η = 0 "
    )
    assert ("SFT", "fp32", "0") not in said


def test_a_tolerance_starts_at_the_papers_with_the_order_of_the_runs(tolerance):
    bundle = tolerance._repr_mimebundle_()
    assert bundle["text/plain"] == choices(tolerance)["OPD", "bf16", "0.001"]
    assert (
        "OPD stored in bf16: 50 % of the weights are unchanged at η = 0.001 (1 seed)" in bundle["text/plain"]
    )
    assert bundle["text/plain"].endswith("From the least: SFT 10.0 %, OPD 50.0 %.")
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["image/png"] in bundle["text/html"]


def test_the_mark_of_a_tolerance_lies_on_its_line(tolerance):
    data = shipped(tolerance.html)
    for _, panels, _, marks in data["cells"]:
        (place, x, y), lines = marks[0], data["panels"][panels[marks[0][0]]]["lines"]
        assert place == 0
        assert (x, y) in [point for each in lines for point in zip(each["x"], each["mean"], strict=True)]


def accuracies(runs):
    """Rows of `curves` from {run: validation accuracy}, with a quarter of each projected step inside V."""
    rows = []
    for (run, score), step in itertools.product(runs.items(), (20, 100)):
        rows += [(run, 0, step, "sampled_accuracy", score), (run, 0, step, "sampled_accuracy_se", 0.01)]
        rows += [(run, 0, step, "share_inside", 0.25)] * ("projected" in run)
    return pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "value"])


def test_projected_runs_can_be_chosen_where_the_table_has_them():
    scores = {"opd": 0.9, "opd_projected_early": 0.8, "opd_projected_early_k1": 0.7, "sft": 0.6}
    play = play_projection(get_profile("reference"), accuracies(scores))
    assert offered(play) == [["OPD"], ["its own early V"], ["gradient"], ["3", "1"], ["20 % of the run"]]
    three, one = choices(play).values()
    assert "accuracy at the end minus the free run's: -0.1 (1 seed); 25 % of the energy" in three
    assert "K: 1; " in one
    assert "-0.2 (1 seed)" in one


def test_the_source_of_a_subspace_is_named_and_a_share_of_the_energy_is_no_K():
    names = ("early", "early_e60", "sft", "other_seed", "random", "principal")
    scores = {"opd": 0.9} | {f"opd_projected_{name}": 0.5 for name in names}
    play = play_projection(get_profile("headroom"), accuracies(scores))
    sources = ["its own early V", "random V", "V of SFT, matched", "V of other rollouts", "top of W₀"]
    assert offered(play)[1] == sources
    assert offered(play)[3] == ["3"]


def test_a_panel_has_round_ticks_inside_of_what_it_spans():
    path = pd.DataFrame({"x": [0.001, 0.1], "mean": [3.0, 5.0], "low": [2.6, float("nan")]})
    made = panel("t", ("x", "y"), [line("one", "#000000", path)], log="x")
    assert (made["xlim"], made["ylim"]) == ([0.001, 0.1], [2.6, 5.0])
    assert [word for _, word in made["xticks"]] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert made["lines"][0]["low"] == [2.6, None]


def test_what_cells_share_is_stored_once():
    shown = panel("t", ("x", "y"), [line("one", "#000000", pd.DataFrame({"x": [0, 1], "mean": [1, 2]}))])
    cells = {(name,): Cell(panels=(shown,), said=(f"{name}.", "Same.")) for name in ("a", "b")}
    data = shipped(play_cells({"which": ("Which", "list")}, cells, start=("b",)).html)
    assert (len(data["panels"]), data["said"], data["start"]) == (1, ["a.", "Same.", "b."], [1])
