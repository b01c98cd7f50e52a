"""The problem itself: everything that is particular to this project lives in this folder.

- `settings`   the task's own settings, beside the ones that every task shares
- `data`       filters and splits the interactions; a fingerprint says which data it was
- `tables`     reads interactions from files: MovieLens, CSV
- `imports`    reads interactions from source files: which modules they import
- `model`      the network
- `objective`  the loss of a batch, the metrics of a split, the one metric that decides
- `ranking`    the best items of many scores, and what such lists are worth
- `linear`     item-item models in closed form
- `baseline`   the simple models to beat, fitted and measured on the same split
- `contract`   what a request and an answer look like; imported by the server, so no torch
- `figures`    what a person would look at for this problem

To make the project yours, change these files; the rest follows.
"""
