"""The notebook of a report goes into the package, for `compare` where only the package is installed."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithReport(build_py):
    """build_py, and notebook 07 beside `compare.report`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy = Path(self.build_lib) / "paper_lib" / "compare" / "07_your_checkpoints.py"
            self.copy_file("notebooks/07_your_checkpoints.py", str(copy))


setup(cmdclass={"build_py": WithReport})
