"""How does a study use every core? Processes that work, and one parent that hands out jobs and keeps what comes back.

Each process builds its worker once (it may hold a whole data set) and then takes job after job; what it says meanwhile
comes to the parent as it is said, so that nothing finished is lost with a process. However the parent ends, a process
ends when it has something to say and nobody hears it.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from storage.errors import NightshiftError

C = TypeVar("C")
J = TypeVar("J")

Say = Callable[[Any], None]
Worker = Callable[[J, Say], None]
"""Does one job and says what it has, as often as it likes."""


@dataclass(frozen=True)
class _Failed:
    error: Exception


_DONE = None


def spread(
    make: Callable[[C], Worker[J]], context: C, waiting: list[J], hear: Say, *, processes: int, threads: int = 1
) -> None:
    """Do every job of `waiting`, first come first served; `hear` gets what workers say and may add jobs to `waiting`.

    make: a function of a module that builds a worker from `context`; it, `context`, jobs and what is said must be
    picklable. threads: of numpy and torch in each process. One process is this one, with its own number of threads.
    Raises what a worker raises, NightshiftError where a process is gone.
    """
    if not waiting:
        return
    if processes == 1:
        work = make(context)
        while waiting:
            work(waiting.pop(0), hear)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    with contextlib.ExitStack() as stack:
        idle: list[Connection] = []
        busy: list[Connection] = []
        while waiting or busy:
            while waiting and (idle or len(busy) < processes):
                if not idle:
                    idle.append(stack.enter_context(_process(spawn, make, context, threads)))
                busy.append(idle.pop())
                busy[-1].send(waiting.pop(0))
            for connection in wait(busy):
                assert isinstance(connection, Connection)
                said = _received(connection)
                if said is _DONE:
                    busy.remove(connection)
                    idle.append(connection)
                else:
                    hear(said)


def _received(connection: Connection) -> Any:
    try:
        said = connection.recv()
    except EOFError:
        raise NightshiftError(
            "a process ended in the middle of its work, as where memory runs out; what was finished is kept: run the"
            " same command again, with fewer --workers"
        ) from None
    if isinstance(said, _Failed):
        raise said.error
    return said


@contextlib.contextmanager
def _process(spawn: Any, make: Callable[[C], Worker[J]], context: C, threads: int) -> Iterator[Connection]:
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, make, context, threads), daemon=True)
    process.start()
    theirs.close()  # so that the pipe closes with the process
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _serve(connection: Connection, make: Callable[[C], Worker[J]], context: C, threads: int) -> None:
    """The life of a process: one job after the other until the parent closes the pipe, or is gone."""
    import torch
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its processes
    threadpool_limits(threads)
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            work = make(context)
            while True:
                work(connection.recv(), connection.send)
                connection.send(_DONE)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            error.add_note(traceback.format_exc())
            connection.send(_Failed(error))
