"""The command line: errors in one line, and an example in every help that does what it says."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from paper_lib.__main__ import main
from paper_lib.commands import COMMANDS, command_parser


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figures", "--profile", "huge"], "huge"),
        (["figures", "-p", "alpha"], "'alpha' is not of the form name=value"),
        (["figures", "--seed", "-1"], "--seed"),
        (["figures", "--workers", "0"], "it must be at least 1"),
        (["figures", "--only", ""], "argument --only: '' names nothing"),
        (["train", "--runs", ","], "argument --runs: ',' names nothing"),
        (["train", "--seeds", " "], "argument --seeds: ' ' names nothing"),
        (["draw"], "draw"),
        ([], "command"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    told = capsys.readouterr()
    assert status == 2
    assert told.err.startswith("error: ")
    assert message in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--profile", "smoke", "--workers", "1", "--data-dir"],
        ["pretrain", "--profile", "smoke", "--workers", "1", "--data-dir"],
        ["compare", "MODEL", "MODEL", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_a_file_in_the_place_of_a_folder_is_one_line(command, tiny_models, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    model = str(tiny_models / "base")
    assert main([*(model if word == "MODEL" else word for word in command), str(file)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {file}")
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_example_is_in_the_help_and_calls_its_function_by_argument_name(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command.name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    module, _, function = command.work.rpartition(".")
    asked = inspect.signature(getattr(import_module(module), function))
    for line in command.examples.splitlines():
        assert f"\n  python -m paper_lib {line}" in shown
        options = vars(command_parser().parse_args(line.split()))
        assert options.pop("command") is command
        asked.bind(**options)


def test_help_waits_for_no_heavy_import():
    script = (
        "import sys; from paper_lib.__main__ import main\n"
        "try: main(['figures', '--help'])\n"
        "finally: print({'torch', 'transformers', 'pandas', 'papermill', 'matplotlib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
