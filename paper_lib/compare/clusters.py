"""Where joblib's tasks run: this machine's processes, or an existing Dask or Ray cluster."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config

from paper_lib.errors import CompanionError

BACKENDS = ("loky", "dask", "ray")


@contextmanager
def run_on(
    backend: str, *, address: str | None = None, workers: int | None = None, timeout: float = 10
) -> Iterator[int | None]:
    """Send joblib's tasks to `backend` inside the block; yields how many are in flight at once.

    backend: "loky" (processes here), "dask" (address: of its scheduler, such as tcp://host:8786) or "ray"
    (address: of its head; "auto" where None). workers: at most that many at once; None is every core there
    is, on loky left to the caller. timeout: seconds that a Dask scheduler has to answer. Tasks compute where
    this package is installed and the checkpoints lie under the same paths; give Dask workers one thread each,
    since a process has one number of threads.
    Raises CompanionError where the backend's package is missing and where nobody answers at the address.
    """
    if backend not in BACKENDS:
        raise CompanionError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend == "loky":
        if address is not None:
            raise CompanionError("--address is of a cluster: name it with --backend dask or --backend ray")
        yield workers
        return
    if backend == "dask":
        distributed = _required("distributed", backend)
        if address is None:
            raise CompanionError("--backend dask needs --address, such as tcp://127.0.0.1:8786")
        with _dask_client(distributed, address, timeout) as client:
            cores = sum(client.ncores().values())
            if not cores:
                raise CompanionError(f"the Dask scheduler at {address} has no workers: start some first")
            with parallel_config("dask", client=client):
                yield workers or cores
        return
    ray = _required("ray", backend)
    _required("ray.util.joblib", backend).register_ray()
    try:
        ray.init(address=address or "auto", log_to_driver=False)
    except Exception as error:
        raise CompanionError(
            f"no Ray cluster answers at {address or 'auto'}: {_first_line(error)}"
        ) from error
    try:
        count = workers or int(ray.cluster_resources().get("CPU", 1))
        with parallel_config("ray", n_jobs=count):
            yield count
    finally:
        ray.shutdown()


@contextmanager
def _dask_client(distributed: Any, address: str, timeout: float) -> Iterator[Any]:
    try:
        client = distributed.Client(address, timeout=timeout, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise CompanionError(f"no Dask scheduler answers at {address}: {_first_line(error)}") from error
    with client:
        yield client


def _required(module: str, backend: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise CompanionError(
            f"--backend {backend} needs the package {package} ({error}): pip install {package}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
