"""One file for each method. A new one changes its own file, one line here, and a recipe."""

from __future__ import annotations

from collections.abc import Mapping

from s5mars.errors import unknown
from s5mars.methods.augseg import AugSeg
from s5mars.methods.classmix import ClassMix
from s5mars.methods.fixmatch import FixMatch
from s5mars.methods.mean_teacher import MeanTeacher
from s5mars.methods.prevmatch import PrevMatch
from s5mars.methods.ranpaste import RanPaste
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.san import San
from s5mars.methods.self_training import SelfTraining
from s5mars.methods.supervised import Supervised
from s5mars.methods.supervised_averaged import SupervisedAveraged
from s5mars.methods.u2pl import U2PL
from s5mars.methods.unimatch import UniMatch
from s5mars.methods.unimatch_v2 import UniMatchV2
from s5mars.types import Method

METHODS: Mapping[str, type[Method]] = {
    "supervised": Supervised,
    "supervised_averaged": SupervisedAveraged,
    "self_training": SelfTraining,
    "mean_teacher": MeanTeacher,
    "classmix": ClassMix,
    "fixmatch": FixMatch,
    "ranpaste": RanPaste,
    "u2pl": U2PL,
    "augseg": AugSeg,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
    "prevmatch": PrevMatch,
    "s5mars": S5Mars,
}
"""Methods of table III and later ones, which train any network that returns logits."""

OF_A_NETWORK: Mapping[str, type[Method]] = {"san": San}
"""Methods of table VI that only fit one kind of network."""


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UserError: if the name is unknown; it gives the nearest name and all names.
    """
    known = {**METHODS, **OF_A_NETWORK}
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def method_title(name: str) -> str:
    """The display name of a method; the name itself if it is unknown."""
    known = {**METHODS, **OF_A_NETWORK}
    return known[name].title if name in known else name
