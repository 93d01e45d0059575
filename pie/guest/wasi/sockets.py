"""`wasi:sockets`: every operation answers `not-supported`, as the linker does for what is lacking.

Network access, where a launch grants it, goes through the host's own client.
"""

from __future__ import annotations

from pie.guest.host import HostInterface
from pie.guest.instance import Instance

_instance_network = HostInterface("wasi:sockets/instance-network")
INTERFACES = [
    _instance_network,
    *(
        HostInterface(f"wasi:sockets/{name}")
        for name in ("network", "tcp", "tcp-create-socket", "udp", "udp-create-socket")
    ),
    HostInterface("wasi:sockets/ip-name-lookup"),
]


@_instance_network.function("instance-network")
def instance_network(instance: Instance) -> object:
    """A network that every operation on it refuses."""
    return object()
