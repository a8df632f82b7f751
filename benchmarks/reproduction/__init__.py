"""Parts of `benchmarks/reproduce.py`: runs, their execution, claims and the page."""
