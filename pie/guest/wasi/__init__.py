"""Our part of WASI 0.2: what guests made by the usual toolchains need, on Trio's terms.

Time is Trio's clock, randomness comes from the instance, output goes to its client; there are
no files, no sockets and no environment.
"""

from pie.guest.host import HostInterface

from . import cli, clocks, filesystem, poll, random, sockets, streams
from .cli import Exit

__all__ = ["Exit", "interfaces_of_wasi"]


def interfaces_of_wasi(*, simulated: bool) -> list[HostInterface]:
    """All of them; a simulated wall clock follows Trio's clock from a fixed day on."""
    return [
        *poll.INTERFACES,
        *streams.INTERFACES,
        *clocks.interfaces(simulated=simulated),
        *random.INTERFACES,
        *cli.INTERFACES,
        *filesystem.INTERFACES,
        *sockets.INTERFACES,
    ]
