"""An environment for each peer, made when it is first needed, in the user's cache."""

from __future__ import annotations

from pathlib import Path

from servable.core import environments
from servable.core.cache import cache_dir
from servable.lab.peers.base import Peer


class Environment(environments.Environment):
    """Where a peer's packages are, or would be."""

    def __init__(self, peer: Peer, root: Path | None = None) -> None:
        assert peer.requirements is not None, f"{peer.name} has no packages"
        super().__init__(
            peer.name, peer.requirements, peer.python, root or cache_dir() / "peers", system=peer.system_python
        )
        self.peer = peer
