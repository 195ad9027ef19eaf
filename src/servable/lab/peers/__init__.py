"""Other people's servers, each with an environment of its own, serving the same artifact."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from servable.lab.peers.base import Command, Door, Peer, Placement
from servable.lab.peers.environments import Environment
from servable.lab.peers.http_servers import BentoMl, FastApi, Flask, LitServe, Mosec, RayServe
from servable.lab.peers.protocol_servers import Grpcio, MlServer, PyTriton, TensorFlowModelServer, TfServer

PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        peer.name: peer
        for peer in (
            Flask(),
            FastApi(),
            Grpcio(),
            TensorFlowModelServer(),
            PyTriton(),
            MlServer(),
            BentoMl(),
            LitServe(),
            Mosec(),
            RayServe(),
            TfServer(),
        )
    }
)

__all__ = ["PEERS", "Command", "Door", "Environment", "Peer", "Placement"]
