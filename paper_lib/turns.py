"""Jobs side by side whose output reads as if they ran in order, each shown as it comes from its turn on."""

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TextIO

Job = Callable[[TextIO], None]  # writes what it has to say to the stream it is given


class _Held(io.StringIO):
    """Keeps what is written until its turn comes, and passes it on from then on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream, self._lock, self._turn = stream, threading.Lock(), False

    def write(self, text: str) -> int:
        with self._lock:
            if not self._turn:
                return super().write(text)
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def release(self) -> None:
        with self._lock:
            self._stream.write(self.getvalue())
            self._stream.flush()
            self._turn = True


def take_turns(
    jobs: Sequence[Job], stream: TextIO, *, workers: int, stop: Callable[[], None] = lambda: None
) -> None:
    """Run jobs in threads, `workers` at a time; `stream` gets their output job by job, in their order.

    All run to their end; then the first exception in their order is raised. Ctrl-C starts no further job and
    calls `stop`, which ends those that run, again and again until none does.
    """
    outputs = [_Held(stream) for _ in jobs]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(job, output) for job, output in zip(jobs, outputs, strict=True)]
        try:
            for future, output in zip(futures, outputs, strict=True):
                output.release()
                wait([future])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            while wait([each for each in futures if not each.cancelled()], timeout=0.2).not_done:
                stop()  # what a job has started since
            raise
    for future in futures:
        future.result()
