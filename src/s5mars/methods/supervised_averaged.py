"""Supervised, averaged: the moving average of Supervised; the baseline of every EMA teacher.

Methods with a teacher are scored by it, and averaging weights improves any student. So the gain
from the pool is measured against this row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from s5mars.methods.supervised import Supervised
from s5mars.types import Needs


@dataclass(frozen=True, kw_only=True)
class SupervisedAveraged(Supervised):
    """L = L_sup; the network that is scored is the moving average of eq. 2."""

    title: ClassVar[str] = "Supervised, averaged"

    @property
    def needs(self) -> Needs:
        """A teacher, which is only scored."""
        return Needs(teacher=True)
