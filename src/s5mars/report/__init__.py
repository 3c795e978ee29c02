"""One self-contained HTML page about a run, or about several runs side by side."""

from s5mars.report.comparison import write_comparison
from s5mars.report.run import write_report

__all__ = ["write_comparison", "write_report"]
