"""The page on scale: its arithmetic of memory and hours gives what it prints."""

from exercise_cells import ROOT

PAGE = (ROOT / "book" / "pages" / "scale.md").read_text(encoding="utf-8")
STUDENT, TEACHER, CARDS, FLOPS, BANDWIDTH, TOKENS = 8.2e9, 32.8e9, 8, 0.4 * 990e12, 3.35e12, 1000
RUNS = {"SFT": (256, 5375), "OPD": (64, 300), "RLVR": (512, 1024)}  # batch and steps


def hours(flop):
    return flop / (CARDS * FLOPS) / 3600


def test_the_memory_of_the_papers_scale_is_what_its_bytes_give():
    training, teacher = 18 * STUDENT / 1e9, 2 * TEACHER / 1e9
    assert f"| {training:.0f} GB | {training / CARDS:.1f} GB |" in PAGE
    assert f"| {teacher:.0f} GB | {teacher / CARDS:.1f} GB |" in PAGE
    assert f"| {2 * STUDENT / 1e9:.1f} GB |" in PAGE
    a_token = 36 * 2 * 8 * 128 * 2
    held = 64 * TOKENS * a_token / 1e9
    assert (
        f"| {a_token:,} a token | 64 responses: {held:.1f} GB "
        f"| {held:.1f} GB (RLVR), {held / CARDS:.1f} GB (OPD) |" in PAGE
    )


def test_the_hours_of_the_papers_scale_are_what_its_steps_give():
    sequences = {run: batch * steps for run, (batch, steps) in RUNS.items()}
    assert "| responses: batch × steps | {:,} | {:,} | {:,} |".format(*sequences.values()) in PAGE
    student = {run: hours(6 * STUDENT * TOKENS * count) for run, count in sequences.items()}
    teacher = hours(2 * TEACHER * TOKENS * sequences["OPD"])
    a_token = 2 * STUDENT / BANDWIDTH
    sampling = {run: RUNS[run][1] * TOKENS * a_token / 3600 for run in ("OPD", "RLVR")}
    assert "| {:.1f} h | {:.2f} h | {:.1f} h |".format(*student.values()) in PAGE
    assert f"| | {teacher:.2f} h | |" in PAGE
    assert (
        f"once a token, {1e3 * a_token:.1f} ms | | {sampling['OPD']:.2f} h | {sampling['RLVR']:.1f} h |"
        in PAGE
    )
    opd, rlvr = student["OPD"] + teacher + sampling["OPD"], student["RLVR"] + sampling["RLVR"]
    assert f"| **{student['SFT']:.1f} h** | **{opd:.2f} h** | **{rlvr:.1f} h** |" in PAGE
