"""The classic tests of memory, and the comparison of cells on them.

`catalogue` has the problems and `cells` the cells, by name; `trial` trains one cell on one problem,
`comparison` all of them, and `report` says what came out. Importing this package loads nothing of them.
"""
