"""One reader: every run at once, one run by seed, and the reference set where a profile has nothing."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from worlds import STUDY, world

from paper_lib.figures.results import Results, open_results
from paper_lib.figures.words import tell
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import TABLES, write_table
from paper_lib.summaries import MLP, Untested


def results(values: dict[tuple[str, int, int, str, str], float]) -> Results:
    """Results of {(run, seed, step, module, metric): value}, all in layer 0."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step", "module", "metric"])
    return Results(
        study=STUDY, tables={"matrices": keys.assign(layer=0, k=np.nan, value=list(values.values()))}
    )


def test_one_run_is_what_all_runs_say_of_it():
    made_up = world(seeds=(0, 1))
    for metric, which in (("stable_rank", {}), ("principal_overlap", {"k": 0.3}), ("angle_mean", {})):
        rows = made_up.ends(metric, **which)
        by_seed = rows[rows["run"] == "opd"].set_index("seed")["value"]
        assert made_up.end("opd", metric, **which).to_dict() == by_seed.to_dict()
        rows = made_up.firsts(metric, **which)
        by_seed = rows[rows["run"] == "opd"].set_index("seed")["value"]
        assert made_up.first("opd", metric, **which).to_dict() == by_seed.to_dict()
    nulls = made_up.ends("principal_overlap", k=0.3, nulls=True)
    of_opd = nulls[(nulls["run"] == "opd") & (nulls["null"] == "permuted")].set_index("seed")["value"]
    assert len(of_opd) == 2
    assert made_up.end("opd", "principal_overlap", k=0.3, null="permuted").to_dict() == of_opd.to_dict()


def test_a_path_is_indexed_by_the_share_of_its_run():
    path = world(jitter=0).path("opd", "stable_rank")
    assert path.index.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert path[0].tolist() == [25, 25.5, 26]


def test_what_the_tables_do_not_have_is_named():
    made_up = world()
    for asked, words in (
        (lambda: made_up.end("nobody", "stable_rank"), "no stable_rank of nobody in the tables"),
        (lambda: made_up.end("opd", "depth"), "no depth of opd in the tables"),
        (lambda: made_up.end("opd", "depth", null="permuted"), "no depth of opd, null permuted,"),
    ):
        with pytest.raises(Untested, match=words):
            asked()


def test_metrics_stand_side_by_side_where_all_are_known():
    size = {("opd", 0, step, "q", "parameters"): 100.0 for step in (12, 24)}
    density = {("opd", 0, 12, "q", "update_density"): 0.2, ("opd", 0, 24, "q", "update_density"): 0.4}
    rank = {("opd", 0, 24, "q", "stable_rank"): 6.0, ("rlvr", 0, 24, "q", "stable_rank"): 9.0}
    joined = results(size | density | rank).side_by_side({"density": "update_density", "rank": "stable_rank"})
    assert joined.to_dict("records") == [{"run": "opd", "seed": 0, "step": 24, "density": 0.4, "rank": 6.0}]


def test_energy_adds_over_matrices_and_divides_by_all_of_it():
    norms = {"q": 3.0, "up": 4.0, "down": 12.0}
    rows = {("opd", 0, 12, module, "frobenius_norm"): norm for module, norm in norms.items()}
    rows |= {("rlvr", 0, 12, module, "frobenius_norm"): 0.0 for module in norms}
    rows |= {(run, 0, 12, module, "parameters"): 100.0 for run in ("opd", "rlvr") for module in norms}
    energy, weights = results(rows).energy_share("opd", MLP)
    assert (energy[0], weights[0]) == pytest.approx((160 / 169, 2 / 3))
    assert np.isnan(results(rows).energy_share("rlvr", MLP)[0][0])
    assert results(rows).total_norm("opd")[0] == 13


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Tables of the profile reference alone: one matrix of one run."""
    row = ("reference", "opd", 0, 12, 0, "q", "stable_rank", np.nan, 4.0)
    frames = {"matrices": pd.DataFrame([row], columns=list(TABLES["matrices"]))}
    frames["curves"] = pd.DataFrame(
        [("reference", "opd", 0, 12, "loss", 1.0)], columns=list(TABLES["curves"])
    )
    for name, columns in (("matrices", TABLES["matrices"]), ("curves", TABLES["curves"])):
        path = tmp_path / "results" / "reference" / f"{name}.parquet"
        write_table(frames[name], path, columns=columns, fingerprint="ab" * 8)
    return tmp_path


def test_two_updates_are_compared_as_one_vector_over_all_matrices():
    rng = np.random.default_rng(0)
    a, b = ({name: scale * rng.normal(size=(4, 6)) for name in "qk"} for scale in (1, 3))
    b["k"] += 5 * a["k"]
    rows, pairs = [], []
    for module in "qk":
        for run, update in (("opd", a), ("rlvr", b)):
            sigma = np.linalg.svd(update[module])[1]
            norm = np.linalg.norm(update[module])
            rows += [(run, module, "frobenius_norm", np.nan, norm)]
            rows += [(run, module, "top_energy", k, (sigma[:k] ** 2).sum() / norm**2) for k in (1, 2)]
        norms = np.linalg.norm(a[module]) * np.linalg.norm(b[module])
        pairs += [("opd", module, "update_cosine", np.nan, (a[module] * b[module]).sum() / norms)]
    columns = ["run", "module", "metric", "k", "value"]
    keys = {"layer": 0, "seed": 0, "step": 30}
    tables = {"matrices": pd.DataFrame(rows, columns=columns).assign(**keys)}
    tables["pairs"] = pd.DataFrame(pairs, columns=columns).assign(other="rlvr", other_seed=0, **keys)
    made_up = Results(study=STUDY, tables=tables)
    whole = [np.concatenate([update[module].ravel() for module in "qk"]) for update in (a, b)]
    expected = whole[0] @ whole[1] / np.linalg.norm(whole[0]) / np.linalg.norm(whole[1])
    assert made_up.cosine("opd", "rlvr").tolist() == [pytest.approx(expected)]
    kept = sum((np.linalg.svd(b[module])[1][:2] ** 2).sum() for module in "qk")
    assert made_up.retained("rlvr", 2).tolist() == [pytest.approx(kept / (whole[1] ** 2).sum())]
    with pytest.raises(Untested, match="no top_energy of opd at k = 3"):
        made_up.retained("opd", 3)


def test_a_profile_without_tables_shows_the_reference_set_and_says_so(data_dir, capsys):
    opened = open_results("laptop", data_dir=data_dir, figures_dir="figures")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "laptop" in said
    assert "reference" in said
    assert opened.study.name == "reference"
    assert opened.ends("stable_rank")["value"].tolist() == [4.0]
    assert opened.figures == Path("figures") / "laptop"


def test_a_profile_with_tables_is_opened_without_a_word(data_dir, capsys):
    assert open_results("reference", data_dir=data_dir).runs == ["opd"]
    assert capsys.readouterr().out == ""


def test_without_any_tables_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(CompanionError, match="make figures PROFILE=laptop"):
        open_results("laptop", data_dir=tmp_path).table("matrices")
    with pytest.raises(CompanionError, match="no profile 'lap'"):
        open_results("lap", data_dir=tmp_path)


def test_a_figure_is_saved_with_the_tables_that_it_names(data_dir, tmp_path):
    opened = open_results("reference", data_dir=data_dir, figures_dir=tmp_path / "figures")
    fig, ax = plt.subplots()
    tell(ax, "line", ax.plot([0, 1])[0].get_ydata())
    notes = tmp_path / "notes.csv"
    notes.write_text("a,b\n")
    svg = opened.save(fig, "fig", inputs=("curves", notes), caption="A line.")
    plt.close(fig)
    assert svg == tmp_path / "figures" / "reference" / "fig.svg"
    about = svg.with_suffix(".json").read_text()
    assert about.index("reference/curves.parquet") < about.index("notes.csv")
