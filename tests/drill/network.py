"""A network of the drill's own: a bridge, and hosts in namespaces, each at the end of a cable.

All of it is inside a namespace of this process (``own_network``), so the machine's network is not
touched, and nothing is left behind when the process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.product import eventually

ADDRESS = "10.77.0.1"
BRIDGE = "drill"
INSIDE = "FKS_DRILL_NETWORK"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def permitted() -> bool:
    """Whether this process may have networks of its own (root, not in most containers)."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "setpriv"))):
        return False
    probe = ["unshare", "--net", "ip", "link", "add", BRIDGE, "type", "bridge"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def own_network(module: str) -> None:
    """Run ``module`` again with the same arguments in a network of its own, unless it is there."""
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        again = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--net", *again])  # noqa: S606
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


class Cable:
    """From the bridge to a namespace that has ``address`` and reaches nothing but the bridge."""

    def __init__(self, name: str, address: str) -> None:
        self.address, self._port = address, f"to-{name}"
        keep = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
        self._keeper = subprocess.Popen(keep)
        pid = str(self._keeper.pid)
        ours = Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{pid}/ns/net")
        eventually(lambda: theirs.readlink() != ours, seconds=10, what=f"a network for {name}")
        self.inside = ["nsenter", "--target", pid, "--net"]
        run("ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", self._port, "master", BRIDGE, "up")
        run(*self.inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*self.inside, "ip", "link", "set", device, "up")

    def pull(self) -> None:
        """Nothing passes any more, and nobody is told."""
        run("ip", "link", "set", self._port, "down")

    def plug_in(self) -> None:
        run("ip", "link", "set", self._port, "up")

    def remove(self) -> None:
        self._keeper.kill()
        self._keeper.wait(5)
