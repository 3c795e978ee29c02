"""One self-contained HTML page about a run, or about several runs side by side.

``report.run.write_report`` writes the page of a run, ``report.comparison.write_comparison`` that of
several runs. This file imports neither, so that the label page need not wait for torch.
"""
