"""Procedural Mars scenes with all nine classes, for the demo and the tests.

They look like Mars to a person at a glance; no score on them says anything about Mars.
"""

from s5mars.data.synthetic.scene import render_scene
from s5mars.data.synthetic.write import write_synthetic

__all__ = ["render_scene", "write_synthetic"]
