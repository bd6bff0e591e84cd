"""A full disk, folders that take nothing, damaged files, odd calls and hostile names: one line each, and
nothing lost."""

import json
import random
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import torch
from calls import Caller, judged_words
from forks import Child, Ended, digests, nobody, small_files
from kills import COMPARED, RUNS, TABLES, Told, Trial, finish
from mutants import QUERY, nasty_bytes, nasty_json
from nbconvert.filters.markdown import markdown2html
from safetensors.torch import save_file

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import read_table, table_metadata, table_parts

EVERYTHING = (TABLES, *RUNS, *COMPARED, "data/results/tiny/parts/**/*.parquet", "out/parts/*.parquet")


def _complaint(ended: Ended) -> str:
    """What is wrong with a call that could not do its work: it says so in one line, with status 1 or 2."""
    if ended.status not in (1, 2) or len(ended.lines) != 1:
        return f"exit {ended.status}, {len(ended.lines)} lines: {ended.words[-400:]!r}"
    return judged_words(ended.lines)


def run_full_disks(trial: Trial, root: Path, number: int, seed: int, told: Told) -> None:
    """Files may not grow beyond some bytes; then they may again."""
    r, work = random.Random(f"{seed} {trial.name}"), root / f"{trial.name} full"
    wanted = finish(trial, work)
    largest = max((path.stat().st_size for path in work.rglob("*") if path.is_file()), default=1)
    for index in range(number):
        shutil.rmtree(work)
        shutil.copytree(trial.start, work)
        if r.random() < 0.5:  # something is there already
            child = Child(trial.command(work))
            if child.wait(r.uniform(0, 2)).status is None:
                child.kill()
        before = digests(work, *EVERYTHING)
        limit = int(largest ** r.uniform(0, 1))
        ended = Child(trial.command(work), confined=small_files(limit)).wait()
        after = digests(work, *EVERYTHING)
        verdict = "right" if ended.status == 0 else _complaint(ended) or "refused"
        if lost := [name for name in before if name not in after]:
            verdict = f"{lost[0]} is gone (limit {limit})"
        again = Child(trial.command(work)).wait()
        if again.status != 0 or digests(work, *trial.files) != wanted:
            verdict = f"after room was made: exit {again.status}, {again.words[-200:]!r}"
        told(f"full disk, {trial.name}", index, verdict)
    shutil.rmtree(work)


def run_read_only(trial: Trial, root: Path, told: Told) -> None:
    """A folder that may not be written."""
    work = root / f"{trial.name} read-only"
    shutil.copytree(trial.start, work)
    for parent in [work, *root.resolve().parents, root]:
        if parent.owner() != "root" or parent in (work, root) or "pytest" in parent.name:
            parent.chmod(0o755)
    for path in (work, *work.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = digests(work, *EVERYTHING)
    ended = Child(trial.command(work), confined=nobody).wait()
    verdict = _complaint(ended) or "refused"
    told(
        f"read-only, {trial.name}",
        0,
        verdict if digests(work, *EVERYTHING) == before else "something changed",
    )
    for path in (work, *work.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(work)


def run_damaged(trial: Trial, file: str, way: str, root: Path, number: int, seed: int, told: Told) -> None:
    """A file of a finished folder is damaged, and the command called again: it makes the file again, byte for
    byte, or says in one line what to delete and leaves the others as they were."""
    done, work = root / f"{trial.name} done", root / f"{trial.name} damaged"
    if not done.exists():
        finish(trial, done)
    wanted = digests(done, *trial.files)
    for index in range(number):
        r = random.Random(f"{seed} {trial.name} {file} {way} {index}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(done, work)
        path = r.choice(sorted(work.glob(file)))
        blob = path.read_bytes()
        path.write_bytes(
            blob[: r.randrange(len(blob))] if way == "cut" else
            nasty_json(blob.decode(), r) if way == "json" else nasty_bytes(blob, r)
        )  # fmt: skip
        before = digests(work, *EVERYTHING)
        ended = Child(trial.command(work)).wait()
        after = digests(work, *EVERYTHING)
        name = str(path.relative_to(work))
        if ended.status == 0 and "Traceback" not in ended.words:
            found = digests(work, *trial.files)
            changed = [f for f in wanted if found.get(f) != wanted[f]]
            verdict = f"other bytes in {changed}" if changed else "right"
        else:
            verdict = _complaint(ended) or "refused"
            changed = [f for f in before if f != name and after.get(f) != before[f]]
            verdict = f"{changed[0]} changed" if changed and verdict == "refused" else verdict
        told(f"damaged {Path(file).name}, {trial.name}", index, verdict)
        if verdict not in ("right", "refused"):
            shutil.copytree(
                work, root / "bad" / f"{trial.name} {Path(file).name} {index}", dirs_exist_ok=True
            )
    shutil.rmtree(work)


def run_stale_locks(trial: Trial, root: Path, told: Told) -> None:
    """Lock files of calls that are gone, and dates in the future."""
    import os

    work = root / f"{trial.name} locked"
    wanted = finish(trial, work)
    for path in [*work.rglob(".*.lock"), *work.rglob("*.lock")]:
        path.write_text("1")
    for path in work.rglob("*"):
        os.utime(path, (2.2e9, 2.2e9))
    ended = Child(trial.command(work)).wait()
    same = digests(work, *trial.files) == wanted
    told(
        f"stale locks, {trial.name}", 0, "right" if ended.status == 0 and same else f"{ended.words[-300:]!r}"
    )
    shutil.rmtree(work)


def run_flips(table: Path, root: Path, number: int, seed: int, told: Told) -> None:
    """Bits flipped in a table: it is refused, or its rows and what it says of itself are the same."""
    r, blob, path = random.Random(seed), table.read_bytes(), root / "flipped" / table.name
    path.parent.mkdir(exist_ok=True)
    rows, about = read_table(table), (table_metadata(table), table_parts(table))
    for index in range(number):
        data, where = bytearray(blob), r.randrange(len(blob))
        data[where] ^= 1 << r.randrange(8)
        path.write_bytes(data)
        try:
            same = read_table(path).equals(rows) and (table_metadata(path), table_parts(path)) == about
            verdict = "right" if same else "other rows, and no word"
        except CompanionError:
            verdict = "refused"
        except Exception as error:
            verdict = f"traceback: {error!r:.150}"
        told("bit of a table", index, verdict)


# --- Calls that nobody should make.


def odd_calls(base: str, tuned: str, s: Path) -> Iterator[list[str]]:
    """Each gives one line and a status that is not 0. s: a folder to spoil."""
    (s / "empty").mkdir(parents=True)
    files = {
        "lr.json": "[1e-6, NaN]",
        "lr2.json": '{"a":' * 100_000,
        "lr3.json": "[" + "9" * 400 + "]",
        "lr4.json": "[" * 100_000,
        "lr5.json": "[[1e-6]]",
        "lr6.json": "[1e-6, Infinity]",
        "file": "x",
    }
    for name, text in files.items():
        (s / name).write_text(text)
    (s / "pickle").mkdir()
    (s / "pickle" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    (s / "badly named").mkdir()
    (s / "badly named" / "model.safetensors").write_bytes(b"\x80\x04N.")
    run = s / "run"
    run.mkdir()
    yield from ([], ["nosuch"], ["bench"], ["compare", base], ["compare", base, tuned])
    for value in ("nosuch", "../../etc", ""):
        yield ["train", "--profile", value, "--data-dir", str(s / "d")]
    for option, value in (("--runs", "nosuch"), ("--seeds", "-1"), ("--seeds", "99"), ("--workers", "0")):
        yield ["train", "--profile", "smoke", option, value, "--data-dir", str(s / "d")]
    for data in (s / "nosuch", s / "file", Path("/dev/null")):
        yield ["extract", "--profile", "smoke", "--data-dir", str(data)]
    for options in (["--only", "99"], ["--only", ""], ["-p", "nosuch=1"], ["-p", "a b=1"], ["--seed", "1.5"]):
        yield ["figures", "--profile", "smoke", "--data-dir", str(s / "d"), *options]
    for options in (
        ["--run", "opd", "--data-dir", str(s / "nosuch")],
        ["--run", "x"],
        ["--run", "opd", "--dtype", "x"],
    ):
        yield ["export", "--profile", "smoke", "--out", str(s / "e"), *options]
    for end in (
        s / "nosuch",
        s / "pickle",
        s / "pickle" / "pytorch_model.bin",
        s / "badly named",
        s / "empty",
        "",
    ):
        yield ["compare", base, str(end), "--out", str(s / "o")]
    for out in (s / "file", s / "file" / "x", "/proc/x", "x" * 400):
        yield ["compare", base, tuned, "--out", str(out)]
    sizes = ("K=0", "K=9999", "K=1e3", 'K=__import__("os")', "K=" + "9" * 5000, "K=" + "(" * 3000, "K", "X=1")
    options = [["-s", size] for size in sizes]
    options += [["--learning-rate", rate] for rate in ("nan", "1e-400", "inf", "-1", "x", "")]
    options += [
        ["--learning-rates", str(s / name)]
        for name in (*files, "empty", "nosuch", "pickle/pytorch_model.bin")
    ]
    options += [["--steps", steps] for steps in ("0", "-1", "1.5", "9" * 5000)]
    options += [["--steps", "9" * 21, "--learning-rate", "1e-6"]]
    options += [["--modules", names] for names in ("nosuch", "")]
    options += [["--trajectory", str(folder)] for folder in (s / "empty", s / "nosuch", s / "file", run)]
    options += [
        ["--backend", "dask"],
        ["--backend", "dask", "--address", "tcp://127.0.0.1:1"],
        ["--address", "x"],
    ]
    for given in options:
        yield ["compare", base, tuned, "--out", str(s / "o"), "--no-report", *given]
    damaged = (
        '{"steps": [0, Infinity]}',
        '{"steps": [0, 1e400]}',
        "[" * 3000,
        '{"steps": [0, %s]}' % ("9" * 30),
    )
    for text in damaged:
        (run / "run.json").write_text(text)
        yield ["compare", base, tuned, "--trajectory", str(run), "--steps", "1", "--out", str(s / "o")]
    (run / "run.json").unlink()
    far = run / f"checkpoint-{'9' * 30}"
    shutil.copytree(tuned, far)
    yield ["compare", base, tuned, "--trajectory", str(run), "--steps", "1" + "0" * 30, "--out", str(s / "o")]
    yield ["compare", "org/name", tuned, "--out", str(s / "o")]
    yield ["compare", base, tuned, "--out", ""]


def run_odd_calls(trial: Trial, root: Path, number: int, seed: int, told: Told) -> None:
    """The odd calls, or that many of them, in one process."""
    base, tuned = (str(trial.start / name) for name in ("base", "tuned"))
    with Caller() as caller:
        calls = list(odd_calls(base, tuned, root / "odd"))
        random.Random(seed).shuffle(calls)
        for index, arguments in enumerate(calls[:number]):
            outcome = caller.call(arguments)
            short = " ".join(arguments)[-120:]
            refused = outcome.status in (1, 2) and len(outcome.said) == 1 and not outcome.trouble
            said = outcome.trouble or f"exit {outcome.status}, {len(outcome.said)} lines: {outcome.said[:1]}"
            told("odd call", index, "refused" if refused else f"{short}: {said}")


# --- Names from files, in pages.

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "`<img src=y onerror=alert(2)>`**b**",
    "[x](javascript:alert(3))",
    "<svg onload=alert(4)>",
    "`</code><script>alert(5)</script>`",
    "![a](http://host/a.png)",
    "<http://host/>",
    '"><a href="http://host">',
    "$\\href{javascript:alert(6)}{x}$",
    "|a|b|\n|-|-|\n<b onclick=alert(7)>",
    "{{alert(8)}}{%raw%}",
    "&lt;script&gt;alert(9)&lt;/script&gt;",
)


class _Live(HTMLParser):
    """Tags that do something or load something, which no page of ours has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source, target = given.get("src") or "", given.get("href") or "#"
        if (
            tag in ("script", "svg", "iframe", "link", "object", "embed", "base", "form")
            or any(name.startswith("on") for name in given)
            or (tag == "img" and not source.startswith("data:"))
            or not target.startswith("#")
        ):
            self.tags.append(f"<{tag} {given}>"[:120])


def run_names(root: Path, number: int, seed: int, told: Told) -> None:
    """Reports of checkpoints, folders and configurations whose names are hostile."""
    r, work = random.Random(f"{seed} names"), root / "names"
    for index in range(number):
        shutil.rmtree(work, ignore_errors=True)
        g = torch.Generator().manual_seed(index)
        plain = {QUERY.format(layer): torch.randn(32, 16, generator=g) for layer in range(3)}
        names = r.sample(HOSTILE, 6)
        odd = {f"{name}.weight": torch.randn(4, 4, generator=g) for name in names[:3]}
        odd |= {f"model.layers.0.{names[3]}.weight": torch.randn(32, 16, generator=g)}
        folders = [work / name.replace("/", "_") for name in (f"b{names[4]}", f"t{names[5]}", f"o{names[0]}")]
        for folder, factor in zip(folders[:2], (1.0, 1.01), strict=True):
            folder.mkdir(parents=True)
            tensors = {name: w * factor for name, w in (plain | odd).items()}
            if factor > 1:
                tensors |= {f"{names[1]}only here": torch.ones(4, 4)}
                tensors[QUERY.format(2)] = tensors[QUERY.format(2)] * torch.nan
                tensors[QUERY.format(1)] = torch.ones(5, 5)
            save_file(tensors, folder / "model.safetensors")
            about = {"model_type": names[2], "_name_or_path": names[3], "architectures": [names[4]]}
            (folder / "config.json").write_text(json.dumps(about))
        ended = Child(["compare", *map(str, folders[:2]), "--out", str(folders[2])]).wait()
        told("names in pages", index, _judged_pages(ended, folders[2]))
    shutil.rmtree(work, ignore_errors=True)


def _judged_pages(ended: Ended, out: Path) -> str:
    if ended.status != 1 or len(ended.lines) != 1 or "Traceback" in ended.words:
        return f"exit {ended.status}: {ended.words[-300:]!r}"
    texts = [(out / "report.html").read_text()]
    for cell in nbformat.read(next(out.glob("*.ipynb")), as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [data.get("text/html", ""), markdown2html(data.get("text/markdown", ""))]
    live = [tag for text in texts for tag in _Live(text).tags]
    return f"{len(live)} live tags, such as {live[0]}" if live else "right"
