"""For tests of programs that ask models: a scripted provider, a server with every fault, and records of both.

`OfflineProvider` stands in for a model inside the process; its ``requests`` is the record of what it was asked.
`FaultServer` stands in for a provider on the network, for any program that speaks one of its dialects, and injects
any of `FAULTS`. `Recorder` remembers what an agent did. Nothing in plait imports this package.
"""

from plait.providers.offline import OfflineProvider
from plait.testing.exchanges import Exchange
from plait.testing.fault import Fault, Injected, Place
from plait.testing.faults import FAULTS, fault
from plait.testing.recorder import Recorder
from plait.testing.reply import Asked, Cut, Flood, Gate, Reply, Style, Wire, answer, tool_calls
from plait.testing.said import Call, Said
from plait.testing.server import FaultServer, certificate

__all__ = [
    "FAULTS",
    "Asked",
    "Call",
    "Cut",
    "Exchange",
    "Fault",
    "FaultServer",
    "Flood",
    "Gate",
    "Injected",
    "OfflineProvider",
    "Place",
    "Recorder",
    "Reply",
    "Said",
    "Style",
    "Wire",
    "answer",
    "certificate",
    "fault",
    "tool_calls",
]
