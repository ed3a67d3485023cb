"""A fitted model and an input -> numbers, then one offline page."""

from .account import Ledger, Readout, attention, ledger, readout
from .attribution import Influence, influence
from .cutting import Surgery, ablate, freeze, override, surgery
from .driving import Drivers, drivers
from .filming import Recorder
from .finding import Finding
from .gradients import Flow, River, flow, river
from .looking import Look, look, look_at
from .memory import HalfLife, Health, half_life, health, survival
from .probes import Stored, stored
from .specimen import Specimen
from .trace import Trace
from .usage import Used, used
from .vocabulary import WORDS, worded

__all__ = [
    "WORDS",
    "Drivers",
    "Finding",
    "Flow",
    "HalfLife",
    "Health",
    "Influence",
    "Ledger",
    "Look",
    "Readout",
    "Recorder",
    "River",
    "Specimen",
    "Stored",
    "Surgery",
    "Trace",
    "Used",
    "ablate",
    "attention",
    "drivers",
    "flow",
    "freeze",
    "half_life",
    "health",
    "influence",
    "ledger",
    "look",
    "look_at",
    "override",
    "readout",
    "river",
    "stored",
    "surgery",
    "survival",
    "used",
    "worded",
]
