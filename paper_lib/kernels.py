"""Jupyter kernels of the running interpreter, and their end."""

import logging
import sys
from typing import Any, ClassVar
from weakref import ReferenceType, ref

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter, whatever kernels are registered on the machine."""

    _all: ClassVar[list[ReferenceType["ThisInterpreter"]]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._all.append(ref(self))

    @classmethod
    def kill_all(cls) -> None:
        """End every kernel: they are in sessions of their own, where no Ctrl-C reaches them."""
        logging.getLogger("papermill").setLevel(logging.CRITICAL)  # where each death would be told
        for known in list(cls._all):
            manager = known()
            process = getattr(manager and manager.provisioner, "process", None)
            if process is not None:
                process.kill()

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's own log (loopback is not encrypted, its parent is gone) is no news to a reader.
        launch = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "--log-level=CRITICAL",
            "-f",
            "{connection_file}",
        ]
        return KernelSpec(argv=launch, **KERNEL)
