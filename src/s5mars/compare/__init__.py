"""Many runs that compare: a grid of cells, their scores, tables, figures, and what a step costs."""
